"""A lineage goes over to another base by a snapshot, within one epoch, and every version on either side is recovered to the bit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from edgecloud.intake.decision import Result
from edgecloud.registry import SqliteStore, open_registry
from edgecloud.versions import cards, materialise, naming, replaying, unlearning
from modelwire.cards.card import card_of
from modelwire.errors import BadArgument
from modelwire.tflite.file import write_weights
from modelwire.wire.records import Level, Receipt, Welcome
from tests.edgecloud.centre import Centre, add_base, fleet_of, make_registry
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice


@pytest.fixture(scope="module")
def motion() -> Base:
    """A base with other tensors."""
    return Base.of(TINY.parent / "motion.tflite")


@pytest.fixture(scope="module")
def sibling(base: Base) -> Base:
    """A base with the same tensors and other weights."""
    weights = base.manifest.schema.shaped([w * np.float32(1.5) for w in base.weights])
    return Base(write_weights(base.parsed, weights))


@pytest.fixture(params=["motion", "sibling"])
def other(request: pytest.FixtureRequest, store: SqliteStore) -> Base:
    chosen: Base = request.getfixturevalue(request.param)
    add_base(store, chosen, "other")
    return chosen


def there_and_back(centre: Centre, device: ScriptedDevice, base: Base, other: Base) -> dict[int, bytes]:
    """Let a device change its base and change back within its epoch; return the base of each version."""
    sent = [device.train(), device.train(), device.rebase(other), device.train(), device.rebase(base), device.train()]
    outcomes = centre.deliver(device, *sent)
    assert [o.result for o in outcomes] == [Result.STORED] * len(sent), [o.reason for o in outcomes]
    a, b = base.manifest.commit, other.manifest.commit
    return {1: a, 2: a, 3: b, 4: b, 5: a, 6: a}


def test_there_and_back_in_one_epoch_is_recovered_to_the_bit(centre: Centre, device: ScriptedDevice, base: Base, other: Base) -> None:
    bases = there_and_back(centre, device, base, other)
    judged = centre.rebuild()
    assert [one.ok for one in judged] == [True] * 6, [one.reason for one in judged]
    assert {r.version for r in centre.said() if isinstance(r, Receipt) and r.level is Level.VERIFIED} == set(bases)
    with fleet_of(centre.store) as fleet:
        pi = fleet.device("pi-7")
        for version in pi.versions():
            made = device.made[version.number]
            assert (version.epoch, version.root, version.parent) == (1, made.root, made.parent)
            assert hashlib.sha256(version.file()).digest() == made.file_sha256
            version.prove_file(version.file())
        assert [v.parent for v in pi.versions()][1:] == [v.commit for v in pi.versions()][:-1]
        assert pi.version("base").file() == base.file and pi.version("latest").commit == device.head
    lineage = centre.store.lineages.get("pi-7", "digits")
    assert lineage is not None
    assert {v.version: v.base for v in centre.store.versions.of(lineage.id)} == bases
    loaded = materialise.LoadedBases(centre.store)
    assert [one.error for one in materialise.check_lineage(centre.store, lineage, loaded)] == [None] * 6
    assert all(materialise.check_version(centre.store, v, loaded).error is None for v in centre.store.versions.of(lineage.id))


def test_the_first_update_of_an_epoch_may_go_over(centre: Centre, device: ScriptedDevice, base: Base, other: Base) -> None:
    centre.deliver(device, device.rebase(other), device.train())
    assert [one.ok for one in centre.rebuild()] == [True] * 2
    lineage = centre.store.lineages.get("pi-7", "digits")
    assert lineage is not None
    place = naming.find(centre.store, naming.parse("pi-7"))
    assert (place.base, place.version.version if place.version else 0) == (other.manifest.commit, 2)
    assert naming.find(centre.store, naming.parse("pi-7@base")).base == base.manifest.commit
    state = materialise.rebuild(centre.store, centre.store.versions.of(lineage.id)[1], materialise.LoadedBases(centre.store))
    assert state.root == device.state.root


def test_a_hello_names_the_base_of_the_head_and_keeps_its_epoch(centre: Centre, device: ScriptedDevice, other: Base) -> None:
    centre.deliver(device, device.train(), device.rebase(other))
    centre.said()
    assert centre.take(device.hello()).result is Result.WELCOMED
    (said,) = [r for r in centre.said() if isinstance(r, Welcome)]
    assert (said.status, said.epoch, said.head_version, said.head) == ("ok", 1, 2, device.head)


def test_what_follows_a_change_may_come_before_it(centre: Centre, device: ScriptedDevice, other: Base) -> None:
    first, change, after, later = device.train(), device.rebase(other), device.train(), device.train()
    outcomes = centre.deliver(device, later, after, first, change)
    assert [o.result for o in outcomes] == [Result.PARKED, Result.PARKED, Result.STORED, Result.STORED]
    assert [one.ok for one in centre.rebuild()] == [True] * 4 and centre.head(device) == 4


def test_a_base_that_is_not_registered_is_refused_and_the_lineage_goes_on(
    centre: Centre, device: ScriptedDevice, base: Base, motion: Base
) -> None:
    good = device.train()
    centre.deliver(device, good)
    (outcome,) = centre.deliver(device, device.rebase(motion))
    assert outcome.result is Result.REFUSED and centre.store.refusals.last(1)[0].error == "WrongBase"
    assert motion.manifest.commit.hex()[:16] in outcome.reason
    assert centre.take(device.hello()).result is Result.QUARANTINED  # unknown-base, until the operator adds it
    assert [r.status for r in centre.said() if isinstance(r, Welcome)] == ["unknown-base"]
    add_base(centre.store, motion, "motion")
    assert [o.result for o in centre.tick()] == [Result.WELCOMED]
    assert centre.deliver(device, device.snapshot(good.commit))[0].result is Result.STORED
    assert [one.ok for one in centre.rebuild()] == [True, True]


def test_a_delta_of_other_tensors_than_the_head_has_is_refused(centre: Centre, device: ScriptedDevice, base: Base, motion: Base) -> None:
    add_base(centre.store, motion, "motion")
    centre.deliver(device, device.train())
    (outcome,) = centre.deliver(device, device.train(schema_id=motion.manifest.schema.id))
    assert outcome.result is Result.REFUSED and "another schema" in outcome.reason
    lie = device.snapshot(device.made[1].commit, base=motion.manifest.commit)
    assert "another schema" in centre.deliver(device, lie)[0].reason
    orphan = device.train(schema_id=b"s" * 32, parent=b"p" * 32)
    assert "another schema" in centre.deliver(device, orphan)[0].reason


def test_a_refused_change_takes_the_head_back_to_the_base_before(centre: Centre, device: ScriptedDevice, base: Base, other: Base) -> None:
    """Also where it was the first of its epoch: the good commit is the base that the epoch began with."""
    centre.deliver(device, device.rebase(other, fingerprint=(1, 2)), device.train())
    centre.rebuild()
    refusals = [r for r in centre.said() if isinstance(r, Receipt) and r.level is Level.REFUSED]
    assert [(r.version, r.good, r.good_version) for r in refusals] == [(n, base.manifest.commit, 0) for n in (1, 2)]
    assert centre.deliver(device, device.snapshot(base.manifest.commit))[0].result is Result.STORED
    assert [one.ok for one in centre.rebuild()] == [True]


def test_recipes_on_either_side_replay_and_unlearning_does_not_cross(
    centre: Centre, device: ScriptedDevice, base: Base, sibling: Base
) -> None:
    add_base(centre.store, sibling, "sibling")
    before = [device.learn(range(20)), device.learn(range(10, 30), seed=4)]
    change, after = device.rebase(sibling), [device.learn(range(15), seed=5), device.learn(range(40, 60), seed=6)]
    centre.deliver(device, *before, change, *after)
    assert all(one.ok for one in centre.rebuild())
    loaded = materialise.LoadedBases(centre.store)
    for n in (1, 2, 4, 5):
        assert replaying.replay(centre.store, naming.find(centre.store, naming.parse(f"pi-7@{n}")), loaded).equal
    behind = unlearning.unlearn(centre.store, naming.find(centre.store, naming.parse("pi-7@5")), [2], loaded)
    assert behind.replayed == 1 and behind.before == (3,)
    with pytest.raises(BadArgument, match="pi-7/digits@3 went over to another base"):
        unlearning.unlearn(centre.store, naming.find(centre.store, naming.parse("pi-7@1")), [2], loaded)
    unlearning.at_version(centre.store, naming.find(centre.store, naming.parse("pi-7@1")), [2], loaded)


def test_a_change_back_to_where_a_lineage_was_is_no_snapshot_that_moved_nothing(
    centre: Centre, device: ScriptedDevice, base: Base, sibling: Base
) -> None:
    """By its root alone a snapshot of the same weights on another base would look as if it had moved nothing."""
    add_base(centre.store, sibling, "sibling")
    centre.deliver(device, device.learn(range(20)), device.rebase(sibling), device.rebase(base), device.learn(range(5, 30)))
    assert all(one.ok for one in centre.rebuild())
    with pytest.raises(BadArgument, match="went over to another base"):
        unlearning.unlearn(centre.store, naming.find(centre.store, naming.parse("pi-7@1")), [2], materialise.LoadedBases(centre.store))


def test_commands_show_both_sides(desk: Desk, tmp_path: Path, base: Base, motion: Base) -> None:
    store = make_registry(desk.folder / "fleet.db", base)
    add_base(store, motion, "motion")
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    said = {"card": card_of(3, labels=np.array([0, 1, 1])).encode()}
    centre.deliver(device, device.train(extension=said), device.rebase(motion, extension=said), device.train(extension=said))
    centre.rebuild()
    lineage = store.lineages.get("pi-7", "digits")
    assert lineage is not None and cards.gather(store, [lineage]).card.samples == 9
    store.close()
    assert desk.json("verify")["exact"] == 3
    versions = desk.json("log", "pi-7")["versions"]
    assert isinstance(versions, list)
    assert [(v["base"], v["base_before"]) for v in versions][-2] == (motion.manifest.commit.hex(), base.manifest.commit.hex())
    assert f"went over to the base {motion.manifest.commit.hex()[:16]}" in desk.ok("log", "pi-7").splitlines()[-2]
    assert base.manifest.commit.hex() in desk.ok("show", "pi-7@2") and "base before" not in desk.ok("show", "pi-7@3")
    assert desk.error("diff", "pi-7@1", "pi-7@2")["error"] == "WrongBase"
    assert desk.json("diff", "pi-7@2", "pi-7@3")["same_base"] is True
    for n in (1, 3):
        desk.ok("materialise", f"pi-7@{n}", "-o", f"{n}.tflite")
        assert hashlib.sha256((desk.folder / f"{n}.tflite").read_bytes()).digest() == device.made[n].file_sha256
        desk.ok("verify", f"pi-7@{n}", "--file", f"{n}.tflite")
    assert desk.json("card", "pi-7")["samples"] == 9
    reopened = open_registry(desk.folder / "fleet.db")
    assert reopened.problems() == []
    reopened.close()
