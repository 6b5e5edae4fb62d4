"""Verbs of commands, and the update of an adopt (protocol page, Commands)."""

from __future__ import annotations

from typing import Any

from . import cbor
from .container import DELTA, EXACT, Container, read_unsigned
from .errors import Malformed
from .fields import INT_MAX
from .records import Record

_VERBS: dict[str, dict[str, type]] = {
    "snapshot": {},
    "adopt": {"update": bytes},
    "leaves": {"tensor": int, "first": int},
}


def read_body(command: Record) -> dict[str, Any] | None:
    """Check the body of a command; None stands for a verb that is not known (P47)."""
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


def answer_not_understood(record: Record) -> dict[str, Any]:
    """Give number, ok, text and body of the answer to what is not known."""
    number = record.fields.get("number")
    return {
        "number": number if cbor.is_int(number, 0, INT_MAX) else 0,
        "ok": False,
        "text": "not understood",
        "body": {},
    }
