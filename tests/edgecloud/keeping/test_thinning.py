"""Thinned histories: what stays is exact, what goes is named, proven and in the log, and a kill anywhere loses nothing."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from edgecloud.audit import tampering
from edgecloud.audit.admissions import Admissions
from edgecloud.keeping.compacting import Compactor
from edgecloud.keeping.thinning import Thinner
from edgecloud.registry import SqliteStore
from edgecommon import disk
from modelwire.errors import DiskUnwritable, LineageError, RegistryDamaged
from modelwire.update.proof import parse_header_proof
from modelwire.wire.records import Level, Receipt
from tests.edgecloud.centre import Centre, damage, sign
from tests.edgecloud.device import ScriptedDevice

from .thinned import Killed, copied, error_of, history, keep, recoverable, thinner, wrong


@pytest.mark.parametrize("what", ["dddddddd", "ddsddddd", "drdrrddd", "srsrdsrd", "ssssssss", "rrrrrrrr"])
@pytest.mark.parametrize("said", ["last 1", "last 3", "daily", "tagged"])
def test_what_is_kept_comes_back_bit_for_bit_and_what_goes_is_named(centre: Centre, device: ScriptedDevice, what: str, said: str) -> None:
    history(centre, device, what)
    store, before = centre.store, recoverable(centre.store)
    store.annotations.add("version", "pi-7/digits@3", "tag: released", 1)
    keep(store, said)
    done = thinner(store).run()
    expected = {"last 1": {8}, "last 3": {6, 7, 8}, "daily": {8}, "tagged": {3, 8}}[said]
    assert recoverable(store) == {f"pi-7/digits@{n}": before[f"pi-7/digits@{n}"] for n in expected}
    assert (done.gone, done.failed) == (8 - len(expected), {}) and wrong(store) == []
    error = error_of(store, "pi-7@1")
    assert f"@{min(expected)}" in error.message and f"pi-7/digits@{min(expected)}" in error.next_step
    assert thinner(store).run().gone == 0
    sign(store)
    assert wrong(store) == []


def test_a_thinned_history_goes_on_and_is_thinned_again(centre: Centre, device: ScriptedDevice) -> None:
    store = centre.store
    keep(store, "last 2")
    for _ in range(4):
        history(centre, device, "dddr")
        thinner(store).run()
        assert wrong(store) == [] and len(recoverable(store)) == 2
    assert centre.statuses(device) == dict.fromkeys(range(1, 17), "verified")
    blobs = {*store.blobs.digests()}
    held = {bytes(row[0]) for row in store.database.all("SELECT blob FROM squash UNION SELECT file FROM base")}
    own = {bytes(r[0]) for r in store.database.all("SELECT blob FROM version WHERE id NOT IN (SELECT version_id FROM thinned)")}
    assert blobs == held | own  # nothing is left over


def test_a_long_run_goes_in_several_steps(centre: Centre, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecloud.keeping.thinning.MOST", 3)
    history(centre, device, "dddsddddddd")
    before = recoverable(centre.store)
    keep(centre.store, "last 1")
    assert thinner(centre.store).run().gone == 10
    assert recoverable(centre.store) == {"pi-7/digits@11": before["pi-7/digits@11"]} and wrong(centre.store) == []


def test_nothing_goes_without_a_sealed_word(centre: Centre, device: ScriptedDevice) -> None:
    history(centre, device, "dddd")
    centre.store.database.run("INSERT INTO policy VALUES (1, '2 states', 'last 1', x'00', 1)")
    assert thinner(centre.store).run().gone == 0 and len(recoverable(centre.store)) == 4


def test_a_version_that_comes_again_gets_its_receipt_from_its_row(centre: Centre, device: ScriptedDevice) -> None:
    history(centre, device, "dddd")
    keep(centre.store, "last 1")
    thinner(centre.store).run()
    centre.said()
    centre.deliver(device, device.made[2])
    (said,) = centre.said()
    assert isinstance(said, Receipt) and (said.version, said.level) == (2, Level.VERIFIED)


def test_what_is_left_of_a_thinned_version_proves_what_its_device_sealed(centre: Centre, device: ScriptedDevice) -> None:
    history(centre, device, "drsd")
    keep(centre.store, "last 1")
    thinner(centre.store).run()
    lineage = centre.store.lineages.of("pi-7")[0]
    for row in centre.store.versions.of(lineage.id):
        left = centre.store.thinnings.get(row.id)
        assert left is not None or row.version == 4
        if left is not None:
            proof = parse_header_proof(left.proof)
            proof.verify(device.key.public, centre.store.identity.id)
            assert (proof.commit, proof.header.root, proof.header.parent) == (row.commit, row.root, row.parent)


def test_heads_of_all_epochs_open_commands_and_what_waits_are_kept(centre: Centre, device: ScriptedDevice) -> None:
    history(centre, device, "ddd")
    device.reflash()
    centre.meet(device)
    history(centre, device, "dd")
    centre.deliver(device, device.train(), device.train())  # stored, and not judged yet
    keep(centre.store, "last 1")
    thinner(centre.store).run()
    names = {int(name.partition("@")[2]) for name in recoverable(centre.store)}
    assert names == {3, 5, 6, 7} and wrong(centre.store) == []
    centre.rebuild()
    assert centre.statuses(device)[7] == "verified" and wrong(centre.store) == []


@pytest.mark.parametrize("said", ["last 5", "tagged", "last 1"])
def test_the_compactor_and_thinning_go_on_with_what_the_other_has_left(centre: Centre, device: ScriptedDevice, said: str) -> None:
    store = centre.store
    keep(store, said)
    for _ in range(3):
        history(centre, device, "dddrdsdddd")
        store.annotations.add("version", f"pi-7/digits@{device.version - 4}", "tag: good", 1)
        compact(store)
        thinner(store).run()
        assert wrong(store) == []
        before = recoverable(store)
        compact(store)
        gone = {id for id, is_gone in store.thinnings.of(1).items() if is_gone}
        assert not gone & {row.version_id for row in store.states.of(1)} and recoverable(store) == before
    assert len(before) == {"last 5": 5, "tagged": 4, "last 1": 1}[said]


def compact(store: SqliteStore) -> None:
    """Let the compactor do all that is due."""
    compactor = Compactor(store, clock=lambda: 1 << 40)
    while (done := compactor.run()) is not None:
        assert done.error == ""


@pytest.mark.parametrize("at", range(4))
def test_a_disk_that_takes_no_more_leaves_all_as_it_was(
    centre: Centre, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    history(centre, device, "ddrddd")
    store, before = centre.store, recoverable(centre.store)
    keep(store, "last 1")
    run, count = store.database.run, 0

    def full(sql: str, *values: object) -> int:
        nonlocal count
        if sql.startswith(("INSERT INTO squash", "INSERT INTO thinned", "INSERT INTO discard", "INSERT INTO log")):
            count += 1
            if count == 3 * at + 1:
                raise disk.of(errno.ENOSPC, store.database.path)
        return run(sql, *values)

    monkeypatch.setattr(store.database, "run", full)
    with pytest.raises(DiskUnwritable):
        thinner(store).run()
    assert recoverable(store) == before and wrong(store) == []
    monkeypatch.setattr(store.database, "run", run)
    thinner(store).run()
    assert len(recoverable(store)) == 1 and wrong(store) == []


def steps_of(store: SqliteStore) -> int:
    """Return how many steps a thinning of a copy takes."""
    count = 0

    def counted(_: str) -> None:
        nonlocal count
        count += 1

    Thinner(store, clock=lambda: 1000, hook=counted).run()
    return count


def test_a_kill_at_every_step_loses_nothing_and_the_next_run_ends_it(
    tmp_path: Path, centre: Centre, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecloud.keeping.thinning.MOST", 3)
    history(centre, device, "ddrsdddrd")
    before = recoverable(centre.store)
    keep(centre.store, "last 2")
    dry = copied(centre.store, tmp_path / "dry")
    count = steps_of(dry)
    dry.close()
    assert count > 10
    for step in range(count):
        store = copied(centre.store, tmp_path / f"killed-{step}")
        left = step

        def fault(_: str) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1

        with pytest.raises(Killed):
            Thinner(store, clock=lambda: 1000, hook=fault).run()
        again = copied(store, tmp_path / f"after-{step}")
        store.close()
        assert wrong(again) == [], step
        held = recoverable(again)
        assert held.items() <= before.items() and {"pi-7/digits@8", "pi-7/digits@9"} <= held.keys(), step
        thinner(again).run()
        assert {*recoverable(again)} == {"pi-7/digits@8", "pi-7/digits@9"} and wrong(again) == []
        assert again.thinnings.discards(10) == []
        again.close()


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE thinned SET gone = 1 WHERE version_id = 6", "otherwise than the log says"),
        ("DELETE FROM thinned WHERE version_id = 2", "the row says nothing"),
        ("INSERT INTO thinned SELECT 7, 1, 1, proof FROM thinned WHERE version_id = 2", "the log says nothing"),
        ("UPDATE thinned SET proof = (SELECT proof FROM thinned WHERE version_id = 3) WHERE version_id = 2", "another version"),
        ("UPDATE thinned SET proof = x'00' WHERE version_id = 2", "does not"),
        ("UPDATE squash SET blob = (SELECT blob FROM version WHERE id = 7)", "another squash"),
        ("DELETE FROM squash", "another squash"),
        ("DELETE FROM log WHERE number = (SELECT max(number) FROM log)", "cut off"),
        ("UPDATE blob SET bytes = zeroblob(size) WHERE sha256 = (SELECT blob FROM squash)", "have changed"),
        ("DELETE FROM blob WHERE sha256 = (SELECT blob FROM squash)", "are gone"),
        ("DELETE FROM blob WHERE sha256 = (SELECT blob FROM version WHERE id = 7)", "are gone"),
    ],
)
def test_what_is_changed_in_a_thinned_registry_is_found(centre: Centre, device: ScriptedDevice, sql: str, said: str) -> None:
    history(centre, device, "ddddddd")
    keep(centre.store, "last 2")
    thinner(centre.store).run()
    sign(centre.store)
    assert wrong(centre.store) == []
    damage(centre.store, sql)
    assert any(said in one for one in wrong(centre.store)), wrong(centre.store)


@pytest.mark.parametrize(("said", "version", "good"), [("last 2", 5, False), ("last 2", 4, True), ("daily", 6, False), ("all", 1, False)])
def test_an_entry_that_thins_what_the_policy_keeps_is_found(
    centre: Centre, device: ScriptedDevice, said: str, version: int, good: bool
) -> None:
    history(centre, device, "dddddd")
    by = keep(centre.store, said)
    centre.store.thinnings.enter(by, [device.made[version].commit], [])
    found = tampering.look(centre.store)
    assert any("thins" in one for one in found) is not good, found
    centre.store.thinnings.enter(by + 5, [device.made[1].commit], [])
    assert any("no policy of the operator" in one for one in tampering.look(centre.store))
    with pytest.raises(RegistryDamaged):
        Admissions(centre.store.identity).catch_up(centre.store.log, "the registry")


def test_rows_of_what_is_not_thinned_still_stay(centre: Centre, device: ScriptedDevice) -> None:
    history(centre, device, "dddd")
    keep(centre.store, "last 2")
    thinner(centre.store).run()
    for sql in (
        "DELETE FROM blob", "DELETE FROM version", "DELETE FROM squash", "DELETE FROM thinned", "DELETE FROM log", "DELETE FROM device",
        "UPDATE log SET entry = x''", "UPDATE thinned SET gone = 0", "INSERT INTO discard SELECT blob FROM squash",
        "INSERT INTO discard SELECT file FROM base", "INSERT INTO discard SELECT blob FROM version WHERE version = 4",
    ):  # fmt: skip
        with pytest.raises(LineageError):
            centre.store.database.run(sql)
