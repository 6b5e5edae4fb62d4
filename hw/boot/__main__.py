"""Boots the image in an emulator and waits until the board does the main job: python -m hw.boot

The card gets its settings, its base model, the fleet's key and a claim on its boot partition, as a person would put them there. Then the
power comes. The board sets itself up, is let in by its claim, trains on samples that it is given, and the centre verifies what it learned:
a real mosquitto and a real ingester on this machine. At the end the file that the board serves is held against the centre's, by SHA-256.

It does so twice: with a card whose board chooses its mode of training, and with one that trains in mode features.

Prints one JSON document: boot_to_verified_s from power on to the first `verified`, of the first card; memory of the agent in MiB as the
board's kernel counts it (rss_idle_mib and rss_features_mib of its first process, rss_all_mib of all of them at the worst moment,
pss_all_mib the same with shared pages counted once).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hw.image import building

from . import card
from .centre import DEVICE, MODEL, Centre
from .console import Silent
from .emulator import Board, Images

ROOT = building.ROOT
EXAMPLE = "example: python -m hw.boot --image build/hw/image/qemu-arm64"
STOCK = ROOT / "tests/models/own/digits.tflite"  # as Keras wrote it: it can't be trained yet
APPEND = "console=ttyAMA0 panic=10 net.ifnames=0"
PATIENCE = 1800.0  # seconds, a safety limit: an emulated board on a busy machine is slow


def main(arguments: Sequence[str] | None = None) -> int:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="hw.boot", description=__doc__, epilog=EXAMPLE, formatter_class=shape)
    parser.add_argument("--image", type=Path, metavar="DIR", help="what make image wrote (default: build/hw/image/qemu-arm64)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where card, registry and logs go (default: build/hw/boot)")
    parser.add_argument("--memory", type=int, default=512, metavar="MIB", help="of the board (default: 512)")
    parser.add_argument("--short", action="store_true", help="end with the first verified version")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # emulator, broker and ingester end with it
    try:
        figures = boot(args.image or default_image(), args.work or ROOT / "build/hw/boot", memory=args.memory, short=args.short)
    except (RuntimeError, Silent, OSError) as error:
        print(f"hw.boot: {error}", file=sys.stderr)
        return 1
    print(json.dumps(figures, indent=1))
    return 0 if figures["file_equal"] == 1 and not figures["token_left"] else 1


def default_image() -> Path:
    """Return where the image for the emulator is, this clone's own before one that others keep. Raises RuntimeError where there is none."""
    for folder in (ROOT / "build/hw/image/qemu-arm64", building.cache() / "images/qemu-arm64"):
        if (folder / "image.json").exists():
            return folder
    raise RuntimeError("there is no image to boot: make image BOARD=qemu-arm64")


def obstacle() -> str:
    """Return why nothing can be booted here; empty when it can."""
    import shutil

    missing = [program for program in ("qemu-system-aarch64", "mcopy", "mksquashfs") if shutil.which(program) is None]
    if missing:
        return f"missing here: {' '.join(missing)}: apt-get install qemu-system-arm mtools squashfs-tools"
    try:
        default_image()
    except RuntimeError as error:
        return str(error)
    return ""


def base_model(work: Path) -> Path:
    """Return the base model of the trial, made trainable: its head on kept features, its head, all of it. work: where it is written."""
    from edgecloud.graft.grafting import Wish, graft

    out = work / "digits.tflite"
    out.write_bytes(graft(STOCK.read_bytes(), Wish(train=("all",), modes=("head",))).file)
    return out


def images(image: Path, own: Path) -> Images:
    """Return what an emulator boots of an image. own: the card, a copy."""
    return Images(own, image / "vmlinuz", image / "initrd", APPEND)


def fresh(image: Path, work: Path, centre: Centre, mode: str = "") -> Path:
    """Return a new card with what a board needs at its first start. mode: of training; none: the board chooses."""
    own = work / "card.img"
    card.copy(image / "disk.img", own)
    fleet_key, claim = (centre.folder / "fleet.pub").read_bytes(), centre.claim().read_bytes()
    card.put(own, card.settings_of(fleet_key, claim, centre.base.read_bytes(), mode))
    return own


