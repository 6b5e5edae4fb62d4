"""Mode features: what is kept, when it is believed, and that rounds on it are versions like any others."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeagent.board.budget import Cost
from edgeagent.commands.train import finish
from edgeagent.features import exact_course as head_course
from edgeagent.features.agreement import agreeing
from edgeagent.features.base_file import featured_notes
from edgeagent.features.by_recipe import RecipeCourse
from edgeagent.features.exact_course import FEATURES, ExactCourse, output_head_of, rows_for
from edgeagent.features.extraction import Extraction
from edgeagent.features.kept import Features, half
from edgeagent.rounds import round as rounds
from edgeagent.rounds.standing import base_of
from edgeagent.service import measuring, one_mode
from edgeagent.service.goal import Goal
from modelwire.errors import Malformed, NoModeFits, NotTrainable, RuntimeUnusable
from modelwire.lattice.replay import replay
from modelwire.output_head.row_ids import ids_of
from modelwire.tensors import F32
from modelwire.tflite.file import read_tensors, read_weights
from modelwire.tflite.notes import notes_of
from modelwire.update import container
from modelwire.update.sections import Kind
from modelwire.wire.records import Level
from tests.edgeagent.boards import make_with, standing
from tests.edgeagent.heads import SETTINGS, Board, board, grafted, samples

try:
    from edgecommon.runtime import load

    load()
except RuntimeUnusable:
    pytest.skip("no TFLite runtime is installed", allow_module_level=True)


@pytest.mark.slow("its round starts a process that computes features")
def test_rounds_on_kept_features_are_versions_that_the_centre_proves(tmp_path: Path) -> None:
    with board(tmp_path / "d", grafted()) as b:
        b.spool.extend("m", *samples(80))
        b.agent.run(Goal(rounds=3, timeout=6000))
        held = b.centre.held("pi-7", "m")
        assert [held[n].level for n in (1, 2, 3)] == [Level.VERIFIED] * 3
        assert held[3].state is not None and held[3].state.root == b.lineage.load().state.root
        reports = b.agent.reports
        assert [r.outcome.mode for r in reports] == [FEATURES] * 3 and all(r.accepted for r in reports)
        assert reports[-1].outcome.after.loss < 0.7 * reports[0].outcome.before.loss
        assert reports[0].outcome.steps == 4 * -(-reports[0].outcome.samples // 8), "four epochs of batches of eight"


@pytest.mark.slow("its round starts a process that computes features")
@pytest.mark.parametrize(("kind", "balance", "longer"), [("delta", "true", True), ("delta", "false", False), ("recipe", "true", False)])
def test_rows_of_rare_classes_are_repeated_where_that_costs_nothing(tmp_path: Path, kind: str, balance: str, longer: bool) -> None:
    x, y = samples(160)
    rare = (y != 3) | (np.arange(160) < 32)
    with board(tmp_path / "d", grafted(), update__kind=kind, train__balance=balance) as b:
        b.spool.extend("m", x[rare], y[rare])
        b.agent.run(Goal(rounds=1, timeout=6000))
        (report,) = b.agent.reports
        assert report.accepted and report.kind == kind
        single = 4 * -(-report.outcome.samples // 8)
        assert report.outcome.steps > single if longer else report.outcome.steps == single
        assert b.centre.held("pi-7", "m")[1].level is Level.VERIFIED


@pytest.mark.slow("its round starts a process that computes features")
def test_an_agent_in_this_mode_never_loads_a_runtime(tmp_path: Path) -> None:
    before = {name for name in sys.modules if "litert" in name or "tflite_runtime" in name}
    for name in before:
        sys.modules[name + " away"] = sys.modules.pop(name)
    try:
        with board(tmp_path / "d", grafted()) as b:
            b.spool.extend("m", *samples(40))
            b.agent.run(Goal(rounds=1, timeout=6000))
        assert not [name for name in sys.modules if name.split(".")[0] in ("ai_edge_litert", "tflite_runtime") and "away" not in name]
    finally:
        for name in before:
            sys.modules[name] = sys.modules.pop(name + " away")


@pytest.mark.slow("its round starts a process that computes features")
def test_the_guards_score_is_that_of_the_interpreter(tmp_path: Path) -> None:
    """The exact head on float16 features against the served file's own `eval`."""
    with board(tmp_path / "d", grafted()) as b:
        b.spool.extend("m", *samples(80))
        b.agent.run(Goal(rounds=2, timeout=6000))
        after = b.agent.reports[-1].outcome.after
        _, judging = b.spool.split("m", 0.2, until=80)
        model = b.models(b.lineage.load().file, "m")
        from edgeagent.training import guard

        whole = guard.measure(model, judging)
        assert after is not None and abs(whole.loss - after.loss) < 1e-3 and whole.accuracy == after.accuracy


