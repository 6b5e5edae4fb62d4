"""A device is erased: nothing of it is left, all others are whole, and only the operator's word lets that happen."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecloud.audit import telling
from edgecloud.audit.admissions import Admissions
from edgecloud.intake.decision import Result
from edgecloud.keeping import erasing
from edgecloud.registry import EvaluationRow, FrozenRow, MergeRow, SqliteStore, WaitingMessage
from edgecloud.rollouts import moves
from modelwire.errors import BadArgument, LineageError, RegistryDamaged, UnknownVersion
from modelwire.wire import cbor
from tests.edgecloud import rollouts
from tests.edgecloud.centre import Centre, admit, ask, damage, make_registry, sign
from tests.edgecloud.device import Base, ScriptedDevice
from tests.keys import COMMAND, DIRECTOR

from .thinned import Killed, copied, history, keep, number, recoverable, thinner, wrong

NAME = "turbine-anna"
MERGED = bytes(range(32))  # digest of a file that both were merged into


@pytest.fixture
def both(centre: Centre, base: Base) -> Centre:
    """Two devices, each with all that a registry can hold of one."""
    store = centre.store
    for name in (NAME, "pi-7"):
        device = centre.meet(ScriptedDevice(base, name=name))
        history(centre, device, "ddrsdd")
        lineage = store.lineages.of(name)[0]
        ask(store, lineage, number=number(store))
        centre.deliver(device, device.train())  # not judged yet
        orphan = [device.train(), device.train()][1]
        centre.deliver(device, orphan)
        store.annotations.add("device", name, f"{name} is covered", 1)
        store.annotations.add("version", f"{lineage}@2", "tag: released", 1)
        store.inbox.hold(WaitingMessage(0, name, "other", "update", "unknown-base", b"m", b"b", b"x", 1, 0))
        store.devices.reject(name, bytes([len(name)]) * 32, 1)
        store.states.put(store.versions.of(lineage.id)[5].id, lineage.id, b"a state", 1)
        store.evaluations.put([EvaluationRow(v.id, b"p" * 32, "", 3, 2, None, 0.5, 0, 1.0, 1, name) for v in store.versions.of(lineage.id)])
    first = [store.versions.of(store.lineages.of(name)[0].id)[0] for name in (NAME, "pi-7")]
    store.merges.add(MergeRow(MERGED, first[0].base, "mean", 2, 1), {version.id: 1 for version in first})
    rollout = rollouts.deploy(store, base, named=("pi-7", NAME))
    store.rollouts.move(rollout.id, state="done", reason=f"{NAME} crashed, and went on", now=9)
    rollouts.deploy(store, base, rollout=b"r" * 16, name="summer")  # under way, and names nobody
    store.rollouts.freeze(FrozenRow(NAME, "", f"{NAME} is in the workshop", "anna", 9))
    keep(store, "last 2")
    thinner(store).run()
    sign(store)
    assert wrong(store) == []
    return centre


def erase(store: SqliteStore, name: str = NAME) -> None:
    erasing.begin(store, COMMAND, name, number(store), 1)
    erasing.resume(store)


def traces(store: SqliteStore, name: str) -> list[str]:
    """Return the files of a registry in which a name stands."""
    path = store.database.path
    files = [one for one in path.parent.rglob("*") if one.is_file() and one.name.startswith(path.name)]
    return [one.name for one in files if name.encode() in one.read_bytes()]


def test_nothing_of_an_erased_device_is_left_and_all_others_are_whole(both: Centre) -> None:
    store, others = both.store, {name: root for name, root in recoverable(both.store).items() if name.startswith("pi-7")}
    before = erasing.held(store, NAME)
    assert (before.models, before.versions, before.waiting, before.notes, before.states) == (1, 7, 2, 2, 1)
    assert before.size > 0 and before.entries > 10
    assert traces(store, NAME)
    erase(store)
    assert wrong(store) == [] and recoverable(store) == others
    assert traces(store, NAME) == []
    merge = store.merges.of(MERGED)
    assert merge is not None and merge.versions == 2
    left = {store.versions.of(store.lineages.of("pi-7")[0].id)[0].id: 1}
    assert store.merges.parents(MERGED) == left
    for change in ("DELETE FROM merged_from", "UPDATE merged_from SET weight = 2", "DELETE FROM merge", "UPDATE merge SET versions = 3"):
        with pytest.raises(LineageError, match="write-once"):
            store.database.run(change)
    with pytest.raises(UnknownVersion):
        erasing.held(store, NAME)
    sign(store)
    assert wrong(store) == []
    told = list(telling.tell(store.log, store.identity))
    assert not any("NOT SEALED" in one["text"] or NAME in str(one) for one in told)
    assert sum(one["what"] == "erased" for one in told) == before.entries


def test_of_rollouts_what_is_of_an_erased_device_goes_and_a_plan_that_names_it(both: Centre, base: Base) -> None:
    store = both.store
    done, running = store.rollouts.all()
    spring = rollouts.deploy(store, base, rollout=b"s" * 16, name="autumn", named=(NAME,))
    with pytest.raises(BadArgument, match=f"autumn names {NAME}, and is running"):
        erase(store)
    assert store.erasures.all() == [] and wrong(store) == []
    store.rollouts.move(spring.id, state="aborted", now=9)
    erase(store)
    assert wrong(store) == [] and traces(store, NAME) == []
    assert [bool(row.plan) for row in store.rollouts.all()] == [False, True, False]
    (left,) = {a.device for row in (done, running) for a in store.rollouts.assignments(row.id)}
    assert left == "pi-7" and store.rollouts.frozen() == [] and len(store.rollouts.desired(store.lineages.of("pi-7")[0].id)) == 3
    for change in ("DELETE FROM desired", "DELETE FROM rollout", "UPDATE rollout SET plan = x''", "DELETE FROM decision"):
        with pytest.raises(LineageError, match="write-once"):
            store.database.run(change)


def test_a_rollout_whose_reason_named_an_erased_device_heeds_no_decision_again(both: Centre) -> None:
    store, (_, running) = both.store, both.store.rollouts.all()
    store.rollouts.move(running.id, state="paused", reason=f"quality: {NAME} fell most (decisions: 3)", now=9)
    erase(store)
    row = store.rollouts.by_id(running.id)
    assert NAME not in row.reason and (moves.heeded(row), moves.word(row), row.state) == (3, "quality", "paused")


def test_its_key_never_speaks_again_and_its_name_is_free(both: Centre, base: Base) -> None:
    old = ScriptedDevice(base, name=NAME)
    erase(both.store)
    assert both.take(old.hello()).result is Result.QUARANTINED and both.take(old.presence(True, 9)).result is Result.DROPPED
    old.epoch, old.version = 1, 40
    assert both.take(old.update(old.train())).result is Result.DROPPED
    assert traces(both.store, NAME) == []  # nothing of what it still says is kept
    with pytest.raises(RegistryDamaged), both.store.transaction():
        admit(both.store, NAME, old.key.public, 5)
        both.ingest.catch_up()
    both.ingest.forget()
    new = ScriptedDevice(base, name=NAME, seed=5)
    new.key = DIRECTOR  # any other key
    history(both, both.meet(new), "dd")
    assert wrong(both.store) == [] and {f"{NAME}/digits@2"} <= recoverable(both.store).keys()
    erase(both.store)
    assert wrong(both.store) == [] and traces(both.store, NAME) == []


def test_a_kill_at_every_step_of_an_erasure_is_gone_on_from(tmp_path: Path, both: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "ENTRIES", 7)
    monkeypatch.setattr(erasing, "ROWS", 3)
    store, steps = both.store, list[str]()
    others = {name for name in recoverable(store) if name.startswith("pi-7")}
    erasing.begin(store, COMMAND, NAME, number(store), 1)
    assert wrong(store) == []
    dry = copied(store, tmp_path / "dry")
    erasing.resume(dry, steps.append)
    dry.close()
    for step in range(0, len(steps), 3):
        one, left = copied(store, tmp_path / f"killed-{step}"), step

        def fault(_: str) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1

        with pytest.raises(Killed):
            erasing.resume(one, fault)
        again = copied(one, tmp_path / f"after-{step}")
        one.close()
        found = [text for text in wrong(again) if NAME not in text]
        assert found == [], (step, steps[step])
        held = Admissions(again.identity)
        held.catch_up(again.log, again.database.path)  # an ingester starts on it
        erasing.resume(again)
        assert wrong(again) == [] and {*recoverable(again)} == others and traces(again, NAME) == [], steps[step]
        again.close()


def test_an_entry_that_is_erased_without_a_seal_is_found_and_nobody_starts_on_it(both: Centre) -> None:
    store = both.store
    erase(store)
    row = next(row for row in store.log.after(0) if b"admit" in row.entry)
    covered = erasing.Cover([erasing.Covered(row.number, erasing.entries.digest_of(row))])
    by = store.erasures.all()[0].number
    damage(store, "UPDATE log SET entry = ?, subject = x'' WHERE number = ?", covered.left_of(0, by), row.number)
    assert any("by no erasure that the operator sealed" in one for one in wrong(store))
    with pytest.raises(RegistryDamaged):
        Admissions(store.identity).catch_up(store.log, store.database.path)


@pytest.mark.parametrize("change", [{"index": 1}, {"count": 1 << 40}, {"path": b"x"}, {"digest": b""}, {"digest": bytes(32)}, {"by": 5}])
def test_an_erased_entry_that_is_changed_is_found(both: Centre, change: dict[str, int | bytes]) -> None:
    store = both.store
    erase(store)
    row = next(row for row in store.log.after(0) if b"erased" in row.entry)
    said = cbor.decode(row.entry, "entry")
    assert isinstance(said, dict)
    damage(store, "UPDATE log SET entry = ? WHERE number = ?", cbor.encode({**said, **change}), row.number)
    assert wrong(store)
    with pytest.raises(RegistryDamaged):
        Admissions(store.identity).catch_up(store.log, store.database.path)


def test_an_erasure_that_no_command_key_sealed_is_none(both: Centre) -> None:
    erasing.begin(both.store, DIRECTOR, NAME, number(both.store), 1)
    assert any("is not the operator's" in one for one in wrong(both.store))


def test_large_containers_are_files_that_go_too(tmp_path: Path, base: Base) -> None:
    centre = Centre(make_registry(tmp_path / "large.db", base, files_from=1))
    device = centre.meet(ScriptedDevice(base, name=NAME))
    history(centre, device, "dddd")
    keep(centre.store, "last 1")
    thinner(centre.store).run()
    assert wrong(centre.store) == [] and len([*centre.store.blobs.digests()]) == 2
    erase(centre.store)
    assert wrong(centre.store) == [] and len([*centre.store.blobs.digests()]) == 1 and traces(centre.store, NAME) == []
    centre.store.close()
