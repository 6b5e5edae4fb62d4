"""The matrix says what was scored, what was not and how old it is; scoring is interruptible, and goes on beside an ingester."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgecloud
from edgecloud.feasibility import asking, evaluating, fitness, matrix
from edgecloud.feasibility.lazily import ScoringThread
from edgecloud.probes import sets
from edgecloud.registry import EvaluationRow, SqliteStore, open_registry
from edgecommon.runtime import load
from modelwire.errors import BadArgument, Unfit
from tests.edgecloud.centre import sign
from tests.edgecloud.desk import Desk
from tests.edgecloud.feasibility.liars import LIAR, PROBES, Car, planted
from tests.edgecloud.hearing import until
from tests.edgecloud.intake.test_service import QUICK, Running
from tests.edgecloud.memory import MemoryBroker


@pytest.mark.slow("rebuilds and scores thirteen models, and asks seven commands about them", seconds=8)
def test_commands_show_the_matrix_and_who_is_unfit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    store = planted(tmp_path)
    car = Car(store)
    car.send(list(car.base.weights), accuracy_after=0.5)
    car.send(car.wrong(), accuracy_after=0.99)
    store.close()
    monkeypatch.chdir(tmp_path)
    desk, name = Desk(tmp_path, capsys), f"{LIAR}/digits"
    assert "0 of 13 versions" in desk.ok("matrix") and "13 versions are not scored yet" in desk.ok("matrix")
    refused = desk.error("materialise", name, "--fit-only", "-o", "a.tflite")
    assert refused["error"] == "Unfit" and "--update" in str(refused["hint"])
    text = desk.ok("matrix", "--update")
    assert f"{LIAR}@2" in text and "unfit: it says accuracy 0.990" in text
    with monkeypatch.context() as terminal:
        terminal.setattr("edgecloud.commands.comparing.matrix.terminal_width", lambda: 80)
        lines = desk.ok("matrix").splitlines()[:19]
    assert max(map(len, lines)) <= 80 and lines[18] == "2 more contexts: | less -S shows all columns"
    assert lines[3].split()[:2] == ["rows", "360"]  # how many each score is of
    said = desk.json("matrix")
    assert (said["missing"], said["failed"], said["others"], said["measure"]) == (0, 0, 0, "accuracy")
    models = {row["name"]: row for row in said["models"]}  # type: ignore[attr-defined]
    assert models[f"{name}@2"]["unfit"] and not any(row["unfit"] for key, row in models.items() if LIAR not in key)
    assert [row["name"] for row in said["bases"]] == ["base digits"]  # type: ignore[attr-defined]
    assert "@2 is unfit" in desk.ok("devices", "list")
    assert all("unfit: it says" in desk.ok(command, of) for command, of in (("log", name), ("show", f"{name}@2"), ("show", LIAR)))
    assert f"materialise {name}@base" in str(desk.error("materialise", name, "--fit-only", "-o", "a.tflite")["hint"])
    desk.ok("matrix", "--versions", "all", "--update")
    assert f"{name}@1 --fit-only" in str(desk.error("materialise", name, "--fit-only", "-o", "a.tflite")["hint"])
    desk.ok("materialise", f"{name}@1", "--fit-only", "-o", "fit.tflite")
    desk.ok("materialise", f"{name}@2", "-o", "bits.tflite")  # it stays that device's exact bits
    desk.ok("materialise", f"{name}@base", "--fit-only", "-o", "base.tflite")
    with edgecloud.open(tmp_path / "fleet.db") as fleet:
        assert fleet.find(f"{name}@2").unfit.startswith("unfit: it says")
        assert fleet.find(f"{name}@1").unfit == fleet.find(f"{name}@base").unfit == ""
    assert "label=9" in str(desk.json("matrix", "--labels")["contexts"])
    desk.ok("probes", "remove", PROBES)
    assert desk.error("matrix")["error"] == "BadArgument" and "unfit" not in desk.ok("log", name)


def test_scores_are_those_of_the_interpreter_in_every_context(tmp_path: Path) -> None:
    store = planted(tmp_path, rows=20)
    probe = store.probes.all()[0]
    rows, (_, head) = sets.load(store, probe), evaluating.heads(store, "digits")[0]
    evaluating.evaluate(store, probe, [head])
    with edgecloud.open(tmp_path / "fleet.db") as fleet:
        file = fleet.find(next(f"{line}@{head.version}" for line in store.lineages.all() if line.id == head.lineage)).file()
    right = load().open(file, model="digits").evaluate(rows.x).argmax(1) == rows.y
    scored = store.evaluations.matrix(probe.digest, [head.id])[head.id]
    assert len(scored) >= 1 + 9 + 10
    for context, row in scored.items():
        if context == fitness.OWN:
            continue
        chosen = np.flatnonzero(rows.y == int(context[6:])) if context.startswith("label=") else rows.rows(context)
        assert (row.n, row.right, row.broken) == (len(chosen), int(right[chosen].sum()), 0), context
    store.close()


def test_what_was_scored_before_an_interruption_is_kept(tmp_path: Path) -> None:
    store = planted(tmp_path, rows=4)
    probe, found = store.probes.all()[0], matrix.build(store, "digits", store.probes.all()[0])
    assert len(found.missing) == len(found.rows) == 2 * 6 and np.isnan(found.values()).all() and matrix.summarise(found) == []

    def interrupted(done: int, total: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluating.evaluate(store, probe, found.missing, progress=interrupted, at_once=3)
    found = matrix.build(store, "digits", probe)
    assert len(found.missing) == 6 and np.isfinite(found.values()[:, 0]).sum() == 6
    assert evaluating.evaluate(store, probe, found.missing, stopping=lambda: True).versions == 0
    store.close()


def test_a_model_or_a_set_that_is_not_named_must_be_the_only_one(tmp_path: Path) -> None:
    store = planted(tmp_path, rows=4)
    assert matrix.choose(store, None, None)[1].name == PROBES
    for model, on in ((None, "none"), ("other", None)):
        with pytest.raises(BadArgument):
            matrix.choose(store, model, on)
    rows = sets.load(store, store.probes.all()[0])
    sets.add(store, "bare", sets.probe_set(rows.x), now=1)
    lineage, head = evaluating.heads(store, "digits")[0]
    with pytest.raises(Unfit) as unscored:  # of several sets it names one that can score it
        fitness.require_fit(store, lineage, head)
    assert f"edgecloud matrix --model digits --on {PROBES} --versions all --update" in unscored.value.next_step
    with pytest.raises(BadArgument, match="several probe sets"):
        matrix.choose(store, "digits", None)
    with pytest.raises(BadArgument, match="no labels"):
        evaluating.evaluate(store, matrix.choose(store, None, "bare")[1], [])
    with pytest.raises(BadArgument, match="no labels"):
        matrix.build(store, "digits", matrix.choose(store, None, "bare")[1])
    store.probes.remove(matrix.choose(store, None, PROBES)[1], 2)
    with pytest.raises(Unfit, match="none with labels fits it"):
        fitness.require_fit(store, lineage, head)
    store.close()


def test_a_large_fleet_is_summed_up_and_who_stands_out_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    store = planted(tmp_path, rows=100)
    probe, (heads, every) = store.probes.all()[0], (evaluating.heads(store, "digits"), evaluating.everything(store, "digits"))
    evaluating.evaluate(store, probe, [row for _, row in heads[:1]])
    first = [one for one in store.evaluations.of(heads[0][1].id, probe.digest) if one.context != fitness.OWN]
    for place, (_, row) in enumerate(every):
        part = 8 if place == 3 else 1
        store.evaluations.put([replace(one, subject=row.id, right=(one.right or 0) // part) for one in first])
    found = matrix.build(store, "digits", probe, "all")
    assert [one[0].name for one in matrix.outstanding(found)] == [found.rows[3].name]
    summary = matrix.summarise(found)
    assert summary[0].worst == found.rows[3].name and summary[0].models == 24 and summary[0].best_score == summary[0].median
    store.close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgecloud.commands.comparing.matrix.ROWS_SHOWN", 10)
    text = Desk(tmp_path, capsys).ok("matrix", "--versions", "all")
    assert "1 stand out" in text and "10 to 90" in text and len(text.splitlines()) < 24


def scoring(store: SqliteStore, until: Callable[[], bool]) -> None:
    """Score beside, until that is so."""
    stopped = False
    thread = ScoringThread(store.database.path, lambda: open_registry(store.database.path), lambda: stopped, share=1.0, rest=0.05)
    thread.start()
    try:
        while not until() or thread.pid is not None:  # it ends its process when nothing is left
            time.sleep(0.05)
    finally:
        stopped = True
        thread.join()


@pytest.mark.slow("starts a process that scores a fleet", seconds=5)
def test_new_versions_are_scored_beside_and_older_ones_are_left(tmp_path: Path) -> None:
    store = planted(tmp_path, rows=4)
    heads = [row.id for _, row in evaluating.heads(store, "digits")]
    digest = store.probes.all()[0].digest
    scoring(store, lambda: not store.evaluations.missing(digest, heads))
    every = [row.id for _, row in evaluating.everything(store, "digits")]
    assert len(store.evaluations.missing(digest, every)) == len(every) - len(heads) == 12  # from before the set was added
    car = Car(store)
    for accuracy in (0.5, 0.6):
        car.send(list(car.base.weights), accuracy_after=accuracy)
    new = [row.id for row in store.versions.of(store.lineages.of(LIAR)[0].id)]
    due = asking.DueVersions(store).next()
    assert due is not None and due.ids == (new[1],)  # the newest of each model first
    scoring(store, lambda: not store.evaluations.missing(digest, new))
    store.close()


def test_a_set_that_is_removed_and_added_again_is_scored_again_and_so_is_one_of_another_model_with_the_same_rows(tmp_path: Path) -> None:
    store = planted(tmp_path, rows=4)
    first, heads = store.probes.all()[0], [row for _, row in evaluating.heads(store, "digits")]
    rows, due = sets.load(store, first), asking.DueVersions(store)
    for probe in (first, None):
        if probe is None:
            store.probes.remove(first, 3_000)
            probe = sets.add(store, "again", rows, now=3_000)
            assert probe.digest == first.digest
        found = due.next()
        assert found is not None and found.probe == probe and len(found.ids) == asking.AT_ONCE
        store.evaluations.put([EvaluationRow(row.id, probe.digest, fitness.ALL, 24, 20, None, None, 0, 1.0, 1) for row in heads])
        assert due.next() is None
    store.evaluations.drop(first.digest)
    other = sets.add(store, "twin", rows, model="digits", now=3_000)
    found = due.next()
    assert found is not None and found.probe == other
    store.close()


@pytest.mark.slow("an ingester starts a process that scores a fleet", seconds=4)
def test_an_ingester_scores_beside_its_work_when_it_has_a_share(tmp_path: Path) -> None:
    store = planted(tmp_path, rows=4)
    heads, digest = [row.id for _, row in evaluating.heads(store, "digits")], store.probes.all()[0].digest
    sign(store)
    running = Running(store.database.path, MemoryBroker(), pace=replace(QUICK, evaluate=1.0)).start()
    until(lambda: running.error is not None or not store.evaluations.missing(digest, heads))
    assert running.stop().error is None
    store.close()


@pytest.mark.slow("starts a process that is ended, three times", seconds=6)
def test_a_version_that_ends_the_process_is_kept_with_that_fault_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    store = planted(tmp_path, rows=4)
    heads = [row.id for _, row in evaluating.heads(store, "digits")]
    monkeypatch.setattr(asking, "CHILD", "tests.edgecloud.feasibility.crashing")
    monkeypatch.setenv("CRASHES", str(heads[4]))
    digest = store.probes.all()[0].digest
    scoring(store, lambda: not store.evaluations.missing(digest, heads))
    faults = {id: store.evaluations.of(id)[0].fault for id in heads}
    assert [id for id, fault in faults.items() if fault] == [heads[4]] and "its process ended" in faults[heads[4]]
    assert fitness.unscored(store, heads) == [heads[4]] and fitness.unfit(store, heads) == {}
    assert [row.id for row in matrix.build(store, "digits", store.probes.all()[0]).failed] == [heads[4]]
    store.close()