@pytest.mark.slow("its round starts a process that computes features")
def test_features_are_computed_once_and_go_with_their_sample(tmp_path: Path) -> None:
    with board(tmp_path / "d", grafted()) as b:
        first = b.spool.extend("m", *samples(40))
        b.agent.run(Goal(rounds=1, timeout=6000))

        def kept() -> list[int]:
            return [r["sample"] for r in b.spool.database.all("SELECT sample FROM feature ORDER BY sample")]

        assert kept() == first
        b.spool.database.run("UPDATE feature SET row=zeroblob(length(row)) WHERE sample=?", first[0])  # to see whether it is computed again
        more = b.spool.extend("m", *samples(8, seed=1))
        b.agent.run(Goal(rounds=2, timeout=6000))
        assert kept() == first + more
        assert not any(b.spool.database.one("SELECT row FROM feature WHERE sample=?", first[0])["row"])
        b.spool.drop("m", first[:5])
        assert kept() == first[5:] + more


@pytest.mark.slow("its round starts a process that computes features")
def test_features_of_another_base_or_runtime_are_dropped(tmp_path: Path) -> None:
    with board(tmp_path / "d", grafted()) as b:
        ids = np.array(b.spool.extend("m", *samples(40)))
        b.agent.run(Goal(rounds=1, timeout=6000))
        known = b.models.extractors.known["m"]
        as_it_was = {"base": b.lineage.base_commit, "runtime": known.runtime_key, "width": known.output_head.widths[0]}
        assert Features(b.spool, "m", **as_it_was).missing(ids) == []
        for other in ({"base": bytes(32)}, {"runtime": "another 1"}, {"width": 3}):
            assert len(Features(b.spool, "m", **{**as_it_was, **other}).missing(ids)) == 40
            with pytest.raises(KeyError):
                Features(b.spool, "m", **as_it_was).rows(ids)


@pytest.mark.slow("trains a real net")
def test_a_head_whose_front_was_trained_is_refused_by_name(tmp_path: Path) -> None:
    file = grafted("har", "all", ("head",))
    with board(tmp_path / "d", file, train__mode="all", train__learning_rate="0.05", update__density="0.5") as b:
        b.spool.extend("m", *samples(40))
        b.agent.run(Goal(rounds=1, timeout=6000))
        settings = b.device.settings.model("m")
        settings = replace(settings, train=replace(settings.train, mode=FEATURES))
        with pytest.raises(NotTrainable, match=r"in front of the head has moved from the base: train\.mode = head"):
            list(rounds.run(standing(b.device, b.models, "m", settings=settings, extractors=b.models.extractors)))
        assert b.lineage.head().version == 1


@pytest.mark.slow("its round starts a process that computes features")
def test_a_file_of_several_modes_trains_its_head_on_features_while_the_rest_is_the_bases(tmp_path: Path) -> None:
    file = grafted("har", "all", ("head",))
    with board(tmp_path / "d", file) as b:
        b.spool.extend("m", *samples(40))
        b.agent.run(Goal(rounds=1, timeout=6000))
        moved = {n for n, w in read_weights(b.lineage.load().file).items() if (w != read_weights(file)[n]).any()}
        assert moved == set(notes_of(file).modes[0].weights)


def test_a_file_without_a_head_on_features_is_refused(tmp_path: Path) -> None:
    file = grafted("autoencoder", "all", loss="mse")
    with board(tmp_path / "d", file) as b:
        with pytest.raises(NotTrainable, match="no head"):
            b.models.extractors.runtime_key(base_of(b.lineage))
        with pytest.raises(NotTrainable, match="no head"):
            featured_notes(b.lineage.store.folder / "base.tflite", "m")


class Wrong:
    """A base that answers something else than its head on its features would."""

    model, batch, runtime_key = "m", 8, "wrong"

    def __init__(self, by: float) -> None:
        self.by = by

    def features(self, x: F32) -> F32:
        return np.abs(x.reshape(-1)[:64])

    def answer(self, x: F32) -> F32:
        return place_answer(self.features(x)) + np.float32(self.by)


