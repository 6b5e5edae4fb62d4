"""`edgeagent desired`: what a person on the board reads of a variant, and says to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeagent.cli import main
from tests.edgeagent.boards import Rig, centre, fill
from tests.edgeagent.centre import FakeClock

from .deployed import bring, deployed, other_base, states

B = other_base()


def asked(capsys: pytest.CaptureFixture[str], folder: Path, *words: str, code: int = 0) -> dict[str, Any]:
    assert main([*words, "--dir", str(folder), "--json"]) == code
    said = capsys.readouterr()
    document: dict[str, Any] = json.loads(said.out if code == 0 else said.err.splitlines()[-1])
    return document


def text(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> str:
    assert main([*words, "--dir", str(folder)]) == int(words[0] == "doctor"), "a doctor finds no broker here"
    return capsys.readouterr().out


def waiting(r: Rig) -> None:
    fill(r.device)
    r.centre.after(1, lambda: r.centre.push(bring(B), "desired"))
    r.serve(60)


def test_it_says_what_waits_what_would_be_done_and_takes_the_hosts_yes(
    tmp_path: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    c, folder = centre(clock), tmp_path / "d"
    with deployed(folder, c, B, deploy__accept="ask", train__min_samples="9999") as r:
        assert asked(capsys, folder, "desired")["models"][0]["desired"] is None
        assert "nothing was desired yet" in text(capsys, folder, "desired", "--dry-run")
        assert asked(capsys, folder, "desired", "accept", code=15)["error"] == "BadArgument"
        waiting(r)
        assert states(c)[-1] == "staged"
        row = asked(capsys, folder, "desired", "--dry-run")["models"][0]
        assert row["desired"]["state"] == "staged" and row["desired"]["consent"] and row["would"]["fetch"] == 0
        said = text(capsys, folder, "desired", "--dry-run")
        assert "its host is asked: edgeagent desired accept" in said and "nothing: it lies here" in said
        assert "once its host says yes" in said and "its host is asked" in text(capsys, folder, "status")
        assert "variant night (desired 1): staged" in text(capsys, folder, "doctor")
        assert asked(capsys, folder, "desired", "accept")["accepted"] is True
        r.serve(60)
        assert states(c)[-1] == "confirmed"
        row = asked(capsys, folder, "desired")["models"][0]
        assert row["desired"]["state"] == "confirmed" and row["base"] == row["desired"]["variant"]
        assert "confirmed" in text(capsys, folder, "desired")


def test_it_takes_the_hosts_no_with_its_reason(tmp_path: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    c, folder = centre(clock), tmp_path / "d"
    with deployed(folder, c, B, deploy__accept="ask", train__min_samples="9999") as r:
        waiting(r)
        assert "reason" in asked(capsys, folder, "desired", "refuse", "x" * 301, code=15)["message"]
        assert asked(capsys, folder, "desired", "refuse", "no service\nbefore May")["accepted"] is False
        r.serve(10)
        assert (states(c)[-1], c.reports[-1].reason) == ("refused", "the host said no: no service before May")
        assert asked(capsys, folder, "desired", "refuse", code=15)["message"] == "nothing that is desired here is still open"


@pytest.mark.parametrize(("changes", "code"), [
    ({"deploy__accept": "never"}, "frozen"), ({"deploy__max_bytes": "1KiB"}, "budget"), ({"budget__max_ram": "1MiB"}, None),
])  # fmt: skip
def test_what_the_settings_leave_out_is_refused(
    tmp_path: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], code: str | None
) -> None:
    c, folder = centre(clock), tmp_path / "d"
    with deployed(folder, c, B, train__min_samples="9999", **changes) as r:
        waiting(r)
        assert (states(c)[-1] == "refused") is (code is not None)
        found = asked(capsys, folder, "desired")["models"][0]["desired"]
        assert found["code"] == (code or "")


def test_no_round_is_done_by_hand_while_a_variant_is_served_on_trial(
    tmp_path: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    c, folder = centre(clock), tmp_path / "d"
    with deployed(folder, c, B, train__min_samples="9999") as r:
        fill(r.device)
        c.after(1, lambda: c.push(bring(B, soak=500), "desired"))
        r.serve(60)
        assert states(c)[-1] == "soaking"
    refused = asked(capsys, folder, "train", "--set", "train.min_samples=2", code=15)
    assert "on trial" in refused["message"] and "edgeagent desired" in refused["hint"]
    with deployed(folder, c, B, train__min_samples="9999") as r:
        r.serve(600)
        assert states(c)[-1] == "confirmed", "nothing has moved the model from under it"
