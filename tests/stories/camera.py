"""Pictures: `make demo-camera`. A camera learns to read a meter in its own light, and does not forget yesterday's.

The base knows handwritten digits by day, from the front. One camera has to read at night too, by a lamp beside its lens; one hangs
against the light; one hangs turned and to one side, and has to learn a sign besides that the base has never heard of: a broken
meter's. All start from one file and train another depth of it: the head's two layers on kept features, the last three, or all.

    python -m tests.stories.camera [--folder build/demo-camera] [--rounds 8]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecommon.runtime import Runtime, load
from tests.charts import count_whole, legend_below
from tests.stories import cameras, story
from tests.stories.cameras import ATTIC, CELLAR, PORCH, Camera
from tests.stories.story import Actor, Base, Batch, Say, Told
from tests.system import telling

ROUNDS = 8
SAMPLES = 200  # labelled pictures of a round
BASE = Base(
    "meter", story.STOCK / "camera.tflite",
    ("--train", "all", "--modes", "last:2", "last:3", "--add-class", "fault", "--optimizer", "adam", "--batch", "16"),
)  # fmt: skip
SETTINGS = {
    "train.learning_rate": "0.001", "train.epochs": "8", "train.min_new_samples": str(SAMPLES), "update.density": "0.03",
}  # fmt: skip
POINTS, ENOUGH, KEPT = 0.20, 0.95, 0.05  # gained in the new light, or reached; lost at most of what was known


@dataclass(frozen=True)
class Task:
    """What one camera of the story is for. scenes: (what, light, share of signs, is it new to the base)."""

    camera: Camera
    mode: str
    lights: Callable[[int, int], str]  # (round, rounds) -> what light it stands in
    scenes: tuple[tuple[str, str, float, bool], ...]
    signs: float = 0.0  # share of the broken meter's sign in what it sees, from the third round on

    def feed(self, round: int, rounds: int) -> Batch:
        signs = self.signs if round >= rounds // 3 else 0.0
        light = self.lights(round, rounds)
        return Batch(*self.camera.stream(round, SAMPLES, light, fault=signs), {"light": light})


def _day_then(light: str) -> Callable[[int, int], str]:
    return lambda round, rounds: "day" if round < rounds // 3 else light


TASKS = (
    Task(PORCH, "features", _day_then("night"), (("by day", "day", 0, False), ("at night", "night", 0, True))),
    Task(ATTIC, "last:3", _day_then("backlit"), (("by day", "day", 0, False), ("against the light", "backlit", 0, True))),
    Task(CELLAR, "all", lambda *_: "day", (("digits, from the side", "day", 0, True), ("the new sign", "day", 1, True)), signs=0.15),
)


@dataclass(frozen=True)
class Read:
    """How well one scene is read by the base and by each version, 0 to 1."""

    device: str
    scene: str
    new: bool  # to the base
    accuracy: tuple[float, ...]  # the base first

    @property
    def claim(self) -> str:
        """What of the story's claim failed here; empty when nothing did."""
        before, after = self.accuracy[0], self.accuracy[-1]
        least = min(before + POINTS, ENOUGH) if self.new else before - KEPT
        return "" if after >= least else f"{self.device} reads {self.scene} {before:.3f} -> {after:.3f}, not {least:.3f}"


def main(argv: Sequence[str] | None = None) -> int:
    return story.run("camera", __doc__ or "", ROUNDS, argv, tell)


def tell(folder: Path, rounds: int, say: Say) -> tuple[dict[str, object], list[str]]:
    """Play the story, and return its document and what of its claims failed."""
    told = story.play(folder, [BASE], [_actor(task, rounds) for task in TASKS], rounds, say)
    say("judging every version on digits and signs that nothing was trained on")
    runtime = load()
    judged = story.counted(say, "judged", sum((1 + len(told[t.camera.name].versions)) * len(t.scenes) for t in TASKS))
    read = [_judged(runtime, t, told[t.camera.name], scene, judged) for t in TASKS for scene in t.scenes]
    _show(read, told)
    _draw(read, told, folder.with_suffix(".png"))
    document: dict[str, object] = {
        **story.proof(told), "read": [{"device": r.device, "scene": r.scene, "new": r.new, "accuracy": list(r.accuracy)} for r in read],
    }  # fmt: skip
    return document, [r.claim for r in read if r.claim]


def _actor(task: Task, rounds: int) -> Actor:
    return Actor(task.camera.name, BASE.name, lambda round: task.feed(round, rounds), {**SETTINGS, "train.mode": task.mode})


def _judged(runtime: Runtime, task: Task, told: Told, scene: tuple[str, str, float, bool], judged: Callable[[], None]) -> Read:
    what, light, signs, new = scene
    x, y = task.camera.held_out(light, fault=signs)
    files = (told.base, *(v.file for v in told.versions))
    scores = []
    for file in files:
        scores.append(story.accuracy(runtime, file, x, y))
        judged()
    return Read(told.device, what, new, tuple(scores))


def _show(read: Sequence[Read], told: dict[str, Told]) -> None:
    tasks = {t.camera.name: t for t in TASKS}
    rows = [
        (
            r.device, tasks[r.device].camera.how, tasks[r.device].mode, r.scene, f"{r.accuracy[0]:.3f}", f"{r.accuracy[-1]:.3f}",
            f"{100 * (r.accuracy[-1] - r.accuracy[0]):+.1f}",
        )
        for r in read
    ]  # fmt: skip
    names = ("camera", "hangs", "mode", "reads", "base", "own model", "points")
    telling.show(telling.table("accuracy on held-out digits and signs", names, rows, left=4), story.travelled(told), story.cards(told))


def _draw(read: Sequence[Read], told: dict[str, Told], path: Path) -> None:
    with story.figure(path, 3) as (seen, learnt, sizes):
        scenes = [(t, s) for t in TASKS for s in t.scenes]
        rows = [np.concatenate(list(t.camera.held_out(light, 8, fault=signs)[0][..., 0]), 1) for t, (_, light, signs, _) in scenes]
        seen.imshow(np.concatenate(rows), cmap="gray", vmin=0, vmax=1)
        seen.set(title="what the cameras see", xticks=[])
        seen.set_yticks([cameras.SIZE * (k + 0.5) for k in range(len(scenes))], [f"{t.camera.name}\n{s[0]}" for t, s in scenes], fontsize=7)
        for r in read:
            learnt.plot(range(len(r.accuracy)), r.accuracy, marker="o", linestyle="-" if r.new else "--", label=f"{r.device}: {r.scene}")
        learnt.set(title="accuracy on what nothing was trained on", xlabel="version (0 is the base)", ylim=(0, 1.02))
        learnt.grid(alpha=0.3)
        count_whole(learnt)
        legend_below(learnt, columns=2)
        story.draw_bytes(sizes, told)


if __name__ == "__main__":
    raise SystemExit(main())
