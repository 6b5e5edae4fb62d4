"""`edgecloud deploy`: what --plan shows is what is sealed; who is left out is said with the reason; a plan that can't work is refused."""

from __future__ import annotations

import pytest

from edgecloud.commands import answer
from edgecloud.commands.deploying import deploy
from edgecloud.registry import open_registry
from edgecloud.registry.rollout_rows import FrozenRow
from edgecloud.rollouts import choosing, planning, statements
from modelwire.deploying.plans import RolloutGates, RolloutVerb
from tests.edgecloud.centre import Centre, add_base, revoke
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice
from tests.edgecloud.searching.fleet import other_base

from .fleet import fleet, names, offer, variant

TWO_STEPS = ("--phase", "1", "--phase", "all")


@pytest.fixture
def ready(desk: Desk) -> Desk:
    """Twelve devices, and the variant tall."""
    fleet(desk, 12).close()
    variant(desk)
    return desk


def test_what_a_plan_shows_is_what_is_sealed(ready: Desk) -> None:
    words = ("deploy", "tall", "--all", "--phase", "2", "--phase", "50%:48h", "--phase", "all", "--by", "anna", "--margin", "3%")
    shown = ready.json(*words, "--plan")
    store = open_registry(ready.folder / "fleet.db", readonly=True)
    assert shown["sealed"] is False and store.rollouts.all() == []
    sealed = ready.json(*words)
    differ = {key for key in shown if shown[key] != sealed[key]}
    assert differ == {"sealed", "state"} and sealed["state"] == "draft"
    row = store.rollouts.named("tall-1")
    assert row is not None
    plan = statements.plan_of(store, row).plan
    assert plan.rollout.hex() == shown["id"] and plan.gates == RolloutGates(margin=300) and plan.made_by == "anna"
    assert (plan.devices, plan.where, plan.cohort, plan.follow) == ((), (), "", True)
    by_phase = choosing.by_phase(plan.phases, plan.rollout, names(12))
    assert [one["devices"] for one in shown["phases"]] == by_phase and [len(of) for of in by_phase] == [2, 4, 6]  # type: ignore[attr-defined]
    assert [one["soak"] for one in shown["phases"]] == [86_400, 172_800, 86_400]  # type: ignore[attr-defined]
    assert sealed["state"] == "draft" and store.rollouts.decisions(row.id) == []
    store.close()


def test_start_seals_the_decision_too_and_another_rollout_has_another_name_and_other_canaries(ready: Desk) -> None:
    first = ready.json("deploy", "tall", "--all", *TWO_STEPS, "--start")
    second = ready.json("deploy", "tall", "--all", *TWO_STEPS)
    assert (first["rollout"], second["rollout"]) == ("tall-1", "tall-2") and first["id"] != second["id"]
    store = open_registry(ready.folder / "fleet.db", readonly=True)
    row = store.rollouts.named("tall-1")
    assert row is not None
    assert [one.decision.verb for one in statements.decisions_of(store, row)] == [RolloutVerb.START]
    assert any("tall-1 of the same model is draft" in one for one in second["warnings"])  # type: ignore[attr-defined]
    assert "is called tall-1 already" in str(ready.error("deploy", "tall", "--all", "--name", "tall-1", *TWO_STEPS)["message"])
    store.close()


def test_bytes_and_time_are_those_of_the_devices_of_each_phase(ready: Desk) -> None:
    size = len(other_base().file)
    words = ("deploy", "tall", "--all", *TWO_STEPS, "--plan", "--soak", "1h", "--rate", "2", "--jitter", "0s")
    parts, http = ready.json(*words), ready.json(*words, "--url", "https://files.example.org/{file}.tflite")
    assert (parts["by"], http["by"]) == ("parts", "http")
    assert http["each_bytes"] == size and parts["each_bytes"] == size + 44  # one leaf of 64 KiB
    assert [one["bytes"] for one in http["phases"]] == [size, 11 * size]  # type: ignore[attr-defined]
    assert [one["seconds"] for one in http["phases"]] == [3600 + 60 + 1, 3600 + 360 + 1]  # type: ignore[attr-defined]
    slow = ready.json(*words, "--link", "lora-sf7")
    assert slow["seconds"] > parts["seconds"] + 6000 and any("lora" in one for one in slow["warnings"])  # type: ignore[operator, attr-defined]


