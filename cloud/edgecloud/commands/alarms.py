"""Alarms: what an operator has to know of two that use one name, for people and machines; and the word that it was seen."""

from __future__ import annotations

import argparse

from edgecloud.registry import AlarmRow, SqliteStore
from edgecommon.printing import Answer
from modelwire.errors import SessionTaken, TwoHistories, UnknownDevice

from .answer import Document, now, registry_of, when
from .verb import Verb


def open_alarms(store: SqliteStore) -> list[Document]:
    """Return the alarms that nobody has acknowledged, the oldest first."""
    return [
        {
            "device": one.device or None, "model": one.model or None, "kind": one.kind, "text": one.text, "times": one.times,
            "first_at": one.first_at, "last_at": one.last_at, "says": _says(one), "next": _next(one),
        }
        for one in store.losses.alarms(only_open=True)
    ]  # fmt: skip


def _says(one: AlarmRow) -> str:
    if one.kind == "board":
        return f"{one.device} says of itself, {when(one.last_at)} at last: {one.text}"
    who = f"{one.device}/{one.model}: two folders with one key, or an older copy of one" if one.device else "two ingesters with one name"
    how_often = "once" if one.times == 1 else f"{one.times} times since {when(one.first_at)}"
    return f"{who}, {how_often}, {when(one.last_at)} at last: {one.text}"


def _next(one: AlarmRow) -> str:
    if one.kind == "board":
        return f"edgeagent doctor on {one.device} says what to do; then edgecloud devices acknowledge {one.device}"
    return f"{TwoHistories.hint if one.device else SessionTaken.hint}; then edgecloud devices acknowledge {one.device}".rstrip()


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", default="", help="the device's name (default: alarms of the centre itself)")


def acknowledge(args: argparse.Namespace) -> Answer:
    with registry_of(args, readonly=False) as store, store.transaction():
        count = store.losses.acknowledge(args.name, now())
        if args.name and not count and not store.devices.keys(args.name):
            raise UnknownDevice(device=args.name)  # a name that is misspelt; of one that is known nothing was open
    whose = args.name or "the centre"
    text = f"{whose}: {count} {'alarm' if count == 1 else 'alarms'} acknowledged; the next one of the kind is said again"
    return Answer({"device": args.name or None, "acknowledged": count}, text if count else f"{whose}: there is no open alarm")


ACKNOWLEDGE = Verb(
    "acknowledge", "Say that the alarms about a device were seen and dealt with; without a name, those about the centre itself.",
    ("edgecloud devices acknowledge pi-7", "edgecloud devices acknowledge"), acknowledge, _arguments,
)  # fmt: skip
