"""The stories end as they claim, on few rounds; each leaves its figures and a chart."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import broker
from tests.stories import camera, cameras, har, story, turbine, vibration, wearers
from tests.stories.story import Say

needs_broker = pytest.mark.skipif(broker.program() is None, reason=broker.MISSING)


@pytest.mark.slow("plays a story with a fleet of processes", seconds=20)
@needs_broker
@pytest.mark.parametrize(("module", "rounds"), [(har, 5), (turbine, 3), (camera, 4)], ids=["har", "turbine", "camera"])
def test_a_story_comes_out_as_it_claims(module: Any, rounds: int, tmp_path: Path) -> None:
    folder = tmp_path / "story"
    assert module.main(["--folder", str(folder), "--rounds", str(rounds)]) == 0
    said = json.loads(folder.with_suffix(".json").read_text())
    assert said["failed"] == [] and said["lost"] == said["mismatched"] == 0
    for device in said["devices"].values():
        assert 0 < device["versions"] <= device["rounds"] == rounds
        assert device["card"]["samples"] > 0 and device["card"]["updates"] == len([n for n in device["card_bytes"] if n])
        assert 0 < device["bytes_sent"] == sum(device["bytes"]) < device["whole_files_bytes"] / 5
    width, height = png_size(folder.with_suffix(".png").read_bytes())
    assert width > 1000 and height > 300


def png_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) of a PNG that is whole: it begins and ends as one."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and data[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_a_story_whose_claim_fails_ends_with_1_and_says_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(lost: int, failed: list[str]) -> int:
        def tale(folder: Path, rounds: int, say: Say) -> tuple[dict[str, object], list[str]]:
            return {"lost": lost, "mismatched": 0, "rounds": rounds}, failed

        return story.run("tale", "", 7, ["--folder", str(tmp_path / "tale")], tale)

    assert told(0, []) == 0
    assert told(0, ["nobody learnt"]) == 1 and "nobody learnt" in capsys.readouterr().err
    assert told(2, []) == 1 and "2 versions lost" in capsys.readouterr().err
    assert json.loads((tmp_path / "tale.json").read_text())["failed"] == ["2 versions lost"]


def test_long_work_says_how_far_it_is_at_its_end_and_not_too_often() -> None:
    said: list[str] = []
    one_more = story.counted(said.append, "judged", 3, every=1e9)
    for _ in range(3):
        one_more()
    assert said == ["judged: 3 of 3"]
    often = story.counted(said.append, "heard", 2, every=0)
    often()
    often()
    assert said[1:] == ["heard: 1 of 2", "heard: 2 of 2"]


def test_what_a_device_sees_is_fixed_by_its_name_and_round() -> None:
    anna = wearers.PERSONS[0]
    assert np.array_equal(anna.stream(3, 16)[0], anna.stream(3, 16)[0])
    assert not np.array_equal(anna.stream(3, 16)[0], anna.stream(4, 16)[0])
    x, y = cameras.CELLAR.stream(1, 20, "day", fault=0.25)
    assert x.shape == (20, 32, 32, 1) and 0 <= x.min() < x.max() <= 1 and (y == cameras.FAULT).sum() == 5


def test_the_order_of_the_recordings_does_not_tell_the_students_apart() -> None:
    rng = np.random.default_rng(0)
    for side in ("train", "test"):
        windows, labels = wearers.recorded(side)
        for activity in range(len(wearers.ACTIVITIES)):
            own = windows[labels == activity]
            looks = np.concatenate([own.mean(1), np.log(own.std(1) + 0.05)], 1)
            looks = (looks - looks.mean(0)) / looks.std(0)
            apart = [np.linalg.norm(np.diff(looks[rng.permutation(len(own))], axis=0), axis=1).mean() for _ in range(1000)]
            # Were neighbours of one student, they would be more alike than in nearly all mixed orders.
            assert np.mean(apart <= np.linalg.norm(np.diff(looks, axis=0), axis=1).mean()) > 0.05


@pytest.mark.slow("makes the sounds of a machine's day")
def test_a_fault_moves_the_bands_that_it_should() -> None:
    machine, rng = vibration.turbine("one", 1), np.random.default_rng(0)
    calm = machine.healthy(rng, 200).mean(0)
    shaft = int(np.searchsorted(vibration.EDGES, machine.speed * 0.99, "right")) - 1
    change = {fault: machine.faulty(rng, 200, fault).mean(0) - calm for fault in vibration.FAULTS}
    assert change["imbalance"].argmax() in (shaft, shaft - 1) and np.abs(change["imbalance"][shaft + 8 :]).max() < 0.1
    assert change["bearing"].max() > 0.1 and change["looseness"].max() > 0.3


def test_the_area_under_the_curve_is_the_chance_to_rank_rightly() -> None:
    calm, odd = np.array([1, 2, 3, 4], np.float32), np.array([2.5, 5, 4], np.float32)
    pairs = [1.0 if o > c else 0.5 if o == c else 0.0 for o in odd for c in calm]
    assert turbine.auc(calm, odd) == pytest.approx(np.mean(pairs))
