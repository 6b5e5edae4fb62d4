#!/usr/bin/python3
"""Which of the two systems is booted next, and how that is written down: RAUC's custom backend. The format stands in slots.sh.

    slots get-primary | get-state A | set-primary B | set-state B good    as RAUC calls it
    slots show                                                            all of it, as JSON

It stands alone: the image holds it as /usr/lib/edgeagent-image/slots, with nothing of ours beside it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

BOOT = Path("/boot/firmware")
LOCK = Path("/run/edgeagent-slots.lock")
COPIES = ("slots.a", "slots.b")
SIZE = 512  # bytes of a copy: one sector
TRIES = 3
CIRCLE = 1000  # serials
TAKES = "get-primary, get-current, get-state A, set-primary B, set-state B good|bad, show"
_TEXT = re.compile(
    rb"edgeagent-slots 1 ([0-9a-f]{8})\nserial (0|[1-9][0-9]{0,2})\nprimary ([AB])\n"
    rb"A (good|trial|bad) ([0-3])\nB (good|trial|bad) ([0-3])\n\n*"
)


@dataclass(frozen=True, slots=True)
class SlotStates:
    """What is known of both slots. state: good, trial or bad; tries: boots that are left to a trial."""

    serial: int = 0
    primary: str = "A"
    states: tuple[str, str] = ("good", "bad")
    tries: tuple[int, int] = (TRIES, 0)

    def encode(self) -> bytes:
        """Return the 512 bytes of a copy."""
        lines = [f"serial {self.serial}", f"primary {self.primary}"]
        lines += [f"{name} {state} {tries}" for name, state, tries in zip("AB", self.states, self.tries, strict=True)]
        body = ("\n".join(lines) + "\n").encode().ljust(SIZE - 27, b"\n")
        return f"edgeagent-slots 1 {zlib.crc32(body):08x}\n".encode() + body

    def state(self, slot: str) -> str:
        return self.states["AB".index(slot)]

    def left(self, slot: str) -> int:
        return self.tries["AB".index(slot)]

    def with_state(self, slot: str, state: str, tries: int) -> SlotStates:
        """Return the same with another state of one slot."""
        states, left = list(self.states), list(self.tries)
        states["AB".index(slot)], left["AB".index(slot)] = state, tries
        return replace(self, states=(states[0], states[1]), tries=(left[0], left[1]))

    def wanted(self, slot: str) -> SlotStates:
        """Return the same with a slot wanted: on trial, unless it is known to be good."""
        new = replace(self, primary=slot)
        return new if new.state(slot) == "good" else new.with_state(slot, "trial", TRIES)

    def choose(self) -> tuple[str, SlotStates]:
        """Return the slot that is booted, and what has to be written before that. As slots_choose in slots.sh."""
        now, slot = self, self.primary
        for _ in range(2):
            if now.state(slot) == "good":
                return slot, replace(now, primary=slot)
            if now.state(slot) == "trial" and now.left(slot):
                return slot, replace(now, primary=slot).with_state(slot, "trial", now.left(slot) - 1)
            if now.state(slot) == "trial":
                now = now.with_state(slot, "bad", 0)
            slot = other(slot)
        return slot, now


def other(slot: str) -> str:
    """Return the name of the other slot."""
    return "B" if slot == "A" else "A"


def decode(data: bytes) -> SlotStates | None:
    """Return what a copy says; None where it does not count."""
    found = _TEXT.fullmatch(data[:SIZE])
    if found is None:
        return None
    _, serial, primary, a, a_tries, b, b_tries = (one.decode() for one in found.groups())
    said = SlotStates(int(serial), primary, (a, b), (int(a_tries), int(b_tries)))
    return said if said.encode() == data[:SIZE] else None


def newest(a: SlotStates | None, b: SlotStates | None) -> tuple[SlotStates, str]:
    """Return the state that counts, and the name of the copy that is written next."""
    if a is not None and (b is None or not 0 < (b.serial - a.serial) % CIRCLE < CIRCLE // 2):
        return a, COPIES[1]
    return (b, COPIES[0]) if b is not None else (SlotStates(), COPIES[0])


def load(folder: Path) -> tuple[SlotStates, str]:
    """Return the state that counts on a boot partition, and the name of the copy that is written next."""
    copies: list[SlotStates | None] = []
    for name in COPIES:
        try:
            with (folder / name).open("rb") as file:
                copies.append(decode(file.read(SIZE)))
        except OSError:
            copies.append(None)
    return newest(copies[0], copies[1])


def store(folder: Path, states: SlotStates, name: str) -> None:
    """Write a state to one copy, through to the card."""
    file = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.pwrite(file, replace(states, serial=(states.serial + 1) % CIRCLE).encode(), 0)
        os.fsync(file)
    finally:
        os.close(file)
    holder = os.open(folder, os.O_RDONLY)  # the name may be new
    try:
        os.fsync(holder)
    finally:
        os.close(holder)


def main(words: list[str], folder: Path = BOOT, lock: Path = LOCK) -> int:
    """Answer RAUC; return an exit code."""
    try:
        return answer(words, folder, lock)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"slots: the slots' state in {folder} can't be written: {error}; is this root, are both copies files?", file=sys.stderr)
        return 1


def answer(words: list[str], folder: Path, lock: Path) -> int:
    """Do what main does. Raises OSError, CalledProcessError for a boot partition that can't be written to."""
    with contextlib.ExitStack() as opened:
        try:
            fcntl.flock(opened.enter_context(lock.open("w")), fcntl.LOCK_EX)
        except PermissionError:  # anybody may look: a copy that is being written does not count, and the other one does
            if words[:1] and words[0].startswith("set-"):
                raise
        now, name = load(folder)
        match words:
            case ["get-primary"]:
                print(now.choose()[0])
            case ["get-current"]:
                print(booted())
            case ["get-state", ("A" | "B") as slot]:
                # As with RAUC's other backends: a slot on trial is bootable as long as it has tries.
                print("good" if now.state(slot) == "good" or (now.state(slot) == "trial" and now.left(slot)) else "bad")
            case ["set-primary", ("A" | "B") as slot]:
                changed(folder, now, now.wanted(slot), name)
            case ["set-state", ("A" | "B") as slot, "good"]:
                changed(folder, now, now.with_state(slot, "good", TRIES), name)
            case ["set-state", ("A" | "B") as slot, "bad"]:
                changed(folder, now, now.with_state(slot, "bad", 0), name)
            case ["show"]:
                print(json.dumps({**asdict(now), "next": now.choose()[0]}))
            case _:
                print(f"slots: unknown request {words}; it takes {TAKES}", file=sys.stderr)
                return 2
    return 0


def booted(run: Path = Path("/run/edgeagent-image/slot")) -> str:
    """Return the slot that the initrd has booted, as it wrote it down."""
    return run.read_text().strip()


def changed(folder: Path, old: SlotStates, new: SlotStates, name: str) -> None:
    """Write a state down, unless it is the same."""
    if new != old:
        with writable(folder):
            store(folder, new, name)


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Have a boot partition that is mounted read-only written to for the time of a `with` block."""
    ro = os.path.ismount(folder) and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    if ro:
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    try:
        yield
    finally:
        if ro:
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
