"""A real board goes over to another base and back before a real registry, which rebuilds each version bit for bit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgeagent.deploying import switching
from edgecloud.registry import SqliteStore
from edgecloud.versions import materialise
from modelwire.update.manifest import manifest_of
from modelwire.wire import records, topics
from tests import keys
from tests.edgeagent import centre as memory
from tests.edgeagent.boards import PUBLIC, TINY, Rig, fill, rig
from tests.edgeagent.by_hand import train as by_hand
from tests.edgeagent.centre import FakeClock, role_of
from tests.edgeagent.deploying.bases import FAR, NEAR, gone_back, soaked, train
from tests.edgeagent.deploying.whole import check_whole
from tests.edgecloud.centre import Centre, add_base, admit, fleet_of, make_registry
from tests.edgecloud.device import FLEET, Base

pytestmark = pytest.mark.one_environment("it needs the centre; what a board lays down is tested in both")


class RegistryLink(memory.Centre):
    """The link in memory, with a registry's own decisions at its other end."""

    def __init__(self, clock: FakeClock, store: SqliteStore) -> None:
        super().__init__(clock, FLEET)
        self.real = Centre(store, now=self._now())

    def _take(self, place: topics.Topic, said: object, data: bytes) -> None:
        self.real.now = self._now()
        self.real.take((str(place), data))
        self.real.rebuild()
        self.real.tick()
        for reply in list(self.real.replies):
            role = role_of(reply.record)
            self.deliver(reply.topic, reply.sealed or records.encode(reply.record, self.signers[role], keys.FLEET_ID, role=role))
        self.real.replies.clear()


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    made = make_registry(tmp_path / "fleet.db", Base(TINY))
    for name, file in (("near", NEAR), ("far", FAR)):
        add_base(made, Base(file), name)
    admit(made, "pi-7", PUBLIC, 1)
    return made


def statuses(store: SqliteStore) -> dict[int, tuple[str, bytes]]:
    lineage = store.lineages.get("pi-7", "tiny")
    assert lineage is not None
    return {v.version: (v.status.value, v.base) for v in store.versions.of(lineage.id)}


@pytest.mark.parametrize("other", [NEAR, FAR], ids=["kept", "carried"])
def test_there_and_back_is_recovered_to_the_bit(tmp_path: Path, store: SqliteStore, other: bytes) -> None:
    link, files = RegistryLink(FakeClock(), store), dict[int, bytes]()

    def note(r: Rig) -> None:
        files[r.lineage.head().version] = hashlib.sha256(r.lineage.store.served.read_bytes()).digest()

    with rig(tmp_path / "d", link, device__fleet=FLEET) as r:
        for _ in range(2):
            train(r, 1)
            note(r)
        soaked(r.lineage, other)
        r.serve(60)
        switching.confirm(r.lineage, 20)
        note(r)
        r.serve(60)
        for _ in range(2):
            train(r, 1)
            note(r)
        gone_back(r.lineage, TINY)
        switching.confirm(r.lineage, 30)
        note(r)
        r.serve(60)
        train(r, 1)
        note(r)
        check_whole(r)
        assert set(r.states().values()) == {"verified"}
    a, b = manifest_of(TINY).commit, manifest_of(other).commit
    assert statuses(store) == {n: ("verified", b if n in (3, 4, 5) else a) for n in range(1, 8)}
    lineage = store.lineages.get("pi-7", "tiny")
    assert lineage is not None and store.lineages.current(lineage.id).epoch == 1  # type: ignore[union-attr]
    assert [one.error for one in materialise.check_lineage(store, lineage, materialise.LoadedBases(store))] == [None] * 7
    with fleet_of(store) as fleet:
        for version in fleet.device("pi-7").versions():
            assert hashlib.sha256(version.file()).digest() == files[version.number], version.number


def test_what_waited_when_it_went_over_comes_first_and_a_refused_change_is_said_again(tmp_path: Path, store: SqliteStore) -> None:
    link = RegistryLink(FakeClock(), store)
    with rig(tmp_path / "d", link, device__fleet=FLEET) as r:
        train(r, 1)
        link.cut()
        by_hand(r, 2)
        soaked(r.lineage, FAR)
        switching.confirm(r.lineage, 20)
        by_hand(r, 2)
        link.mend()
        r.serve(300)
        assert {s for s, _ in statuses(store).values()} == {"verified"} and set(r.states().values()) <= {"verified", "skipped"}
        newest = max(statuses(store))
        assert newest == r.lineage.head().version == 6 and statuses(store)[newest][1] == manifest_of(FAR).commit


def test_a_base_that_the_registry_does_not_hold_is_refused_and_comes_when_it_is_added(tmp_path: Path) -> None:
    store = make_registry(tmp_path / "fleet.db", Base(TINY))
    admit(store, "pi-7", PUBLIC, 1)
    link = RegistryLink(FakeClock(), store)
    with rig(tmp_path / "d", link, device__fleet=FLEET) as r:
        fill(r.device)
        train(r, 1)
        soaked(r.lineage, FAR)
        switching.confirm(r.lineage, 20)
        r.serve(60)
        head = r.lineage.head()
        assert head.welcome == "unknown-base" and statuses(store).keys() == {1}
        add_base(store, Base(FAR), "far")
        r.serve(7200)
        assert statuses(store)[r.lineage.head().version] == ("verified", manifest_of(FAR).commit)
        train(r, 1)
        assert {s for s, _ in statuses(store).values()} == {"verified"}


def test_a_new_epoch_begins_on_the_base_that_it_went_over_to(tmp_path: Path, store: SqliteStore) -> None:
    link = RegistryLink(FakeClock(), store)
    with rig(tmp_path / "d", link, device__fleet=FLEET) as r:
        train(r, 1)
        soaked(r.lineage, NEAR)
        switching.confirm(r.lineage, 20)
        r.serve(60)
        r.device.renew_state()
    with rig(tmp_path / "d", link, device__fleet=FLEET) as r:
        r.serve(300)
        train(r, 1)
        assert r.lineage.head().epoch == 2
        row = r.device.database.one("SELECT first_commit, base_commit FROM model")
        assert row[0] == row[1] == manifest_of(NEAR).commit
        assert {s for s, _ in statuses(store).values()} == {"verified"}
        gone_back(r.lineage, TINY)
        switching.confirm(r.lineage, 30)
        train(r, 1)
        assert {s for s, _ in statuses(store).values()} == {"verified"} and max(statuses(store)) == r.lineage.head().version
        check_whole(r)
