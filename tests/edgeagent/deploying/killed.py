"""A device that is sent a variant and killed at one of its writes: what it serves then, and what becomes of it at the next start."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from edgeagent.deploying import hosts
from edgeagent.deploying.hosts import HostWord
from edgeagent.service.goal import Goal
from modelwire.tflite.file import read_weights
from modelwire.update.manifest import manifest_of
from modelwire.wire.records import Desired, Level
from tests.edgeagent.boards import TINY, Rig, centre, fill
from tests.edgeagent.centre import Centre, FakeClock, Lineage
from tests.simulator.crashes import Crash, Steps

from .deployed import back_to, bring, deployed, other_base, seen, states

B = other_base()
OURS, THEIRS = manifest_of(TINY).commit, manifest_of(B).commit
SETTINGS: dict[str, Any] = {"train__every": "3650d", "train__min_samples": "8", "store__history": "0"}
ENDS = {"confirmed", "reverted"}


class Story:
    """What happens to a device whose variant goes one of several ways."""

    def __init__(self, folder: Path, way: str) -> None:
        self.folder, self.way = folder, way
        self.folder.mkdir()
        clock = FakeClock()
        self.centre = centre(clock)
        with self.device(folder / "made", self.centre) as r:
            fill(r.device)
            r.run(Goal(rounds=1, timeout=600))
            self.served = seen(r)
            if way == "back":
                self.centre.after(1, lambda: self.centre.push(bring(B, soak=2), "desired"))
                r.serve(60)
                assert states(self.centre)[-1] == "confirmed"
        self._begun = self.centre

    def wanted(self) -> Desired:
        """Return what is desired in this story."""
        return back_to(TINY, 2) if self.way == "back" else bring(B, soak=2, learned="anew" if self.way == "anew" else "auto")

    def run(self, folder: Path, c: Centre, *, inside: Callable[[Rig], None] = lambda r: None) -> None:
        """Let the desired come to the device in this folder, and what follows."""
        with self.device(folder, c) as r:
            inside(r)
            c.after(1, lambda: c.push(self.wanted(), "desired"))
            if self.way == "veto":
                r.serve(4)
                hosts.say(r.device.database, "tiny", HostWord(1, False, "no"))
            r.serve(30)

    def device(self, folder: Path, c: Centre) -> AbstractContextManager[Rig]:
        return deployed(folder, c, B, TINY, **SETTINGS)

    def copied(self, name: str) -> tuple[Path, Centre]:
        """Return a copy of the device as it was, and a centre that knows what this one knew."""
        folder = self.folder / name
        shutil.copytree(self.folder / "made", folder, symlinks=True)
        return folder, self._forget(centre(FakeClock()))

    def _forget(self, c: Centre) -> Centre:
        c.bases, c.lineages, c.keys = dict(self._begun.bases), _copied(self._begun), dict(self._begun.keys)
        return c


def _copied(c: Centre) -> dict[tuple[str, str], Lineage]:
    return {
        key: replace(
            one, first=dict(one.first), epochs=dict(one.epochs), heads=dict(one.heads),
            versions={epoch: {n: replace(held) for n, held in of.items()} for epoch, of in one.versions.items()},
        )
        for key, one in c.lineages.items()
    }  # fmt: skip


def killed_at_each_write(folder: Path, way: str, *, every: int = 1) -> tuple[int, list[str]]:
    """Kill the device of a story before each of its writes, and return how often that was, and what went wrong of it."""
    story, steps = Story(folder, way), Steps()
    with steps.installed():
        home, c = story.copied("counted")
        with steps.counted():
            story.run(home, c)
        count, wrong = steps.taken, []
        for step in range(1, count + 1, every):
            home, c = story.copied("killed")
            left = folder / "left"
            with suppress(Crash), steps.crash_at(step, partial(_keep, home, left)):
                story.run(home, c)
            if (said := after(story, left if left.exists() else home, c)):
                wrong.append(f"{way}, killed before write {step} of {count}: {said}")
            shutil.rmtree(home)
            shutil.rmtree(left, ignore_errors=True)
    return len(range(1, count + 1, every)), wrong


def _keep(home: Path, left: Path) -> None:
    shutil.copytree(home, left, symlinks=True)


def after(story: Story, folder: Path, c: Centre) -> str:
    """Return what is wrong with a device at its next starts; empty where it ends as it must."""
    link = folder / "state" / "models" / "tiny" / "served.tflite"
    if not link.exists() or set(read_weights(link.read_bytes())) != set(read_weights(TINY)):
        return "no whole model was served after the kill"
    c.cut()
    c.mend()
    story.run(folder, c)
    with story.device(folder, c) as r:
        r.serve(60)
        number = 2 if story.way == "back" else 1
        end = states(c, number)[-1:]
        place = r.lineage.base_commit
        good = end == ["confirmed"] and place == (OURS if story.way == "back" else THEIRS)
        if end == ["reverted"] and story.way == "veto":
            good = place == OURS and seen(r) == story.served
        if end == ["refused"] and story.way == "veto":
            good = place == OURS and seen(r) == story.served
        if not good:
            return f"it ended {end} on {place.hex()[:8]}"
        if seen(r) != r.lineage.load().file:
            return "what is served is not the head's"
        newest = max(c.held("pi-7", "tiny").items())[1]
        if newest.level is not Level.VERIFIED or newest.state is None or newest.state.root != r.lineage.load().state.root:
            return "the centre does not hold what is served"
        r.device.database.check()
        lies = [f for f in r.lineage.store.folder.rglob("*") if "coming" in f.parts]
        return f"left over: {lies}" if lies else ""