def place_answer(features: F32) -> F32:
    place, base = _place()
    z = features @ base[place.notes.layers[0][0]].reshape(4, -1).T + base[place.notes.layers[0][1]]
    return np.asarray(place.finished(z[None])[0], np.float32)


def _place() -> tuple[Any, Any]:
    file = grafted()
    schema, flat = read_tensors(file)
    head = notes_of(file).head
    assert head is not None
    return output_head_of(head, schema), schema.shaped(flat)


@pytest.mark.parametrize(("by", "refused"), [(0.0, False), (5e-5, False), (2e-4, True), (float("nan"), True)])
def test_a_head_that_does_not_answer_as_its_model_is_refused(by: float, refused: bool) -> None:
    place, base = _place()
    x, _ = samples(8)
    if refused:
        with pytest.raises(NotTrainable, match="apart from the model on 8 samples"):
            agreeing(place, Wrong(by), base, x)  # type: ignore[arg-type]
    else:
        assert agreeing(place, Wrong(by), base, x) == place  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_features_that_float16_can_not_hold_are_refused(value: float) -> None:
    with pytest.raises(NotTrainable, match="no number that float16 has"):
        half(np.array([1.0, value], np.float32), model="m")


def test_a_course_that_is_taken_up_goes_on_with_the_same_bits() -> None:
    place, base = _place()
    rng = np.random.default_rng(5)
    features = rng.standard_normal((50, place.widths[0])).astype(np.float16)
    y = np.eye(4, dtype=np.float32)[rng.integers(4, size=50)]
    rows = rows_for(features, y, labelled=True, loss="softmax", model="m")
    for optimizer in ("sgd", "momentum", "adam"):
        recipe = place.recipe(rows=50, batch=8, epochs=6, rate=0.01, optimizer=optimizer, seed=9)
        whole, cut, later = (ExactCourse(place, recipe, rows, base) for _ in range(3))
        whole._slice, cut._slice = recipe.steps, 3
        whole.step()
        for _ in range(4):
            cut.step()
        kept = {name: a.copy() for name, a in cut.keep().items()}
        cut.step()  # lost by a kill
        later.restore(kept)
        later._slice = 5
        while later.done < later.steps:
            later.step()
        assert all(later.trained()[name].tobytes() == w.tobytes() for name, w in whole.trained().items())
        with pytest.raises(Malformed):
            later.restore({**kept, "step": np.array([recipe.steps + 1], np.int64)})
        with pytest.raises(Malformed):
            later.restore({"head": kept["head"]})


@pytest.mark.slow("its round starts a process that computes features")
def test_a_process_that_fails_ends_in_an_error_that_says_so(tmp_path: Path) -> None:
    with board(tmp_path / "d", grafted()) as b:
        gone = Extraction(tmp_path / "nowhere", "m", base=bytes(32), file=b.lineage.store.base_file, until=0)
        with pytest.raises(Exception, match="nowhere"):
            for _ in gone.result():
                pass
        (b.lineage.store.folder / "base.tflite").write_bytes(b"no model at all")
        state, file = b.device.database.path.parent, b.lineage.store.base_file
        broken = Extraction(state, "m", base=bytes(32), file=file, until=0)
        with pytest.raises(NotTrainable, match="the process that computes them ended with 1"):
            for _ in broken.result():
                pass


@pytest.mark.slow("its round starts a process that computes features")
def test_the_process_that_computes_features_takes_its_share_of_the_processor(tmp_path: Path) -> None:
    def busy(share: float) -> float:
        began, taken = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        state, base, file = b.device.database.path.parent, b.lineage.base_commit, b.lineage.store.base_file
        for _ in Extraction(state, "m", base=base, file=file, until=300, share=share).result():
            pass
        b.spool.database.run("DELETE FROM feature")
        return (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - taken) / (time.monotonic() - began)

    with board(tmp_path / "d", grafted("mobilenet")) as b:
        b.spool.extend("m", *samples(300, shape=(96, 96, 3)))
        assert busy(0.1) < 0.25, "loading the runtime included"