def boot(image: Path, work: Path, *, memory: int = 512, short: bool = False) -> dict[str, Any]:
    """Boot an image to its first verified version, and return the figures. short: end there.

    Mode features learns on the base's own features, so it comes first on its card; a board that chose for itself has another card.
    Raises Silent with what the board last said, RuntimeError.
    """
    if short:
        return booted(image, work, "", ["auto"], memory=memory)[0]
    figures, facts = booted(image, work, "", ["auto", "idle", "all", "rest"], memory=memory)
    other, more = booted(image, work, "features", ["features", "rest"], memory=memory)
    figures |= {"boot_to_verified_features_s": other["boot_to_verified_s"], **remembered(facts + more)}
    for key in ("file_equal", "token_left", "versions"):
        figures[key] = min(figures[key], other[key]) if key == "file_equal" else figures[key] + other[key]
    return figures


def booted(image: Path, work: Path, mode: str, phases: Sequence[str], *, memory: int) -> tuple[dict[str, Any], str]:
    """Boot a new card and let the board go through phases; return the figures, and what the board told. mode: in its settings."""
    work.mkdir(parents=True, exist_ok=True)
    with Centre(work / f"centre-{os.getpid()}-{mode or 'auto'}", base_model(work)) as centre:
        board = Board(images(image, fresh(image, work, centre, mode)), work, memory=memory)
        plan = {"PLAN": "boot", "TRIAL": "", "PHASES": " ".join(phases)}
        try:
            board.switch_on(centre.port, card.disc(work, plan, range(len(phases))))
            for begins in ("up", "provisioned", "active"):
                say(board, board.wait(rf"^{begins} .*$", PATIENCE))
            first = centre.wait(1, PATIENCE)
            if first is None:
                raise Silent(f"the centre has verified nothing:\n{board.console.tail()}\n{board.facts.tail()}")
            figures: dict[str, Any] = {"boot_to_verified_s": round(first.at - board.since, 1)}
            say(board, f"first version verified: {figures['boot_to_verified_s']} s from power on, mode {mode or 'chosen by the board'}")
            for name in phases[1:]:
                say(board, board.wait(rf"^phase \S+ {name}$", PATIENCE))
            board.wait(r"^done .*$", PATIENCE)
            served, facts = board.wait(r"^served .*$", 1), board.facts.text()
            if failed := re.search(r"^failed .*$", facts, re.M):
                raise RuntimeError(failed[0])
        finally:
            board.cut()
        version, digest = served.split()[2:4]
        figures |= {"file_equal": int(digest == rebuilt(centre, int(version), work)), "versions": len(centre.versions())}
        figures["token_left"] = int(card.get(board.images.card, "board.claim") is not None)
    return figures, facts


def rebuilt(centre: Centre, version: int, work: Path) -> str:
    """Return the SHA-256 of the file that the centre makes of a version."""
    out = work / "rebuilt.tflite"
    out.unlink(missing_ok=True)
    centre.ask("materialise", f"{DEVICE}/{MODEL}@{version}", "-o", str(out))
    return hashlib.sha256(out.read_bytes()).hexdigest()


def remembered(facts: str) -> dict[str, float]:
    """Return the figures of memory in what a board told: lines `rss UPTIME PHASE MAIN ALL SHARED COUNT`, in KiB."""
    rows = [line.split() for line in facts.splitlines() if line.startswith("rss ") and len(line.split()) == 7]
    idle = [int(row[3]) for row in rows if row[2] in ("idle", "rest")]
    features = [int(row[3]) for row in rows if row[2] == "features"]
    if not idle or not features:
        return {}
    return {
        # The last looks of a phase: what came before it has been given back.
        "rss_idle_mib": mib(max(idle[-5:])), "rss_features_mib": mib(max(features)),
        "rss_all_mib": mib(max(int(row[4]) for row in rows)), "pss_all_mib": mib(max(int(row[5]) for row in rows)),
    }  # fmt: skip


def mib(kib: int) -> float:
    return round(kib / 1024, 1)


def say(board: Board, text: str) -> None:
    print(f"{board.up:7.1f} s  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
