"""What a person does with a card before the first start, and the test's own disc; neither mounts anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hw.image import disk

from .centre import DEVICE, FLEET, MODEL
from .emulator import BROKER

DIGITS = Path(__file__).resolve().parents[2] / "tests/models/data/digits.npz"
PROBE = Path(__file__).with_name("probe.sh")
BATCH = 240  # samples; a round is due after 64
SETTINGS = f"""\
[device]
name = "{DEVICE}"
fleet = "{FLEET}"

[board]
name = "auto"

[link]
broker = "mqtt://{BROKER}"

[train]
learning_rate = 0.05
margin = 1000  # each round becomes a version, however little there is left to learn

[[model]]
name = "{MODEL}"
"""


def copy(image: Path, card: Path) -> None:
    """Copy a card, its holes kept."""
    part = card.with_name(f"{card.name}.part")
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(image), str(part)], check=True)
    part.rename(card)


def put(card: Path, files: Mapping[str, bytes]) -> None:
    """Put files on a card's boot partition, as a person does with its reader. Raises RuntimeError with what mtools said."""
    for folder in sorted({name.rpartition("/")[0] for name in files} - {""}):
        _mtools(["mmd", "-D", "s", "-i", f"{card}@@{disk.OFFSETS['boot']}", f"::{folder}"], b"", strict=False)
    for name, data in files.items():
        words = ["mcopy", "-o", "-i", f"{card}@@{disk.OFFSETS['boot']}", "-", f"::{name}"]
        _mtools(words, data)


def get(card: Path, name: str) -> bytes | None:
    """Return a file of a card's boot partition; None for one that is not there."""
    try:
        return _mtools(["mcopy", "-n", "-i", f"{card}@@{disk.OFFSETS['boot']}", f"::{name}", "-"], b"")
    except RuntimeError:
        return None


def remove(card: Path, name: str) -> None:
    """Take a file or a folder off a card's boot partition."""
    _mtools(["mdeltree", "-i", f"{card}@@{disk.OFFSETS['boot']}", f"::{name}"], b"")


def settings_of(fleet_key: bytes, claim: bytes, model: bytes, mode: str = "") -> dict[str, bytes]:
    """Return what a board finds on its boot partition at its first start. mode: of training; none: the board chooses."""
    settings = SETTINGS.replace("[train]\n", f'[train]\nmode = "{mode}"\n') if mode else SETTINGS
    return {"edgeagent.toml": settings.encode(), "fleet.pub": fleet_key, "board.claim": claim, f"{MODEL}.tflite": model}


def disc(
    folder: Path, plan: Mapping[str, str | int], batches: range, bundles: Sequence[Path] = (), files: Mapping[str, bytes] | None = None
) -> Path:  # fmt: skip
    """Return the test's disc, a squashfs: its script, its plan, samples, bundles. folder: where it is made. files: more, or others."""
    content, out = folder / "disc", folder / "disc.squashfs"
    shutil.rmtree(content, ignore_errors=True)
    (content / "samples").mkdir(parents=True)
    shutil.copyfile(PROBE, content / "probe.sh")
    (content / "plan").write_text("".join(f"{name}='{value}'\n" for name, value in plan.items()))
    for number in batches:
        x, y = samples(number)
        np.savez(content / "samples" / f"{number}.npz", x=x, y=y)
    for name, data in (files or {}).items():
        (content / name).write_bytes(data)
    for bundle in bundles:
        os.link(bundle, content / bundle.name)
    out.unlink(missing_ok=True)
    words = ["mksquashfs", str(content), str(out), "-noappend", "-quiet", "-no-progress", "-noD", "-noF"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(content)
    return out


def samples(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one batch of what this board sees: digits in a mirror, faint and noisy. x: float32, [240, 8, 8, 1]; y: classes."""
    rng, data = np.random.default_rng([18, number]), np.load(DIGITS)
    order = rng.permutation(len(data["train_y"]))[:BATCH]
    seen = data["train_x"][order][:, :, ::-1] / 16 * 0.7 + 0.1 + rng.normal(0, 0.05, (BATCH, 8, 8))
    return seen.reshape(BATCH, 8, 8, 1).astype(np.float32), data["train_y"][order].astype(np.int64)


def _mtools(words: list[str], data: bytes, *, strict: bool = True) -> bytes:
    done = subprocess.run(words, input=data, capture_output=True, env={**os.environ, "MTOOLS_SKIP_CHECK": "1"}, check=False)
    if done.returncode and strict:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
