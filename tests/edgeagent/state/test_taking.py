"""A model whose update comes in parts: taken over whole or not at all, by the operator's command alone, whatever lies or dies meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeagent.state import commands
from edgeagent.state.taking import FILE, TRIES, most_bytes
from modelwire.errors import ModelWireError
from modelwire.lattice.between import difference
from modelwire.lattice.state import ModelState
from modelwire.tflite.file import read_weights
from modelwire.update.container import unsigned
from modelwire.update.header import Header
from modelwire.update.manifest import manifest_of
from modelwire.update.sections import Kind
from modelwire.wire import parts, records, topics
from modelwire.wire.commands import TAKE_MAX, Take
from modelwire.wire.parts import WANTED_AT_ONCE, Outgoing
from modelwire.wire.records import Command, Hello, Level, Response, Transfer, Wanted
from modelwire.wire.signing import Role
from tests import keys
from tests.edgeagent.boards import TINY, Rig, centre, command, fill, make_with, rig
from tests.edgeagent.centre import Centre, FakeClock

PAD = {"pad": np.random.default_rng(0).bytes(14_000)}  # makes of a tiny update more parts than are asked for at once
PART = 1024 + 44 + 32 * 14
TOPIC = topics.down("home", "pi-7", "tiny", "part")
OFFER = bytes(range(32)), 12


def learned() -> ModelState:
    """Return what the device had come to before it lost its disk."""
    manifest = manifest_of(TINY)
    state = ModelState.of_base(manifest, manifest.schema.flat(read_weights(TINY)))
    rng = np.random.default_rng(5)
    for t, spec in enumerate(manifest.schema.tensors):
        state.integers[t][:] = rng.integers(-50, 50, spec.size)
    sections = state.snapshot()
    state = state.at_base()
    state.apply(Kind.SNAPSHOT, sections)
    return state


AFTER = learned()


@dataclass
class Store:
    """What a centre hands out: the update in parts, to each `wanted` some of those that are missing."""

    centre: Centre
    out: Outgoing
    lose: Callable[[int], bool] = lambda index: False
    asked: list[set[int]] = field(default_factory=list)  # the parts that the device said it had

    def __post_init__(self) -> None:
        self.centre.drop_up = self._said

    def _said(self, leaf: str, said: object) -> bool:
        if isinstance(said, Wanted) and said.id == self.out.transfer.id and len(said.have) == -(-self.out.count // 8):
            missing = parts.missing(said.have, self.out.count)
            self.asked.append(set(range(self.out.count)) - set(missing))
            for index in missing[:WANTED_AT_ONCE]:
                if not self.lose(index):
                    self.centre.deliver(TOPIC, self.out.cut(index))
        return False


def update(r: Rig, kind: Kind = Kind.DELTA, **said: Any) -> bytes:
    """Return the update that leads from the base to what it had learned. said: fields of its header."""
    m, base = r.lineage.manifest, r.lineage.load().state.at_base()
    fields: dict[str, Any] = {
        "kind": kind, "device": "pi-7", "model": "tiny", "epoch": 1, "version": 12, "parent": m.commit, "schema_id": m.schema.id,
        "root": AFTER.root, "fingerprint": AFTER.fingerprint, "base": m.commit if kind is Kind.SNAPSHOT else b"", "extension": PAD,
    }  # fmt: skip
    return unsigned(Header(**{**fields, **said}), AFTER.snapshot() if kind is Kind.SNAPSHOT else difference(base, AFTER), m.schema)


def cut(data: bytes, part: int = PART) -> Outgoing:
    return parts.describe(data, fleet="home", device="pi-7", model="tiny", at=0, part=part)


def take(r: Rig, out: Outgoing, number: int = 7, **said: Any) -> Command:
    task = Take(out.transfer.id, out.transfer.size)
    return command(r, number, "take", parent=r.lineage.base_commit, body=task.body(), epoch=1, **said)


def say(r: Rig, *said: Command | Transfer, after: float = 5) -> None:
    """Let the centre say these a while after the start, when the device has its epoch."""
    for one in said:
        leaf = "part" if isinstance(one, Transfer) else "cmd"
        r.centre.after(after, lambda one=one, leaf=leaf: r.centre.push(one, leaf))  # type: ignore[misc]


def answers(r: Rig) -> list[tuple[int, bool, str]]:
    return [(a.number, a.ok, a.text) for a in r.centre.answers]


def untouched(r: Rig) -> bool:
    """Whether the model is as it was, and nothing of an update lies about."""
    return not r.lineage.head().version and r.lineage.takings.current() is None and not (r.lineage.store.folder / FILE).exists()


@contextmanager
def fresh(folder: Path, clock: FakeClock | Centre, **changes: str) -> Iterator[Rig]:
    """Open a device that would like its last model back, with more samples than a round needs."""
    new = not folder.exists()
    if new:
        make_with(folder, {"train.min_new_samples": "8", **{k.replace("__", "."): v for k, v in changes.items()}}, resume=True)
    c = clock if isinstance(clock, Centre) else centre(clock)
    c.last_model = OFFER
    with rig(folder, c) as r:
        if new:
            fill(r.device)
        yield r


def test_the_last_model_comes_back_to_the_bit_and_becomes_a_version_of_this_device(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock) as r:
        out = cut(update(r))
        held = Store(r.centre, out)
        r.serve(30)
        assert r.lineage.head().rounds == 0 and r.lineage.wish() is not None, "it waits for it and does not train"
        waits = r.agent._allowance._for_last_model(r.lineage, clock.monotonic())
        assert waits is not None and "@12" in waits.reason and "link.resume_wait (1d)" in waits.until
        say(r, take(r, out), out.transfer)
        r.serve(30)
        assert answers(r)[0] == (7, True, "@1 took its last model back")
        row = r.lineage.versions()[-1]
        assert (row["version"], row["kind"], row["root"], row["round"]) == (1, "delta", AFTER.root, 0)
        assert row["reason"] == "took its last model back"
        assert r.centre.held("pi-7", "tiny")[1].level is Level.VERIFIED, "published like any other"
        assert r.centre.held("pi-7", "tiny")[1].header.root == AFTER.root
        hellos = [h.resume for h in r.centre.said("hello") if isinstance(h, Hello)]
        assert hellos[0] and not (r.lineage.store.folder / FILE).exists()
        r.serve(60)
        assert r.lineage.wish() is None and r.lineage.head().rounds > 0, "now it goes on learning, from there"
        assert [len(have) for have in held.asked][:2] == [0, WANTED_AT_ONCE] and out.count > WANTED_AT_ONCE


@pytest.mark.parametrize("kind", [Kind.DELTA, Kind.SNAPSHOT])
def test_its_weights_are_those_of_before(tmp_path: Path, clock: FakeClock, kind: Kind) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        out = cut(update(r, kind))
        Store(r.centre, out)
        say(r, take(r, out), out.transfer)
        r.serve(60)
        state = r.lineage.load().state
        assert state.root == AFTER.root and all(np.array_equal(a, b) for a, b in zip(state.weights, AFTER.weights, strict=True))
        assert [v.kind for v in r.centre.held("pi-7", "tiny").values()] == [kind] and r.states() == {1: "verified"}


def test_a_small_one_comes_as_an_adopt(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        say(r, command(r, 7, "adopt", parent=r.lineage.base_commit, epoch=1, body={"update": update(r)}))
        r.serve(30)
        assert answers(r) == [(7, True, "@1 took its last model back")] and r.lineage.load().state.root == AFTER.root


def test_a_centre_that_holds_none_says_so_and_the_device_goes_on_at_once(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock) as r:
        r.centre.last_model = (b"", 0)
        r.serve(30)
        assert r.lineage.wish() is None and r.lineage.head().rounds > 0


def test_it_waits_as_long_as_the_settings_say_over_restarts_and_then_trains(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with fresh(tmp_path / "d", c, link__resume_wait="10min") as r:
        r.serve(320)
        assert r.lineage.head().rounds == 0
    with fresh(tmp_path / "d", c) as r:
        assert (wish := r.lineage.wish()) is not None and 250 <= wish.waited <= 330
        r.serve(200)
        assert r.lineage.head().rounds == 0
        r.serve(300)
        assert r.lineage.head().rounds > 0
        late = cut(update(r))
        say(r, take(r, late), late.transfer)
        r.serve(30)
        assert answers(r)[0][:2] == (7, False) and "the head has moved on" in answers(r)[0][2]


def test_without_a_wait_it_trains_at_once(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock, link__resume_wait="0s") as r:
        r.serve(10)
        assert r.lineage.head().rounds > 0


def test_an_update_that_never_ends_holds_up_nothing_for_longer_than_that(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock, link__resume_wait="10min") as r:
        out = cut(update(r))
        Store(r.centre, out, lose=lambda index: index == 5)
        say(r, take(r, out), out.transfer)
        r.serve(500)
        assert (taking := r.lineage.takings.current()) is not None and len(taking.held) == out.count - 1 and r.lineage.head().rounds == 0
        r.serve(4000)
        assert r.lineage.head().rounds > 0 and r.lineage.takings.current() is None
        assert [a[1:] for a in answers(r)] == [(False, "the head has moved on to @1; ask again")]


def test_lost_parts_are_asked_for_again_and_none_that_is_here(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        out, lost = cut(update(r)), iter([True] * 5)
        held = Store(r.centre, out, lose=lambda index: next(lost, False))
        say(r, take(r, out), out.transfer)
        r.serve(200)
        assert r.lineage.load().state.root == AFTER.root
        assert [a <= b for a, b in zip(held.asked, held.asked[1:], strict=False)] == [True] * (len(held.asked) - 1)


@pytest.mark.parametrize("moment", ["keep", "describe", "begin", "join", "write", "adopt", "tidy"])
@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
def test_a_kill_at_any_moment_costs_nothing_that_was_here(
    tmp_path: Path, clock: FakeClock, moment: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = centre(clock)
    with fresh(tmp_path / "d", c, train__min_samples="1000") as r:
        out = cut(update(r))
        held = Store(c, out)
        told = take(r, out)
        c.commands.append(told)
        say(r, told, out.transfer)
        of = {"write": r.lineage.store, "adopt": r.lineage}.get(moment, r.lineage.takings)
        real, calls = getattr(of, moment), [0]

        def killed(*given: Any, **more: Any) -> Any:
            calls[0] += 1
            if moment == "keep" and calls[0] <= 3:
                return real(*given, **more)
            if after:
                real(*given, **more)
            raise KeyboardInterrupt

        monkeypatch.setattr(of, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            r.serve(60)
        kept = r.lineage.takings.current()
        had = set(kept.held) if kept is not None else set()
    monkeypatch.undo()
    with fresh(tmp_path / "d", c) as r:
        asked = len(held.asked)
        say(r, out.transfer)
        r.serve(60)
        assert r.lineage.load().state.root == AFTER.root and r.states() == {1: "verified"}, "once"
        assert answers(r)[-1] == (7, True, "@1 took its last model back") and not (r.lineage.store.folder / FILE).exists()
        assert all(had <= have for have in held.asked[asked:])


def test_parts_that_are_not_proven_foreign_or_cut_short_are_not_kept(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        out = cut(update(r))
        r.serve(10)
        r.centre.push(take(r, out))
        r.centre.push(out.transfer, "part")
        r.serve(1)
        good, other = out.cut(3), cut(update(r, epoch=9))
        bad = [good[:-1], good[:40], good[:44], good[:-1] + bytes([good[-1] ^ 1]), other.cut(3), good + b"x", parts.MAGIC]
        bad += [good[:40] + b"\xff" * 4, out.cut(2)[:40] + good[40:44] + out.cut(2)[44:]]  # a part in another's place
        for data in bad:
            r.centre.deliver(TOPIC, data)
        r.serve(1)
        taking = r.lineage.takings.current()
        assert taking is not None and taking.held == frozenset() and not (r.lineage.store.folder / FILE).exists()
        r.centre.deliver(topics.down("home", "pi-8", "tiny", "part"), good)
        r.centre.deliver(topics.down("home", "pi-7", "other", "part"), good)
        r.serve(1)
        assert (taking := r.lineage.takings.current()) is not None and not taking.held
        for _ in range(3):
            r.centre.deliver(TOPIC, good)
        r.serve(1)
        assert (taking := r.lineage.takings.current()) is not None and taking.held == {3}
        assert (r.lineage.store.folder / FILE).stat().st_size == 4 * 1024


def test_parts_before_any_command_or_after_its_end_are_dropped(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        out = cut(update(r))
        r.serve(10)
        r.centre.push(out.transfer, "part")
        r.centre.deliver(TOPIC, out.cut(0))
        r.serve(5)
        assert untouched(r) and not [s for s in r.centre.said("part") if isinstance(s, Wanted)], "nobody named it: nobody is asked for it"


def test_bytes_that_the_tree_proves_and_the_command_does_not_name_are_never_applied(tmp_path: Path, clock: FakeClock) -> None:
    """The ingester's key can describe another tree; the operator's digest is what counts."""
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        out = cut(update(r))
        lied = cut(bytes(out.transfer.size))
        liar = Outgoing(replace(lied.transfer, id=out.transfer.id), lied.data, lied.levels)
        Store(r.centre, liar)
        told = take(r, out)
        say(r, told, liar.transfer)
        for n in range(1, TRIES):
            say(r, liar.transfer, after=60 * n)
        r.serve(300)
        assert untouched(r) and answers(r)[0][:2] == (7, False) and f"{TRIES} times" in answers(r)[0][2]


def test_an_honest_word_after_a_lie_brings_it_back(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        out = cut(update(r))
        lied = cut(bytes(out.transfer.size))
        held = Store(r.centre, Outgoing(replace(lied.transfer, id=out.transfer.id), lied.data, lied.levels))
        say(r, take(r, out), held.out.transfer)
        r.serve(30)
        held.out = out
        say(r, out.transfer)
        r.serve(60)
        assert answers(r) == [(7, True, "@1 took its last model back")] and r.lineage.load().state.root == AFTER.root


def test_another_cut_of_the_same_bytes_takes_the_place_of_the_first(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        out, wider = cut(update(r)), cut(update(r), 2048 + 44 + 32 * 14)
        held = Store(r.centre, out, lose=lambda index: index == 2)
        say(r, take(r, out), out.transfer)
        r.serve(30)
        held.out, held.lose = wider, lambda index: False
        say(r, wider.transfer)
        r.serve(60)
        assert r.lineage.load().state.root == AFTER.root and set() in held.asked[1:]


def test_a_size_that_no_update_of_this_model_has_is_refused_before_a_byte_is_kept(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock) as r:
        r.serve(10)
        most = most_bytes(r.lineage.manifest)
        assert most < TAKE_MAX
        for number, size in ((1, most + 1), (2, TAKE_MAX), (3, TAKE_MAX + 1), (4, 1 << 62), (5, 0)):
            r.centre.push(command(r, number, "take", parent=r.lineage.base_commit, body={"id": bytes(32), "size": size}))
        r.serve(10)
        assert [a[:2] for a in answers(r)] == [(n, False) for n in range(1, 6)] and untouched(r)
        assert f"at most {most}" in answers(r)[0][2]


@pytest.mark.parametrize("other", [{"size": 999}, {"size": 1 << 40}, {"what": "base"}, {"part_size": 3000}, {"part_size": 1 << 40}])
def test_a_description_that_lies_is_refused_and_keeps_nothing(tmp_path: Path, clock: FakeClock, other: dict[str, Any]) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        out = cut(update(r))
        r.serve(10)
        r.centre.push(take(r, out))
        r.serve(2)
        lie = records.encode(replace(out.transfer, **other), keys.RECEIPT, keys.FLEET_ID, role=Role.RECEIPT)
        r.centre.deliver(TOPIC, lie)
        r.serve(2)
        assert (taking := r.lineage.takings.current()) is not None and taking.transfer is None
        assert not [s for s in r.centre.said("part") if isinstance(s, Wanted)]


AGAINST: list[tuple[dict[str, Any], str]] = [
    ({"state": bytes(16)}, "another state folder"),
    ({"epoch": 2}, "it is for epoch 2"),
    ({"expiry": 1_800_000_000}, "it expired"),
    ({"parent": bytes(32)}, "the head has moved on"),
]


@pytest.mark.parametrize(("other", "text"), AGAINST)
def test_a_command_for_another_folder_epoch_or_head_or_an_expired_one_starts_nothing(
    tmp_path: Path, clock: FakeClock, other: dict[str, Any], text: str
) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        out = cut(update(r))
        held = Store(r.centre, out)
        say(r, replace(take(r, out), **other), out.transfer)
        r.serve(30)
        assert [a[:2] for a in answers(r)] == [(7, False)] and text in answers(r)[0][2] and untouched(r) and held.asked == []


def test_one_said_to_another_device_or_by_another_key_is_not_even_answered(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        out = cut(update(r))
        r.serve(10)
        told = take(r, out)
        for data in (
            records.encode(replace(told, device="pi-8"), keys.COMMAND, keys.FLEET_ID),
            records.encode(told, keys.RECEIPT, keys.FLEET_ID),
            records.encode(told, keys.COMMAND, bytes(16)),
        ):
            r.centre.deliver(topics.down("home", "pi-7", "tiny", "cmd"), data)
        r.serve(10)
        assert answers(r) == [] and untouched(r)


def test_one_that_expires_on_the_way_is_given_up_and_answered(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000", link__hello_every="1min") as r:
        out = cut(update(r))
        Store(r.centre, out, lose=lambda index: index == 5)
        r.serve(10)
        say(r, replace(take(r, out), expiry=int(clock.wall()) + 100), out.transfer)
        r.serve(600)
        assert [a[:2] for a in answers(r)] == [(7, False)] and "it expired" in answers(r)[0][2] and untouched(r)


WHOLE: list[tuple[dict[str, Any], str]] = [
    ({"epoch": 2}, "another epoch or parent"),
    ({"parent": bytes(32)}, "another epoch or parent"),
    ({"device": "pi-8"}, "is of pi-8/tiny"),
    ({"model": "other"}, "is of pi-7/other"),
    ({"root": bytes(32)}, "root"),
    ({"fingerprint": (1, 2)}, "fingerprint"),
    ({"schema_id": bytes(32)}, "schema"),
]


@pytest.mark.parametrize(("other", "text"), WHOLE)
def test_an_update_that_is_whole_and_for_somebody_else_or_wrong_changes_nothing(
    tmp_path: Path, clock: FakeClock, other: dict[str, Any], text: str
) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        before, out = r.lineage.load().state.root, cut(update(r, **other))
        Store(r.centre, out)
        say(r, take(r, out), out.transfer)
        r.serve(60)
        assert [a[:2] for a in answers(r)] == [(7, False)] and text in answers(r)[0][2]
        assert untouched(r) and r.lineage.load().state.root == before


def test_bytes_that_are_no_update_change_nothing(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        out = cut(bytes(5000))
        Store(r.centre, out)
        say(r, take(r, out), out.transfer)
        r.serve(60)
        assert [a[:2] for a in answers(r)] == [(7, False)] and untouched(r)


def test_a_second_one_takes_the_place_of_the_first_and_a_late_first_one_does_not_come_back(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        first, second = cut(update(r, version=5)), cut(update(r))
        held = Store(r.centre, second)
        say(r, take(r, first, 7), first.transfer)
        say(r, take(r, second, 8), second.transfer, after=10)
        say(r, take(r, first, 7), take(r, first, 6), first.transfer, after=12)
        r.serve(60)
        said = answers(r)
        assert (7, False, "command 8 took its place") in said and (8, True, "@1 took its last model back") in said
        assert [a[:2] for a in said if a[0] == 6] == [(6, False)] and r.states() == {1: "verified"} and held.asked
        before = r.states()
        say(r, take(r, second, 8), second.transfer, after=1)
        say(r, take(r, second, 9), after=3)
        r.serve(30)
        assert r.states() == before, "said again it is answered again; said anew the head has moved on"
        assert answers(r)[-1][:2] == (9, False) and "moved on" in answers(r)[-1][2]


def test_another_command_on_the_way_is_answered_and_puts_nothing_off(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        out = cut(update(r))
        held = Store(r.centre, out, lose=lambda index: index == 5)
        told = take(r, out)
        say(r, told, out.transfer)
        say(r, command(r, 8, "leaves", epoch=1, body={"tensor": 0, "first": 0}), after=20)
        r.serve(30)
        held.lose = lambda index: False
        say(r, told, after=1)
        r.serve(60)
        assert [a[:2] for a in answers(r)][:2] == [(8, True), (7, True)] and len(set(answers(r)[1:])) == 1
        assert r.lineage.load().state.root == AFTER.root


def test_a_full_disk_costs_a_part_and_no_more(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeagent.state import taking

    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        out, real, full = cut(update(r)), taking.os.pwrite, [True]

        def pwrite(*given: Any) -> int:
            if full[0]:
                raise OSError(28, "No space left on device")
            return real(*given)

        monkeypatch.setattr(taking.os, "pwrite", pwrite)
        Store(r.centre, out)
        say(r, take(r, out), out.transfer)
        r.serve(30)
        assert (now := r.lineage.takings.current()) is not None and not now.held
        full[0] = False
        r.serve(600)
        assert r.lineage.load().state.root == AFTER.root


def test_a_file_that_somebody_changed_beside_the_agent_is_fetched_again(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        out = cut(update(r))
        held = Store(r.centre, out, lose=lambda index: index == 5)
        say(r, take(r, out), out.transfer)
        r.serve(30)
        file = r.lineage.store.folder / FILE
        file.write_bytes(b"\0" * len(file.read_bytes()))
        held.lose = lambda index: False
        say(r, out.transfer, after=100)
        r.serve(200)
        assert answers(r) == [(7, True, "@1 took its last model back")] and r.lineage.load().state.root == AFTER.root


def test_no_command_is_carried_out_twice_when_it_comes_between_parts(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock, train__min_samples="1000") as r:
        out = cut(update(r))
        Store(r.centre, out)
        for wait in (5, 5.2, 5.4, 8, 12, 30):
            say(r, take(r, out), out.transfer, after=wait)
        r.serve(60)
        assert r.states() == {1: "verified"} and {a[2] for a in answers(r)} == {"@1 took its last model back"}


@pytest.mark.parametrize("seed", range(6))
def test_whatever_a_broker_and_the_power_do_the_same_model_comes_back(tmp_path: Path, clock: FakeClock, seed: int) -> None:
    """Parts lost, repeated, damaged and late, links cut, the centre's word told again and again, the agent started anew."""
    rng, c = np.random.default_rng(seed), centre(clock)
    for start in range(40):
        with fresh(tmp_path / "d", c, train__min_samples="1000", link__resend="2s") as r:
            out = cut(update(r))
            if start == 0:
                c.commands.append(take(r, out))

            def chance(index: int, r: Rig = r, out: Outgoing = out) -> bool:
                whole = out.cut(index)
                if rng.random() < 0.3:
                    at = int(rng.integers(len(whole)))
                    c.deliver(TOPIC, whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(8))]) + whole[at + 1 :])
                if rng.random() < 0.3:
                    c.after(float(rng.uniform(0, 20)), lambda: c.deliver(TOPIC, whole))
                return bool(rng.random() < 0.6)

            Store(c, out, lose=chance)
            say(r, out.transfer, out.transfer, after=float(rng.uniform(0, 3)))
            if rng.random() < 0.5:
                c.after(float(rng.uniform(1, 8)), c.cut)
                c.after(9, c.mend)
            r.serve(float(rng.uniform(1, 12)))
            c.mend()
            if r.lineage.head().version:
                break
    with fresh(tmp_path / "d", c) as r:
        r.serve(60)
        assert r.lineage.load().state.root == AFTER.root and r.states() == {1: "verified"}
        assert {a for a in answers(r) if a[0] == 7} == {(7, True, "@1 took its last model back")}


def test_an_agent_without_a_take_proceeds_with_nothing(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock) as r:
        assert commands.proceed(r.lineage, r.agent.sessions["tiny"]._present()) is None
        with pytest.raises(ModelWireError):
            parts.parse(b"")
        assert not [a for a in r.centre.answers if isinstance(a, Response)]
