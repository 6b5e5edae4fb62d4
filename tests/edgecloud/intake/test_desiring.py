"""What a model is to run goes down as the director sealed it until its device is through with it; what it reports moves its rollout on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecloud.intake.decision import Result
from edgecloud.registry import AssignmentRow, DesiredRow, FrozenRow, open_registry
from modelwire.deploying.reports import DeviceFigures
from modelwire.deploying.states import FINAL, State
from modelwire.errors import ModelWireError
from modelwire.wire import records, signing
from modelwire.wire.cbor import Value
from modelwire.wire.records import Desired, Report, Welcome
from tests.edgecloud import rollouts
from tests.edgecloud.centre import Centre, damage, make_registry
from tests.edgecloud.device import Base, ScriptedDevice
from tests.edgecloud.hearing import until
from tests.edgecloud.intake.test_service import Running
from tests.edgecloud.memory import MemoryBroker
from tests.keys import COMMAND, DIRECTOR, FLEET_ID

FIGURES = DeviceFigures(True, 100, 7, 2, 1500, 1400, "", "kept")


@pytest.fixture
def met(centre: Centre, device: ScriptedDevice, base: Base) -> ScriptedDevice:
    """A device that is to run its own base again, by a rollout."""
    rollouts.deploy(centre.store, base)
    centre.tick()
    return device


def wanted(centre: Centre) -> list[int]:
    """Return the numbers of what was said to be run since the last look, each as the director sealed it."""
    sealed = [(r.record, r.sealed) for r in centre.replies if isinstance(r.record, Desired)]
    for _, data in sealed:
        signed = records.parse(data)
        signed.verify(DIRECTOR.public, FLEET_ID, "the director", signing.Role.DIRECTOR)
    centre.replies.clear()
    return [said.number for said, _ in sealed]


def due(centre: Centre, now: int = 1000) -> list[int]:
    for replies in centre.ingest.due(now, 0.0, 30.0):
        centre.replies += replies
    return wanted(centre)


def report(
    device: ScriptedDevice, state: str, number: int = 1, figures: DeviceFigures | None = FIGURES, **fields: object
) -> tuple[str, bytes]:
    said = rollouts.report(state, device.base.manifest.commit, number, figures=figures, **fields)
    return device.say("report", said)


def stands(centre: Centre) -> AssignmentRow:
    found = centre.store.rollouts.assignment(1, 1)
    assert found is not None
    return found


def again(centre: Centre, base: Base, *, number: int = 2, expiry: int = 1 << 40) -> None:
    record = rollouts.desired(base.manifest.commit, number, expiry=expiry)
    centre.store.rollouts.put_desired(DesiredRow(1, number, 1, base.manifest.commit, record, expiry, 9))


def test_every_hello_is_answered_with_it_until_the_last_report_on_it(centre: Centre, met: ScriptedDevice, base: Base) -> None:
    for _ in range(2):
        centre.greet(met)
        kinds = [type(r.record) for r in centre.replies]
        assert kinds.index(Welcome) < kinds.index(Desired) and wanted(centre) == [1]
    for state in ("staged", "probing", "soaking"):
        assert centre.take(report(met, state)).result is Result.NOTED
        centre.greet(met)
        assert wanted(centre) == [1]
    centre.ingest = Centre(centre.store).ingest  # another start
    centre.greet(met)
    assert wanted(centre) == [1]
    assert centre.take(report(met, "confirmed", before=0.5, after=0.75)).reason == "report on 1: confirmed, phase 0"
    centre.greet(met)
    assert wanted(centre) == []
    a = stands(centre)
    assert (a.state, a.before, a.after, a.rows, a.better, a.worse, a.micros, a.learned) == ("confirmed", 0.5, 0.75, 100, 7, 2, 1500, "kept")
    again(centre, base)
    centre.greet(met)
    assert wanted(centre) == [2]


def test_it_is_told_unasked_once_a_start_and_never_when_it_has_expired(centre: Centre, met: ScriptedDevice, base: Base) -> None:
    assert due(centre) == [1] and due(centre) == []
    again(centre, base, expiry=1500)
    assert due(centre) == [2] and due(centre) == []
    centre.ingest = Centre(centre.store).ingest
    assert due(centre, 1501) == [], "the older one is not told in its place"
    assert due(centre, 1500) == [2]
    centre.now = 1501
    centre.greet(met)
    assert wanted(centre) == []


def test_a_start_tells_a_large_fleet_a_part_at_a_time(
    centre: Centre, met: ScriptedDevice, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecloud.intake.routing.TOLD_AT_ONCE", 2)
    for name in ("pi-1", "pi-2", "pi-3", "pi-4"):
        centre.store.devices.add(name, name.ljust(32, "x").encode(), 1)
        lineage = centre.store.lineages.ensure(name, "digits")
        centre.store.rollouts.assign(1, [lineage.id], 0, 9)
        record = rollouts.desired(base.manifest.commit, device=name)
        centre.store.rollouts.put_desired(DesiredRow(lineage.id, 1, 1, base.manifest.commit, record, 1 << 40, 9))
    assert [len(due(centre)) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.parametrize("column, value", [("record", b"x"), ("number", 7), ("lineage", 2)])
def test_a_row_that_is_not_what_it_holds_is_not_sent(centre: Centre, met: ScriptedDevice, base: Base, column: str, value: object) -> None:
    centre.store.lineages.ensure("pi-7", "other")
    damage(centre.store, "DELETE FROM report")
    damage(centre.store, f"UPDATE desired SET {column} = ?", value)
    assert due(centre) == []
    centre.greet(met)
    assert wanted(centre) == []


def test_who_is_frozen_afterwards_is_still_told_what_was_sealed(centre: Centre, met: ScriptedDevice) -> None:
    """The device is the one to refuse it: what was sealed may be under way there."""
    centre.store.rollouts.freeze(FrozenRow("pi-7", "", "", "anna", 9))
    assert due(centre) == [1]


def test_a_late_report_of_a_rollout_that_ended_is_kept_and_moves_nothing(centre: Centre, met: ScriptedDevice) -> None:
    centre.store.rollouts.move(1, state="aborted", now=9)
    assert centre.take(report(met, "soaking")).reason.startswith("report on 1: soaking, phase 0, late")
    assert stands(centre).state == "fetching" and [r.state for r in centre.store.rollouts.reports(1)] == ["fetching", "soaking"]


def test_a_flood_of_reports_holds_a_row_for_each_state(centre: Centre, met: ScriptedDevice) -> None:
    for n in range(60):
        for state in ("fetching", "staged"):
            centre.take(report(met, state, bytes=n))
    assert len(centre.store.rollouts.reports(1)) == 2 and stands(centre).bytes == 59


@pytest.mark.parametrize("figures", [
    {}, [], 7, {**FIGURES.as_map()["figures"], "rows": -1}, {**FIGURES.as_map()["figures"], "better": 101},  # type: ignore[dict-item]
    {**FIGURES.as_map()["figures"], "serves": b"short"}, {**FIGURES.as_map()["figures"], "more": 1},  # type: ignore[dict-item]
])  # fmt: skip
def test_figures_that_can_not_be_are_refused_with_the_report(centre: Centre, met: ScriptedDevice, figures: Value) -> None:
    said = replace(rollouts.report("soaking", met.base.manifest.commit), more={"figures": figures})
    outcome = centre.take(met.say("report", said))
    assert outcome.result is Result.DROPPED and "Malformed: figures" in outcome.reason
    assert stands(centre).state == "fetching"


@pytest.mark.parametrize("fields", [{"state": "dancing"}, {"before": 1.5}, {"after": -0.1}, {"state": "waiting"}, {"state": ""}])
def test_a_state_or_a_score_that_can_not_be_is_refused(centre: Centre, met: ScriptedDevice, fields: dict[str, object]) -> None:
    said = replace(rollouts.report("soaking", met.base.manifest.commit, figures=FIGURES), **fields)  # type: ignore[arg-type]
    outcome = centre.take(met.say("report", said))
    assert outcome.result is Result.DROPPED and outcome.reason.startswith("Malformed") and stands(centre).state == "fetching"


def test_losses_may_be_above_one(centre: Centre, met: ScriptedDevice) -> None:
    centre.take(report(met, "soaking", figures=replace(FIGURES, accuracy=False), before=2.5, after=1.5))
    assert (stands(centre).before, stands(centre).accuracy) == (2.5, False)


def test_nobody_reports_for_another(centre: Centre, met: ScriptedDevice) -> None:
    topic, data = report(met, "confirmed")
    forged = rollouts.signed(rollouts.report("confirmed", met.base.manifest.commit), COMMAND)
    assert centre.take((topic, forged)).result is Result.DROPPED
    assert centre.take((topic.replace("pi-7", "pi-8"), data)).result is Result.DROPPED
    assert stands(centre).state == "fetching"


text = st.text(max_size=80)
scores = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(state=st.one_of(st.sampled_from([s.value for s in State]), text), number=st.integers(1, 1 << 62), before=scores, after=scores,
       reason=text, size=st.integers(0, 1 << 62), phase=st.integers(0, 1 << 40), accuracy=st.booleans(), code=text)  # fmt: skip
def test_whatever_a_device_says_its_assignment_holds_a_state_and_the_centre_goes_on(
    centre: Centre, met: ScriptedDevice, state: str, number: int, before: float | None, after: float | None, reason: str, size: int,
    phase: int, accuracy: bool, code: str,
) -> None:  # fmt: skip
    figures = replace(FIGURES, accuracy=accuracy, code=code)
    try:
        message = report(met, state, number % 3 or 1, figures, before=before, after=after, reason=reason, bytes=size, phase=phase)
    except ModelWireError:  # no device can say it
        return
    outcome = centre.take(message)
    assert outcome.result in (Result.NOTED, Result.DROPPED) and "Fault" not in outcome.reason
    assert stands(centre).state in {s.value for s in State} and len(centre.store.rollouts.reports(1)) <= len(State)


@pytest.mark.slow("runs an ingester on its own thread, stops and starts it")
def test_a_running_ingester_forwards_what_the_director_enters_and_another_start_tells_it_again(tmp_path: Path, base: Base) -> None:
    path, broker = tmp_path / "fleet.db", MemoryBroker()
    store = make_registry(path, base)
    device = Centre(store).meet(ScriptedDevice(base))
    running = Running(path, broker).start()
    until(lambda: "centre" in broker.sessions)

    def down() -> list[int]:
        said = [records.parse(data).record for topic, data in broker.down() if topic.endswith("/dn/desired")]
        return [one.number for one in said if isinstance(one, Desired)]

    rollouts.deploy(store, base)
    until(lambda: down() == [1])
    running.stop()
    running = Running(path, broker).start()
    until(lambda: down() == [1, 1])
    broker.publish(*device.say("report", rollouts.report("confirmed", base.manifest.commit, figures=FIGURES)))
    look = open_registry(path, readonly=True)
    until(lambda: look.rollouts.assignments(1)[0].state == "confirmed")
    running.stop()
    Running(path, broker).start(once=0.2).wait()
    assert down() == [1, 1] and {s.value for s in FINAL} >= {look.rollouts.assignments(1)[0].state}
    look.close()
    store.close()


def test_a_report_is_a_record_of_its_own_kind(met: ScriptedDevice) -> None:
    signed = records.parse(report(met, "soaking")[1])
    assert isinstance(signed.record, Report) and signed.role is signing.Role.DEVICE
