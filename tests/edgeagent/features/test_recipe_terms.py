"""On which terms a round is sent as its recipe: the centre replays this trainer, and checkpoints are told where they are asked for."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from edgeagent.commands.train import finish
from edgeagent.features import exact_course
from edgeagent.features.by_recipe import RecipeCourse
from edgeagent.features.exact_course import output_head_of
from edgeagent.features.gathering import Known, OnFeatures
from edgeagent.rounds import round as rounds
from edgeagent.samples.spool import Samples
from edgeagent.service.goal import Goal
from edgeagent.training.course import Lesson
from modelwire.errors import RuntimeUnusable
from modelwire.lattice.replay import checkpoints_of, first_apart
from modelwire.lattice.state import ModelState
from modelwire.output_head.recipe import CHECKPOINTS_MAX, TRAINER, parse_recipe
from modelwire.output_head.rows import Rows
from modelwire.tflite.file import read_weights
from modelwire.tflite.notes import notes_of
from modelwire.update import container
from modelwire.update.manifest import manifest_of
from modelwire.wire.records import Level
from tests.edgeagent.boards import standing
from tests.edgeagent.heads import board, grafted, samples

try:
    from edgecommon.runtime import load

    load()
except RuntimeUnusable:
    pytest.skip("no TFLite runtime is installed", allow_module_level=True)

EPOCHS = 3


def course(every: int, *, epochs: int = EPOCHS) -> tuple[RecipeCourse, ModelState]:
    """Return a course on rows that need no runtime, and the parent's state."""
    file = grafted()
    manifest, notes = manifest_of(file), notes_of(file, model="m")
    assert notes.head is not None
    state = ModelState.of_base(manifest, manifest.schema.flat(read_weights(file)))
    output_head = output_head_of(notes.head, manifest.schema)
    rng = np.random.default_rng(3)
    labels = np.arange(40, dtype=np.uint32) % output_head.widths[-1]
    rows = Rows(rng.standard_normal((40, output_head.widths[0])).astype(np.float16), labels)
    y = np.eye(output_head.widths[-1], dtype=np.float32)[labels]
    held = Samples(np.zeros((40, 0), np.float32), y, True, np.arange(1, 41))
    gathered = OnFeatures("m", Known(bytes(32), output_head, notes, "none", 8), held, held, 40, rows, rows)
    return RecipeCourse(gathered, state, Lesson("m", held, state.named(), epochs, 0.02, 5), "adam", every), state


def taken(made: RecipeCourse, steps: int | None = None) -> RecipeCourse:
    while made.done < (made.steps if steps is None else steps):
        made.step()
    return made


@pytest.mark.parametrize("every", [1, 4, 7, 14, 15, 1000])
def test_checkpoints_are_the_roots_that_the_centre_comes_to(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_course, "SLICE_WORK", 1 << 14)
    made, state = course(every)
    assert made.steps == 15 and not made.against(state, 1 << 20)
    before = state.root
    recipe = parse_recipe(taken(made).provenance().body)
    assert state.root == before, "the parent moves when the round is closed, and not before"
    if every >= 15:
        assert recipe.checkpoints is None
    else:
        assert recipe.checkpoints == checkpoints_of(state, recipe, every) and first_apart(state, recipe) == 0
        assert len(recipe.checkpoints.roots) == 14 // every


def test_without_the_setting_there_are_none_and_the_steps_are_as_long_as_ever() -> None:
    made, _ = course(0)
    assert made.at_once() == made.steps
    assert parse_recipe(taken(made).provenance().body).checkpoints is None


@pytest.mark.parametrize("done", [4, 8, 9])
def test_a_course_that_ends_early_tells_the_checkpoints_below_its_end(done: int) -> None:
    made, state = course(4)
    while made.done < done:
        made._slice = done - made.done
        made.step()
    recipe = parse_recipe(made.provenance().body)
    assert recipe.head.steps == done and first_apart(state, recipe) == 0
    assert (0 if recipe.checkpoints is None else len(recipe.checkpoints.roots)) == (done - 1) // 4


def test_checkpoints_survive_an_interruption() -> None:
    whole, (cut, _), (later, state) = taken(course(2)[0]), course(2), course(2)
    later.restore({name: a.copy() for name, a in taken(cut, 7).keep().items()})
    assert taken(later).provenance().body == whole.provenance().body
    assert first_apart(state, parse_recipe(later.provenance().body)) == 0


def test_the_size_is_known_before_the_first_step() -> None:
    made, state = course(1)
    size = len(made.provenance().body)
    assert made.against(state, size).endswith(f"of {size}"), "the container takes more than its recipe"
    assert len(taken(made).provenance().body) == size
    plain, _ = course(0)
    assert size > len(plain.provenance().body) + 14 * 32


def test_more_checkpoints_than_a_recipe_carries_make_it_a_delta_that_says_so() -> None:
    made, state = course(1, epochs=CHECKPOINTS_MAX)
    assert f"are more than {CHECKPOINTS_MAX}" in made.against(state, 1 << 20)


@pytest.mark.slow("its round starts a process that computes features")
def test_a_recipe_with_checkpoints_is_verified_and_names_its_trainer(tmp_path: Path) -> None:
    with board(tmp_path / "d", grafted(), update__kind="recipe", update__checkpoints="5") as b:
        b.spool.extend("m", *samples(80))
        parent = b.lineage.load().state
        b.agent.run(Goal(rounds=1, timeout=6000))
        assert b.centre.held("pi-7", "m")[1].level is Level.VERIFIED
        recipe = next(said for _, said in b.centre.up if isinstance(said, container.Container)).recipe()
        assert recipe.trainer == TRAINER and recipe.checkpoints is not None and first_apart(parent, recipe) == 0


@pytest.mark.slow("its round starts a process that computes features")
@pytest.mark.parametrize(("trainers", "why"), [((), "has not said that it replays any"), ((2, 3), "replays trainers 2, 3")])
def test_a_centre_that_does_not_replay_this_trainer_gets_a_delta_and_the_log_says_why(
    tmp_path: Path, trainers: tuple[int, ...], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with board(tmp_path / "d", grafted(), update__kind="recipe") as b:
        b.centre.trainers = trainers
        b.spool.extend("m", *samples(80))
        with caplog.at_level(logging.WARNING):
            b.agent.run(Goal(rounds=1, timeout=6000))
        report, text = b.agent.reports[0], f"no recipe: this release trains by the exact trainer 1, and the centre {why}"
        assert (report.kind, report.note) == ("delta", text) and b.centre.held("pi-7", "m")[1].level is Level.VERIFIED
        assert b.lineage.versions()[0]["reason"] == text and text in caplog.text
        b.centre.trainers = (1, 2)
        b.agent.run(Goal(publish=True, timeout=60))
        b.spool.extend("m", *samples(80, seed=1))
        b.centre.cut()
        report = finish(rounds.run(standing(b.device, b.models, "m", extractors=b.models.extractors)))
        assert report.kind == "recipe", "what the last welcome said is kept"
