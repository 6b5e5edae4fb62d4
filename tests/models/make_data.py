"""Makes data/*.npz from the copies that scikit-learn, aeon and river ship; see README.md for sources and terms.

Run in an environment with scikit-learn, giving the unpacked wheels (`pip download --no-deps aeon river`, then unzip):
    python tests/models/make_data.py AEON_FOLDER RIVER_FOLDER
"""

from __future__ import annotations

import gzip
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent / "data"
ACTIVITIES = ("Standing", "Running", "Walking", "Badminton")
SHUTTLE_LATE = 40.5  # where the time, the first column, is cut
SHUTTLE_ROWS = {"early": 3000, "late": 8000, "odd": 1000}
DIGITS_TRAIN = 1200  # the first writers; the rest of the 1,797 images is the held-out side


def digits() -> dict[str, Any]:
    """Return images uint8 [n, 8, 8] of 0..16 and labels uint8, split in the order of the original file."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.uint8)
    if not np.array_equal(images, bunch.images):
        raise SystemExit("the digits are not whole numbers any more")
    at = DIGITS_TRAIN
    return {"train_x": images[:at], "train_y": labels[:at], "test_x": images[at:], "test_y": labels[at:]}


def motion(aeon: Path) -> dict[str, Any]:
    """Return windows float32 [n, 100, 6] (accelerometer x y z, gyroscope x y z; 10 Hz) and labels uint8 by ACTIVITIES."""
    folder = aeon / "aeon" / "datasets" / "data" / "BasicMotions"
    out: dict[str, Any] = {}
    for side in ("train", "test"):
        x, y = read_ts((folder / f"BasicMotions_{side.upper()}.ts").read_text())
        out |= {f"{side}_x": x, f"{side}_y": y}
    return out


def read_ts(text: str) -> tuple[Any, Any]:
    """Return (windows, labels) of a .ts file: one window a line, channels between colons, the label last."""
    rows = text[text.index("@data") + len("@data") :].split()
    windows = [np.array([[float(v) for v in channel.split(",")] for channel in row.split(":")[:-1]]).T for row in rows]
    labels = [ACTIVITIES.index(row.rsplit(":", 1)[1]) for row in rows]
    return np.stack(windows).astype(np.float32), np.array(labels, np.uint8)


def shuttle(river: Path) -> dict[str, Any]:
    """Return readings int16 [n, 8] without the time: early and late normal ones, and late odd ones; the first of each in the file."""
    with gzip.open(river / "river" / "datasets" / "shuttle.csv.gz", "rt") as f:
        next(f)
        rows = np.array([[int(cell) for cell in line.split(",")] for line in f])
    late, odd = rows[:, 0] > SHUTTLE_LATE, rows[:, -1] == 1
    parts = {"early": ~late & ~odd, "late": late & ~odd, "odd": late & odd}
    return {name: rows[which][: SHUTTLE_ROWS[name], 1:-1].astype(np.int16) for name, which in parts.items()}


def save(path: Path, arrays: dict[str, Any]) -> None:
    """Write an .npz whose bytes depend on the arrays alone: np.savez stamps each member with the time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as z:
        for name, array in sorted(arrays.items()):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0))
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            z.writestr(entry, member.getvalue())


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    save(DATA / "digits.npz", digits())
    save(DATA / "motion.npz", motion(Path(sys.argv[1])))
    save(DATA / "shuttle.npz", shuttle(Path(sys.argv[2])))