@pytest.mark.slow("its round starts a process that computes features")
def test_a_model_that_can_not_be_trained_waits_and_the_others_train(tmp_path: Path) -> None:
    file = grafted()
    make_with(tmp_path, {**SETTINGS, "train.min_new_samples": "8"}, {"m": file, "other": file})
    with board(tmp_path, file) as b:
        x, y = samples(40)
        b.spool.extend("m", x * np.float32(1e30), y)
        b.spool.extend("other", x, y)
        b.centre.after(200, lambda: b.agent.stop("test"))
        b.agent.run(Goal())
        assert b.device.lineages["other"].head().version == 1 and b.lineage.head().rounds == 0
        with pytest.raises(NotTrainable, match="float16"):
            finish(round_of(b))
    with board(tmp_path, file) as b, pytest.raises(NotTrainable):
        b.agent.run(Goal(rounds=1, timeout=600))


# Recipes.


@pytest.mark.slow("its round starts a process that computes features")
def test_a_round_is_sent_as_its_recipe_and_replayed_to_the_same_root(tmp_path: Path) -> None:
    with board(tmp_path / "d", grafted(), update__kind="recipe") as b:
        ids = b.spool.extend("m", *samples(80))
        parent = b.lineage.load().state
        b.agent.run(Goal(rounds=1, timeout=6000))
        held = b.centre.held("pi-7", "m")[1]
        assert held.level is Level.VERIFIED and held.header.kind is Kind.RECIPE
        now = b.lineage.load()
        assert all(not r.any() for r in now.residual), "a recipe leaves no residual"
        report = b.agent.reports[0]
        assert (report.kind, report.note) == ("recipe", "") and report.outcome.after.loss < report.outcome.before.loss
        sent = next(said for _, said in b.centre.up if isinstance(said, container.Container))
        recipe = sent.recipe()
        assert replay(parent, recipe).root == now.state.root
        rows = ids_of(sent.header.extension, len(recipe.rows))
        assert rows is not None and set(rows) < set(ids) and len(rows) == report.outcome.samples
        b.agent.run(Goal(rounds=4, timeout=6000))
        assert [b.centre.held("pi-7", "m")[n].level for n in range(1, 5)] == [Level.VERIFIED] * 4


@pytest.mark.slow("its round starts a process that computes features")
@pytest.mark.parametrize("kind", ["recipe", "delta"])
def test_a_round_on_features_goes_on_after_any_step_and_a_full_spool_with_the_same_bits(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_course, "SLICE_WORK", 1 << 15)
    roots = []
    for name in ("whole", "parts"):
        with board(tmp_path / name, grafted(), update__kind=kind, train__epochs="400", spool__max_samples="80") as b:
            b.agent.run(Goal(publish=True, timeout=60))
            b.spool.extend("m", *samples(80))
        for more in (3, 1, 2) if name == "parts" else ():
            with board(tmp_path / name, grafted()) as b:
                steps = round_of(b)
                while next(steps).steps == 0:
                    pass
                for _ in range(more):
                    next(steps)
                steps.close()
                assert b.lineage.journal.exists()
                b.spool.extend("m", *samples(50, seed=more))
        with board(tmp_path / name, grafted()) as b:
            report = finish(round_of(b))
            assert report.accepted and report.kind == kind, report
            roots.append(b.lineage.load().state.root)
            assert b.spool.database.one("SELECT count(*) FROM sample")[0] == b.spool.count("m") == 80
            assert b.spool.database.one("SELECT count(*) FROM feature")[0] <= 80
    assert roots[0] == roots[1]


@pytest.mark.slow("its round starts a process that computes features")
def test_a_recipe_is_never_taken_up_as_a_delta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_course, "SLICE_WORK", 1 << 15)
    with board(tmp_path / "d", grafted(), update__kind="recipe", train__epochs="400") as b:
        b.agent.run(Goal(publish=True, timeout=60))
        b.spool.extend("m", *samples(80))
        steps = round_of(b)
        while next(steps).done < 200:
            pass
        steps.close()
        monkeypatch.setattr(RecipeCourse, "against", lambda *_: "its card grew by a byte")
        steps = round_of(b)
        while (at := next(steps)).steps == 0:
            pass
        assert 0 < at.done < 100, "it began anew"
        steps.close()


def round_of(b: Board) -> rounds.Round:
    return rounds.run(standing(b.device, b.models, "m", extractors=b.models.extractors))


