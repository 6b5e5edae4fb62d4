"""Which samples a version no longer knows: what the centre tells a device to forget, and what the version says that did."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from modelwire import limits
from modelwire.errors import Malformed
from modelwire.wire import cbor

from .row_ids import decode_ids, encode_ids

KEY = "forgot"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Samples by their ids, in whatever recipe they are; rows of one version's recipe, where it does not name its samples; or both."""

    samples: tuple[int, ...] = ()  # rising
    version: int = 0  # 0: none
    rows: tuple[int, ...] = ()  # rising, of that version

    def __post_init__(self) -> None:
        rising = all(a < b for ids in (self.samples, self.rows) for a, b in itertools.pairwise(ids))
        if not rising or not (self.samples or self.rows) or (self.version > 0) is not bool(self.rows):
            raise Malformed(what="what is forgotten", reason="it names nothing, something twice, or rows of no version")

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return cbor.encode([1, encode_ids(self.samples), self.version, encode_ids(self.rows)])

    def __str__(self) -> str:
        what = [f"{len(self.samples)} samples"] * bool(self.samples) + [f"{len(self.rows)} rows of @{self.version}"] * bool(self.rows)
        return " and ".join(what)


def parse_forgotten(data: bytes, limit: limits.Limits = limits.DEFAULT) -> Forgotten:
    """Return what `encode` wrote. Raises Malformed or TooLarge."""
    value = cbor.decode(data, "what is forgotten", limit)
    if not isinstance(value, list) or len(value) != 4 or type(value[0]) is not int or value[0] != 1:
        raise Malformed(what="what is forgotten", reason="it is not of format 1")
    _, samples, version, rows = value
    if not isinstance(samples, bytes) or type(version) is not int or not 0 <= version < 1 << 63 or not isinstance(rows, bytes):
        raise Malformed(what="what is forgotten", reason="a field is of another type, or out of range")
    return Forgotten(decode_ids(samples), version, decode_ids(rows))


def forgotten_of(extension: Mapping[str, cbor.Value]) -> Forgotten | None:
    """Return what an update's extension says was forgotten; None when it says nothing. Raises Malformed."""
    if KEY not in extension:
        return None
    held = extension[KEY]
    if not isinstance(held, bytes):
        raise Malformed(what="what is forgotten", reason="it is no bytes")
    return parse_forgotten(held)
