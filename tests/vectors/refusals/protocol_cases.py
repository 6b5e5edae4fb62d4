"""What the negative vectors of docs/protocol.md have in common: who reads them, and what those hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwire import merkle
from modelwire.wire import records
from modelwire.wire.signing import Role
from tests.keys import FLEET_ID
from tests.vectors import barn
from tests.vectors.barn import signed, trust, unknown, values


@dataclass(frozen=True, slots=True)
class Case:
    """A vector before it is written."""

    name: str
    rule: str
    error: str
    read_as: str
    data: bytes
    held: Mapping[str, Any]  # what its reader holds
    good: bytes  # what the reader takes, when it holds `good_held`
    good_held: Mapping[str, Any]

    @property
    def file(self) -> str:
        """The name of its file, which says the rule, what is wrong, and the error."""
        words = "".join(f"capital-{c.lower()}" if c.isupper() else c if c.isascii() and c.isalnum() else "-" for c in self.name)
        return f"{self.rule}-{'-'.join(filter(None, words.split('-')))}.{self.error}.bin"


# Who reads. A device holds the fleet's first trust record unless it is said otherwise.
DEVICE = {"fleet_pub": barn.fleet_pub(), "trust": ["held/trust-1.bin"], "time": barn.AT}
FRESH = {"fleet_pub": barn.fleet_pub()}
CENTRE = {"fleet_id": FLEET_ID.hex(), "fleet": barn.FLEET_NAME, "keys": [barn.DEVICE.public.hex()]}
# Said by devices; what both sides say is read at the centre, too.
UP = records.KINDS.keys() & {"hello", "presence", "report", "enrol", "response", "transfer", "wanted"}


def held_files() -> dict[str, bytes]:
    """Return what readers hold already, by the names of files."""
    week = barn.WEEK
    return {
        "trust-1.bin": signed(values("trust")),
        "trust-2.bin": encoded(trust(2, since=barn.AT + 1000, overlap=week, receipt=barn.NEXT_RECEIPT)),
        "trust-2-of-another-root.bin": encoded(trust(2, since=barn.AT + 1000, root=barn.NEXT_ROOT)),
        "trust-1-until.bin": encoded(trust(1, until=barn.AT + 2000)),
        "trust-2-after-until.bin": encoded(trust(2, since=barn.AT + 1000, overlap=week, receipt=barn.NEXT_RECEIPT)),
        "trust-3.bin": encoded(trust(3, since=barn.AT + 1000, overlap=week, receipt=barn.NEXT_RECEIPT)),
        "transfer.bin": signed(values("transfer")),
        "transfer-of-other-lengths.bin": encoded(barn.transfer(tree=_tree(CUT_SHORT))),
        "transfer-of-a-longer-file.bin": encoded(barn.transfer(tree=_tree(CUT_LONG))),
        "transfer-of-another-file.bin": encoded(barn.transfer(id=barn.sha(b"another"))),
        "take.bin": signed(barn.take(barn.adopt())),
        **TAKEN,
    }


def reader_of(kind: str) -> tuple[str, Mapping[str, Any]]:
    """Return who reads a record of this kind, and what that reader holds."""
    if kind == "act":
        return "registry", DEVICE
    if kind == "trust":
        return "device", FRESH
    return ("centre", CENTRE) if kind in UP or kind not in records.KINDS else ("device", DEVICE)


def of_record(
    rule: str,
    name: str,
    data: bytes,
    kind: str,
    *,
    error: str = "Malformed",
    good: bytes | None = None,
    held: Mapping[str, Any] | None = None,
) -> Case:
    """Return the case of a record that the one refuses to whom its kind is said; a right one of its kind is good."""
    read_as, plain = reader_of(kind)
    if good is None:
        good = signed(values(kind)) if kind in records.KINDS else signed(unknown(), Role.DEVICE)
    holds = {**plain, **(held or {})}
    return Case(name, rule, error, read_as, data, holds, good, holds)


def encoded(record: records.Record, role: Role | None = None, **how: Any) -> bytes:
    """Return a record in its envelope, signed."""
    role = record.ROLES[0] if role is None else role
    return records.encode(record, how.get("key", barn.KEYS[role]), how.get("fleet", FLEET_ID), role=role)


def on(leaf: str, *, model: str = barn.MODEL, device: str = barn.DEVICE_NAME, fleet: str = barn.FLEET_NAME) -> dict[str, str]:
    """Return what a reader holds of the topic on which something came."""
    return {"topic": f"e1/{fleet}/{device}/{model}/{leaf}"}


# What came in parts for a take.
TAKEN = {
    "take-update.bin": barn.adopt(), "take-update-of-another-device.bin": barn.adopt(device="pi-8"),
    "take-update-of-another-model.bin": barn.adopt(model="letters"), "take-update-of-another-epoch.bin": barn.adopt(epoch=2),
    "take-update-on-another-parent.bin": barn.adopt(parent=barn.MANIFEST.commit), "take-recipe.bin": barn.adopt_recipe(),
}  # fmt: skip
CUT_SHORT = [barn.FILE[:1023], barn.FILE[1024:2048], barn.FILE[2048:]]
CUT_LONG = [barn.FILE[:1024], barn.FILE[1024:2048], barn.FILE[2048:] + b"\0"]


def _tree(pieces: list[bytes]) -> bytes:
    return merkle.merkle([merkle.leaf(piece) for piece in pieces])