@pytest.mark.slow("its round starts a process that computes features")
def test_a_rejected_recipe_leaves_all_as_it_was(tmp_path: Path) -> None:
    with board(tmp_path / "d", grafted(), update__kind="recipe", train__margin="0", train__learning_rate="30") as b:
        b.spool.extend("m", *samples(80))
        before = b.lineage.load()
        b.agent.run(Goal(rounds=2, timeout=6000))
        assert [r.accepted for r in b.agent.reports] == [False, False]
        after = b.lineage.load()
        assert after.file == before.file and after.state.fingerprint == before.state.fingerprint
        assert b.lineage.head().version == 0


@pytest.mark.slow("its round starts a process that computes features")
@pytest.mark.parametrize("bytes_", ["1500", "64KiB"])
def test_a_recipe_that_takes_too_much_becomes_a_delta_and_says_so(tmp_path: Path, bytes_: str) -> None:
    with board(tmp_path / "d", grafted(), update__kind="recipe", update__max_bytes=bytes_) as b:
        b.spool.extend("m", *samples(80))
        b.agent.run(Goal(rounds=1, timeout=6000))
        report = b.agent.reports[0]
        if bytes_ == "1500":
            assert report.kind == "delta" and "rows take" in report.note and report.bytes <= 1500
            assert "rows take" in b.lineage.versions()[0]["reason"]
        else:
            assert report.kind == "recipe"


@pytest.mark.slow("its round starts a process that computes features")
def test_a_training_longer_than_a_centre_replays_becomes_a_delta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelwire import limits

    with board(tmp_path / "d", grafted(), update__kind="recipe") as b:
        b.spool.extend("m", *samples(80))
        monkeypatch.setattr(limits, "DEFAULT", replace(limits.DEFAULT, training=1000))
        b.agent.run(Goal(rounds=1, timeout=6000))
        assert b.agent.reports[0].kind == "delta" and "longer than a centre replays" in b.agent.reports[0].note


def test_another_mode_sends_deltas_and_says_why(tmp_path: Path) -> None:
    with board(tmp_path / "d", grafted(), update__kind="recipe", train__mode="head") as b:
        b.spool.extend("m", *samples(40))
        b.agent.run(Goal(rounds=1, timeout=6000))
        assert b.agent.reports[0].kind == "delta" and "only mode features" in b.agent.reports[0].note


# Chosen by the budget.


@pytest.mark.slow("its round starts a process that computes features")
def test_auto_takes_kept_features_where_nothing_deeper_fits_and_opens_no_model(tmp_path: Path) -> None:
    with board(tmp_path / "d", grafted("har", "all", ("head",)), train__mode="auto", budget__max_ram="1GiB") as b:
        b.spool.extend("m", *samples(60))
        key = b.models.extractors.runtime_key(base_of(b.lineage))
        b.lineage.set_runtime(key)
        for mode, mib in (("features", 1), ("head", 3000), ("all", 4000)):
            b.lineage.costs.note(key, mode, Cost(0.001, mib << 20, 0), 0)
        b.agent.run(Goal(rounds=1, timeout=6000))
        assert [r.outcome.mode for r in b.agent.reports] == [FEATURES] and b.agent.reports[0].accepted
        assert b.models.most == 0, "no process with a runtime was started to open the model"


@pytest.mark.slow("its round starts a process that computes features")
def test_where_not_even_kept_features_fit_that_is_said_and_no_model_is_opened(tmp_path: Path) -> None:
    with board(tmp_path / "d", grafted("har", "all", ("head",)), train__mode="auto", budget__max_ram="1GiB") as b:
        b.spool.extend("m", *samples(60))
        key = b.models.extractors.runtime_key(base_of(b.lineage))
        b.lineage.set_runtime(key)
        for mode, mib in (("features", 2000), ("head", 3000), ("all", 4000)):
            b.lineage.costs.note(key, mode, Cost(0.001, mib << 20, 0), 0)
        with pytest.raises(NoModeFits, match=r"all would take.*head would take.*features would take"):
            finish(rounds.run(standing(b.device, b.models, "m", extractors=b.models.extractors)))
        assert b.models.most == 0, "no process with a runtime was started to open the model"


@pytest.mark.slow("its round starts a process that computes features")
def test_measuring_knows_the_mode_and_what_one_of_its_short_steps_takes(tmp_path: Path) -> None:
    with board(tmp_path / "d", grafted()) as b:
        b.spool.extend("m", *samples(60))
        assert measuring.modes(b.lineage) == [FEATURES, "head"]
        cost = one_mode.cost_of(standing(b.device, b.models, "m", extractors=b.models.extractors), FEATURES)
        assert 0 < cost.seconds < 0.001
