"""Asks an installed wheel's kernels for one golden checksum, with nothing but Python: where no numpy can be had for a processor.

    python hw/wheels/loads.py

Shows that the kernels load there, that all they bind to is there, and that they compute; not that they are right: the tests do.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

CHECK = (b"123456789", 0xE3069283)  # CRC-32C of RFC 3720's check


class NoNumpy(ModuleType):
    """Stands in for numpy while the kernels load: they name its types then, and use none for a checksum."""

    def __getattr__(self, name: str) -> Any:
        return lambda *given, **named: None


def main() -> int:
    package = importlib.util.find_spec("modelwire")
    if package is None or package.origin is None:
        print("no modelwire is installed here", file=sys.stderr)
        return 1
    room = Path(package.origin).parent / "_core"
    if importlib.util.find_spec("numpy") is None:
        sys.modules["numpy"] = NoNumpy("numpy")
    core = ModuleType("modelwire._core")  # without its door, which would ask for numpy in earnest
    core.__path__ = [str(room)]
    sys.modules["modelwire._core"] = core
    (file,) = (path for path in room.glob("kernel.*") if path.name.endswith(tuple(EXTENSION_SUFFIXES)))
    kernel = importlib.import_module("modelwire._core.kernel")
    data, golden = CHECK
    if kernel.crc32c(data) != golden:
        print(f"{file.name} computes another checksum: {kernel.crc32c(data):08x}", file=sys.stderr)
        return 1
    print(f"{file.name}: loaded, and computes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
