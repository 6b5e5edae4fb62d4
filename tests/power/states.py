"""Crash states: what both disks may hold when the power goes at a moment of the trace, and what becomes of the two after it.

    python -m tests.power.states --count 30            honest disks
    python -m tests.power.states --count 30 --lying    disks that say they have flushed and have not

Durable is all that was written before the last flush that the disk answered, and what was written through. Of what came later each sector
may be there or not. Nothing is mounted: e2fsck replays the journal, debugfs copies the folders out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from modelwire.errors import ModelWireError
from tests.power.meeting import Meeting
from tests.power.trace import FLUSH, FUA, SECTOR, SIDES, Fact, Trace, Write, load

TOOLS = ("e2fsck", "debugfs")
LIES = 400  # requests before the cut whose flushes a lying disk ignores
SUPERBLOCK = 1024  # its first byte, and its size
FIRST = 0.02  # of the moments: before, neither has begun
FILES = {"board": "pi-7", "centre": "registry"}


@dataclass
class Outcome:
    """What came of one crash state. bad: what may not be on an honest disk."""

    moment: int
    seed: int
    bad: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)  # trouble that a side named by itself
    fault: str = ""  # of the program: an error that has no name
    versions: int = 0  # that are exact at the centre in the end


def missing() -> list[str]:
    """Return which tools are not on this machine."""
    return [name for name in TOOLS if tool(name) is None]


def tool(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin")))


def moments(trace: Trace, count: int, seed: int = 1) -> list[int]:
    """Return so many moments of the trace, spread over it, the last one among them."""
    rng, first, last = Random(f"moments {seed}"), int(len(trace.moments) * FIRST), len(trace.moments) - 1
    chosen = [first + int((last - first) * (i + rng.random()) / count) for i in range(count - 1)]
    return [*chosen, last]


def disk(base: bytes, writes: Sequence[Write], rng: Random, *, lies: int = 0) -> bytes:
    """Return what a disk may hold after these requests. lies: of how many at the end the flushes were ignored."""
    image, flushed = bytearray(base), max((i for i, one in enumerate(writes) if one.flags & FLUSH), default=-1)
    if lies:
        flushed = min(flushed, len(writes) - lies)
    keep = rng.choice((0.0, 0.2, 0.5, 0.8, 1.0))  # the share that reached the platter: none of it, and all of it, too
    for i, one in enumerate(writes):
        # A flush takes what came before it; its own data only where it is written through.
        durable = i < flushed or (i == flushed and not one.data) or (one.flags & FUA and not lies)
        sectors = len(one.data) // SECTOR
        if durable or rng.random() < keep:
            image[one.at : one.at + len(one.data)] = one.data
        elif rng.random() < 0.4:  # torn
            for k in (k for k in range(sectors) if rng.random() < 0.5):
                image[one.at + k * SECTOR : one.at + (k + 1) * SECTOR] = one.data[k * SECTOR : (k + 1) * SECTOR]
    return bytes(image)


def until(writes: Sequence[Write], end: int) -> Sequence[Write]:
    """Return the requests that stand wholly in the first `end` bytes of the log."""
    low, high = 0, len(writes)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if writes[middle].end <= end else (low, middle)
    return writes[:low]


def files_of(image: Path, name: str, target: Path, superblock: bytes) -> Path:
    """Return a folder as it comes back from a disk: the journal replayed, copied out. Raises NotADirectoryError when it is gone.

    superblock: the disk's first. ext4 writes it in place, so it may be torn; e2fsck then takes the copy that lies 128 MiB further on,
    which disks as small as these do not have.
    """
    done = _mended(image)
    if done.returncode == 8 and "superblock" in done.stdout:
        with image.open("r+b") as out:
            out.seek(SUPERBLOCK)
            out.write(superblock)
        done = _mended(image)
    if done.returncode not in (0, 1):
        raise NotADirectoryError(f"e2fsck ended with {done.returncode}: {done.stdout[-300:]}")
    target.mkdir()
    command = [tool("debugfs") or "debugfs", "-R", f"rdump /{name} {target}", str(image)]
    subprocess.run(command, capture_output=True, check=True)
    if not (target / name).is_dir():
        raise NotADirectoryError(f"{name} is not on the disk any more")
    return target / name


def _mended(image: Path) -> subprocess.CompletedProcess[str]:
    command = [tool("e2fsck") or "e2fsck", "-fy", str(image)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def crash(trace: Trace, moment: int, seed: int, *, lying: Sequence[str] = ()) -> Outcome:
    """Cut the power of both sides at a moment, let them start and meet, and return what came of it. lying: whose disk lies."""
    outcome, rng = Outcome(moment, seed), Random(f"crash {moment} {seed}")
    known = [fact for fact in trace.facts if fact.moment <= moment]
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        folder = Path(name)
        try:
            found = {}
            for side, end in zip(SIDES, trace.moments[moment], strict=True):
                image = folder / f"{side}.img"
                written = until(trace.writes[side], end)
                image.write_bytes(disk(trace.bases[side], written, rng, lies=LIES if side in lying else 0))
                found[side] = files_of(image, FILES[side], folder / side, trace.bases[side][SUPERBLOCK : 2 * SUPERBLOCK])
            with Meeting(found["board"], found["centre"]) as meeting:
                judge(meeting, known, outcome)
        except NotADirectoryError as error:
            outcome.named.append(f"the file system: {error}")
        except ModelWireError as error:
            outcome.named.append(f"{type(error).__name__}: {error.message}")
        except Exception as error:  # noqa: BLE001 - whatever else comes out is what this looks for
            outcome.fault = f"{type(error).__name__}: {error}"
            outcome.bad.append(f"a fault of the program: {outcome.fault}")
    outcome.bad += [] if lying else outcome.named  # on honest disks there is nothing to name
    return outcome


def crashes(cuts: Sequence[tuple[int, int, Sequence[str]]]) -> Iterator[Outcome]:
    """Yield what came of each moment, seed and lying sides, on all cores."""
    with ProcessPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        yield from pool.map(_crash, cuts)


def _crash(cut: tuple[int, int, Sequence[str]]) -> Outcome:
    moment, seed, lying = cut
    return crash(load(), moment, seed, lying=lying)


def judge(meeting: Meeting, known: Sequence[Fact], outcome: Outcome) -> None:
    """Look at both sides as they came back, let them meet and go on, and look again."""
    outcome.bad += [f"after the cut: {one}" for one in lost(meeting, known)]
    meeting.agree()
    outcome.bad += [f"after they met: {one}" for one in lost(meeting, known, met=True)]
    outcome.named += meeting.named()
    meeting.go_on()
    verdict = meeting.audited()
    outcome.bad += [f"in the end: {one}" for one in (*verdict.diverged, *meeting.problems(), *meeting.apart())]
    outcome.bad += [f"in the end: {name}: {verdict.examples[name]}" for name in verdict.named if name != "Thinned"]
    outcome.versions = verdict.exact


def lost(meeting: Meeting, known: Sequence[Fact], *, met: bool = False) -> list[str]:
    """Return what had been said and is not so any more. met: both have had the time to tell each other the rest."""
    board, centre = meeting.at_board(), meeting.at_centre()
    out = []
    for fact in known:
        which = f"@{fact.version} {fact.commit.hex()[:8]}"
        if (fact.kind == "update" or met) and board.get(fact.version) != fact.commit:
            out.append(f"the board had published {which}, and has it no more")
        row = centre.get(fact.commit)
        if fact.kind in ("stored", "verified") and row is None:
            out.append(f"the centre had said {fact.kind} of {which}, and has it no more")
        if (fact.kind == "verified" or met) and row is not None and row != "verified":
            out.append(f"the centre had said {fact.kind} of {which}, and calls it {row}")
        if met and row is None:
            out.append(f"{which} never arrived")
    return sorted(set(out))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.power.states", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=30, help="how many crash states (default: 30)")
    parser.add_argument("--lying", action="store_true", help="disks that ignore flushes: the board's, the centre's, both in turn")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and of what is lost")
    args = parser.parse_args(arguments)
    began, bad = time.monotonic(), 0
    cuts = [
        (moment, args.seed + i, (("board",), ("centre",), SIDES)[i % 3] if args.lying else ())
        for i, moment in enumerate(moments(load(), args.count, args.seed))
    ]
    for cut, one in zip(cuts, crashes(cuts), strict=True):
        bad += bool(one.bad)
        for text in (*one.bad[:5], *one.named[:5]):
            print(f"moment {cut[0]} seed {cut[1]} {'/'.join(cut[2])}: {text}", flush=True)
    print(f"{args.count} states, {bad} bad, {args.count / (time.monotonic() - began) * 60:.0f} a minute", file=sys.stderr)
    return 1 if bad and not args.lying else 0


if __name__ == "__main__":
    raise SystemExit(main())
