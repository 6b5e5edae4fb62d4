"""What is counted of the versions, as frozen rows: of kinds, of devices, of what is kept beside them, and the outline of a list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class KindTally:
    """What came as one kind of update: of a device or of the fleet."""

    kind: str
    versions: int  # refused ones too
    verified: int
    refused: int
    size: int  # bytes of the containers as they were sent
    last_at: int  # when the newest came
    thinned: int  # of which the container is there no more
    thinned_size: int  # bytes of those


@dataclass(frozen=True, slots=True)
class KeptTally:
    """What is stored beside the containers: counts and bytes."""

    states: int
    state_size: int
    squashes: int
    squash_size: int
    bases: int  # of the whole fleet, whatever device is asked for
    base_size: int


@dataclass(frozen=True, slots=True)
class DeviceTally:
    """What one device has sent."""

    device: str
    models: int
    versions: int
    size: int  # bytes


class ModelOutline(NamedTuple):
    """A row of a list of the fleet, before anything is looked up for it. A tuple: ten thousand of them are made for one page."""

    device: str
    admitted_at: int | None  # when a key that speaks for it was last added; None: none does
    lineage: int | None  # None, as all behind it: the device has no model yet
    model: str
    online: bool | None  # what its presence said last; None: it has said none
    seen_at: int | None
    versions: int
    size: int  # bytes of them
    rank: float  # what the list is ordered by, where that is none of the others
