"""A device that is asked to forget: the samples go, the model that never saw them becomes its new version, and nothing is half done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeagent.deploying import switching
from edgeagent.service.goal import Goal
from edgeagent.state import forgetting
from edgeagent.state.lineage import Lineage
from modelwire.errors import Malformed, ModelWireError
from modelwire.lattice.between import difference
from modelwire.lattice.replay import kind_of, update_of
from modelwire.lattice.state import ModelState
from modelwire.output_head.forgotten import KEY, Forgotten
from modelwire.update.container import unsigned
from modelwire.update.header import Header
from modelwire.update.manifest import manifest_of
from modelwire.update.sections import Kind
from modelwire.wire import signing, topics
from modelwire.wire.records import Command, Level, encode
from tests import keys
from tests.edgeagent.boards import DEVICE_SEED, TINY, Rig, centre, command, fill, rig
from tests.edgeagent.centre import Centre, FakeClock
from tests.edgeagent.deploying.bases import NEAR, gone_back, know, soaked
from tests.edgeagent.deploying.whole import check_whole
from tests.edgeagent.recipes import learn


def grown(r: Rig) -> ModelState:
    """Two recipes on the first samples, at the centre; return the state without samples 4 and 9."""
    r.run(Goal(publish=True, timeout=60))
    fill(r.device)
    state = r.lineage.load().state
    for ids in (range(1, 20), range(5, 30)):
        _, recipe = learn(r.lineage, ids)
        rest = recipe.without([k for k, i in enumerate(ids) if i in (4, 9)])
        state.apply(kind_of(state), update_of(state, rest))
    r.serve(60)
    assert set(r.states().values()) == {"verified"}
    return state


def asked(r: Rig, state: ModelState, *, number: int = 7, samples: Sequence[int] = (4, 9), **said: Any) -> Command:
    parent = said.get("parent", r.lineage.head().commit)
    return command(r, number, "adopt", parent=parent, body={"update": carried(r.lineage, state, samples=samples, **said)})


def carried(lineage: Lineage, state: ModelState, *, samples: Sequence[int] = (4, 9), **said: Any) -> bytes:
    head, before = lineage.head(), lineage.load().state
    fields: dict[str, Any] = {
        "kind": Kind.DELTA, "device": "pi-7", "model": "tiny", "epoch": head.epoch, "version": head.version + 1, "parent": head.commit,
        "schema_id": lineage.manifest.schema.id, "root": state.root, "fingerprint": state.fingerprint, "base": b"",
        "extension": {KEY: Forgotten(tuple(samples)).encode()},
    }  # fmt: skip
    return unsigned(Header(**{**fields, **said}), difference(before, state), lineage.manifest.schema)


def at_the_centre(c: Centre) -> tuple[int, Kind, bytes]:
    held = c.held("pi-7", "tiny")
    last = held[max(held)]
    assert last.state is not None and last.level is Level.VERIFIED
    return last.version, last.kind, last.state.root


def test_the_unlearned_model_becomes_a_new_version_and_the_samples_go(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        state = grown(r)
        told = asked(r, state)
        have = r.device.spool.count("tiny")
        for wait in (1, 2, 30):  # the same command again, as a centre says it until it hears
            c.after(wait, lambda: c.push(told))
        r.serve(60)
        assert at_the_centre(c) == (3, Kind.DELTA, state.root)
        assert r.lineage.load().state.root == state.root and not any(x.any() for x in r.lineage.load().residual)
        assert r.device.spool.count("tiny") == have - 2
        left = [i for side in r.device.spool.split("tiny", 0.2, until=99) for i in side.ids]
        assert len(left) == have - 2 and not {4, 9} & set(left)
        assert [(a.number, a.ok) for a in c.answers] == [(7, True)] * 3
        assert "@3 forgot 2 samples" in c.answers[0].text and "2 samples were dropped" in c.answers[0].text
        row = r.lineage.versions(1)[0]
        assert (row["version"], row["kind"], row["reason"], row["state"]) == (3, "delta", "forgot 2 samples", "verified")
        assert c.updates()[-1].header.extension == {"note": "forgot 2 samples", KEY: Forgotten((4, 9)).encode()}
        assert len(r.lineage.versions()) == 3


def test_a_head_that_moved_on_is_left_alone_and_the_samples_go_all_the_same(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        told = asked(r, grown(r))
        learn(r.lineage, range(3, 12))
        root = r.lineage.load().state.root
        c.after(1, lambda: c.push(told))
        r.serve(30)
        text = "the head has moved on to @3; ask again; 2 samples were dropped from the spool"
        assert [(a.ok, a.text) for a in c.answers] == [(False, text)]
        assert r.lineage.load().state.root == root and at_the_centre(c)[0] == 3


def test_a_round_that_is_under_way_does_not_bring_the_samples_back(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        state = grown(r)
        r.agent.stopping = ""
        r.agent._begin_round(Goal(once=True))
        assert r.agent._round is not None
        next(r.agent._round.steps)
        session = r.agent.sessions["tiny"]
        session._take_command(asked(r, state), b"")
        assert r.agent._round is None and r.lineage.head().version == 3


@pytest.mark.parametrize("moment", ["write", "adopt"])
def test_a_kill_between_leaves_nothing_half_done_and_the_command_does_the_rest(
    tmp_path: Path, clock: FakeClock, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        state = grown(r)
        told, before = asked(r, state), r.lineage.load().state.root

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(r.lineage if moment == "adopt" else r.lineage.store, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            r.agent.sessions["tiny"]._take_command(told, b"")
    monkeypatch.undo()
    with rig(tmp_path / "d", c) as r:
        assert (r.lineage.head().version, r.lineage.load().state.root) == (2, before)
        c.after(1, lambda: c.push(told))
        r.serve(30)
        assert at_the_centre(c) == (3, Kind.DELTA, state.root) and r.lineage.load().state.root == state.root


LIES: list[Callable[[Rig, ModelState], Command]] = [
    lambda r, state: asked(r, state, device="pi-8"),
    lambda r, state: asked(r, state, model="other"),
    lambda r, state: asked(r, state, kind=Kind.SNAPSHOT, base=r.lineage.base_commit),
    lambda r, state: asked(r, state, epoch=2),
    lambda r, state: replace(asked(r, state), parent=r.lineage.base_commit),
    lambda r, state: replace(asked(r, state), parent=b""),
    lambda r, state: asked(r, state, extension={KEY: 3}),
    lambda r, state: asked(r, state, extension={KEY: b"\x84\x01\x40\x00\x40"}),
    lambda r, state: command(r, 7, "adopt"),
    lambda r, state: command(r, 7, "adopt", body={"update": 3}),
    lambda r, state: command(r, 7, "adopt", body={"update": b""}),
    lambda r, state: command(r, 7, "adopt", body={"update": carried(r.lineage, state)[:-1]}),
    lambda r, state: command(r, 7, "adopt", body={"update": carried(r.lineage, state) + bytes(64)}),
]


@pytest.mark.parametrize("lie", LIES)
def test_a_command_for_another_model_or_of_another_form_is_refused_and_changes_nothing(
    tmp_path: Path, clock: FakeClock, lie: Callable[[Rig, ModelState], Command]
) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        state = grown(r)
        told = lie(r, state)
        have = r.device.spool.count("tiny")
        c.after(1, lambda: c.push(told))
        r.serve(5)
        assert [(a.number, a.ok) for a in c.answers] == [(7, False)] and c.answers[0].text
        assert (r.device.spool.count("tiny"), r.lineage.head().version) == (have, 2)


def test_an_update_that_forgets_nothing_is_adopted_and_drops_nothing(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        state = grown(r)
        told, have = asked(r, state, extension={}), r.device.spool.count("tiny")
        c.after(1, lambda: c.push(told))
        r.serve(30)
        assert at_the_centre(c) == (3, Kind.DELTA, state.root) and r.lineage.load().state.root == state.root
        assert r.device.spool.count("tiny") == have
        assert [(a.ok, a.text) for a in c.answers] == [(True, "@3 adopted what the centre sent")]
        assert KEY not in c.updates()[-1].header.extension


def test_an_adopt_for_a_folder_that_is_gone_forgets_nothing_on_the_board_that_was_set_up_anew(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "first", c) as r:
        told = asked(r, grown(r))
    with rig(tmp_path / "again", c) as r:
        grown(r)
        have = r.device.spool.count("tiny")
        for lie in (told, replace(told, number=8, epoch=r.lineage.head().epoch), replace(told, number=9, state=r.device.state)):
            c.after(1, lambda lie=lie: c.push(lie))  # type: ignore[misc]
        r.serve(5)
        assert [a.ok for a in c.answers] == [False] * 3
        assert "another state folder" in c.answers[0].text and "it is for epoch 1, and this is epoch 2" in c.answers[2].text
        assert r.device.spool.count("tiny") == have and r.lineage.head().version == 4


def test_a_parent_that_is_not_the_head_keeps_the_model_and_lets_the_samples_go(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        state = grown(r)
        told, root = asked(r, state, parent=r.lineage.base_commit), r.lineage.load().state.root
        c.after(1, lambda: c.push(told))
        r.serve(30)
        text = "the head has moved on to @2; ask again; 2 samples were dropped from the spool"
        assert [(a.ok, a.text) for a in c.answers] == [(False, text)]
        assert r.lineage.load().state.root == root and r.device.spool.count("tiny") == 38


@pytest.mark.parametrize("said", [{"root": bytes(32)}, {"fingerprint": (1, 2)}])
def test_a_model_that_is_not_what_it_says_is_not_taken_over(tmp_path: Path, clock: FakeClock, said: dict[str, Any]) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        state = grown(r)
        before = r.lineage.load().state.root
        told = asked(r, state, **said)
        done = forgetting.adopt(r.lineage, told, *forgetting.read(r.lineage, told, bytes(told.body["update"])), 0, 1)
        assert not done.ok and "rebuilt weights" in done.text
        assert (r.lineage.head().version, r.lineage.load().state.root) == (2, before)


def test_only_the_fleet_may_ask(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        told = asked(r, grown(r))
        topic = topics.parse(topics.down("home", "pi-7", "tiny", "cmd"))
        with pytest.raises(ModelWireError):
            r.agent.sessions["tiny"].arrived(topic, encode(told, signing.PrivateKey(DEVICE_SEED), keys.FLEET_ID), 0.0)
        assert r.lineage.head().version == 2 and r.device.spool.count("tiny") == 40


def test_what_is_forgotten_has_one_form() -> None:
    for wrong in ({"samples": (2, 1)}, {"samples": (1, 1)}, {}, {"version": 3}, {"rows": (1,)}, {"samples": (1,), "version": 2}):
        with pytest.raises(Malformed):
            Forgotten(**wrong)  # type: ignore[arg-type]


def test_models_beside_the_heads_forget_too(tmp_path: Path, clock: FakeClock) -> None:
    """What soaks is served no more, and the way back is its base alone: both had learned from what is to be forgotten."""
    c = centre(clock)
    know(c, NEAR)
    with rig(tmp_path / "d", c) as r:
        state = grown(r)
        soaking = soaked(r.lineage, NEAR)
        c.push(asked(r, state))
        r.serve(60)
        assert c.answers[-1].ok and r.lineage.beside.all() == [] and not (r.lineage.store.folder / "bases").exists()
        assert r.lineage.store.served.read_bytes() == r.lineage.load().file and soaking.slot
        soaked(r.lineage, NEAR)
        switching.confirm(r.lineage, 20)
        r.serve(60)
        c.push(asked(r, r.lineage.load().state.at_base(), number=8, samples=(5,)))
        r.serve(60)
        assert c.answers[-1].ok, c.answers[-1].text
        passive = r.lineage.beside.passive()
        assert passive is not None and (passive.slot, passive.file_sha256) == ("", b"")
        assert not list(r.lineage.store.folder.glob("[ab]/*")), "no file of it is left"
        check_whole(r)
    with rig(tmp_path / "d", c) as r:
        check_whole(r, fresh=True)
        gone_back(r.lineage, TINY)
        switching.confirm(r.lineage, 30)
        assert r.lineage.load().state == r.lineage.load().state.at_base() and r.lineage.manifest == manifest_of(TINY)
        r.serve(60)
        assert set(r.states().values()) == {"verified"}
