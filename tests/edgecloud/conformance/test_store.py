"""What every Store passes. A second implementation is one more entry in STORES."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgecloud.registry import (
    ActRow,
    AlarmRow,
    Base,
    HeadRow,
    ModelWish,
    NewVersion,
    OpenTransfer,
    Parked,
    Refusal,
    Request,
    SqliteStore,
    Status,
    Store,
    TrustRow,
    WaitingMessage,
    create_registry,
    open_registry,
)
from modelwire.errors import LineageError, StateBusy
from modelwire.wire.signing import Fleet

Opener = Callable[[], Store]
Factory = Callable[[float], Store]  # seconds that it waits for another writer


def sqlite(folder: Path) -> Factory:
    path = folder / "fleet.db"
    create_registry(path, fleet="orchard", identity=IDENTITY, trust=TRUST, now=1)
    return lambda busy: open_registry(path, synchronous="OFF", busy=busy)


STORES = {"sqlite": sqlite}
IDENTITY, TRUST = Fleet(b"r" * 32, b"i" * 16), TrustRow(1, b"signed by the root")
KEY, OTHER = b"k" * 32, b"o" * 32
STATE = b"s" * 16


def digest(n: int) -> bytes:
    return n.to_bytes(32, "big")


BASE = Base(digest(1), "digits", b"manifest", digest(2), 3, 10)


@pytest.fixture(params=sorted(STORES))
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Factory:
    return STORES[request.param](tmp_path)


@pytest.fixture
def opener(factory: Factory) -> Iterator[Opener]:
    opened: list[Store] = []

    def open_one() -> Store:
        opened.append(factory(0.2))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(opener: Opener) -> Store:
    return opener()


@pytest.fixture
def lineage(store: Store) -> int:
    """A device with one model in epoch 1 on BASE."""
    store.bases.add(BASE)
    store.devices.add("pi-7", KEY, 10)
    id = store.lineages.ensure("pi-7", "digits").id
    store.lineages.grant(id, STATE, BASE.commit, 11)
    return id


def version(lineage: int, n: int, *, parent: bytes = BASE.commit, parent_id: int | None = None, **other: object) -> NewVersion:
    made = NewVersion(
        lineage, 1, n, "delta", digest(100 + n), parent, parent_id, BASE.commit, digest(200 + n), bytes(16), digest(300 + n), 42, 12, b"",
    )  # fmt: skip
    return replace(made, **other)  # type: ignore[arg-type]


def chain(store: Store, lineage: int, n: int, snapshots: tuple[int, ...] = ()) -> list[int]:
    """Add versions 1..n, each on the one before, and return their ids."""
    ids: list[int] = []
    parent, parent_id = BASE.commit, None
    for i in range(1, n + 1):
        row = store.versions.add(
            version(lineage, i, parent=parent, parent_id=parent_id, kind="snapshot" if i in snapshots else "delta")
        )
        parent, parent_id = row.commit, row.id
        ids.append(row.id)
    return ids


def test_a_registry_knows_its_fleet(store: Store) -> None:
    assert (store.fleet, store.identity) == ("orchard", IDENTITY)


def test_trust_records_are_kept_once_and_the_newest_is_found(store: Store) -> None:
    assert store.trusts.newest() == TRUST
    later = TrustRow(4, b"the next")
    store.trusts.add(later)
    assert store.trusts.all() == [TRUST, later] and store.trusts.newest() == later
    with pytest.raises(LineageError):
        store.trusts.add(TrustRow(4, b"another"))


def test_acts_are_kept_in_order(store: Store) -> None:
    assert store.acts.last() == 0
    said = ((3, "pi-7", "admit"), (5, "pi-8", "admit"), (9, "pi-7", "revoke"))
    acts = [ActRow(n, device, verb, KEY, b"sealed") for n, device, verb in said]
    for act in acts:
        store.acts.add(act)
    assert store.acts.last() == 9 and store.acts.of("pi-7") == [acts[0], acts[2]]
    with pytest.raises(LineageError):
        store.acts.add(acts[0])


def test_bases_are_kept_once_by_commit_and_by_name(store: Store) -> None:
    store.bases.add(BASE)
    assert store.bases.get(BASE.commit) == store.bases.named("digits") == BASE
    assert store.bases.get(digest(9)) is None and store.bases.named("other") is None
    for other in (replace(BASE, name="x"), replace(BASE, commit=digest(9))):
        with pytest.raises(LineageError):
            store.bases.add(other)
    assert store.bases.all() == [BASE]


def test_a_key_speaks_for_one_device_until_it_is_revoked(store: Store) -> None:
    store.devices.add("pi-7", KEY, 10)
    with pytest.raises(LineageError):
        store.devices.add("pi-8", KEY, 11)
    assert store.devices.names() == ["pi-7"]
    assert store.devices.owner(KEY) == "pi-7"
    store.devices.add("pi-7", OTHER, 12)
    assert [k.key for k in store.devices.keys("pi-7")] == [KEY, OTHER]
    assert store.devices.revoke("pi-7", 13) == 2
    assert store.devices.revoke("pi-7", 14) == 0
    assert [k.revoked_at for k in store.devices.keys("pi-7")] == [13, 13]
    assert store.devices.owner(KEY) is None
    store.devices.add("pi-8", KEY, 15)
    assert store.devices.owner(KEY) == "pi-8"
    assert store.devices.keys("nobody") == []


def test_epochs_are_counted_by_when_they_were_granted(store: Store, lineage: int) -> None:
    for n, at in enumerate((100, 200, 300, 300)):
        store.lineages.grant(lineage, bytes([n]) * 16, BASE.commit, at)
    granted = store.lineages.granted
    assert granted(lineage, 12, 999, 10) == [300, 300, 200, 100]
    assert granted(lineage, 200, 299, 10) == [200] and granted(lineage, 0, 999, 2) == [300, 300]
    assert granted(lineage, 301, 999, 10) == [] == granted(lineage + 1, 0, 999, 10)


def test_epochs_rise_and_a_known_state_keeps_its_own(store: Store, lineage: int) -> None:
    first = store.lineages.epoch_of(lineage, STATE)
    store.lineages.used(lineage, 7)
    store.lineages.used(lineage, 3)
    second = store.lineages.grant(lineage, b"t" * 16, BASE.commit, 20)
    assert (first.epoch, first.floor) == (1, 0)
    assert (second.epoch, second.floor) == (2, 7)
    assert store.lineages.current(lineage) == second
    assert store.lineages.epoch(lineage, 1) == first
    assert store.lineages.epoch_of(lineage, STATE) == first
    assert store.lineages.by_id(lineage).last_version == 7
    with pytest.raises(LineageError):
        store.lineages.grant(lineage, STATE, BASE.commit, 21)


def test_each_model_of_a_device_has_a_lineage_of_its_own(store: Store, lineage: int) -> None:
    other = store.lineages.ensure("pi-7", "motion")
    assert store.lineages.ensure("pi-7", "motion") == other != store.lineages.get("pi-7", "digits")
    assert [one.model for one in store.lineages.of("pi-7")] == ["digits", "motion"]
    assert [str(one) for one in store.lineages.all()] == ["pi-7/digits", "pi-7/motion"]
    assert store.lineages.get("pi-8", "digits") is None
    assert store.lineages.current(other.id) is None
    with pytest.raises(LineageError):
        store.lineages.ensure("nobody", "digits")


def test_a_head_moves_only_from_where_it_is_thought_to_be(store: Store, lineage: int) -> None:
    row = store.versions.add(version(lineage, 1))
    assert store.lineages.head(lineage, 1) == HeadRow(None, BASE.commit, 0)
    to = HeadRow(row.id, row.commit, 1)
    assert not store.lineages.move_head(lineage, 1, digest(5), to)
    assert store.lineages.head(lineage, 1).version == 0
    assert store.lineages.move_head(lineage, 1, BASE.commit, to)
    assert not store.lineages.move_head(lineage, 1, BASE.commit, to)
    assert store.lineages.head(lineage, 1) == to
    assert store.lineages.head(lineage, 9) is None


def test_a_late_word_of_an_older_start_is_not_kept(store: Store, lineage: int) -> None:
    assert store.lineages.presence(lineage) is None
    assert store.lineages.seen(lineage, True, 5, 100)
    assert not store.lineages.seen(lineage, False, 4, 101)
    assert store.lineages.presence(lineage).online
    assert store.lineages.seen(lineage, False, 5, 102)
    store.lineages.greeted(lineage, "litert", "0.1.0", 103)
    kept = store.lineages.presence(lineage)
    assert (kept.online, kept.boot, kept.received_at, kept.runtime) == (False, 5, 103, "litert")


def test_a_version_is_found_by_all_its_names(store: Store, lineage: int) -> None:
    row = store.versions.add(version(lineage, 1, extension=b"\xa0"))
    assert row.status is Status.STORED
    found = [
        store.versions.by_id(row.id), store.versions.by_commit(row.commit), store.versions.by_blob(row.blob),
        store.versions.numbered(lineage, 1), store.versions.of(lineage)[0],
    ]  # fmt: skip
    assert found == [row] * 5
    assert store.versions.by_commit(digest(7)) is None and store.versions.numbered(lineage, 2) is None


def test_a_commit_and_a_number_are_held_once(store: Store, lineage: int) -> None:
    row = store.versions.add(version(lineage, 1))
    for twin in (version(lineage, 1, commit=digest(8)), version(lineage, 2, commit=row.commit)):
        with pytest.raises(LineageError):
            store.versions.add(twin)
    assert store.versions.of(lineage) == [row]


def test_a_version_needs_its_epoch_base_and_parent(store: Store, lineage: int) -> None:
    for bad in (
        version(lineage, 1, epoch=2),
        version(lineage, 1, base=digest(9), parent=digest(9)),
        version(lineage, 1, parent=digest(9), parent_id=77),
        version(lineage, 1, parent=digest(9)),  # neither the base nor a version
    ):
        with pytest.raises(LineageError):
            store.versions.add(bad)
    assert store.versions.of(lineage) == []


def test_a_version_moves_once_and_never_back(store: Store, lineage: int) -> None:
    one, two = chain(store, lineage, 2)
    store.versions.verify(one)
    store.versions.refuse(two, "no good")
    assert [(v.status, v.reason) for v in store.versions.of(lineage)] == [(Status.VERIFIED, ""), (Status.REFUSED, "no good")]
    for again in (lambda: store.versions.refuse(one, "x"), lambda: store.versions.verify(two), lambda: store.versions.verify(one)):
        with pytest.raises(LineageError):
            again()
    assert store.versions.verified(lineage, 1) == 1
    assert store.versions.verified(lineage, 2) == 0


def test_the_last_verified_version_of_the_older_epochs_is_found(store: Store, lineage: int) -> None:
    one, two, three = chain(store, lineage, 3)
    assert store.versions.last_verified(lineage, 2) is None
    store.versions.verify(one)
    store.versions.verify(two)
    store.versions.refuse(three, "no good")
    store.lineages.used(lineage, 3)
    store.lineages.grant(lineage, b"t" * 16, BASE.commit, 20)
    assert store.versions.last_verified(lineage, 1) is None
    for before in (2, 3, 99):
        assert (found := store.versions.last_verified(lineage, before)) is not None and found.id == two
    newer = store.versions.add(version(lineage, 4, epoch=2))
    store.versions.verify(newer.id)
    assert [found.version for n in (2, 3) if (found := store.versions.last_verified(lineage, n))] == [2, 4]
    assert store.versions.last_verified(lineage + 1, 9) is None


def test_a_wish_is_kept_for_its_epoch_and_taken_back(store: Store, lineage: int) -> None:
    assert store.lineages.wish(lineage) is None
    store.lineages.set_wish(lineage, 1, 10)
    store.lineages.set_wish(lineage, 1, 20)
    assert store.lineages.wish(lineage) == ModelWish(lineage, 1, 10)
    store.lineages.set_wish(lineage, 2, 30)
    assert store.lineages.wish(lineage) == ModelWish(lineage, 2, 30)
    store.lineages.decline_wish(lineage)
    store.lineages.set_wish(lineage, 2, 40)
    assert store.lineages.wish(lineage) == ModelWish(lineage, 2, 30, declined=True)
    store.lineages.set_wish(lineage, 3, 50)
    assert store.lineages.wish(lineage) == ModelWish(lineage, 3, 50)
    for _ in range(2):
        store.lineages.end_wish(lineage)
        assert store.lineages.wish(lineage) is None


def test_a_chain_starts_at_the_nearest_snapshot(store: Store, lineage: int) -> None:
    ids = chain(store, lineage, 6, snapshots=(3,))
    rows = store.versions.of(lineage)
    numbers = [[v.version for v in store.versions.chain(row)] for row in rows]
    assert numbers == [[1], [1, 2], [3], [3, 4], [3, 4, 5], [3, 4, 5, 6]]
    assert [v.id for v in rows] == ids


def test_unverified_versions_come_parents_first_and_children_are_found(store: Store, lineage: int) -> None:
    ids = chain(store, lineage, 4)
    store.versions.verify(ids[0])
    assert [v.id for v in store.versions.unverified(10)] == ids[1:]
    assert [v.id for v in store.versions.unverified(1, after=ids[1])] == ids[2:3]
    assert [v.id for v in store.versions.served_children(ids[1])] == [ids[2]]
    store.versions.refuse(ids[2], "x")
    assert store.versions.served_children(ids[1]) == []


def test_skipped_numbers_stay_with_the_version_that_carries_them(store: Store, lineage: int) -> None:
    (id,) = chain(store, lineage, 1)
    store.versions.skip(id, 5, 6)
    store.versions.skip(id, 2, 3)
    store.versions.skip(id, 2, 3)
    assert store.versions.skipped(id) == [(2, 3), (5, 6)]


def orphan(lineage: int, n: int, *, device: str = "pi-7", size: int = 10, at: int = 100) -> Parked:
    return Parked(digest(n), device, lineage, 1, n, digest(n - 1), digest(1000 + n), b"o" * size, at)


def test_orphans_wait_by_parent_device_and_number(store: Store, lineage: int) -> None:
    for n in (5, 3, 4):
        store.inbox.park(orphan(lineage, n, at=100 + n))
    store.inbox.park(orphan(lineage, 3, size=99))  # the same commit again
    assert [o.version for o in store.inbox.orphans("pi-7")] == [3, 4, 5]
    assert store.inbox.parked_sizes("pi-7") == [(digest(n), n, 10) for n in (3, 4, 5)]
    assert store.inbox.children(digest(3)) == [orphan(lineage, 4, at=104)]
    assert [o.version for o in store.inbox.outrun(lineage, 4)] == [3, 4] and store.inbox.outrun(lineage + 1, 9) == []
    assert store.inbox.parked(digest(5)).version == 5 and store.inbox.is_parked(digest(1005))
    store.inbox.unpark(digest(5))
    assert store.inbox.parked(digest(5)) is None and not store.inbox.is_parked(digest(1005))


def waiting(n: int, kind: str = "update", **other: object) -> WaitingMessage:
    return replace(WaitingMessage(0, "pi-9", "digits", kind, "unknown-key", digest(n), b"", b"w" * 10, 100 + n, 0), **other)  # type: ignore[arg-type]


def test_held_messages_are_replaced_counted_and_dropped(store: Store) -> None:
    store.inbox.hold(waiting(1))
    store.inbox.hold(waiting(1, bytes=b"newer"))
    store.inbox.hold(waiting(2, "hello"))
    assert {m.bytes for m in store.inbox.held("pi-9")} == {b"newer", b"w" * 10} == {m.bytes for m in store.inbox.held()}
    assert [m.mark for m in store.inbox.held("pi-9", "hello")] == [digest(2)] == [m.mark for m in store.inbox.held(kind="hello")]
    assert store.inbox.held("pi-8", "hello") == [] == store.inbox.held("pi-8")
    assert store.inbox.holds("pi-9", "digits", "update", digest(1)) and not store.inbox.holds("pi-9", "x", "update", digest(1))
    assert store.inbox.held_size("pi-9", "update") == (1, 5)
    assert store.inbox.held_total("hello") == (1, 10)
    store.inbox.make_room("update")
    assert [m.kind for m in store.inbox.held()] == ["hello"]
    assert store.inbox.expire(102) == 0 and store.inbox.expire(103) == 1
    assert store.inbox.held() == []


def test_a_message_that_comes_again_is_counted_from_its_first_time(store: Store) -> None:
    for at in (105, 109, 112):
        store.inbox.hold(waiting(1, "hello", received_at=at))
    (held,) = store.inbox.held()
    assert (held.first_at, held.received_at, held.times) == (105, 112, 3)


def test_room_is_made_by_who_came_least_often_and_last_of_all_by_the_first(store: Store) -> None:
    for n, times in ((1, 1), (2, 2), (3, 1), (4, 1)):  # the first is of one device, the others are not
        for _ in range(times):
            store.inbox.hold(waiting(n, "hello", device="pi-9"))
    store.inbox.hold(waiting(5, "hello", device="pi-8", reason="unknown-base"))
    left = []
    for _ in range(5):
        store.inbox.make_room("hello")
        left.append(sorted(m.mark for m in store.inbox.held()))
    assert left == [sorted(digest(n) for n in kept) for kept in ((1, 2, 4, 5), (1, 2, 5), (1, 5), (5,), ())]


def test_a_rejected_key_is_remembered_for_its_name_and_waits_no_more(store: Store) -> None:
    store.inbox.hold(waiting(1, "hello", mark=KEY))
    store.inbox.hold(waiting(2, "hello", mark=KEY, device="pi-8"))
    store.inbox.hold(waiting(3, "hello", mark=OTHER))
    store.devices.reject("pi-9", KEY, 7)
    store.devices.reject("pi-9", KEY, 8)
    assert [(m.device, m.mark) for m in store.inbox.held()] == [("pi-8", KEY), ("pi-9", OTHER)]
    assert store.devices.is_rejected("pi-9", KEY)
    assert not store.devices.is_rejected("pi-9", OTHER) and not store.devices.is_rejected("pi-8", KEY)
    store.devices.reject("pi-8", OTHER, 9)
    assert [(r.device, r.key, r.at) for r in store.devices.rejections()] == [("pi-8", OTHER, 9), ("pi-9", KEY, 7)]
    assert [r.device for r in store.devices.rejections("pi-9")] == ["pi-9"]


def test_messages_are_released_by_a_new_key_or_the_missing_base(store: Store) -> None:
    store.inbox.hold(waiting(1))
    store.inbox.hold(waiting(2, "hello", mark=OTHER))
    store.inbox.hold(waiting(3, "hello", reason="unknown-base", base=BASE.commit, device="pi-7"))
    assert store.inbox.released(10) == []
    store.devices.add("pi-9", KEY, 1)
    assert store.inbox.released(10) == []  # the hello is of another key, and the update waits for one
    store.lineages.ensure("pi-9", "digits")
    assert [m.kind for m in store.inbox.released(10)] == ["update"]
    store.devices.add("pi-9", OTHER, 2)
    store.bases.add(BASE)
    assert [m.kind for m in store.inbox.released(10)] == ["hello", "hello", "update"]  # hellos first
    looked = store.devices.keys("pi-9")[-1].id
    store.inbox.hold(waiting(1, looked=looked))
    assert [m.kind for m in store.inbox.released(10)] == ["hello", "hello"]
    store.devices.revoke("pi-9", 3)
    assert [m.device for m in store.inbox.released(10)] == ["pi-7"]
    store.inbox.release(store.inbox.released(10)[0].id)
    assert store.inbox.released(10) == []


def refusal(n: int, **other: object) -> Refusal:
    return replace(Refusal(digest(n), "pi-7", "digits", "Conflict", "why", 50, 9), **other)  # type: ignore[arg-type]


def test_refusals_are_bounded_and_one_message_has_one_row(store: Store) -> None:
    for n in range(10):
        store.refusals.add(refusal(n), keep=4)
    store.refusals.add(refusal(9, at=60), keep=4)
    assert store.refusals.count() == 4
    assert [(r.digest, r.repeats, r.at) for r in store.refusals.last(2)] == [(digest(9), 1, 60), (digest(8), 0, 50)]
    assert store.refusals.by_digest(digest(0)) is None and store.refusals.by_digest(digest(9)).repeats == 1
    assert store.refusals.last(9, "pi-8") == [] and len(store.refusals.last(9, "pi-7", "digits")) == 4


def test_only_a_refused_update_with_a_good_signature_is_found_by_commit(store: Store) -> None:
    store.refusals.add(refusal(1, commit=digest(5)), keep=9)
    assert store.refusals.by_commit(digest(5)) is None
    store.refusals.add(refusal(2, commit=digest(6), epoch=1, version=3), keep=9)
    assert store.refusals.by_commit(digest(6)).version == 3


def test_a_request_is_open_until_its_own_device_answers_once(store: Store, lineage: int) -> None:
    other = store.lineages.ensure("pi-7", "motion").id
    asked = Request(77, lineage, "snapshot", b"sealed", expiry=100, created_at=5)
    store.requests.add(asked)
    assert store.requests.open(100) == store.requests.open(6, lineage) == [asked] and asked.open(100)
    assert store.requests.open(6, other) == [] and store.requests.open(101) == [] and not asked.open(101)
    assert (store.requests.last(lineage), store.requests.last(other)) == (77, 0)
    store.requests.add(Request(77, other, "snapshot", b"sealed", expiry=100, created_at=5))  # each lineage counts its own
    with pytest.raises(LineageError):
        store.requests.add(asked)
    assert not store.requests.answer(78, lineage, True, "", 6)
    assert store.requests.answer(77, lineage, False, "busy", 6, b"body")
    assert not store.requests.answer(77, lineage, True, "", 7)
    assert [r.lineage for r in store.requests.open(6)] == [other]
    assert store.requests.of(lineage) == [Request(77, lineage, "snapshot", b"sealed", 100, 5, 6, False, "busy", b"body")]


def test_transfers_keep_their_parts_until_they_are_closed(store: Store) -> None:
    one, two = (OpenTransfer(digest(n), "pi-7", "digits", b"record", 20, n) for n in (1, 2))
    store.transfers.open(two)
    store.transfers.open(one)
    store.transfers.put(one.id, 1, b"bb", 9)
    store.transfers.put(one.id, 0, b"aa", 9)
    store.transfers.put(one.id, 0, b"again", 9)
    store.transfers.open(replace(one, touched_at=10))
    assert store.transfers.find(one.id, 1) == (replace(one, touched_at=10, held=2), True)
    assert store.transfers.find(two.id, 0) == (two, False) and store.transfers.find(digest(3), 0) is None
    store.transfers.tried(one.id, b"like this", 11)
    assert store.transfers.get(one.id) == replace(one, touched_at=10, held=2, tried_at=11, tried_on=b"like this")
    assert store.transfers.held(one.id) == {0, 1} and store.transfers.held(two.id) == set()
    assert store.transfers.pieces(one.id) == {0: b"aa", 1: b"bb"}
    assert [t.id for t in store.transfers.of("pi-7")] == [t.id for t in store.transfers.all()] == [two.id, one.id]
    store.transfers.close(one.id)
    assert store.transfers.get(one.id) is None and store.transfers.held(one.id) == set()
    assert store.transfers.get(two.id) == two


def test_notes_stay_with_what_they_are_about(store: Store) -> None:
    note = store.annotations.add("version", "pi-7/digits@3", "covered", 5)
    store.annotations.add("version", "pi-7/digits@3", "uncovered", 6)
    assert [n.text for n in store.annotations.of("version", "pi-7/digits@3")] == ["covered", "uncovered"]
    assert note.id and store.annotations.of("device", "pi-7/digits@3") == []


def test_a_failed_transaction_leaves_nothing_and_a_failed_one_inside_leaves_the_rest(store: Store, opener: Opener) -> None:
    class Trouble(Exception):
        pass

    with pytest.raises(Trouble), store.transaction():
        store.devices.add("pi-1", KEY, 1)
        raise Trouble
    with store.transaction():
        store.devices.add("pi-2", KEY, 1)
        with pytest.raises(Trouble), store.transaction():
            store.devices.add("pi-3", OTHER, 1)
            raise Trouble
        with pytest.raises(LineageError), store.transaction():
            store.devices.add("pi-4", KEY, 1)
    assert store.devices.names() == opener().devices.names() == ["pi-2"]


def test_nobody_sees_a_transaction_before_its_end(store: Store, opener: Opener) -> None:
    other = opener()
    with store.transaction():
        store.devices.add("pi-1", KEY, 1)
        assert other.devices.names() == []
    assert other.devices.names() == ["pi-1"]


def test_a_second_writer_waits_and_says_so_when_it_takes_too_long(store: Store, opener: Opener) -> None:
    with store.transaction():
        store.devices.add("pi-1", KEY, 1)
        with pytest.raises(StateBusy):
            opener().devices.add("pi-2", OTHER, 1)
    opener().devices.add("pi-2", OTHER, 1)
    assert store.devices.names() == ["pi-1", "pi-2"]


def test_four_threads_write_without_losing_anything(factory: Factory) -> None:
    first = factory(10.0)
    first.devices.add("pi-7", KEY, 1)

    def write(thread: int) -> None:
        mine = factory(10.0)  # a store belongs to the thread that opened it
        for n in range(50):
            with mine.transaction():
                mine.annotations.add("device", "pi-7", f"{thread} {n}", 1)
        mine.close()

    threads = [threading.Thread(target=write, args=(t,)) for t in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    notes = [n.text for n in first.annotations.of("device", "pi-7")]
    first.close()
    assert sorted(notes) == sorted(f"{t} {n}" for t in range(4) for n in range(50))


def test_what_is_written_once_stays(store: Store, lineage: int) -> None:
    """The promise is kept by the store itself, not by the good manners of the code above it."""
    if not isinstance(store, SqliteStore):
        raise AssertionError("say how this store proves it")
    (id,) = chain(store, lineage, 1)
    store.annotations.add("device", "pi-7", "x", 1)
    store.versions.skip(id, 1, 1)
    store.blobs.put(b"x")
    store.requests.add(Request(1, lineage, "snapshot", b"sealed", 9, 5))
    store.acts.add(ActRow(1, "pi-7", "admit", KEY, b"sealed"))
    for table in (
        "trust", "act", "version", "base", "blob", "device", "device_key", "epoch", "lineage", "head", "skipped", "annotation", "command",
    ):  # fmt: skip
        with pytest.raises(LineageError, match="write-once"):
            store.database.run(f"DELETE FROM {table}")
    for table, column in (
        ("version", "root"), ("version", "parent_id"), ("version", "id"), ("base", "manifest"), ("blob", "bytes"), ("device_key", "key"),
        ("epoch", "state"), ("skipped", "last"), ("annotation", "text"), ("registry", "fleet"), ("command", "record"),
        ("trust", "record"), ("act", "record"),
    ):  # fmt: skip
        with pytest.raises(LineageError, match="write-once"):
            store.database.run(f"UPDATE {table} SET {column} = {column}")


def test_alarms_of_a_kind_are_one_that_counts_until_it_is_acknowledged(store: Store) -> None:
    fork, session = AlarmRow("pi-7", "digits", "fork", "two", 20), AlarmRow("", "", "session", "taken", 21, times=4)
    assert store.losses.raise_alarm(fork) and not store.losses.raise_alarm(replace(fork, text="two again", last_at=25))
    assert store.losses.raise_alarm(session) and store.losses.raise_alarm(replace(fork, model="motion"))
    assert [(a.device, a.model, a.text, a.times, a.first_at, a.last_at) for a in store.losses.alarms()] == [
        ("pi-7", "digits", "two again", 2, 20, 25), ("pi-7", "motion", "two", 1, 20, 20), ("", "", "taken", 4, 21, 21),
    ]  # fmt: skip
    assert store.losses.acknowledge("pi-7", 30) == 2 and store.losses.acknowledge("pi-7", 31) == 0
    assert [a.kind for a in store.losses.alarms(only_open=True)] == ["session"]
    assert [(a.model, a.seen_at, a.open) for a in store.losses.alarms("pi-7")] == [("digits", 30, False), ("motion", 30, False)]
    assert store.losses.raise_alarm(replace(fork, last_at=40))
    assert [(a.times, a.first_at, a.open) for a in store.losses.alarms("pi-7")] == [(1, 20, False), (1, 40, True)]
