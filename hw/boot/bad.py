"""Gives an emulated board all the bad input that a person may bring to it: python -m hw.boot.bad

A card with a broken edgeagent.toml; bundles of every kind that does not belong on the board; a data partition that is full, with the
power cut; a claim beyond its count on a board whose profile says more memory than there is. Each must be named on the console, and at the
centre where the board has a link; the board must boot each time, and do its work once the card is mended. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hw.image import bundle, keys

from . import card, systems
from .__main__ import PATIENCE, ROOT, base_model, default_image, images, say
from .centre import DEVICE, Centre
from .console import Silent
from .emulator import Board

EXAMPLE = "example: python -m hw.boot.bad --image build/hw/image/qemu-arm64"
OTHER = "board-2"  # the board that comes with a used claim
BROKEN = card.SETTINGS.replace("[link]", "[link")
LOOK: dict[str, str | int] = {"PLAN": "look", "TRIAL": "", "BUNDLES": "", "FIRST": 0}
Bad = Callable[[Board, Centre], list[str]]


def main(arguments: Sequence[str] | None = None) -> int:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="hw.boot.bad", description=__doc__, epilog=EXAMPLE, formatter_class=shape)
    parser.add_argument("--image", type=Path, metavar="DIR", help="what make image wrote (default: build/hw/image/qemu-arm64)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where card, registry and logs go (default: build/hw/bad)")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # emulator, broker and ingester end with it
    try:
        figures = brought(args.image or default_image(), args.work or ROOT / "build/hw/bad")
    except (RuntimeError, OSError) as error:
        print(f"hw.boot.bad: {error}", file=sys.stderr)
        return 1
    print(json.dumps(figures, indent=1))
    return 1 if figures["bad_inputs_wrong"] else 0


def brought(image: Path, work: Path) -> dict[str, Any]:
    """Bring all of it to new cards; return how much there was, and what of it was not as it should be. Raises RuntimeError, OSError."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    bundles = made(image, work)
    with Centre(work / "centre", base_model(work)) as centre:
        claim, own, second = centre.claim().read_bytes(), work / "card.img", work / "second.img"
        model, fleet_key = centre.base.read_bytes(), (centre.folder / "fleet.pub").read_bytes()
        good = card.settings_of(fleet_key, claim, model)
        for name in (own, second):
            card.copy(image / "disk.img", name)
        card.put(own, {**good, "edgeagent.toml": BROKEN.encode()})
        settings = good["edgeagent.toml"].decode().replace(DEVICE, OTHER).replace('"auto"', '"jetson-orin-nano"')
        card.put(second, {**good, "edgeagent.toml": settings.encode()})
        board, other = Board(images(image, own), work), Board(images(image, second), work / "second")
        found: dict[str, list[str]] = {}
        try:
            found |= {"a broken edgeagent.toml": case(board, centre, broken_settings)}
            card.put(own, {"edgeagent.toml": good["edgeagent.toml"]})
            found |= refused_bundles(board, centre, bundles)
            found |= {"a full data partition": case(board, centre, full_data), "its next start": case(board, centre, full_start)}
            board.cut()
            found |= {"a claim beyond its count": case(other, centre, used_claim)}
            found |= {"a profile that lies": case(other, centre, lying_profile)}
        finally:
            board.cut()
            other.cut()
    wrong = {name: said for name, said in found.items() if said}
    return {"bad_inputs": len(found), "bad_inputs_wrong": len(wrong), "said": wrong}


def made(image: Path, work: Path) -> dict[str, Path]:
    """Return bundles that do not belong on the board, by the name of their refusal; the systems in them are too small to boot."""
    own, stranger, out = ROOT / "build/hw/keys", work / "stranger", dict[str, Path]()
    for folder in (own, stranger):
        keys.make(folder)
    said = replace(systems.release(image), version=systems.NEWER)
    (work / "system").write_bytes(os.urandom(1 << 18))
    for name, release, folder in (
        ("OtherBoard", replace(said, compatible="edgeagent-rpi4"), own), ("OlderSystem", replace(said, version="0.0.1"), own),
        ("OtherKernel", replace(said, kernel="6.6.1"), own), ("ForeignSignature", said, stranger), ("NotSigned", said, own),
        ("BundleDamaged", said, own),
    ):  # fmt: skip
        out[name] = work / f"{name}.raucb"
        bundle.make(work / "system", release, out[name], folder / "signer.pem", folder / "signer.key", folder / "root.pem")
    out["NotSigned"].write_bytes(out["NotSigned"].read_bytes()[:-8] + bytes(8))
    out["BundleDamaged"].write_bytes(out["BundleDamaged"].read_bytes()[:-1000])
    return out


