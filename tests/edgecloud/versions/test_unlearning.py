"""replay and forget: a recipe trained again is the version, and without a sample it is what training without it gives, bit for bit."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from edgecloud.versions import materialise, naming, replaying, unlearning
from modelwire.errors import BadArgument, Malformed, TooLarge
from modelwire.lattice.between import difference
from modelwire.lattice.rebuild import rebuild
from modelwire.lattice.replay import layers_before, update_of
from modelwire.lattice.state import ModelState
from modelwire.limits import MIB
from modelwire.output_head.forgotten import KEY, Forgotten
from modelwire.output_head.rows import Rows
from modelwire.output_head.trainer import advance, start_of
from modelwire.output_head_settings import Loss
from modelwire.update.container import parse_unsigned
from modelwire.update.sections import Kind, Sections
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import Base, ScriptedDevice, recipe_on
from tests.edgecloud.rounds import ROUNDS, Round, never_seen


def grown(centre: Centre, device: ScriptedDevice, rounds: Sequence[Round], *, named: bool = True) -> None:
    for ids, settings in rounds:
        centre.deliver(device, device.learn(ids, named=named, **settings))
    assert all(one.ok for one in centre.rebuild())


def unlearned(centre: Centre, name: str, rows: Sequence[int]) -> unlearning.Unlearned:
    place = naming.find(centre.store, naming.parse(name))
    return unlearning.unlearn(centre.store, place, rows, materialise.LoadedBases(centre.store))


def test_a_sample_goes_from_every_recipe_that_had_it(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    grown(centre, device, ROUNDS)
    found = unlearned(centre, "pi-7@2", [2, 3, 24])  # samples 110, 111 and 132
    assert found.without == Forgotten((110, 111, 132))
    assert [(d.version, d.rows) for d in found.dropped] == [(1, 2), (2, 3), (3, 1), (4, 3)]
    assert found.state.root == never_seen(base, ROUNDS, [110, 111, 132]).root != found.head.root == device.state.root
    assert found.state.fingerprint == found.state.measure_fingerprint()
    for n in (100, 125, 149):
        version = next(k for k, (ids, _) in enumerate(ROUNDS, 1) if n in ids)
        row = list(ROUNDS[version - 1][0]).index(n)
        assert unlearned(centre, f"pi-7@{version}", [row]).state.root == never_seen(base, ROUNDS, [n]).root


def test_all_samples_of_a_round_forgotten_is_as_if_the_round_never_was(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    rounds: list[Round] = [(range(20), {}), (range(20, 40), {"seed": 8}), (range(40, 60), {"seed": 9})]
    grown(centre, device, rounds)
    found = unlearned(centre, "pi-7@2", range(20))
    assert found.state.root == never_seen(base, [rounds[0], rounds[2]], []).root


def test_rows_without_names_go_from_their_version_alone_and_the_rest_is_trained_on_what_that_gives(
    centre: Centre, device: ScriptedDevice, base: Base
) -> None:
    grown(centre, device, ROUNDS, named=False)
    found = unlearned(centre, "pi-7@2", [0, 5])
    assert found.without == Forgotten(version=2, rows=(0, 5)) and [(d.version, d.rows) for d in found.dropped] == [(2, 2)]
    assert found.nameless == (2, 3, 4)
    rest: list[Round] = [ROUNDS[0], ([i for i in ROUNDS[1][0] if i not in (108, 113)], ROUNDS[1][1]), *ROUNDS[2:]]
    assert found.state.root == never_seen(base, rest, []).root


def test_the_counterfactual_of_one_version_looks_at_no_other(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    grown(centre, device, ROUNDS[:1])
    centre.deliver(device, device.train(), device.learn(range(105, 130)), device.train())
    assert all(one.ok for one in centre.rebuild())
    place = naming.find(centre.store, naming.parse("pi-7@3"))
    bases = materialise.LoadedBases(centre.store)
    found = unlearning.at_version(centre.store, place, [1, 2], bases)
    two = centre.store.versions.numbered(place.lineage.id, 2)
    assert two is not None
    expected = materialise.rebuild(centre.store, two, bases)
    expected.apply(Kind.DELTA, update_of(expected, recipe_on(base, [i for i in range(105, 130) if i not in (106, 107)])))
    assert found.state.root == expected.root and str(found.place) == "pi-7/digits@3"


def test_what_was_learned_by_a_delta_is_not_unlearned_and_the_error_names_it(centre: Centre, device: ScriptedDevice) -> None:
    grown(centre, device, ROUNDS[:1])
    centre.deliver(device, device.train(), device.learn(range(200, 220)))
    centre.rebuild()
    with pytest.raises(BadArgument, match="pi-7/digits@2 is a delta"):
        unlearned(centre, "pi-7@1", [3])
    assert [d.version for d in unlearned(centre, "pi-7@3", [3]).dropped] == [3]  # the delta is older than the sample


def test_a_snapshot_that_was_only_asked_for_is_no_obstacle_and_one_that_moved_the_model_is(
    centre: Centre, device: ScriptedDevice, base: Base
) -> None:
    grown(centre, device, ROUNDS[:2])
    centre.deliver(device, device.snapshot(), device.learn(*ROUNDS[2][:1], **ROUNDS[2][1]))
    assert all(one.ok for one in centre.rebuild())
    assert unlearned(centre, "pi-7@1", [4]).state.root == never_seen(base, ROUNDS[:3], [104]).root
    device.state.apply(Kind.DELTA, update_of(device.state, recipe_on(base, range(9))))
    centre.deliver(device, device.snapshot())
    assert all(one.ok for one in centre.rebuild())
    with pytest.raises(BadArgument, match="pi-7/digits@5 is a snapshot"):
        unlearned(centre, "pi-7@1", [4])


def test_a_snapshot_that_changes_units_alone_is_an_obstacle(centre: Centre, device: ScriptedDevice) -> None:
    """Later recipes snap to the new units, so the versions before it are not all that they stand on."""
    grown(centre, device, [(range(10), {"rate": 0.0}), (range(10, 30), {"rate": 0.0})])
    device.state.exponents = [e + 3 for e in device.state.exponents]
    centre.deliver(device, device.snapshot(), device.learn(range(20, 40)))
    assert all(one.ok for one in centre.rebuild())
    versions = centre.store.versions.of(1)
    assert versions[0].root == versions[1].root != versions[2].root != versions[3].root  # a root binds the units, too
    with pytest.raises(BadArgument, match="pi-7/digits@3 is a snapshot"):
        unlearned(centre, "pi-7@1", [4])


def take_over(device: ScriptedDevice, data: bytes) -> None:
    """Do what a device does that is asked to adopt."""
    found = parse_unsigned(data)
    assert found.header.parent == device.head
    device.state = rebuild(device.state, found)


def test_what_is_sent_leads_from_the_head_to_the_unlearned_model_and_can_be_forgotten_on_again(
    centre: Centre, device: ScriptedDevice, base: Base
) -> None:
    grown(centre, device, ROUNDS)
    gone: list[int] = []
    rounds = list(ROUNDS)
    for version, row in ((1, 12), (4, 3), (3, 1)):  # samples 112, 113 and 131
        ids = list(ROUNDS[version - 1][0])
        found = unlearned(centre, f"pi-7@{version}", [row])
        gone.append(ids[row])
        assert found.state.root == never_seen(base, rounds, gone).root
        data = unlearning.update_for(found)
        assert len(data) < 1000
        take_over(device, data)
        sections = parse_unsigned(data).sections(base.manifest.schema)
        centre.deliver(device, device.seal(Kind.DELTA, sections, extension={"note": "forgot", KEY: found.without.encode()}))
        more = (range(300 + row, 310 + row), {"seed": row})
        grown(centre, device, [more])
        rounds.append(more)
    again = unlearned(centre, "pi-7@1", [12])
    assert again.state.root == again.head.root
    with pytest.raises(BadArgument, match="already"):
        unlearning.update_for(again)


def test_a_delta_that_only_says_that_it_forgot_is_believed_when_replaying_gives_it(centre: Centre, device: ScriptedDevice) -> None:
    grown(centre, device, ROUNDS[:2])
    lie = device.train(extension={KEY: Forgotten((112,)).encode()})
    centre.deliver(device, lie)
    assert all(one.ok for one in centre.rebuild())
    with pytest.raises(BadArgument, match="says that it forgot 1 samples"):
        unlearned(centre, "pi-7@1", [3])


@pytest.mark.slow("replays one lineage after another")
@examples(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_whatever_the_history_what_is_unlearned_is_a_fresh_training_without_it_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, base: Base, data: st.DataObject
) -> None:
    """Recipes, deltas, snapshots that were asked for and forgettings in any order; the device drops what it forgot from later rounds."""
    centre = Centre(make_registry(tmp_path_factory.mktemp("chain") / "fleet.db", base))
    device = centre.meet(ScriptedDevice(base, seed=data.draw(st.integers(0, 9))))
    line: list[Round | Sections] = []  # what moved the model, in order: rounds, and deltas as they were
    versions: dict[int, list[int]] = {}  # recipes by version: the samples of their rows
    last_delta, gone = -1, set[int]()

    def fresh(without: set[int]) -> ModelState:
        state = ModelState.of_base(base.manifest, base.weights)
        for one in line:
            ids, settings = one if isinstance(one[0], list) else ([], {})
            rest = [i for i in ids if i not in without]
            if rest:
                state.apply(Kind.DELTA, update_of(state, recipe_on(base, rest, **settings)))
            if not ids:
                state.apply(Kind.DELTA, one)
        return state

    for _ in range(data.draw(st.integers(2, 9))):
        what = data.draw(st.sampled_from(["recipe", "recipe", "recipe", "recipe", "snapshot", "delta", "forget", "forget"]))
        if what == "delta":
            before = device.state.copy()
            centre.deliver(device, device.train(density=0.2))
            last_delta = len(line)
            line.append(difference(before, device.state))
        elif what == "snapshot":
            centre.deliver(device, device.snapshot())
        elif what == "recipe":
            ids = sorted(data.draw(st.sets(st.sampled_from(sorted(set(range(60)) - gone)), min_size=1, max_size=12)))
            with_settings = {"seed": data.draw(st.integers(0, 3)), "optimizer": data.draw(st.integers(1, 3)), "steps": 6}
            centre.deliver(device, device.learn(ids, **with_settings))
            versions[device.version] = ids
            line.append((ids, with_settings))
        elif versions:
            version = data.draw(st.sampled_from(sorted(versions)))
            ids = versions[version]
            rows = sorted(data.draw(st.sets(st.integers(0, len(ids) - 1), min_size=1, max_size=3)))
            samples = {ids[row] for row in rows}
            firsts = [k for k, one in enumerate(line) if isinstance(one[0], list) and samples & set(one[0])]
            try:
                found = unlearned(centre, f"pi-7@{version}", rows)
            except BadArgument as error:
                assert firsts[0] < last_delta, error.message
                continue
            assert found.state.root == fresh(gone | samples).root
            assert found.state.fingerprint == found.state.measure_fingerprint()
            if found.state.root == found.head.root:
                continue
            take_over(device, unlearning.update_for(found))
            gone |= samples
            sections = difference(found.head, found.state)
            centre.deliver(device, device.seal(Kind.DELTA, sections, extension={KEY: found.without.encode()}))
        assert all(one.ok for one in centre.rebuild())
    centre.store.close()


def test_too_large_an_update_is_not_sent(centre: Centre, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    grown(centre, device, ROUNDS)
    found = unlearned(centre, "pi-7@1", [3])
    monkeypatch.setattr(unlearning, "LIMIT", unlearning.limits.Limits(container=100))
    with pytest.raises(TooLarge):
        unlearning.update_for(found)


def test_rows_that_are_not_there_and_versions_that_are_no_recipe_are_errors(centre: Centre, device: ScriptedDevice) -> None:
    grown(centre, device, ROUNDS[:1])
    centre.deliver(device, device.train(), device.learn(range(9)))
    centre.rebuild()
    with pytest.raises(BadArgument, match="no row 20"):
        unlearned(centre, "pi-7@1", [3, 20])
    for name in ("pi-7@2", "pi-7@base"):
        with pytest.raises(BadArgument, match="not a recipe") as caught:
            unlearned(centre, name, [1])
        assert "pi-7/digits@1" in caught.value.next_step and "pi-7/digits@3" in caught.value.next_step


def test_ids_that_are_none_of_the_rows_stop_it(centre: Centre, device: ScriptedDevice) -> None:
    seal = device.seal
    device.seal = lambda *a, **k: seal(*a, **{**k, "extension": {"rows": b"\x01"}})  # type: ignore[method-assign]
    grown(centre, device, ROUNDS[:1])  # never needed to rebuild
    with pytest.raises(Malformed, match="ids of the rows"):
        unlearned(centre, "pi-7@1", [1])
    device.seal = seal  # type: ignore[method-assign]
    grown(centre, device, ROUNDS[1:2])
    with pytest.raises(Malformed, match="pi-7/digits@1: the ids of the rows"):
        unlearned(centre, "pi-7@2", [1])


def test_a_replay_is_the_version_and_other_settings_are_not(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    grown(centre, device, ROUNDS)
    bases = materialise.LoadedBases(centre.store)
    for version in range(1, 5):
        done = replaying.replay(centre.store, naming.find(centre.store, naming.parse(f"pi-7@{version}")), bases)
        assert done.equal and done.state.root == device.made[version].root
        other = replaying.what_if(done, replaying.parse_settings(["lr=0.5", "steps=40"]))
        ids, settings = ROUNDS[version - 1]
        before = done.parent.copy()
        before.apply(Kind.DELTA, update_of(before, recipe_on(base, ids, **{**settings, "rate": 0.5, "steps": 40})))
        assert other.root == before.root != done.state.root
        assert done.loss(done.state) < done.loss(done.parent)


@pytest.mark.parametrize("given", ["rate", "=3", "rate=x", "steps=1.5", "optimizer=best", "hidden=3", "rate=1,rate=2"])
def test_settings_that_are_none_are_refused_with_what_there_is(given: str) -> None:
    with pytest.raises(BadArgument):
        replaying.parse_settings(given.split(","))


@pytest.mark.slow("trains a thousand rows in a process")
def test_the_losses_of_many_rows_take_bounded_memory_and_are_the_same_in_pieces(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes of rows can stand for gigabytes of outputs."""
    state = ModelState.of_base(base.manifest, base.weights)
    recipe = recipe_on(base, range(100))
    whole = replaying.mean_loss(recipe, state)
    monkeypatch.setattr(replaying, "OUTPUTS_AT_ONCE", 28)
    assert replaying.mean_loss(recipe, state) == pytest.approx(whole, rel=1e-12)
    monkeypatch.undo()
    many = replace(recipe, rows=Rows(np.zeros((1_000_000, 4), np.int8), np.zeros(1_000_000, np.uint32)))
    tracemalloc.start()
    try:
        replaying.mean_loss(many, state)
        assert tracemalloc.get_traced_memory()[1] < 60 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("loss", list(Loss))
def test_mean_losses_are_those_that_the_trainer_says(base: Base, loss: Loss) -> None:
    state = ModelState.of_base(base.manifest, base.weights)
    recipe = recipe_on(base, range(16), batch=16, rate=0.0, loss=loss)
    if loss is not Loss.SOFTMAX:
        targets = np.eye(3, dtype=np.float32)[recipe.rows.labels]
        recipe = replace(recipe, rows=Rows(recipe.rows.features, targets=targets, scale=recipe.rows.scale))
    said = advance(recipe.head, start_of(recipe.head, layers_before(state, recipe)), recipe.rows, 1)
    assert replaying.mean_loss(recipe, state) == pytest.approx(float(said[0]), rel=1e-5)
