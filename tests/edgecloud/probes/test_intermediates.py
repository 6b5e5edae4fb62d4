"""What layers give is computed once: read the second time, kept once for all that share it, within a bound, and gone with its version."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgecloud.probes import coding, intermediates, running, sets
from edgecloud.probes.intermediates import IntermediateSettings, VersionSeen
from edgecloud.registry import OUTPUT, ErasureRow, ProbeRow, SqliteStore
from edgecloud.versions import materialise, naming
from modelwire.errors import BadArgument
from tests.edgecloud.centre import Centre
from tests.edgecloud.device import ScriptedDevice
from tests.stock import runtime

ALL = IntermediateSettings(gamma_min=0.0)
PROBES = sets.probe_set(np.random.default_rng(0).random((40, 4)), np.arange(40) % 3)


@pytest.fixture
def row(store: SqliteStore, centre: Centre, device: ScriptedDevice) -> ProbeRow:
    """A probe set in a registry with three versions of pi-7."""
    runtime()
    for _ in range(3):
        centre.deliver(device, device.train(density=0.3))
    centre.rebuild()
    return sets.add(store, "p", PROBES, now=1)


def ask(store: SqliteStore, row: ProbeRow, *names: str, **how: object) -> list[VersionSeen]:
    places = [naming.find(store, naming.parse(name)) for name in names]
    bases = materialise.LoadedBases(store)
    return intermediates.seen(store, places, row, PROBES, bases, **{"now": 5, "layers": True, "settings": ALL, **how})  # type: ignore[arg-type]


def outputs_of(seen: list[VersionSeen]) -> list[bytes]:
    return [one.output.tobytes() for one in seen if one.output is not None]


def test_the_second_query_reads_what_the_first_one_computed(store: SqliteStore, row: ProbeRow) -> None:
    first, second = (ask(store, row, "pi-7@1", "pi-7@base") for _ in range(2))
    assert [(one.read, one.kept) for one in first] == [(False, True)] * 2 and all(one.read for one in second)
    assert outputs_of(first) == outputs_of(second)  # outputs are kept to the bit
    for a, b in zip(first, second, strict=True):
        assert [one.name for one in a.layers] == [one.name for one in b.layers] and a.raw == b.raw > 0
        for computed, read in zip(a.layers, b.layers, strict=True):
            lost = float(np.linalg.norm(computed.values.astype(float) - read.values))
            assert computed.error == 0 and lost == pytest.approx(read.spread, rel=1e-5, abs=1e-12) and computed.chunk == read.chunk
    exact = ask(store, row, "pi-7@1", "pi-7@base", exact=True)
    assert [one.read for one in exact] == [False, False] and outputs_of(exact) == outputs_of(first)
    whole = ask(store, row, "pi-7@1", settings=IntermediateSettings(gamma_min=0.0, bits=coding.EXACT))
    again = ask(store, row, "pi-7@1", settings=IntermediateSettings(gamma_min=0.0, bits=coding.EXACT))
    assert again[0].read and all(np.array_equal(a.values, b.values) for a, b in zip(whole[0].layers, again[0].layers, strict=True))
    way = intermediates.way_of(ALL, layers=True)
    known = store.intermediates.get(None, row_base(store), row.digest, way)
    assert known is not None and known.queries == 2  # an exact query asks for none


def row_base(store: SqliteStore) -> bytes:
    return store.bases.all()[0].commit


def test_what_two_versions_share_is_kept_once_and_goes_with_the_last(
    store: SqliteStore, row: ProbeRow, centre: Centre, device: ScriptedDevice
) -> None:
    centre.deliver(device, device.snapshot())  # version 4 has the weights of version 3
    centre.rebuild()
    ask(store, row, "pi-7@3")
    alone, chunks = store.intermediates.total(), store.database.number("SELECT count(*) FROM chunk")
    assert alone > 0 < chunks
    twin = ask(store, row, "pi-7@4")[0]
    assert twin.kept and not twin.read and store.intermediates.total() == alone
    assert [size for _, size in store.intermediates.kept()] == [alone / 2] * 2
    assert [[one.chunk for one in seen.layers] for seen in ask(store, row, "pi-7@3", "pi-7@4")] == [[one.chunk for one in twin.layers]] * 2
    (first, _), (second, _) = store.intermediates.kept()
    store.intermediates.drop(first)
    assert store.intermediates.total() == alone and [size for _, size in store.intermediates.kept()] == [alone]
    store.intermediates.drop(second)
    assert store.intermediates.total() == 0 == store.database.number("SELECT count(*) FROM chunk")


def test_what_does_not_pay_is_counted_and_not_kept_until_it_does(store: SqliteStore, row: ProbeRow) -> None:
    once = ask(store, row, "pi-7@2")[0].gamma
    store.intermediates.clear()
    dear = IntermediateSettings(gamma_min=1e6)
    for queries in (1, 2, 3):
        seen = ask(store, row, "pi-7@2", settings=dear)[0]
        assert not seen.kept and not seen.read and store.intermediates.total() == 0 < once
        known = store.intermediates.get(naming.find(store, naming.parse("pi-7@2")).version.id, row_base(store), row.digest,  # type: ignore[union-attr]
                                        intermediates.way_of(dear, layers=True))  # fmt: skip
        assert known is not None and known.queries == queries
    assert ask(store, row, "pi-7@2")[0].kept  # the fourth query, at a price that it is worth


def test_bytes_are_bounded_and_the_least_gamma_goes_first(store: SqliteStore, row: ProbeRow) -> None:
    assert not ask(store, row, "pi-7@1", settings=IntermediateSettings(gamma_min=0.0, most=100))[0].kept
    ask(store, row, "pi-7@1", "pi-7@2", "pi-7@3")
    ids = [observed.id for observed, _ in store.intermediates.kept()]
    store.database.run("UPDATE observed SET rerun_s = 1.0, read_s = 0.0")
    for id, queries in zip(ids, (5, 1, 3), strict=True):
        store.database.run("UPDATE observed SET queries = ? WHERE id = ?", queries, id)
    whole = store.intermediates.total()
    assert intermediates.make_room(store, whole) == set()
    assert intermediates.make_room(store, whole - 1) == {ids[1]} and store.intermediates.total() < whole
    assert intermediates.make_room(store, 1 + whole // 3) == {ids[2]}
    assert [observed.id for observed, _ in store.intermediates.kept()] == [ids[0]]
    assert intermediates.make_room(store, 0) == {ids[0]} and store.intermediates.total() == 0
    known = store.database.number("SELECT count(*) FROM observed")
    assert known == 3  # how often each was asked for is still known


@pytest.mark.parametrize("spoilt", ["UPDATE chunk SET bytes = x'00'", "DELETE FROM chunk", "DELETE FROM intermediate WHERE layer = -1"])
def test_what_was_damaged_or_is_gone_is_computed_anew(store: SqliteStore, row: ProbeRow, spoilt: str) -> None:
    first = ask(store, row, "pi-7@1")
    store.database.run(spoilt)
    again = ask(store, row, "pi-7@1")
    assert not again[0].read and outputs_of(first) == outputs_of(again)
    assert ask(store, row, "pi-7@1")[0].read and store.problems() == []


def test_it_goes_with_its_probe_set_and_with_its_device(store: SqliteStore, row: ProbeRow) -> None:
    ask(store, row, "pi-7@1", "pi-7@base")
    store.erasures.begin(ErasureRow(1, "pi-7", b"said"))
    while store.erasures.delete_some("pi-7", 100):
        pass
    assert [observed.version_id for observed, _ in store.intermediates.kept()] == [None]
    assert store.database.number("SELECT count(*) FROM chunk WHERE digest NOT IN (SELECT chunk FROM intermediate)") == 0
    store.probes.remove(row, 9)
    assert [store.database.number(f"SELECT count(*) FROM {table}") for table in ("observed", "intermediate", "chunk")] == [0, 0, 0]


def test_a_version_that_cannot_be_recovered_is_its_own_result(store: SqliteStore, row: ProbeRow) -> None:
    version = naming.find(store, naming.parse("pi-7@2")).version
    assert version is not None
    store.database.run("DROP TRIGGER version_once")
    store.database.run("UPDATE version SET status = 'refused', reason = 'it lied' WHERE id = ?", version.id)
    first, second = ask(store, row, "pi-7@2", "pi-7@base")
    assert "it lied" in first.reason and first.output is None and second.output is not None


def test_a_version_that_gives_no_finite_numbers_is_its_own_result_and_nothing_of_it_is_kept(
    store: SqliteStore, row: ProbeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, real = naming.find(store, naming.parse("pi-7@2")), running.of_place

    def broken(store: SqliteStore, place: naming.Place, bases: materialise.LoadedBases) -> running.Runnable:
        made = real(store, place, bases)
        assert made.weights is not None
        return replace(made, weights={name: value * np.float32("nan") for name, value in made.weights.items()})

    monkeypatch.setattr(running, "of_place", broken)
    bases = materialise.LoadedBases(store)
    (seen,) = intermediates.seen(store, [place], row, PROBES, bases, now=5, layers=True, settings=ALL)
    assert "not finite" in seen.reason and seen.output is None and store.intermediates.total() == 0


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECLOUD_GAMMA_MIN", "0.5")
    monkeypatch.setenv("EDGECLOUD_INTERMEDIATES", "2")
    settings = IntermediateSettings.from_environment(all_bits=True)
    assert (settings.gamma_min * 2**20, settings.most, settings.bits) == (0.5, 2 << 20, 32)
    for odd in ("-1", "nan", "much", "1e12"):
        monkeypatch.setenv("EDGECLOUD_GAMMA_MIN", odd)
        with pytest.raises(BadArgument, match="EDGECLOUD_GAMMA_MIN"):
            IntermediateSettings.from_environment()
    assert OUTPUT == -1
