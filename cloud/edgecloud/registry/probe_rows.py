"""Rows of probe sets, and of what versions made of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """A probe set: rows that models are run on at the centre."""

    name: str
    digest: bytes  # SHA-256 of its canonical bytes
    model: str  # of whose devices it is; empty: of every model that takes rows of this shape
    shape: tuple[int, ...]  # of one row
    rows: int
    size: int  # bytes
    added_at: int
    id: int = 0
    removed_at: int | None = None  # then its bytes are gone, and its name is free


@dataclass(frozen=True, slots=True)
class ObservedRow:
    """One version run on one probe set in one way: how often that was asked for, what it cost, and what of it is kept."""

    version_id: int | None  # None: the base itself
    base: bytes  # its commit
    probe: bytes  # digest of the probe set
    way: str  # what must be equal for the same bits, and how they are kept
    queries: int
    rerun_s: float  # seconds to make it anew: to recover the version, to open it and to run it
    read_s: float  # seconds to read what is kept; a forecast until it was read
    raw: int  # bytes of all of it as float32
    asked_at: int
    id: int = 0


@dataclass(frozen=True, slots=True)
class IntermediateRow:
    """What one layer gave, as it is kept."""

    layer: int  # in the order in which the layers are computed; OUTPUT: what the model gives
    name: str
    error: float  # root mean square of what is kept less what was computed
    chunk: bytes  # names its bytes: digest of what was computed and of how it is kept


OUTPUT = -1
