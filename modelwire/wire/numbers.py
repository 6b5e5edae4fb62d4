"""What hellos and welcomes say of single version numbers, in `more`: who is in doubt about which, and which are lost for good.

docs/protocol.md, "Agreement". What has another form counts for nothing: peers that never heard of it say nothing of the kind either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from . import cbor, log

NONCE = "nonce"  # of a hello; every answer to it gives it back
UNSURE = "unsure"  # of a hello: numbers of which the device has no last word
LOST = "lost"  # of a hello: numbers that the centre once confirmed, holds no more, and that the device has given up
DROPPED = "dropped"  # of a hello: numbers that the device has given up, and that the centre never confirmed
MISSING = "missing"  # of a welcome: of those two, the numbers of which the centre holds nothing, and takes nothing any more
WITNESS = "witness"  # of a hello: the newest link of the centre's log that the device has seen

NONCE_BYTES = 16
SPANS = 32  # under one key; what is beyond is said the next time
_EPOCHS, _VERSIONS = 1 << 32, 1 << 62  # no container holds an epoch, and no device counts on from a version, as high


@dataclass(frozen=True, slots=True)
class Span:
    """A run of version numbers of one epoch."""

    epoch: int
    first: int
    last: int

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield each (epoch, version)."""
        return ((self.epoch, version) for version in range(self.first, self.last + 1))


def spans(numbers: Iterable[tuple[int, int]]) -> list[Span]:
    """Return (epoch, version) pairs as runs, the lowest first."""
    out: list[Span] = []
    for epoch, version in sorted(set(numbers)):
        if out and (out[-1].epoch, out[-1].last + 1) == (epoch, version):
            out[-1] = Span(epoch, out[-1].first, version)
        else:
            out.append(Span(epoch, version, version))
    return out


def said(key: str, runs: Iterable[Span]) -> dict[str, cbor.Value]:
    """Return the key of `more` that says the first of these runs; nothing when there are none."""
    content: list[cbor.Value] = [[s.epoch, s.first, s.last] for s, _ in zip(runs, range(SPANS), strict=False)]
    return {key: content} if content else {}


def read(more: Mapping[str, cbor.Value], key: str) -> list[Span]:
    """Return the runs under a key of `more`; none when it is not there, or has another form."""
    value = more.get(key)
    if not isinstance(value, list) or len(value) > SPANS:
        return []
    out = []
    for one in value:
        if not (isinstance(one, list) and len(one) == 3):
            return []
        epoch, first, last = one
        if not (type(epoch) is int and type(first) is int and type(last) is int):
            return []
        if not (0 < epoch < _EPOCHS and 0 < first <= last < _VERSIONS):
            return []
        out.append(Span(epoch, first, last))
    return out


def nonce_in(more: Mapping[str, cbor.Value]) -> bytes:
    """Return the nonce of a hello, or the one that an answer gives back; empty when there is none."""
    value = more.get(NONCE)
    return value if isinstance(value, bytes) and len(value) == NONCE_BYTES else b""


def witness_in(more: Mapping[str, cbor.Value]) -> log.Link | None:
    """Return the link that a hello has seen; None when it says none."""
    value = more.get(WITNESS)
    if not isinstance(value, bytes) or len(value) != log.BYTES:
        return None
    number = int.from_bytes(value[:8], "little")
    return log.parse_link(value) if 0 < number < 1 << 63 else None
