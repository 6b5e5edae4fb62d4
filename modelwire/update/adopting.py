"""The update that a command `adopt` carries: unsigned, since the command's own signature covers it. docs/protocol.md, "Commands"."""

from __future__ import annotations

from modelwire.errors import Malformed
from modelwire.limits import DEFAULT, Limits
from modelwire.wire.records import Command

from .container import Container, parse_unsigned
from .sections import Kind

LIMIT = Limits(container=DEFAULT.record)  # what fits in a record


def read_adopted(update: bytes, command: Command) -> Container:
    """Return an update that is for the device, model, epoch and head that its command names. Raises Malformed, and as `container.parse`."""
    read = parse_unsigned(update, LIMIT)
    header = read.header
    if (header.device, header.model) != (command.device, command.model):
        raise Malformed(what="adopt", reason=f"its update is of {header.device}/{header.model}")
    if (header.epoch, header.parent) != (command.epoch, command.parent):
        raise Malformed(what="adopt", reason="its update is of another epoch or parent than the command")
    if header.kind not in (Kind.DELTA, Kind.EXACT):
        raise Malformed(what="adopt", reason=f"its update is of kind {header.kind.name.lower()}")
    return read
