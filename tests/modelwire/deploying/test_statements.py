"""Statements about deployments come back as they were sealed; what was altered, of another fleet, role or kind is refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwire.deploying import plans, reports, states, terms, variants
from modelwire.errors import BadSignature, Malformed, ModelWireError, NotUnderstood, WrongFleet
from modelwire.wire import records
from modelwire.wire.records import Desired, Report
from tests import keys

FLEET = bytes(range(16))
VARIANT = variants.Variant(
    "demo", "digits", "night", b"c" * 32, b"f" * 32, 9000, b"t" * 32, b"s" * 32, False, "litert", 1 << 20, (b"p" * 32,), 1_700_000_000, 3,
    "R-12", more={"later": 1},
)  # fmt: skip
PLAN = plans.RolloutPlan(
    "demo", "digits", b"r" * 16, "night cameras", b"c" * 32, ("pi-1", "pi-2"), "", (("light", "night"),), True,
    (plans.RolloutPhase(("pi-1",), 5), plans.RolloutPhase(share=500, soak=60), plans.RolloutPhase(share=10_000)),
    plans.RolloutGates(), 3600, 60, 30, (3600, 7200),
    "auto", True, ("https://files.example/{file}",), 86_400, 1, "ada", 1_700_000_000,
)  # fmt: skip
DECISION = plans.RolloutDecision("demo", b"r" * 16, 1, plans.RolloutVerb.HALT, "ada", "looks wrong", 1_700_000_000)


def test_each_comes_back_as_it_was_sealed() -> None:
    assert variants.read(variants.statement(VARIANT, keys.ROOT, FLEET), keys.ROOT.public, FLEET) == VARIANT
    assert plans.read_plan(plans.seal_plan(PLAN, keys.COMMAND, FLEET), keys.COMMAND.public, FLEET) == PLAN
    assert plans.read_decision(plans.seal_decision(DECISION, keys.COMMAND, FLEET), keys.COMMAND.public, FLEET) == DECISION


def test_terms_and_figures_travel_in_more() -> None:
    said = terms.DeployTerms(b"r" * 16, variants.statement(VARIANT, keys.ROOT, FLEET), ("http://10.0.0.1/x",), 60, slower=200)
    desired = Desired("demo", "pi-1", "digits", 5, 1, 9, b"c" * 32, 9000, 1, more=said.as_map())
    again = records.parse(records.encode(desired, keys.DIRECTOR, FLEET)).record
    assert isinstance(again, Desired) and terms.terms_of(again) == said
    figures = reports.DeviceFigures(rows=200, better=3, worse=13, micros=900, serves=b"c" * 32)
    report = Report("demo", "pi-1", "digits", 5, 1, b"c" * 32, "soaking", 1, "active", 9000, 0.9, 0.85, "", more=figures.as_map())
    back = records.parse(records.encode(report, keys.COMMAND, FLEET, role=signing_role())).record
    assert isinstance(back, Report) and reports.figures_in(back.more) == figures
    assert terms.terms_of(replace(desired, more={})) is None and reports.figures_in({}) is None


def signing_role() -> records.Role:
    return records.Role.DEVICE


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_no_altered_statement_is_read(place: int, bit: int) -> None:
    data = bytearray(variants.statement(VARIANT, keys.ROOT, FLEET))
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(ModelWireError):
        variants.read(bytes(data), keys.ROOT.public, FLEET)


def test_another_fleet_key_kind_or_a_cut_is_refused_by_name() -> None:
    sealed = variants.statement(VARIANT, keys.ROOT, FLEET)
    with pytest.raises(WrongFleet):
        variants.read(sealed, keys.ROOT.public, bytes(16))
    with pytest.raises(BadSignature):
        variants.read(sealed, keys.DIRECTOR.public, FLEET)
    with pytest.raises(BadSignature):
        variants.read(variants.statement(VARIANT, keys.DIRECTOR, FLEET), keys.ROOT.public, FLEET)
    for cut in (0, 10, 100, len(sealed) - 1):
        with pytest.raises(Malformed):
            variants.read(sealed[:cut], keys.ROOT.public, FLEET)
    with pytest.raises(Malformed):
        variants.read(plans.seal_plan(PLAN, keys.ROOT, FLEET), keys.ROOT.public, FLEET)
    with pytest.raises(NotUnderstood):
        variants.statement(replace(VARIANT, more={"!must": 1}), keys.ROOT, FLEET)


@pytest.mark.parametrize("wrong", [
    {"rollout": b"short"}, {"urls": ["ftp://x"]}, {"soak": -1}, {"tries": 0}, {"learned": "mine"}, {"variant": b""}, {"back": 1},
    {"new": 1}, {"urls": ["http://a b"]}, {"worse": 10_001}, {"most": 1 << 62},
])  # fmt: skip
def test_terms_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    good = dict(terms.DeployTerms(b"r" * 16, b"v").as_map()[terms.KEY])  # type: ignore[arg-type]
    terms.read({terms.KEY: good})
    with pytest.raises(Malformed):
        terms.read({terms.KEY: {**good, **wrong}})  # type: ignore[dict-item]


@pytest.mark.parametrize("wrong", [
    {"rows": -1}, {"rows": 5, "better": 3, "worse": 3}, {"serves": b"x"}, {"code": "x" * 65}, {"accuracy": 1},
])  # fmt: skip
def test_figures_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    good = dict(reports.DeviceFigures().as_map()[reports.KEY])  # type: ignore[arg-type]
    reports.figures_in({reports.KEY: good})
    with pytest.raises(Malformed):
        reports.figures_in({reports.KEY: {**good, **wrong}})  # type: ignore[dict-item]


@pytest.mark.parametrize("wrong", [
    {"phases": ()}, {"gates": plans.RolloutGates(success=0)}, {"gates": plans.RolloutGates(surely=1)}, {"window": (0, 90_000)},
    {"learned": "x"}, {"window": (1, 2, 3)}, {"phases": (plans.RolloutPhase(count=1, soak=7_776_001),)}, {"soak": 7_776_001}, {"expiry": 0},
    {"urls": ("http://files.example/a b",)}, {"urls": ("http://a/",) * 5}, {"rate": 1_000_001}, {"name": "n" * 65}, {"rollout": b"r"},
    {"made_by": "ada\nroot"}, {"where": (("light", "n" * 201),)}, {"approvals": 9}, {"devices": ("pi-1",) * 1001},
    {"urls": ("file:///etc",)}, {"phases": (plans.RolloutPhase(share=10_001),)}, {"devices": ("UPPER case",)},
])  # fmt: skip
def test_a_plan_that_can_not_be_is_never_sealed(wrong: dict[str, object]) -> None:
    with pytest.raises(ModelWireError):
        plans.seal_plan(replace(PLAN, **wrong), keys.COMMAND, FLEET)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [
    {"number": 0}, {"by": "a" * 65}, {"reason": "r" * 1001}, {"reason": "halt\x1b[2J"}, {"rollout": b""}, {"at": -1},
])  # fmt: skip
def test_a_decision_that_no_director_would_read_is_never_sealed(wrong: dict[str, object]) -> None:
    with pytest.raises(ModelWireError):
        plans.seal_decision(replace(DECISION, **wrong), keys.COMMAND, FLEET)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [
    {"ram": -1}, {"name": "n" * 65}, {"runtime": "a\nb"}, {"tree": b"t"}, {"parents": (b"p",)}, {"number": 0}, {"size": 0},
    {"type_id": "\x07"},
])  # fmt: skip
def test_a_variant_that_no_device_would_read_is_never_sealed(wrong: dict[str, object]) -> None:
    with pytest.raises(ModelWireError):
        variants.statement(replace(VARIANT, **wrong), keys.ROOT, FLEET)  # type: ignore[arg-type]


def test_from_each_state_a_way_leads_to_an_end_and_none_leads_out_of_one() -> None:
    ends = {s for s in states.State if not any(a is s for a, _ in states.TRANSITIONS)}
    assert ends == states.FINAL
    for state in set(states.State) - states.FINAL:
        reached, front = {state}, [state]
        while front:
            now = front.pop()
            for a, b in states.TRANSITIONS:
                if a is now and b not in reached:
                    reached.add(b)
                    front.append(b)
        assert reached & states.FINAL
    assert not states.allowed(states.State.STAGED, states.State.CONFIRMED, states.Who.DEVICE)
    assert states.allowed(states.State.SOAKING, states.State.REVERTED, states.Who.DIRECTOR)
    assert not states.allowed(states.State.PROBING, states.State.SOAKING, states.Who.HOST)