def test_facts_choose_devices_and_the_others_are_not_left_out(ready: Desk) -> None:
    said = ready.json("deploy", "tall", "--where", "region=eu", *TWO_STEPS, "--plan")
    chosen = {name for phase in said["phases"] for name in phase["devices"]}  # type: ignore[attr-defined]
    assert chosen == {"pi-01", "pi-04", "pi-07", "pi-10"} and said["left_out"] == [] and said["where"] == {"region": "eu"}
    nobody = ready.error("deploy", "tall", "--where", "region=mars", "--plan")
    assert "no device is as asked for" in str(nobody["message"]) and "edgecloud card" in str(nobody["hint"])
    assert ready.json("deploy", "tall", "--where", "region=eu", "--no-follow", *TWO_STEPS, "--plan")["follow"] is False


def test_who_is_left_out_is_said_with_the_reason(ready: Desk) -> None:
    store = open_registry(ready.folder / "fleet.db", synchronous="OFF")
    store.rollouts.freeze(FrozenRow("pi-03", "", "bench", "anna", 1))
    revoke(store, "pi-05", 2)
    ready.ok("deploy", "tall", "--to", "pi-07,pi-08", *TWO_STEPS, "--name", "first", "--start")
    row = store.rollouts.named("first")
    assert row is not None
    store.rollouts.move(row.id, state="running", now=2)
    offer(store, row, ["pi-07"])
    said = ready.json("deploy", "tall", "--all", *TWO_STEPS, "--plan")
    why = {one["device"]: one["why"] for one in said["left_out"]}  # type: ignore[attr-defined]
    assert why == {"pi-03": "frozen", "pi-05": "its key is revoked", "pi-07": "in another rollout"}
    for state, left in (("halted", False), ("paused", True), ("done", False)):
        store.rollouts.move(row.id, state=state, now=3)
        again = ready.json("deploy", "tall", "--all", *TWO_STEPS, "--plan")
        assert ("pi-07" in {one["device"] for one in again["left_out"]}) is left, state  # type: ignore[attr-defined]
    assert "frozen (1): pi-03; bench" in ready.ok("deploy", "tall", "--all", *TWO_STEPS, "--plan")
    store.close()


def test_a_variant_of_another_schema_goes_to_nobody_unless_it_begins_anew(ready: Desk) -> None:
    store = open_registry(ready.folder / "fleet.db", synchronous="OFF")
    add_base(store, Base((TINY.parent / "digits.tflite").read_bytes()), "wide")
    store.close()
    ready.ok("variants", "add", "wide", "--model", "digits")
    said = ready.error("deploy", "wide", "--all", *TWO_STEPS)
    assert "12 another schema" in str(said["message"]) and "--learned anew" in str(said["hint"])
    assert ready.json("deploy", "wide", "--all", *TWO_STEPS, "--learned", "anew", "--plan")["devices"] == 12


