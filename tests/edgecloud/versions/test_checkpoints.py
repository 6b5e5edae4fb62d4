"""Roots on the way of a recipe: proven by a replay, and named where a rebuild comes to something else."""

from __future__ import annotations

import pytest

from edgecloud.versions import materialise, naming, replaying
from modelwire.errors import ReplayMismatch
from modelwire.wire.records import Level, Receipt
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import Base, ScriptedDevice

STEPS, EVERY = 12, 4  # so there are roots after 4 and after 8


def test_checkpoints_that_are_true_are_proven_by_a_replay(centre: Centre, device: ScriptedDevice) -> None:
    centre.deliver(device, device.learn(range(20)), device.learn(range(20), every=EVERY), device.learn(range(20), every=1))
    assert all(one.ok for one in centre.rebuild())
    loaded = materialise.LoadedBases(centre.store)
    for number, count in ((1, 0), (2, 2), (3, 11)):
        done = replaying.replay(centre.store, naming.find(centre.store, naming.parse(f"pi-7@{number}")), loaded)
        assert (done.equal, done.checkpoints, done.apart) == (True, count, 0)


@pytest.mark.parametrize(("lie", "step"), [(1, 4), (2, 8)])
@pytest.mark.parametrize("what", ["fingerprint", "root"])
def test_a_rebuild_that_comes_to_something_else_names_the_first_step_that_differs(
    centre: Centre, device: ScriptedDevice, lie: int, step: int, what: str
) -> None:
    seal = device.seal
    other: dict[str, object] = {"fingerprint": (1, 2)} if what == "fingerprint" else {"root": bytes(32)}
    device.seal = lambda *args, **said: seal(*args, **{**said, **other})  # type: ignore[method-assign]
    centre.deliver(device, device.learn(range(20), every=EVERY, lie=lie))
    (judged,) = centre.rebuild()
    assert not judged.ok and f"another root after step {step}, at a checkpoint," in judged.reason
    (said,) = [r for r in centre.said() if isinstance(r, Receipt) and r.level is Level.REFUSED]
    assert f"step {step}" in said.reason


@pytest.mark.parametrize(
    ("every", "said"), [(EVERY, "another fingerprint, behind checkpoints that are all equal,"), (0, "another fingerprint than")]
)
def test_a_rebuild_whose_checkpoints_are_equal_says_so(centre: Centre, device: ScriptedDevice, every: int, said: str) -> None:
    seal = device.seal
    device.seal = lambda *args, **other: seal(*args, **{**other, "fingerprint": (1, 2)})  # type: ignore[method-assign]
    centre.deliver(device, device.learn(range(20), every=every))
    assert said in centre.rebuild()[0].reason


def test_checkpoints_that_would_take_long_to_compare_are_left_to_the_replay(
    centre: Centre, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that lies could else keep the rebuild busy with a thousand roots of a large model."""
    monkeypatch.setattr(materialise, "MARKED_WEIGHTS", 2 * device.base.manifest.schema.size - 1)
    monkeypatch.setattr(materialise, "first_apart", None)
    seal = device.seal
    device.seal = lambda *args, **other: seal(*args, **{**other, "fingerprint": (1, 2)})  # type: ignore[method-assign]
    centre.deliver(device, device.learn(range(20), every=EVERY, lie=1))
    assert "another fingerprint than" in centre.rebuild()[0].reason


def test_the_command_says_how_many_are_equal_or_the_first_that_is_not(desk: Desk, base: Base) -> None:
    centre = Centre(make_registry(desk.folder / "fleet.db", base))
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.learn(range(20)), device.learn(range(20), every=EVERY), device.learn(range(20), every=EVERY, lie=2))
    assert [one.ok for one in centre.rebuild()] == [True] * 3  # the last root is the header's: a reader need not prove the others
    centre.store.close()
    assert "checkpoints" not in desk.ok("replay", "pi-7@1")
    text = [line.split(None, 1) for line in desk.ok("replay", "pi-7@2").splitlines()]
    assert ["checkpoints", "2 of 2 equal"] in text
    said = desk.json("replay", "pi-7@2")
    assert (said["checkpoints"], said["apart_at_step"], said["equal"]) == (2, None, True)
    code, out, err = desk.run("replay", "pi-7@3")
    assert code == ReplayMismatch.code and "NOT EQUAL from step 8 on" in out and "after step 8" in err
    changed = desk.json("replay", "pi-7@2", "--set", "rate=0.01")  # other settings have no checkpoints
    assert "what_if" in changed
