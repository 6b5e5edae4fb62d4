"""What a command asks for, by its verb: bodies, read once and strictly. docs/protocol.md, "Commands"."""

from __future__ import annotations

from dataclasses import dataclass

from modelwire.errors import Malformed, NotUnderstood

from . import cbor
from .records import Command

LEAVES_MAX = 512  # digests in one answer


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Send the whole present state."""

    VERB = "snapshot"

    def body(self) -> dict[str, cbor.Value]:
        """Return what a command carries."""
        return {}


@dataclass(frozen=True, slots=True)
class Adopt:
    """Forget samples, and take over a model that never saw them, or that others have made."""

    VERB = "adopt"

    update: bytes  # a container up to and with its commit (container.unsigned): the command's own signature covers it

    def body(self) -> dict[str, cbor.Value]:
        """Return what a command carries."""
        return {"update": self.update}


@dataclass(frozen=True, slots=True)
class Leaves:
    """Say what a tensor of the head is made of: the digests of its leaves."""

    VERB = "leaves"

    tensor: int  # place in the schema
    first: int = 0  # leaf from which on

    def body(self) -> dict[str, cbor.Value]:
        """Return what a command carries."""
        return {"tensor": self.tensor, "first": self.first}


Task = Snapshot | Adopt | Leaves


def task_of(command: Command) -> Task:
    """Return what a command asks for. Raises NotUnderstood for another verb, Malformed for a body that its verb does not have."""
    body = command.body
    values = dict(body)
    if command.verb == Snapshot.VERB and not values:
        return Snapshot()
    if command.verb == Adopt.VERB and values.keys() == {"update"} and isinstance(values["update"], bytes):
        return Adopt(values["update"])
    if command.verb == Leaves.VERB and values.keys() == {"tensor", "first"}:
        tensor, first = values["tensor"], values["first"]
        if type(tensor) is int and type(first) is int and 0 <= tensor < 1 << 63 and 0 <= first < 1 << 63:
            return Leaves(tensor, first)
    if command.verb not in (Snapshot.VERB, Adopt.VERB, Leaves.VERB):
        raise NotUnderstood(what="the command", got=f"the verb {command.verb[:40]!r}")
    raise Malformed(what="command", reason=f"its body is not one of {command.verb}")