def test_in_a_mixed_fleet_a_plan_lists_who_can_run_it_and_the_director_goes_to_nobody_else(
    ready: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_registry(ready.folder / "fleet.db", synchronous="OFF")
    other = Base((TINY.parent / "digits.tflite").read_bytes())
    add_base(store, other, "wide")
    Centre(store, now=answer.now()).meet(ScriptedDevice(other, name="pi-99"))
    said = ready.json("deploy", "tall", "--all", *TWO_STEPS)
    assert said["left_out"] == [{"device": "pi-99", "why": "another schema", "detail": "--learned anew begins from the variant as it is"}]
    row = store.rollouts.named("tall-1")
    assert row is not None
    plan = statements.plan_of(store, row).plan
    assert list(plan.devices) == names(12) and not plan.follow and any("by name" in one for one in said["warnings"])  # type: ignore[attr-defined]
    monkeypatch.setattr(planning, "LISTED_BYTES", 20)
    many = ready.json("deploy", "tall", "--all", *TWO_STEPS, "--plan")  # more than a plan can list: the director passes pi-99 by
    assert many["devices"] == 12 and many["follow"] and any("passes by" in one for one in many["warnings"])  # type: ignore[attr-defined]
    store.close()


def test_the_base_that_devices_run_is_no_news_to_them(ready: Desk) -> None:
    ready.ok("variants", "add", "digits", "--model", "digits")
    assert "12 runs it already" in str(ready.error("deploy", "digits", "--all", *TWO_STEPS)["message"])


def test_memory_and_runtime_keep_a_variant_from_boards_that_can_not_run_it(ready: Desk) -> None:
    ready.ok("variants", "add", "tall", "--model", "digits", "--runtime", "litert")
    assert "12 another runtime" in str(ready.error("deploy", "tall", "--all", *TWO_STEPS, "--plan")["message"])


REFUSED = (
    (("--to", "pi-01"), "a canary of 5 is as large as its group of 1"),
    (("--to", "pi-01,pi-02,pi-03,pi-04,pi-05"), "a canary of 5 is as large as its group of 5"),
    (("--all", "--phase", "12", "--phase", "all"), "a canary of 12 is as large as its group of 12"),
    (("--all", "--phase", "100"), "a canary of 100 is as large as its group of 12"),
    (("--all", "--phase", "50%", "--phase", "25%"), "shares of the phases do not rise"),
    (("--all", "--phase", "3", "--phase", "2", "--phase", "all"), "numbers of the phases do not rise"),
    (("--all", "--phase", "50%", "--phase", "6", "--phase", "all"), "phase 2, up to 6 devices, adds nobody"),
    (("--to", "pi-01,pi-02", "--canary", "pi-03"), "pi-03 is in a phase, and not among the 2 devices"),
    (("--all", *("--phase", "1%") * 17), "from 1 to 16 phases"),
    (("--all", *TWO_STEPS, "--approvals", "1"), "need 2 command keys, and the trust record names 1"),
    (("--all", *TWO_STEPS, "--expires", "0s"), "no device could take it"),
    (("--all", *TWO_STEPS, *("--url", "https://x/") * 5), "at most 4 addresses"),
    (("--all", *TWO_STEPS, "--name", "../x"), "rollout name"),
    (("--to", "pi-01,pi-99", *TWO_STEPS), "pi-99/digits"),
    (("--cohort", "9", *TWO_STEPS), "no cohort 9"),
)  # fmt: skip


def test_a_plan_that_can_not_work_is_refused_with_what_to_do_and_nothing_is_sealed(ready: Desk) -> None:
    for words, said in REFUSED:
        for more in ((), ("--plan",)):
            error = ready.error("deploy", "tall", *words, *more)
            assert said in str(error["message"]) and (error["hint"] or error["error"] == "Malformed"), error
    assert "--phase all" in str(ready.error("deploy", "tall", "--to", "pi-01")["hint"])
    store = open_registry(ready.folder / "fleet.db", readonly=True)
    assert store.rollouts.all() == []
    store.close()


@pytest.mark.parametrize(
    "words",
    [
        ("--all", "--phase", "0"), ("--all", "--phase", "101%"), ("--all", "--phase", "PI-1"), ("--all", "--phase", "5:never"),
        ("--all", "--phase", ""), ("--all", "--phase", "5,6"), ("--all", "--window", "25:00-26:00"), ("--all", "--window", "01:00-01:00"),
        ("--all", "--margin", "2"), ("--all", "--margin", "-1%"), ("--where", "region"), ("--where", "region="), ("--to", ","),
        ("--to", "a b"), ("--all", "--url", "ftp://x"), ("--all", "--url", "https://me:word@x/"), ("--all", "--soak", "91d"),
        ("--all", "--to", "a"), (), ("--all", "--canary", "pi-01", "--phase", "all"), ("--all", "--plan", "--start"),
        ("--to", "pi-01", "--no-follow"), ("--all", "--link", "pigeon"), ("--all", "--by", "a\x1b[2J"), ("--all", "--approvals", "9"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_a_usage_error(desk: Desk, words: tuple[str, ...]) -> None:
    assert desk.error("deploy", "tall", *words)["error"] == "Usage"


def test_a_few_devices_are_reached_when_it_is_said_how(ready: Desk) -> None:
    at_once = ready.json("deploy", "tall", "--to", "pi-01,pi-02", "--phase", "all", "--plan")
    assert [len(one["devices"]) for one in at_once["phases"]] == [2]  # type: ignore[attr-defined]
    usual = ready.json("deploy", "tall", "--all", "--plan")
    assert [(one["says"], len(one["devices"])) for one in usual["phases"]] == [("up to 5 devices", 5), ("up to 50 %", 1), ("all", 6)]  # type: ignore[attr-defined]
    canary = ready.json("deploy", "tall", "--all", "--canary", "pi-09,pi-02", "--plan")
    assert canary["phases"][0]["devices"] == ["pi-09", "pi-02"]  # type: ignore[index]


def test_a_cohort_is_resolved_when_the_plan_is_made(ready: Desk) -> None:
    (ready.folder / "night.txt").write_text("# at night\npi-02\npi-04/digits@1\npi-06\n")
    said = ready.json("deploy", "tall", "--cohort", "night.txt", *TWO_STEPS)
    store = open_registry(ready.folder / "fleet.db", readonly=True)
    row = store.rollouts.named("tall-1")
    assert row is not None
    plan = statements.plan_of(store, row).plan
    assert plan.devices == ("pi-02", "pi-04", "pi-06") and plan.cohort == "the list night.txt" == said["cohort"] and not plan.follow
    (ready.folder / "odd.txt").write_text("pi-02/faces\n")
    assert "not of the model digits" in str(ready.error("deploy", "tall", "--cohort", "odd.txt", *TWO_STEPS)["message"])
    store.close()


def test_what_the_gate_can_tell_is_said_and_warned_of(desk: Desk) -> None:
    fleet(desk, 12, judged=30).close()
    variant(desk)
    said = desk.json("deploy", "tall", "--all", "--phase", "2", "--phase", "all", "--plan")
    assert said["power"]["rows"] == 60 and any("can never show" in one for one in said["warnings"])  # type: ignore[index, attr-defined]
    assert any("one failure halts it" in one for one in said["warnings"])  # type: ignore[attr-defined]
    wider = desk.json("deploy", "tall", "--all", "--phase", "2", "--phase", "all", "--plan", "--margin", "10%")
    assert wider["power"]["passes"] > 0.5 and not any("never show" in one for one in wider["warnings"])  # type: ignore[index, attr-defined]
    text = desk.ok("deploy", "tall", "--all", "--phase", "2", "--phase", "all", "--plan", "--margin", "100%")
    assert "Quality is not judged" in text


def test_canaries_that_are_away_are_told_of_before(ready: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("deploy", "tall", "--all", "--phase", "2", "--phase", "all", "--plan")
    assert not any("not heard of" in one for one in ready.json(*words)["warnings"])  # type: ignore[attr-defined]
    at = answer.now() + 2 * 86_400
    monkeypatch.setattr(deploy, "now", lambda: at)
    for more, then in (((), "waits for them"), (("--patience", "12h"), "paused after 12 h")):
        said = next(one for one in ready.json(*words, *more)["warnings"] if "not heard of" in one)  # type: ignore[attr-defined]
        assert said.startswith("2 of 2 devices of the first phase") and then in said


def test_on_a_terminal_every_line_fits_80_columns(ready: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    for words in (("deploy", "tall", "--all", "--plan"), ("variants",), ("rollouts",)):
        _, out, _ = ready.run(*words)
        lines = out.splitlines()
        assert lines and not [line for line in lines if len(line) > 80], words
