"""Rows of what was dropped, of what stands in its place, and of what is erased: frozen, as all others (rows.py)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SquashRow:
    """One update in the place of a run of them: from a version that is recoverable, or the base, to another one."""

    version_id: int  # its end
    from_id: int | None  # its start; None: the base of its end
    kind: str  # "delta" or "exact"; "snapshot" where a unit or the base changed on the way: then it starts at the base
    blob: bytes  # digest of the update, a container without a signature, in the blob store
    size: int  # its bytes


@dataclass(frozen=True, slots=True)
class ThinnedRow:
    """A version whose own container was dropped."""

    version_id: int
    gone: bool  # it is no longer recoverable; else a squash leads to it
    at: int
    proof: bytes  # header proof: what its device sealed, without the content


@dataclass(frozen=True, slots=True)
class ErasureRow:
    """A device that was erased by law."""

    number: int  # of the operator's word
    device: str | None  # while some of it is still there; None: all is gone, its name too
    record: bytes  # as the command key sealed it
