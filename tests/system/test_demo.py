"""How the demo paces its world: a device that learns slowly is waited for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from tests.system.demo import rounds_of


def test_a_round_that_the_guard_took_back_counts_as_one_that_became_a_version(tmp_path: Path) -> None:
    log, history = tmp_path / "pi-1.log", tmp_path / "state" / "models" / "digits" / "history"
    fleet = SimpleNamespace(home=lambda device: tmp_path, devices={"pi-1": SimpleNamespace(log=log)})
    assert rounds_of(fleet, "pi-1", "digits") == 0  # not even set up
    history.mkdir(parents=True)
    for version in (0, 1, 2):
        (history / f"{version}.tflite").write_bytes(b"")
    assert rounds_of(fleet, "pi-1", "digits") == 2  # 0 is the base
    said = "digits: round 3 rejected: held-out loss 0.2135 -> 0.2444, worse by more than 0.02"
    log.write_text(f"00:52:22 WARNING {said} (392 steps, 934 a second)\n{said}\n")
    assert rounds_of(fleet, "pi-1", "digits") == 3
