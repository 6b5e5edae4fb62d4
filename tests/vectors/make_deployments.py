"""The golden words about deployments: a variant's statement, a plan, a decision, two desireds with terms and reports with figures."""

from __future__ import annotations

from collections.abc import Mapping

from modelwire.deploying import plans, variants
from modelwire.deploying.plans import RolloutDecision, RolloutGates, RolloutPhase, RolloutPlan, RolloutVerb
from modelwire.deploying.reports import Code, DeviceFigures
from modelwire.deploying.terms import DeployTerms
from modelwire.deploying.variants import Variant
from modelwire.wire import cbor, records
from modelwire.wire.records import Desired, Report
from modelwire.wire.signing import Role
from tests.keys import FLEET_ID

from . import barn

ID = bytes(range(0xE0, 0xF0))
COMMIT, OLD = (bytes(range(start, start + 32)) for start in (0x20, 0x40))
ROLES = {"variant": Role.ROOT, "plan": Role.ACT, "decision": Role.ACT, "desired": Role.DIRECTOR, "report": Role.DEVICE}
MAGICS = {"variant": variants.MAGIC, "plan": plans.PLAN_MAGIC, "decision": plans.DECISION_MAGIC}
VARIANT = Variant(
    barn.FLEET_NAME, barn.MODEL, "night, wet roads", COMMIT, bytes(range(0x60, 0x80)), 223_920, bytes(range(0x80, 0xA0)),
    bytes(range(0xA0, 0xC0)), False, "litert", 24 << 20, (OLD,), barn.AT, 7, "E4*168R01/00*12345*01",
)  # fmt: skip
PLAN = RolloutPlan(
    barn.FLEET_NAME, barn.MODEL, ID, "spring", COMMIT, ("pi-7", "pi-8"), "", (("city", "Graz"),), True,
    (RolloutPhase(("pi-7",), 2, 0, 600), RolloutPhase(share=2_500), RolloutPhase(share=10_000)), RolloutGates(patience=86_400), 3_600,
    100, 60, (3_600, 18_000), "auto", True, ("https://models.example/7.tflite",), 7 * 86_400, 1, "anna", barn.AT,
)  # fmt: skip
DECISION = RolloutDecision(barn.FLEET_NAME, ID, 2, RolloutVerb.ROLL_BACK, "ben", "slow on the older boards", barn.AT + 60)
FIGURES = DeviceFigures(True, 120, 4, 9, 5_400, 1_800, Code.SLOW, "carried", OLD, b"")


def said() -> dict[str, bytes]:
    """Return each as it is sealed, by its file's name without the ending."""
    vouched = variants.statement(VARIANT, barn.ROOT, FLEET_ID)
    terms = DeployTerms(ID, vouched, PLAN.urls, 3_600, 5, 0, "auto", True, barn.AT + 120, worse=200)
    first = Desired(*barn.WHO, 12, barn.AT + barn.WEEK, COMMIT, VARIANT.size, 1, more=terms.as_map())
    back = Desired(*barn.WHO, 13, barn.AT + barn.WEEK, OLD, 210_000, 1, more=DeployTerms(ID, back=True).as_map())
    told = Report(*barn.WHO, 12, COMMIT, "reverted", 1, "passive", VARIANT.size, 0.75, 0.708, "3.0 times as slow", more=FIGURES.as_map())
    plain = Report(*barn.WHO, 13, OLD, "confirmed", 1, "active", 0, None, None, "")
    device = barn.KEYS[Role.DEVICE]
    return {
        "variant": vouched, "plan": plans.seal_plan(PLAN, barn.COMMAND, FLEET_ID),
        "decision": plans.seal_decision(DECISION, barn.COMMAND, FLEET_ID),
        "desired": records.encode(first, barn.DIRECTOR, FLEET_ID), "desired-back": records.encode(back, barn.DIRECTOR, FLEET_ID),
        "report": records.encode(told, device, FLEET_ID), "report-plain": records.encode(plain, device, FLEET_ID),
    }  # fmt: skip


def rows() -> list[dict[str, object]]:
    """Return what expected.json says of each: its file, the role that seals it, and the map that a reader takes from it."""
    out: list[dict[str, object]] = []
    for name, data in said().items():
        what = name.partition("-")[0]
        content = cbor.decode(data[24:-64], name)
        assert isinstance(content, dict)
        if what in ("desired", "report"):
            further = content.get("more", {})
            assert isinstance(further, dict)
            key = "terms" if what == "desired" else "figures"
            inner = further.get(key, {})
            assert isinstance(inner, dict)
            out.append({"file": f"{name}.bin", "role": ROLES[what].name.lower(), key: plain(inner)})
        else:
            out.append({
                "file": f"{name}.bin", "role": ROLES[what].name.lower(), "magic": MAGICS[what].hex(), "says": plain(content),
            })  # fmt: skip
    return out


def plain(values: Mapping[str, cbor.Value]) -> dict[str, object]:
    """Return a map as JSON has it: bytes in hexadecimal."""

    def one(value: cbor.Value) -> object:
        if isinstance(value, bytes):
            return value.hex()
        return [one(v) for v in value] if isinstance(value, list) else plain(value) if isinstance(value, dict) else value

    return {key: one(value) for key, value in values.items()}
