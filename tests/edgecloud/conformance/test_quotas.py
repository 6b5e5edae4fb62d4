"""What every Store does with quotas: what is set for one goes before what is set for all, and what is used counts by hour and day."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecloud.registry import OpenTransfer, QuotaRow, SqliteStore, UsedRow, create_registry, open_registry
from edgecloud.registry.quota_rows import USUAL
from tests.edgecloud.conformance.test_store import BASE, IDENTITY, KEY, OTHER, STATE, TRUST, chain

HOUR, DAY = 3600, 86_400


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    path = tmp_path / "fleet.db"
    create_registry(path, fleet="orchard", identity=IDENTITY, trust=TRUST, now=1)
    made = open_registry(path, synchronous="OFF")
    made.bases.add(BASE)
    made.devices.add("pi-7", KEY, 10)
    made.devices.add("pi-8", OTHER, 10)
    yield made
    made.close()


def test_fields_are_taken_from_one_then_from_all_then_as_usual(store: SqliteStore) -> None:
    quotas = store.quotas
    assert quotas.of("pi-7") == USUAL and quotas.own("pi-7") is None and quotas.rows() == {}
    quotas.set("", QuotaRow(bytes_a_day=5, disk_bytes=6), 1)
    quotas.set("pi-7", QuotaRow(bytes_a_day=0), 1)
    assert (quotas.of("pi-7").bytes_a_day, quotas.of("pi-7").disk_bytes, quotas.of("pi-7").cpu_an_hour) == (0, 6, USUAL.cpu_an_hour)
    assert quotas.of("pi-8").bytes_a_day == 5 and quotas.of("") == quotas.of("pi-8")
    quotas.set("pi-7", QuotaRow(versions_an_hour=3), 2)
    assert quotas.own("pi-7") == QuotaRow(versions_an_hour=3) and list(quotas.rows()) == ["", "pi-7"]
    quotas.set("pi-7", QuotaRow(), 3)
    assert list(quotas.rows()) == [""]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(counted=st.lists(st.tuples(st.integers(0, 3 * DAY), st.integers(0, 1000), st.integers(0, 3), st.integers(0, 100)), max_size=12))
def test_what_is_counted_is_that_of_this_day_and_hour_whichever_way_the_clock_goes(store: SqliteStore, counted: list) -> None:
    store.database.run("DELETE FROM used")
    size = versions = centiseconds = 0
    day = hour = -1
    for now, more, some, work in counted:
        size, versions = (size if now // DAY == day else 0) + more, (versions if now // HOUR == hour else 0) + some
        centiseconds = (centiseconds if now // HOUR == hour else 0) + work
        day, hour = now // DAY, now // HOUR
        store.quotas.count("pi-7", now, bytes=more, versions=some, cpu=work / 100)
        used = store.quotas.used("pi-7", now)
        assert (used.bytes, used.versions, round(used.cpu * 100)) == (size, versions, centiseconds)
        assert store.quotas.used("pi-7", now + DAY) == UsedRow() == store.quotas.used("pi-8", now)


def test_what_is_held_counts_with_what_is_under_way(store: SqliteStore) -> None:
    lineage = store.lineages.ensure("pi-7", "digits").id
    store.lineages.grant(lineage, STATE, BASE.commit, 11)
    ids = chain(store, lineage, 3)
    held = sum(version.size for version in map(store.versions.by_id, ids) if version is not None)
    assert store.quotas.used("pi-7", 5) == UsedRow(disk=held)
    store.transfers.open(OpenTransfer(b"t" * 32, "pi-7", "digits", b"record", 5000, 1))
    assert store.quotas.used("pi-7", 5) == UsedRow(transfers=1, disk=held + 5000)
    store.transfers.close(b"t" * 32)
    assert store.quotas.used("pi-7", 5) == UsedRow(disk=held) and store.quotas.used("pi-8", 5) == UsedRow()


def test_who_was_admitted_is_told_in_order_and_once(store: SqliteStore) -> None:
    first = store.quotas.admitted(0, 1)
    assert [device for _, device in first] == ["pi-7"]
    assert [device for _, device in store.quotas.admitted(first[0][0], 9)] == ["pi-8"]
    assert store.quotas.users() == []


def test_what_is_taken_back_is_not_counted(store: SqliteStore) -> None:
    with pytest.raises(RuntimeError), store.transaction():
        store.quotas.count("pi-7", 5, bytes=7)
        raise RuntimeError
    assert store.quotas.used("pi-7", 5) == UsedRow()
