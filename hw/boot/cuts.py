"""Cuts the power of an emulated board at random moments, while it trains, publishes and updates: python -m hw.boot.cuts --cuts 10

After each cut the board is started again. It must boot, list what the centre had verified, and have something new verified; the centre's
registry must prove every version. Twice a system comes as a bundle: one that works, which must become good, and one whose agent does not
come up, which must be left again by itself. Each cut's result goes into build/hw/cuts/cuts.json, and a run that ended is taken up there.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import card, chain, systems
from .__main__ import PATIENCE, ROOT, base_model, default_image, fresh, images, say
from .centre import Centre
from .console import Silent
from .emulator import Board

EXAMPLE = "example: python -m hw.boot.cuts --cuts 30 --seed 7"
KINDS = ("work", "update", "boot", "work")  # in turn: while it trains and publishes, while it installs a bundle, while it boots
WINDOWS = {"work": 60.0, "update": 90.0, "boot": 45.0}  # seconds in which the cut falls
HASTE = "90s"  # in place of the ten minutes that a system on trial has
WORK: dict[str, str | int] = {"PLAN": "round", "PAUSE": 20}
INSTALL: dict[str, str | int] = {"PLAN": "update", "EXTRA": "--allow-older"}
TRIES = 4  # boots until a broken system is left for good: three tries, and the one after them


def main(arguments: Sequence[str] | None = None) -> int:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="hw.boot.cuts", description=__doc__, epilog=EXAMPLE, formatter_class=shape)
    parser.add_argument("--cuts", type=int, default=10, metavar="N", help="how many there shall be in all (default: 10)")
    parser.add_argument("--seed", type=int, default=18, metavar="S", help="of the moments (default: 18)")
    parser.add_argument("--image", type=Path, metavar="DIR", help="what make image wrote (default: build/hw/image/qemu-arm64)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where all of it is kept (default: build/hw/cuts)")
    parser.add_argument("--anew", action="store_true", help="begin with a new card, and forget what was done")
    parser.add_argument("--no-updates", action="store_true", help="leave out the two bundles at the end")
    args = parser.parse_args(arguments)
    work = args.work or ROOT / "build/hw/cuts"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # emulator, broker and ingester end with it
    if args.anew:
        shutil.rmtree(work, ignore_errors=True)
    try:
        ordeal = Ordeal(args.image or default_image(), work, args.seed)
        ordeal.run(args.cuts, updates=not args.no_updates)
    except (RuntimeError, OSError) as error:
        print(f"hw.boot.cuts: {error}", file=sys.stderr)
        return 1
    print(json.dumps(ordeal.figures(), indent=1))
    return 1 if ordeal.figures()["power_cuts_bad"] else 0


class Ordeal:
    """One card and one centre that go through all cuts, kept in a folder."""

    def __init__(self, image: Path, work: Path, seed: int) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.image, self.work, self.seed = image, work, seed
        self._file = work / "cuts.json"
        kept: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}
        self.rows: list[dict[str, Any]] = kept.get("cuts", [])
        self.others: dict[str, list[str]] = kept.get("updates", {})  # by bundle: what was wrong
        self._heard: list[tuple[int, str]] = [(int(v), c) for v, c in kept.get("heard", [])]
        self._batch = int(kept.get("batch", 0))
        self._counted = 0

    def figures(self) -> dict[str, Any]:
        done = [row for row in self.rows if "bad" in row]
        bad = [*(one for row in done for one in row["bad"]), *(one for found in self.others.values() for one in found)]
        kinds = {kind: sum(row["kind"] == kind for row in done) for kind in WINDOWS}
        return {
            "power_cuts": len(done), "power_cuts_bad": sum(bool(row["bad"]) for row in done) + sum(map(bool, self.others.values())),
            "power_cuts_in": ", ".join(f"{kind} {n}" for kind, n in kinds.items()),
            "systems_fallen_back": int(self.others.get("broken") == []), "systems_made_good": int(self.others.get("good") == []),
            "cuts_said": "; ".join(bad),
        }  # fmt: skip

    def run(self, cuts: int, *, updates: bool) -> None:
        """Make cuts until there are so many; then bring the two bundles, unless that was done. Raises RuntimeError."""
        good, broken = systems.updates(self.image, self.work)
        with Centre(self.work / "centre", base_model(self.work)) as centre:
            own = self.work / "card.img"
            if not own.exists():
                fresh(self.image, self.work, centre)
            board = Board(images(self.image, own), self.work)
            try:
                while len(self.rows) < cuts:
                    self.cut(board, centre, good)
                if self.rows and "bad" not in self.rows[-1]:
                    self._switch_on(board, centre, WORK)
                    self.judge(board, centre)
                for name, bundle in (("good", good), ("broken", broken)) if updates else ():
                    if name not in self.others:
                        board.cut()
                        self.others[name] = self.update(board, centre, name, bundle)
                        self._keep(centre)
            finally:
                board.cut()

    def cut(self, board: Board, centre: Centre, bundle: Path) -> None:
        """Start the board, see what the last cut has cost, and cut again at a moment of its own."""
        number = len(self.rows)
        kind, rng = KINDS[number % len(KINDS)], random.Random(f"{self.seed}/{number}")
        after = rng.uniform(0, WINDOWS[kind])
        if kind == "boot":
            self._switch_on(board, centre, WORK)
            time.sleep(after)
        else:
            installs = kind == "update"
            self._switch_on(board, centre, INSTALL if installs else WORK, bundle if installs else None)
            self.judge(board, centre)
            if kind == "update":
                self._hear(board, r"^(?:installing|installed|refused) .*$")
            time.sleep(after)
            if refused := board.facts.find(r"^refused .*$"):
                raise RuntimeError(f"the board takes no update, and nothing is shown of cuts in one: {refused[0]}")
        ran = board.cut()
        row = {"cut": number, "kind": kind, "after_s": round(after, 1), "up_s": round(board.up, 1), "off_before": not ran}
        row["installed"] = bool(board.facts.find(r"^installed .*$"))
        self.rows.append(row)
        self._keep(centre)
        say(board, f"cut {number + 1}, {kind}, {after:.1f} s in" + (", after the bundle was installed" if row["installed"] else ""))

    def judge(self, board: Board, centre: Centre) -> None:
        """Write down what the last cuts have cost: the board has been switched on."""
        open_rows = [row for row in self.rows if "bad" not in row]
        found = self._comes_back(board, centre)
        for row in open_rows:
            row["bad"] = found if row is open_rows[-1] else []
            said = "; ".join(found) or "nothing lost, doubled or overwritten"
            print(f"  cut {row['cut'] + 1}, {row['kind']}: {said}", file=sys.stderr, flush=True)
        self._keep(centre)

    def _comes_back(self, board: Board, centre: Centre) -> list[str]:
        """Return what is wrong with a board that was switched on: it must come up, list what it should, and go on."""
        heard = list(self._heard)  # before the power came: what is verified from here on is not on its list yet
        try:
            say(board, self._hear(board, r"^up .*$"))
            self._hear(board, r"^active .*$")
            listed = self._hear(board, r"^log .*$").split(maxsplit=2)
        except Silent as error:
            return [f"it did not boot: {error}"]
        before = len(centre.answers())
        try:
            rows = json.loads(listed[2])["models"][0]["versions"] if len(listed) == 3 else []
        except (ValueError, LookupError):
            return [f"the board's log can't be read: {listed[2:][:1]}"]
        end = time.monotonic() + PATIENCE
        while len(centre.answers()) <= before and time.monotonic() < end and board.on:
            time.sleep(0.5)
        out = [] if len(centre.answers()) > before else [f"nothing new was verified:\n{board.facts.tail(8)}"]
        self._note(centre)
        theirs = centre.versions()
        out += dict.fromkeys(chain.wrong(heard, rows, theirs) + chain.wrong(self._heard, [], theirs))
        proof = centre.ask("verify", "--all")
        unproven = proof["checked"] - proof["exact"]
        return out + ([f"the centre can't prove {unproven} versions"] if unproven else [])

    def update(self, board: Board, centre: Centre, name: str, bundle: Path) -> list[str]:
        """Bring a bundle to the board; return what is wrong with what became of it."""
        self._switch_on(board, centre, INSTALL, bundle)
        try:
            was = self._hear(board, r"^up .*$").split()
            if was[5] == "1":  # a bundle that a cut let through is on trial still
                board.console.wait(r"slot . is good", PATIENCE, lambda: board.on)
            say(board, self._hear(board, r"^(?:installed|refused) .*$"))
            if not board.ended(PATIENCE):
                return ["it did not reboot after the installation"]
            slots = list[str]()
            for _ in range(1 if name == "good" else TRIES):
                self._switch_on(board, centre, WORK if name == "good" else {**WORK, "TRIAL": HASTE})
                now = self._hear(board, r"^up .*$").split()
                say(board, " ".join(now))
                slots.append(now[3])
                if now[3] == was[3]:
                    break
                if name == "good":
                    board.console.wait(r"slot . is good", PATIENCE, lambda: board.on)
                elif not board.ended(PATIENCE):
                    return ["a system whose agent does not come up was not left"]
        except Silent as error:
            return [f"{name} system: {error}"]
        wanted = "B" if was[3] == "A" else "A"
        expected = [wanted] if name == "good" else [wanted] * (TRIES - 1) + [was[3]]
        wrong = [] if slots == expected else [f"slots {' '.join(slots)} were booted, and {' '.join(expected)} should have been"]
        return wrong + self._comes_back(board, centre)

    def _switch_on(self, board: Board, centre: Centre, plan: dict[str, str | int], bundle: Path | None = None) -> None:
        """Start the board with a plan, with samples that it has not seen."""
        first, count = self._batch, 12
        self._batch += count
        whole = {"TRIAL": "", "EXTRA": "", "FIRST": first, "BATCHES": count, "BUNDLE": bundle.name if bundle else "", **plan}
        self._keep(centre)
        board.switch_on(centre.port, card.disc(self.work, whole, range(first, first + count), [bundle] if bundle else []))

    def _hear(self, board: Board, pattern: str) -> str:
        return board.facts.wait(pattern, PATIENCE, lambda: board.on)[0]

    def _note(self, centre: Centre) -> None:
        """Keep what the centre has verified since it was asked last."""
        new = centre.answers()[self._counted :]
        self._counted += len(new)
        self._heard += [(one.version, one.commit) for one in new if (one.version, one.commit) not in self._heard]

    def _keep(self, centre: Centre) -> None:
        self._note(centre)
        part = self._file.with_suffix(".part")
        kept = {"seed": self.seed, "batch": self._batch, "heard": self._heard, "cuts": self.rows, "updates": self.others}
        part.write_text(json.dumps(kept, indent=1) + "\n")
        part.rename(self._file)


if __name__ == "__main__":
    raise SystemExit(main())
