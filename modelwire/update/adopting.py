"""The updates that the commands `adopt` and `take` bring: unsigned, for the command covers them. docs/protocol.md, "Commands"."""

from __future__ import annotations

from modelwire.errors import Malformed
from modelwire.limits import DEFAULT, Limits
from modelwire.wire.records import Command

from .container import Container, parse_unsigned
from .sections import Kind

LIMIT = Limits(container=DEFAULT.record)  # what fits in a record


def read_adopted(update: bytes, command: Command) -> Container:
    """Return an update that is for the device, model, epoch and head that its command names. Raises Malformed, and as `container.parse`."""
    return _read(update, command, LIMIT, "adopt", (Kind.DELTA, Kind.EXACT))


def read_taken(update: bytes, command: Command) -> Container:
    """Return the same of an update that came as a transfer: a snapshot may be one, too. Raises Malformed, and as `container.parse`."""
    return _read(update, command, DEFAULT, "take", (Kind.SNAPSHOT, Kind.DELTA, Kind.EXACT))


def _read(update: bytes, command: Command, limit: Limits, verb: str, kinds: tuple[Kind, ...]) -> Container:
    read = parse_unsigned(update, limit)
    header = read.header
    if (header.device, header.model) != (command.device, command.model):
        raise Malformed(what=verb, reason=f"its update is of {header.device}/{header.model}")
    if (header.epoch, header.parent) != (command.epoch, command.parent):
        raise Malformed(what=verb, reason="its update is of another epoch or parent than the command")
    if header.kind not in kinds:
        raise Malformed(what=verb, reason=f"its update is of kind {header.kind.name.lower()}")
    return read
