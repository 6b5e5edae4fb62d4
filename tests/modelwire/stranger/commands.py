"""Verbs of commands, and the updates of an adopt and a take (protocol page, Commands)."""

from __future__ import annotations

from typing import Any

from . import cbor, limits
from .container import DELTA, EXACT, RECIPE, Container, read_unsigned
from .errors import Malformed, TooLarge
from .fields import INT_MAX
from .records import Record

_VERBS: dict[str, dict[str, type]] = {
    "snapshot": {},
    "adopt": {"update": bytes},
    "leaves": {"tensor": int, "first": int},
    "leaf": {"tensor": int, "leaf": int, "start": int, "digest": bytes},
    "take": {"id": bytes, "size": int},
}


def read_body(command: Record) -> dict[str, Any] | None:
    """Check the body of a command; None stands for a verb that is not known (P47, P74, P75, P80)."""
    verb, body = command.fields["verb"], dict(command.fields["body"])
    if verb not in _VERBS:
        return None
    wanted = _VERBS[verb]
    if set(body) != set(wanted):
        raise Malformed("P47: keys of a body")
    for key, kind in wanted.items():
        if kind is int and not cbor.is_int(body[key], 0, INT_MAX):
            raise Malformed("P47: an integer of a body")
        if kind is bytes and not isinstance(body[key], bytes):
            raise Malformed("P47: bytes of a body")
    if verb == "take" and (len(body["id"]) != 32 or not body["size"]):
        raise Malformed("P74: an id of another length, or an update of nothing")
    if verb == "leaf" and len(body["digest"]) != 32:
        raise Malformed("P80: a digest of another length")
    if verb == "take" and body["size"] > limits.CONTAINER - 64:
        raise TooLarge("P75: an update that no device takes")
    return body


def read_adopt(command: Record) -> Container:
    """Read the update of an adopt: P47, the container's rules up to its signature, P48, P72, P49."""
    body = read_body(command)
    if command.fields["verb"] != "adopt" or body is None:
        raise Malformed("not an adopt")
    update = read_unsigned(body["update"])
    if (update.header.device, update.header.model) != (command.fields["device"], command.fields["model"]):
        raise Malformed("P48: another device or model")
    if (update.header.epoch, update.header.parent) != (command.fields["epoch"], command.fields["parent"]):
        raise Malformed("P72: another epoch or parent than the command's")
    if update.header.kind not in (DELTA, EXACT):
        raise Malformed("P49: a snapshot or a recipe")
    return update


def read_take(command: Record, data: bytes) -> Container:
    """Read the update that a take names, once its parts are joined: the container's rules up to its signature, P76, P77."""
    update = read_unsigned(data)
    about = update.header.device, update.header.model, update.header.epoch, update.header.parent
    if about != tuple(command.fields[name] for name in ("device", "model", "epoch", "parent")):
        raise Malformed("P76: another device, model, epoch or parent than the command's")
    if update.header.kind == RECIPE:
        raise Malformed("P77: a recipe")
    return update


def check_taken(command: Record, transfer: Record) -> None:
    """Check the transfer of what a take names (P78)."""
    named = command.fields["body"]
    if transfer.fields["id"] == named["id"] and (transfer.fields["what"], transfer.fields["size"]) != ("update", named["size"]):
        raise Malformed("P78: another file than the command names")


def answer_not_understood(record: Record) -> dict[str, Any]:
    """Give number, ok, text and body of the answer to what is not known."""
    number = record.fields.get("number")
    return {
        "number": number if cbor.is_int(number, 0, INT_MAX) else 0,
        "ok": False,
        "text": "not understood",
        "body": {},
    }
