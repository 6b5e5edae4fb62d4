"""Drift is told version by version by sketches, exactly at its ends, and says what stands out, turns back or is lost."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edgecloud.registry import SqliteStore
from edgecloud.searching.drift import Drift, drift
from edgecloud.sketches import measuring
from edgecloud.versions import materialise, naming
from modelwire.errors import BadArgument, UnknownVersion
from modelwire.lattice.snap import snap
from modelwire.update.sections import Kind
from tests.edgecloud.centre import Centre, damage, make_registry
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import Base, ScriptedDevice
from tests.worlds import MODELS


class Walker:
    """A device that moves its model where it is told to, and a registry that takes it in."""

    def __init__(self, path: Path) -> None:
        self.base = Base.of(MODELS / "digits.tflite")
        self.store: SqliteStore = make_registry(path, self.base)
        self.centre = Centre(self.store)
        self.device = self.centre.meet(ScriptedDevice(self.base))
        self.rng = np.random.default_rng(15)

    def way(self) -> list[np.ndarray]:
        """Return a direction of steps."""
        return [self.rng.standard_normal(len(w)).astype(np.float32) * np.float32(0.002) for w in self.device.state.weights]

    def go(self, way: list[np.ndarray], times: float = 1.0) -> None:
        d = self.device
        trained = [w + np.float32(times) * move for w, move in zip(d.state.weights, way, strict=True)]
        made = snap(d.state, trained, d.residual, density=1.0, max_bytes=1 << 22)
        d.state, d.residual = made.state, made.residual
        self.centre.deliver(d, d.seal(Kind.DELTA, made.sections))
        self.centre.rebuild()

    def drift(self, name: str = "pi-7", since: int | None = None) -> Drift:
        return drift(self.store, naming.parse(name), since=since)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    """Ten steps of one length, of which the seventh takes the sixth back, and an eleventh that is five times as long."""
    walker = Walker(tmp_path_factory.mktemp("drift") / "fleet.db")
    way = walker.way()
    for step in range(1, 12):
        way = [-move for move in way] if step == 7 else walker.way()
        walker.go(way, 5.0 if step == 11 else 1.0)
    return walker


def test_far_and_step_are_within_a_sketch_s_error_and_the_end_is_exact(walked: Walker) -> None:
    found, store = walked.drift(), walked.store
    lineage, bases = found.lineage, materialise.LoadedBases(walked.store)
    states = [bases[walked.base.manifest.commit].state()] + [materialise.rebuild(store, v, bases) for v in store.versions.of(lineage.id)]
    for k, step in enumerate(found.steps, 1):
        assert step.far == pytest.approx(measuring.apart(states[0], states[k]).distance, rel=0.25)
        assert step.step == pytest.approx(measuring.apart(states[k - 1], states[k]).distance, rel=0.25)
    assert found.exact == measuring.apart(states[0], states[-1]) and found.away == found.exact.distance
    assert found.gone == pytest.approx(sum(step.step for step in found.steps))


def test_a_long_step_stands_out_and_a_step_back_is_named(walked: Walker) -> None:
    found = walked.drift()
    assert [step.version.version for step in found.steps if step.stands_out] == [11]
    assert [step.version.version for step in found.steps if step.reverses] == [7] and found.steps[6].turn < -0.8
    assert math.isnan(found.steps[0].turn)


def test_a_part_of_the_way_begins_where_it_is_told(walked: Walker) -> None:
    found = walked.drift("pi-7@9", since=5)
    assert [step.version.version for step in found.steps] == [6, 7, 8, 9] and found.since == "@5"
    two = walked.drift("pi-7@7", since=5)
    assert two.exact is not None and two.exact.distance < 0.3 * two.gone  # there and back again


def test_what_is_no_way_is_named(walked: Walker) -> None:
    for since in (11, 12):
        with pytest.raises(BadArgument if since == 11 else UnknownVersion):
            walked.drift(since=since)
    with pytest.raises(BadArgument, match="not on the way"):
        walked.drift("pi-7@5", since=9)
    with pytest.raises(UnknownVersion):
        walked.drift("pi-7@77")


def test_the_command_says_it_in_a_screen_and_as_json(walked: Walker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desk, db = Desk(tmp_path, capsys), str(walked.store.database.path)
    text = desk.ok("--db", db, "drift", "pi-7")
    assert "stands out" in text and "takes the step before back" in text and "exactly" in text
    document = desk.json("--db", db, "drift", "pi-7", "--since", "@3")
    assert [step["version"] for step in document["steps"]] == list(range(4, 12))  # type: ignore[attr-defined]
    assert desk.error("--db", db, "drift", "pi-7", "--since", "last")["error"] == "Malformed"
    assert "8 more" in desk.ok("--db", db, "drift", "pi-7", "-n", "3")


def test_a_device_at_its_base_has_not_gone_anywhere(tmp_path: Path) -> None:
    walker = Walker(tmp_path / "fleet.db")
    with pytest.raises(BadArgument, match="has not left its base"):
        walker.drift()


def test_a_version_that_can_t_be_rebuilt_is_told_by_its_sketch_alone(tmp_path: Path) -> None:
    walker = Walker(tmp_path / "fleet.db")
    for _ in range(3):
        walker.go(walker.way())
    rows = walker.store.versions.of(walker.drift().lineage.id)
    damage(walker.store, "UPDATE blob SET bytes = zeroblob(length(bytes)) WHERE sha256 = ?", rows[1].blob)
    found = walker.drift()
    assert found.exact is None and found.why and [step.far > 0 for step in found.steps] == [True] * 3
    walker.store.sketches.drop()
    without = walker.drift()
    assert [math.isnan(step.far) for step in without.steps] == [False, True, True] and math.isnan(without.gone)
