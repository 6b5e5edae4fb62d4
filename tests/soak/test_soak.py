"""`make soak` on the command line: what it asks for, what it shows, and that it says no when the books do not balance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.soak import __main__ as soak
from tests.soak.books import Books
from tests.soak.ordeal import Fallen, Outcome, Plan

KILLS = {"broker": 3, "ingester": 4, "agents": 5}


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak.broker, "program", lambda: "/usr/sbin/mosquitto")
    for name in ("MINUTES", "SEED"):
        monkeypatch.delenv(name, raising=False)


def soaked(monkeypatch: pytest.MonkeyPatch, came: Outcome | Fallen, folder: Path, *words: str) -> tuple[int, list[Plan]]:
    """Run the command with an ordeal that ends so, and return its exit code and the plan that it was given."""
    plans = []

    def endure(work: Path, plan: Plan, say: object) -> Outcome:
        plans.append(plan)
        (work / "fleet").mkdir(parents=True)
        if isinstance(came, Fallen):
            raise came
        return came

    monkeypatch.setattr(soak, "endure", endure)
    return soak.main(["--folder", str(folder), *words]), plans


def test_a_soak_that_balances_ends_well_and_leaves_its_figures_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINUTES", "2")
    monkeypatch.setenv("SEED", "7")
    code, (plan,) = soaked(monkeypatch, Outcome(Books(9, 9, 9), KILLS, 2, 1, 120.0), tmp_path / "soak")
    assert code == 0 and (plan.seconds, plan.seed, plan.kills, plan.freeze) == (120.0, 7, 20, 30.0)
    said = json.loads((tmp_path / "soak" / "soak.json").read_text())
    assert (said["updates"], said["lost"], said["kills_agents"], said["seed"], said["balanced"]) == (9, 0, 5, 7, True)
    assert [p.name for p in (tmp_path / "soak").iterdir()] == ["soak.json"]
    shown = capsys.readouterr().out
    assert "kills ingester" in shown and max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("wrong", [{"lost": ["pi-0@3"]}, {"doubled": ["pi-0@3"]}, {"diverged": ["pi-0@3"]}, {"stored": 8}])
def test_whatever_is_wrong_ends_it_with_1_and_leaves_the_logs(
    wrong: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    books = Books(**{"made": 9, "stored": 9, "verified": 9, **wrong})  # type: ignore[arg-type]
    code, _ = soaked(monkeypatch, Outcome(books, KILLS, 2, 1, 120.0), tmp_path / "soak", "--json", "--minutes", "1", "--seed", "3")
    said = capsys.readouterr()
    assert code == 1 and (tmp_path / "soak" / "work" / "fleet").is_dir()
    assert json.loads(said.out)["balanced"] is False
    assert "the books do not balance" in said.err and "make soak MINUTES=1 SEED=3" in said.err


def test_a_process_that_falls_ends_it_with_1_and_says_what_to_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = soaked(monkeypatch, Fallen("pi-2 ended with 70"), tmp_path / "soak")
    said = capsys.readouterr().err
    assert code == 1 and "pi-2 ended with 70" in said and "ingester.log" in said


SENSELESS = [
    ("--minutes", "0"), ("--minutes", "nan"), ("--minutes", "inf"), ("--agents", "0"), ("--real", "7"), ("--slow", "-1"), ("--seed", "x"),
]  # fmt: skip


@pytest.mark.parametrize("words", SENSELESS)
def test_what_makes_no_sense_is_refused(words: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as refused:
        soaked(monkeypatch, Fallen(""), tmp_path, *words)
    assert refused.value.code == 2
