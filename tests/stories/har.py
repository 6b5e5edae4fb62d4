"""Wrist motion: `make demo-har`. A watch learns the person who wears it.

The base knows people who wear the watch as it was recorded. Anna wears it on the other arm, Bela turned on the wrist, Cleo has a
sensor of half the sensitivity and wears it loosely. Each watch learns from its own wearer alone. Then each model is tried on
each person: whose model would serve whom?

    python -m tests.stories.har [--folder build/demo-har] [--rounds 6]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgecommon.runtime import load
from tests.charts import count_whole, legend_below
from tests.stories import story
from tests.stories.story import Actor, Base, Batch, Say, Told
from tests.stories.wearers import PERSONS, Wearer
from tests.system import telling

ROUNDS = 6
SAMPLES = 64  # labelled windows of an evening: ten minutes of motion
BASE = Base("motion", story.STOCK / "har.tflite", ("--train", "all", "--optimizer", "adam", "--batch", "16"))
SETTINGS = {"train.learning_rate": "0.001", "train.epochs": "8", "train.min_new_samples": str(SAMPLES), "update.density": "0.03"}
POINTS, ENOUGH = 0.20, 0.95  # what a watch has to gain on its wearer, or to reach


def main(argv: Sequence[str] | None = None) -> int:
    return story.run("har", __doc__ or "", ROUNDS, argv, tell)


def tell(folder: Path, rounds: int, say: Say) -> tuple[dict[str, object], list[str]]:
    """Play the story, and return its document and what of its claims failed."""
    told = story.play(folder, [BASE], [_actor(person) for person in PERSONS], rounds, say)
    say("judging every version on windows that nothing was trained on")
    runtime = load()
    held = {person.name: person.held_out() for person in PERSONS}
    models = {"base": next(iter(told.values())).base, **{name: one.last for name, one in told.items()}}
    judged = story.counted(say, "judged", sum(1 + len(one.versions) for one in told.values()) + len(models) * len(held))

    def score(file: bytes, person: str) -> float:
        got = story.accuracy(runtime, file, *held[person])
        judged()
        return got

    by_version = {name: [score(file, name) for file in (one.base, *(v.file for v in one.versions))] for name, one in told.items()}
    matrix = {model: {person: score(file, person) for person in held} for model, file in models.items()}
    failed = [
        f"{name} went from {scores[0]:.3f} to {scores[-1]:.3f}, neither {POINTS:+.2f} nor {ENOUGH}"
        for name, scores in by_version.items()
        if scores[-1] < min(scores[0] + POINTS, ENOUGH)
    ]
    _show(told, by_version, matrix)
    _draw(told, by_version, matrix, folder.with_suffix(".png"))
    document: dict[str, object] = {**story.proof(told), "accuracy": by_version, "feasibility": matrix}
    return document, failed


def _actor(person: Wearer) -> Actor:
    return Actor(person.name, BASE.name, lambda round: Batch(*person.stream(round, SAMPLES)), SETTINGS)


def _show(told: dict[str, Told], by_version: dict[str, list[float]], matrix: dict[str, dict[str, float]]) -> None:
    how = {person.name: person.how for person in PERSONS}
    rows = [(name, how[name], f"{s[0]:.3f}", f"{s[-1]:.3f}", f"{100 * (s[-1] - s[0]):+.1f}") for name, s in by_version.items()]
    learnt = telling.table(
        "accuracy on the wearer's held-out windows", ("person", "wears the watch", "base", "own model", "points"), rows, left=2
    )
    cells = [(model, *(f"{scores[person]:.3f}" for person in how)) for model, scores in matrix.items()]
    fits = telling.table("whose model (row) serves whom (column)", ("model of", *how), cells)
    telling.show(learnt, fits, story.travelled(told), story.cards(told))


def _draw(told: dict[str, Told], by_version: dict[str, list[float]], matrix: dict[str, dict[str, float]], path: Path) -> None:
    people = list(by_version)
    with story.figure(path, 3) as (learnt, fits, sizes):
        for name, scores in by_version.items():
            learnt.plot(range(len(scores)), scores, marker="o", label=name)
        learnt.set(title="accuracy on the wearer's held-out windows", xlabel="version (0 is the base)", ylim=(0, 1.02))
        learnt.grid(alpha=0.3)
        count_whole(learnt)
        legend_below(learnt)
        fits.imshow([[row[p] for p in people] for row in matrix.values()], vmin=0, vmax=1, cmap="viridis")
        for i, row in enumerate(matrix.values()):
            for j, person in enumerate(people):
                fits.text(j, i, f"{row[person]:.2f}", ha="center", va="center", color="black" if row[person] > 0.6 else "white")
        fits.set(title="whose model serves whom", xlabel="worn by", ylabel="model of")
        fits.set_xticks(range(len(people)), people)
        fits.set_yticks(range(len(matrix)), list(matrix))
        story.draw_bytes(sizes, told)


if __name__ == "__main__":
    raise SystemExit(main())
