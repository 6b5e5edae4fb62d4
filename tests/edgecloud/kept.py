"""Names for registries that tests make once and keep under build/: one that another text would make otherwise has another name."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

import edgecloud.registry.sqlite

HERE = Path(__file__).parent
MAKERS = ("centre.py", "device.py")  # what every such registry is made by


def name_of(makers: Iterable[Path], said: bytes = b"") -> str:
    """Return the name of what these modules make of what they are told. All of the registry's own text counts: a table may change alone."""
    hashed = hashlib.sha256(_registry())
    for path in makers:
        hashed.update(_digest(path.read_bytes()))
    hashed.update(_digest(said))
    return hashed.hexdigest()[:16]


@functools.cache
def _registry() -> bytes:
    texts = [*sorted(Path(edgecloud.registry.sqlite.__file__).parent.glob("*.py")), *(HERE / name for name in MAKERS)]
    return b"".join(_digest(path.read_bytes()) for path in texts)


def _digest(data: bytes) -> bytes:
    """Return what stands for a part of a text, so that none runs on into the next."""
    return hashlib.sha256(data).digest()
