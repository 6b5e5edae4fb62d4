"""A device that is asked to forget: the samples go, the model that never saw them becomes its new version, and nothing is half done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgeagent.service.agent import Goal
from edgeagent.state import forgetting
from edgeagent.state.lineage import Lineage
from modelwire.errors import Malformed, ModelWireError
from modelwire.lattice.between import difference
from modelwire.lattice.replay import kind_of, update_of
from modelwire.lattice.state import ModelState
from modelwire.output_head.forgotten import KEY, Forgotten
from modelwire.update.container import unsigned
from modelwire.update.header import Header
from modelwire.update.sections import Kind
from modelwire.wire import signing, topics
from modelwire.wire.records import Adopt, Level, encode
from tests.edgeagent.boards import DEVICE_SEED, Rig, centre, fill, rig
from tests.edgeagent.centre import Centre, FakeClock
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


def asked(lineage: Lineage, state: ModelState, *, id: int = 7, samples: Sequence[int] = (4, 9), **said: Any) -> Adopt:
    head, before = lineage.head(), lineage.load().state
    fields: dict[str, Any] = {
        "kind": Kind.DELTA, "device": "pi-7", "model": "tiny", "epoch": head.epoch, "version": head.version + 1, "parent": head.commit,
        "schema_id": lineage.manifest.schema.id, "root": state.root, "fingerprint": state.fingerprint, "base": b"",
        "extension": {KEY: Forgotten(tuple(samples)).encode()},
    }  # fmt: skip
    data = unsigned(Header(**{**fields, **said}), difference(before, state), lineage.manifest.schema)
    return Adopt("home", "pi-7", "tiny", 0, id, data)


def at_the_centre(c: Centre) -> tuple[int, Kind, bytes]:
    held = c.held("pi-7", "tiny")
    last = held[max(held)]
    assert last.state is not None and last.level is Level.VERIFIED
    return last.version, last.kind, last.state.root


def test_the_unlearned_model_becomes_a_new_version_and_the_samples_go(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        state = grown(r)
        command = asked(r.lineage, state)
        have = r.device.spool.count("tiny")
        for wait in (1, 2, 30):  # the same command again, as a centre says it until it hears
            c.after(wait, lambda: c.push(command))
        r.serve(60)
        assert at_the_centre(c) == (3, Kind.DELTA, state.root)
        assert r.lineage.load().state.root == state.root and not any(x.any() for x in r.lineage.load().residual)
        assert r.device.spool.count("tiny") == have - 2
        left = [i for side in r.device.spool.split("tiny", 0.2, until=99) for i in side.ids]
        assert len(left) == have - 2 and not {4, 9} & set(left)
        assert [(a.id, a.ok) for a in c.answers] == [(7, True)] * 3
        assert "@3 forgot 2 samples" in c.answers[0].text and "2 samples were dropped" in c.answers[0].text
        row = r.lineage.versions(1)[0]
        assert (row["version"], row["kind"], row["reason"], row["state"]) == (3, "delta", "forgot 2 samples", "verified")
        assert c.updates()[-1].header.extension == {"note": "forgot 2 samples", KEY: Forgotten((4, 9)).encode()}
        assert len(r.lineage.versions()) == 3


def test_a_head_that_moved_on_is_left_alone_and_the_samples_go_all_the_same(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        command = asked(r.lineage, grown(r))
        learn(r.lineage, range(3, 12))
        root = r.lineage.load().state.root
        c.after(1, lambda: c.push(command))
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
        session._take_adopt(asked(r.lineage, state))
        assert r.agent._round is None and r.lineage.head().version == 3


@pytest.mark.parametrize("moment", ["write", "adopt"])
def test_a_kill_between_leaves_nothing_half_done_and_the_command_does_the_rest(
    tmp_path: Path, clock: FakeClock, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        state = grown(r)
        command, before = asked(r.lineage, state), r.lineage.load().state.root

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(r.lineage if moment == "adopt" else r.lineage.store, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            r.agent.sessions["tiny"]._take_adopt(command)
    monkeypatch.undo()
    with rig(tmp_path / "d", c) as r:
        assert (r.lineage.head().version, r.lineage.load().state.root) == (2, before)
        c.after(1, lambda: c.push(command))
        r.serve(30)
        assert at_the_centre(c) == (3, Kind.DELTA, state.root) and r.lineage.load().state.root == state.root


LIES: list[Callable[[Lineage, ModelState], Adopt]] = [
    lambda line, state: asked(line, state, device="pi-8"),
    lambda line, state: asked(line, state, model="other"),
    lambda line, state: asked(line, state, kind=Kind.SNAPSHOT, base=line.base_commit),
    lambda line, state: asked(line, state, extension={}),
    lambda line, state: asked(line, state, extension={KEY: 3}),
    lambda line, state: asked(line, state, extension={KEY: b"\x84\x01\x40\x00\x40"}),
    lambda line, state: Adopt("home", "pi-7", "tiny", 0, 7, b""),
    lambda line, state: Adopt("home", "pi-7", "tiny", 0, 7, asked(line, state).update[:-1]),
    lambda line, state: Adopt("home", "pi-7", "tiny", 0, 7, asked(line, state).update + bytes(64)),
]


@pytest.mark.parametrize("lie", LIES)
def test_a_command_for_another_model_or_of_another_form_changes_nothing(
    tmp_path: Path, clock: FakeClock, lie: Callable[[Lineage, ModelState], Adopt]
) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        state = grown(r)
        command = lie(r.lineage, state)
        have = r.device.spool.count("tiny")
        with pytest.raises(ModelWireError):
            r.agent.sessions["tiny"]._take_adopt(command)
        assert (r.device.spool.count("tiny"), r.lineage.head().version) == (have, 2)


@pytest.mark.parametrize("said", [{"root": bytes(32)}, {"fingerprint": (1, 2)}])
def test_a_model_that_is_not_what_it_says_is_not_taken_over(tmp_path: Path, clock: FakeClock, said: dict[str, Any]) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        state = grown(r)
        before = r.lineage.load().state.root
        done = forgetting.adopt(r.lineage, asked(r.lineage, state, **said), 1)
        assert not done.ok and "rebuilt weights" in done.text
        assert (r.lineage.head().version, r.lineage.load().state.root) == (2, before)


def test_only_the_fleet_may_ask(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        command = asked(r.lineage, grown(r))
        topic = topics.parse(topics.down("home", "pi-7", "tiny", "cmd"))
        with pytest.raises(ModelWireError):
            r.agent.sessions["tiny"].arrived(topic, encode(command, signing.PrivateKey(DEVICE_SEED)), 0.0)
        assert r.lineage.head().version == 2 and r.device.spool.count("tiny") == 40


def test_what_is_forgotten_has_one_form() -> None:
    for wrong in ({"samples": (2, 1)}, {"samples": (1, 1)}, {}, {"version": 3}, {"rows": (1,)}, {"samples": (1,), "version": 2}):
        with pytest.raises(Malformed):
            Forgotten(**wrong)  # type: ignore[arg-type]
