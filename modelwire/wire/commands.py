"""What a command asks for, by its verb: bodies, read once and strictly. docs/protocol.md, "Commands"."""

from __future__ import annotations

from dataclasses import dataclass

from modelwire import limits
from modelwire.errors import Malformed, NotUnderstood, TooLarge

from . import cbor
from .records import Command, Transfer
from .signing import SIGNATURE_BYTES

LEAVES_MAX = 512  # digests in one answer
PIECE_MAX = 32 * 1024  # bytes of a leaf in one answer: a record holds no whole one
TAKE_MAX = limits.DEFAULT.container - SIGNATURE_BYTES  # bytes of an update that is not signed: the command names its digest


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


@dataclass(frozen=True, slots=True)
class Leaf:
    """Give the bytes of one leaf that has this digest, as the head has it, or the model before it that is still on the board."""

    VERB = "leaf"

    tensor: int  # place in the schema
    leaf: int  # place in the tensor
    start: int  # byte of the leaf from which on
    digest: bytes  # 32 bytes: another leaf is of no use

    def body(self) -> dict[str, cbor.Value]:
        """Return what a command carries."""
        return {"tensor": self.tensor, "leaf": self.leaf, "start": self.start, "digest": self.digest}


@dataclass(frozen=True, slots=True)
class Take:
    """Take over a model whose update is too large for a record: it comes as a transfer, and the command's signature covers its digest."""

    VERB = "take"

    id: bytes  # SHA-256 of the update: a container up to and with its commit, as `Adopt` carries it
    size: int  # its bytes

    def body(self) -> dict[str, cbor.Value]:
        """Return what a command carries."""
        return {"id": self.id, "size": self.size}

    def check(self, transfer: Transfer) -> None:
        """Raise Malformed unless a transfer with this id is of the update that the command names."""
        if (transfer.what, transfer.size) != ("update", self.size):
            raise Malformed(
                what="transfer", reason=f"it is a {transfer.what} of {transfer.size} bytes, and the command names an update of {self.size}"
            )


Task = Snapshot | Adopt | Leaves | Leaf | Take


def task_of(command: Command) -> Task:
    """Return what a command asks for.

    Raises NotUnderstood for another verb, Malformed for a body that its verb does not have, TooLarge for an update that no device takes.
    """
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
    if command.verb == Leaf.VERB and values.keys() == {"tensor", "leaf", "start", "digest"}:
        places, digest = [values["tensor"], values["leaf"], values["start"]], values["digest"]
        if all(type(n) is int and 0 <= n < 1 << 63 for n in places) and isinstance(digest, bytes) and len(digest) == 32:
            tensor, leaf, start = (int(str(n)) for n in places)
            return Leaf(tensor, leaf, start, digest)
    if command.verb == Take.VERB and values.keys() == {"id", "size"}:
        id, size = values["id"], values["size"]
        if isinstance(id, bytes) and len(id) == 32 and type(size) is int and 0 < size < 1 << 63:
            if size > TAKE_MAX:
                raise TooLarge(what="the update of the command", size=size, limit=TAKE_MAX)
            return Take(id, size)
    if command.verb not in (Snapshot.VERB, Adopt.VERB, Leaves.VERB, Leaf.VERB, Take.VERB):
        raise NotUnderstood(what="the command", got=f"the verb {command.verb[:40]!r}")
    raise Malformed(what="command", reason=f"its body is not one of {command.verb}")