def case(board: Board, centre: Centre, bring: Bad) -> list[str]:
    """Return what was not as it should be."""
    try:
        found = bring(board, centre)
    except Silent as error:
        found = [str(error)]
    say(board, f"{bring.__name__}: {'; '.join(found) or 'as it should be'}")
    return found


def switch_on(board: Board, centre: Centre, plan: Mapping[str, str | int], bundles: Sequence[Path] = ()) -> None:
    board.cut()
    board.switch_on(centre.port, card.disc(board.folder, {**LOOK, **plan}, range(4), bundles))


def broken_settings(board: Board, centre: Centre) -> list[str]:
    switch_on(board, centre, {})
    line = BROKEN[: BROKEN.index("[link")].count("\n") + 1
    board.console.wait(rf"NOT SET UP: .*edgeagent\.toml.*line {line}\b", PATIENCE, lambda: board.on)
    board.console.wait(r"to do: ", PATIENCE, lambda: board.on)
    board.wait(r"^reached .*$", PATIENCE)
    return []


def refused_bundles(board: Board, centre: Centre, bundles: Mapping[str, Path]) -> dict[str, list[str]]:
    """Let the board be set up by the mended card, and then bring it all bundles."""
    try:
        switch_on(board, centre, {"PLAN": "bad", "BUNDLES": " ".join(bundles)}, list(bundles.values()))
        say(board, board.wait(r"^active .*$", PATIENCE))
        if centre.wait(1, PATIENCE) is None:
            return {"the mended card": [f"nothing was verified:\n{board.facts.tail(8)}"]}
        found: dict[str, list[str]] = {"the mended card": []}
        for name in bundles:
            told = board.wait(rf"^(?:refused|installed) \S+ {name} .*$", PATIENCE)
            out = [] if f"edgeagent-update: {name}: " in told else [f"the board said {told!r}"]
            out += [] if board.console.find(rf"edgeagent-update: {name}: ") else ["it is not on the console"]
            found[f"bundle {name}"] = out + at_centre(centre, DEVICE, rf"system-refused: {name}: ")
    except Silent as error:
        return {"bundles": [str(error)]}
    say(board, f"bundles: {'; '.join(' '.join(one) for one in found.values() if one) or 'all were refused by name'}")
    return found


def full_data(board: Board, centre: Centre) -> list[str]:
    board.wait(r"^filled .*$", PATIENCE)
    board.console.wait(r"disk-full", PATIENCE, lambda: board.on)
    return at_centre(centre, DEVICE, "disk-full: ")


def full_start(board: Board, centre: Centre) -> list[str]:
    before = len(centre.answers())
    switch_on(board, centre, {"PLAN": "room", "FIRST": 2})
    board.console.wait(r"disk-full|No space left", PATIENCE, lambda: board.on)
    board.wait(r"^reached .*$", PATIENCE)
    board.wait(r"^added .*$", PATIENCE)
    if centre.wait(before + 1, PATIENCE) is None:
        return [f"nothing was verified once there was room:\n{board.facts.tail(8)}"]
    proof = centre.ask("verify", "--all")
    return [] if proof["checked"] == proof["exact"] else ["the centre can't prove all"]


def used_claim(board: Board, centre: Centre) -> list[str]:
    switch_on(board, centre, {"PLAN": "round", "BATCHES": 1, "PAUSE": 1})
    board.wait(r"^active .*$", PATIENCE)
    board.console.wait(r"WARNING the claim [0-9a-f]+ does not let this board in: .*all are in", PATIENCE, lambda: board.on)
    waiting = until(lambda: [one for one in centre.ask("devices")["waiting"] if one["device"] == OTHER])
    if not waiting or not (waiting[0].get("claim") or {}).get("refused"):
        return [f"the centre does not say why it waits: {waiting}"]
    centre.ask("devices", "add", OTHER, waiting[0]["fingerprint"])
    return []


def lying_profile(board: Board, centre: Centre) -> list[str]:
    return at_centre(centre, OTHER, "board-smaller: ")


def at_centre(centre: Centre, device: str, pattern: str) -> list[str]:
    """Return nothing once an alarm of a device says what it should; else that it does not."""
    if until(lambda: [a for a in centre.ask("devices")["alarms"] if a["device"] == device and re.search(pattern, a["text"])]):
        return []
    return [f"the centre has no alarm {pattern!r} of {device}"]


def until(look: Callable[[], list[Any]], seconds: float = PATIENCE) -> list[Any]:
    """Return what is looked for as soon as there is any; nothing after so long."""
    end = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < end:
        time.sleep(2)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
