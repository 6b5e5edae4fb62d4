"""A command is carried out once, and only where it still holds: each reason against it is an answer, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeagent.service.goal import Goal
from edgeagent.state.answers import KEPT, Answered
from modelwire.identity import tensor_leaves
from modelwire.merkle import merkle
from modelwire.storage import to_bytes
from modelwire.wire.records import Command, Response
from tests.edgeagent.boards import Rig, centre, command, fill, rig
from tests.edgeagent.by_hand import one
from tests.edgeagent.centre import Centre, FakeClock


def told(r: Rig, *commands: Command, seconds: float = 3) -> list[Response]:
    """Let the centre say these, and return what the device answered."""
    before = len(r.centre.answers)
    for c in commands:
        r.centre.after(1, lambda c=c: r.centre.push(c))  # type: ignore[misc]
    r.serve(seconds)
    return r.centre.answers[before:]


def grown(r: Rig) -> None:
    fill(r.device)
    r.run(Goal(rounds=1, timeout=60))


AGAINST: list[tuple[Callable[[Command], Command], str]] = [
    (lambda c: replace(c, expiry=1_800_000_000), "it expired at 1800000000, and the centre's clock said "),
    (lambda c: replace(c, state=bytes(16)), "it is for another state folder of this device"),
    (lambda c: replace(c, epoch=2), "it is for epoch 2, and this is epoch 1"),
    (lambda c: replace(c, parent=bytes(32)), "the head has moved on to @1; ask again"),
    (lambda c: replace(c, verb="self-destruct"), "not understood"),
    # Of several reasons the first in this order is said.
    (lambda c: replace(c, verb="self-destruct", epoch=2), "it is for epoch 2, and this is epoch 1"),
    (lambda c: replace(c, epoch=2, state=bytes(16)), "it is for another state folder of this device"),
    (lambda c: replace(c, state=bytes(16), expiry=1), "it expired at 1, and the centre's clock said "),
]


@pytest.mark.parametrize(("change", "text"), AGAINST)
def test_a_command_that_does_not_hold_is_answered_and_nothing_is_done(
    tmp_path: Path, clock: FakeClock, change: Callable[[Command], Command], text: str
) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        (said,) = told(r, change(command(r, 5)))
        assert (said.number, said.ok) == (5, False) and said.text.startswith(text)
        assert r.states() == {1: "verified"}


def test_a_lower_number_that_is_not_known_is_refused_before_anything_else(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        late = replace(command(r, 6), expiry=1)
        said = told(r, command(r, 7), late)
        assert [(a.number, a.ok) for a in said] == [(7, True), (6, False)] and "came after command 7" in said[1].text
        assert sorted(r.states()) == [1, 2]


def test_the_same_number_gets_the_same_answer_after_a_restart_too_whatever_it_asks_now(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        grown(r)
        asked = command(r, 7)
        refused = command(r, 8, "self-destruct")
        first = told(r, asked, refused)
    with rig(tmp_path / "d", c) as r:
        again = told(r, asked, refused, replace(asked, expiry=1), replace(refused, verb="snapshot"))
        assert [(a.number, a.ok, a.text) for a in again] == [(a.number, a.ok, a.text) for a in [*first, *first]]
        assert sorted(r.states()) == [1, 2], "one snapshot"


def test_nothing_expires_before_the_centre_has_said_its_time_and_the_boards_clock_does_not_count(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        grown(r)
        soon = int(clock.wall()) + 100
        clock.now += 1000  # the device has no welcome of that time yet
        c.drop_down = lambda record: record.KIND == "welcome"
        assert [a.ok for a in told(r, replace(command(r, 1), expiry=soon))] == [True]
        c.drop_down = lambda record: False
        r.serve(60)
        assert [a.ok for a in told(r, replace(command(r, 2), expiry=soon))] == [False]


def test_before_the_first_epoch_nothing_is_done(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock, known=False)
    with rig(tmp_path / "d", c) as r:
        said = told(r, command(r, 1))
        assert [(a.ok, a.text) for a in said] == [(False, "the centre has granted no epoch yet")] and r.states() == {}


def test_a_command_that_overtakes_the_welcome_to_its_epoch_is_answered_when_it_comes_again(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        c.drop_down = lambda record: record.KIND == "welcome"
        asked = replace(command(r, 1), epoch=1)
        assert told(r, asked) == [] and r.lineage.head().epoch == 0
        assert [a.text[:24] for a in told(r, replace(asked, number=2, state=bytes(16)))] == ["it is for another state "]
        c.drop_down = lambda record: False
        r.serve(60)
        assert [a.ok for a in told(r, replace(asked, number=3))] == [True]


def test_only_the_last_answers_are_kept_and_older_numbers_stay_refused(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        for number in range(1, KEPT + 3):
            r.lineage.answers.keep(Answered(number, True, "done"))
        assert r.lineage.answers.given(2) is None and r.lineage.answers.given(3) is not None
        grown(r)
        assert [a.ok for a in told(r, command(r, 2))] == [False]


def test_the_leaves_of_a_tensor_are_told_from_a_place_on_and_with_their_number(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelwire.identity.LEAF_BYTES", 8)  # the tiny net's tensors are of one leaf each
    monkeypatch.setattr("edgeagent.state.commands.LEAVES_MAX", 3)
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        spec, weights = r.lineage.manifest.schema.tensors[1], r.lineage.load().state.weights[1]
        want = tensor_leaves(spec, weights)
        assert len(want) > 3
        got: list[bytes] = []
        number = 1
        while len(got) < len(want):
            (said,) = told(r, command(r, number, "leaves", body={"tensor": 1, "first": len(got)}))
            digests = said.body["leaves"]
            assert said.ok and said.body["of"] == len(want) and isinstance(digests, bytes) and 0 < len(digests) <= 3 * 32
            got += [digests[i : i + 32] for i in range(0, len(digests), 32)]
            number += 1
        assert merkle(got) == merkle(want) and number == 1 + -(-len(want) // 3) and r.states() == {1: "verified"}
        again = told(r, command(r, number - 1, "leaves", body={"tensor": 0, "first": 0}))
        assert again[0].body == said.body, "an answer is repeated with its body"


@pytest.mark.parametrize(
    "body",
    [{}, {"tensor": 1}, {"tensor": "1", "first": 0}, {"tensor": True, "first": 0}, {"tensor": 99, "first": 0}, {"tensor": -1, "first": 0},
     {"tensor": 0, "first": -1}, {"tensor": 0, "first": 1}, {"tensor": 0, "first": 1 << 40}],
)  # fmt: skip
def test_leaves_that_are_not_there_are_refused(tmp_path: Path, clock: FakeClock, body: dict[str, int | str]) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        assert [a.ok for a in told(r, command(r, 1, "leaves", body=body))] == [False]


def test_leaves_of_a_head_that_moved_on_are_not_told(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        asked = command(r, 1, "leaves", body={"tensor": 0, "first": 0}, parent=r.lineage.head().commit)
        assert [a.ok for a in told(r, asked)] == [True]
        one(r)
        assert [a.text for a in told(r, replace(asked, number=2))] == ["the head has moved on to @2; ask again"]


def test_a_command_that_comes_while_the_link_is_down_for_its_answer_is_answered_the_next_time(tmp_path: Path, clock: FakeClock) -> None:
    c: Centre = centre(clock)
    with rig(tmp_path / "d", c) as r:
        grown(r)
        lose = [True]
        c.drop_up = lambda leaf, said: leaf == "rsp" and bool(lose) and lose.pop()
        asked = command(r, 4)
        assert [(a.number, a.text) for a in told(r, asked, asked)] == [(4, "snapshot @2")]
        assert sorted(r.states()) == [1, 2]


def pieces(r: Rig, number: int, tensor: int, leaf: int, digest: bytes) -> list[Response]:
    """Ask for a leaf, piece by piece, until all of it came or none comes."""
    out: list[Response] = []
    start = 0
    while True:
        body = {"tensor": tensor, "leaf": leaf, "start": start, "digest": digest}
        (said,) = told(r, command(r, number + len(out), "leaf", body=body))
        out.append(said)
        got = said.body.get("bytes", b"")
        assert isinstance(got, bytes)
        start += len(got)
        if not said.ok or start == said.body["of"]:
            return out


def test_a_leaf_of_the_head_and_of_the_model_before_it_is_given_by_its_digest(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("modelwire.identity", "edgeagent.state.commands"):
        monkeypatch.setattr(f"{place}.LEAF_BYTES", 16)  # the tiny net's tensors are of one leaf each
    monkeypatch.setattr("edgeagent.state.commands.PIECE_MAX", 12)
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        spec, before = r.lineage.manifest.schema.tensors[1], r.lineage.load().state.weights[1]
        old, stored = tensor_leaves(spec, before), to_bytes(spec.dtype, before)
        came = pieces(r, 1, 1, 1, old[1])
        assert [a.ok for a in came] == [True, True] and b"".join(bytes(a.body["bytes"]) for a in came) == stored[16:32]  # type: ignore[arg-type]
        assert r.lineage.answers.given(1) is None, "nothing was changed, so nothing is kept"
        one(r)
        now = tensor_leaves(spec, r.lineage.load().state.weights[1])
        moved = next(n for n, (a, b) in enumerate(zip(old, now, strict=True)) if a != b)
        of_before = pieces(r, 10, 1, moved, old[moved])
        assert b"".join(bytes(a.body["bytes"]) for a in of_before) == stored[16 * moved :][:16]  # type: ignore[arg-type]
        assert [a.ok for a in pieces(r, 20, 1, moved, now[moved])] == [True, True]


@pytest.mark.parametrize(
    "body",
    [{}, {"tensor": 0}, {"leaf": 99}, {"leaf": 1 << 62}, {"start": 1 << 62}, {"digest": bytes(32)}, {"digest": b"x"}, {"tensor": 99},
     {"tensor": True}, {"start": -1}, {"x": 1}],
)  # fmt: skip
def test_a_leaf_that_is_not_there_or_has_another_digest_is_never_given(
    tmp_path: Path, clock: FakeClock, body: dict[str, int | bytes]
) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        leaves = tensor_leaves(r.lineage.manifest.schema.tensors[1], r.lineage.load().state.weights[1])
        good = {"tensor": 1, "leaf": 0, "start": 0, "digest": leaves[0]}
        (said,) = told(r, command(r, 1, "leaf", body={**good, **body}))
        assert said.ok == (not body) and ("bytes" in said.body) == said.ok
