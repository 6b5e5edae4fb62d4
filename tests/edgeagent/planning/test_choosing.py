"""Decisions in rounds: the note fits its room and the budget, thinner deltas go where they are worth it, and nothing of it moves a bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.planning.choosing import PLAN, ROOM, USUAL, note_of
from edgeagent.planning.figures import ENCODE, INTERVAL, STEP
from edgeagent.planning.telling import HEIGHT, WIDTH, screen
from edgeagent.rounds.round import RoundReport
from edgeagent.service.goal import Goal
from edgeagent.settings.tree import PROFILES, PricesSettings
from modelwire.errors import ConfigError
from modelwire.planning import PROFILES as KNOWN
from modelwire.planning import Choice, Prices, decode
from modelwire.update import container
from tests.edgeagent.boards import Rig, centre, fill, make, rig
from tests.edgeagent.by_hand import one
from tests.edgeagent.centre import FakeClock

CHEAP = {"prices__per_accuracy": "0", "link__profile": "lte", "update__density": "1"}


def rounds(folder: Path, count: int, **changes: str) -> tuple[list[RoundReport], list[bytes], list[bytes]]:
    """Do rounds without a link; return their reports, the bodies that wait, and the roots of the versions."""
    with rig(folder, centre(FakeClock()), **{"train__every": "6h", **changes}) as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        reports = [one(r) for _ in range(count)]
        return reports, bodies(r), [row["root"] for row in reversed(r.lineage.versions())]


def bodies(r: Rig) -> list[bytes]:
    return [r.lineage.outbox.body(w.version) for w in r.lineage.outbox.waiting()]


def test_the_settings_know_the_profiles_and_prices_of_the_cost_model() -> None:
    assert tuple(KNOWN) == PROFILES
    p = PricesSettings()
    assert Prices() == Prices(p.per_byte, p.per_joule, p.per_byte_month, p.per_second, p.per_accuracy, p.per_hour_waiting)


def test_a_decision_is_in_the_update_and_beside_its_version(tmp_path: Path) -> None:
    with rig(tmp_path / "d", centre(FakeClock())) as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        report = one(r)
        said = container.parse(bodies(r)[0]).header.extension[PLAN]
        kept = r.lineage.plans.of(1)
        assert isinstance(said, bytes) and kept is not None and report.decided is not None
        note = decode(said)
        assert note == note_of(kept) and said == report.decided.note
        assert (note.choice.name.lower(), kept.choice) == (report.kind, report.kind) and kept.hold == 0
        assert report.bytes == len(bodies(r)[0]) == report.forms[report.kind]
        goes = [row for row in kept.document["rows"] if row["goes"]]
        assert len(goes) == 1 and abs(goes[0]["bytes"] - report.bytes) <= ROOM
        assert note.totals[Choice.DELTA] <= note.totals[Choice.SNAPSHOT] * 1.12


@pytest.mark.parametrize("density", ["0.2", "1"])
def test_the_bits_of_a_model_are_the_same_whoever_chooses_the_kind(tmp_path: Path, density: str) -> None:
    _, plain, told = rounds(tmp_path / "told", 3, update__kind="delta", update__density=density)
    _, weighed, decided = rounds(tmp_path / "auto", 3, update__density=density)
    assert told == decided
    assert all(0 < len(b) - len(a) <= ROOM for a, b in zip(plain, weighed, strict=True)), "the note, and nothing else"


@pytest.mark.parametrize("budget", ["900B", "1100B", "4KiB"])
@pytest.mark.parametrize("profile", PROFILES)
def test_no_update_is_above_its_budget_with_the_decision_in_it(tmp_path: Path, budget: str, profile: str) -> None:
    reports, waiting, _ = rounds(tmp_path / "d", 2, update__density="1", update__max_bytes=budget, link__profile=profile)
    most = {"900B": 900, "1100B": 1100, "4KiB": 4096}[budget]
    for report, body in zip(reports, waiting, strict=True):
        assert report.accepted and (len(body) <= most or report.kind == "snapshot"), report.reason


def test_a_thinner_delta_goes_where_accuracy_costs_nothing_and_never_on_ethernet(tmp_path: Path) -> None:
    thin, _, _ = rounds(tmp_path / "thin", 1, **CHEAP)
    dense, _, _ = rounds(tmp_path / "dense", 1, **{**CHEAP, "prices__per_accuracy": "1000"})
    wired, _, _ = rounds(tmp_path / "wired", 1, **{**CHEAP, "link__profile": "ethernet"})
    assert thin[0].kept < dense[0].kept / 2 and wired[0].kept == dense[0].kept
    assert thin[0].decided is not None and dense[0].decided is not None
    names = {row["name"]: row for row in dense[0].decided.document["rows"]}
    assert {"delta 100 %", "delta 50 %", "delta 25 %", "delta 12.5 %", "snapshot", "recipe", "wait"} <= set(names)
    assert names["recipe"]["barred"] == "recipes_off" and names["wait"]["barred"] == "always_on"
    assert names["delta 50 %"]["of_accuracy"] > 0 and names["delta 50 %"]["bytes"] < names["delta 100 %"]["bytes"]
    assert abs(names["delta 12.5 %"]["bytes"] - thin[0].bytes) < 0.5 * thin[0].bytes, "the estimate is near what was sent"


def test_rounds_are_measured_and_figures_come_with_their_source(tmp_path: Path) -> None:
    clock = FakeClock()
    with rig(tmp_path / "d", centre(clock), link__profile="lte-sleeping", train__every="6h") as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        for _ in range(3):
            clock.now += 1800
            one(r)
        figures = r.lineage.figures.all()
        assert (figures[INTERVAL].value, figures[INTERVAL].count) == (1800.0, 2)
        assert figures[STEP + "all"].source == "measured: rounds" and ENCODE in figures
        last = r.lineage.plans.last()
        assert last is not None
        sources = {name: source for name, _, source in last.document["sources"]}
        assert sources["interval_s"] == "measured: 1 round" and "phones of 2012" in sources["joules_per_wakeup"]
        first = r.lineage.plans.of(1)
        assert first is not None and ["interval_s", 21600.0, "settings: train.every"] in first.document["sources"]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_decision_is_one_screen(tmp_path: Path, profile: str) -> None:
    reports, _, _ = rounds(tmp_path / "d", 2, link__profile=profile)
    for report in reports:
        assert report.decided is not None and len(report.decided.note) <= ROOM - len(PLAN) - 3 and USUAL <= ROOM
        lines = screen("pi-7/tiny@1", report.decided.document)
        assert len(lines) <= HEIGHT and max(map(len, lines)) <= WIDTH and any(line.startswith("> ") for line in lines)


@pytest.mark.parametrize(("size", "price"), [(0, 0.0), (604, 6.3e-4), (99_999, 0.0099), (14_123_456, 1.5), (10**9, 4e4)])
def test_the_table_shows_every_column_whatever_the_sizes(size: int, price: float) -> None:
    row = {"name": "delta 0.75 %", "bytes": size, "goes": True, "barred": "", "why": "", "total": price}
    row |= {f"of_{term}": price for term in ("bytes", "energy", "storage", "recovery", "accuracy", "waiting")}
    lines = screen("tiny@1", {"reason": "so it is", "rows": [row]})
    assert max(map(len, lines)) <= WIDTH and lines[1].endswith(" J") and len(lines[2]) == len(lines[1])


@pytest.mark.parametrize(
    "document",
    [{}, {"rows": 3}, {"rows": [3, None, {}]}, {"rows": [{"name": "\x1b[2J", "total": "x", "bytes": -1}], "sources": [[1], [1, "x", 2]]},
     {"reason": "r" * 5000, "rows": [{"name": "n" * 900, "why": "w" * 900, "total": 1e300, "bytes": 10**30}] * 50,
      "sources": [["s" * 99, 1.0, "t" * 999]] * 99}],
)  # fmt: skip
def test_a_damaged_decision_is_shown_as_far_as_it_can_be_read(document: dict[str, object]) -> None:
    lines = screen("tiny@1", document)
    assert lines and len(lines) <= HEIGHT and max(map(len, lines)) <= WIDTH and "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    "prices", [{"prices__per_byte": "-1"}, {"prices__per_joule": "nan"}, {"prices__per_second": "inf"}, {"link__profile": "5g"}]
)
def test_prices_below_zero_and_unknown_profiles_are_refused_by_name(tmp_path: Path, prices: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(prices)).replace("__", ".")):
        make(tmp_path / "d", **prices)
