"""What a device itself knows of what it has made: the measure of everything that the centre says about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Made:
    """One version, as its device made it and served it."""

    version: int
    commit: bytes
    root: bytes
    file_sha256: bytes  # of the `.tflite` that ran there
    fate: str  # waiting, verified, given up, or carried; what its device knows of it
    lie: bool = False  # sealed with a root or a fingerprint that is another's: never to be served


WAITING, VERIFIED, GIVEN_UP, CARRIED = "waiting", "verified", "given up", "carried"
