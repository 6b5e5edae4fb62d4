"""A board that lost its disk gets its last models back to the bit, however often it and the centre are killed on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecloud.graft import retraining
from edgecloud.graft.stock import read
from tests import broker, int8
from tests.stock import stock_path
from tests.system.fleet import Fleet
from tests.system.last_model import SETTINGS, bring_back, measure, views
from tests.worlds import MODELS

pytestmark = [
    pytest.mark.slow("starts and kills a fleet of processes", seconds=30),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]


def test_a_board_set_up_anew_with_a_new_key_gets_both_its_models_back_in_parts(tmp_path: Path) -> None:
    came = measure(tmp_path)
    assert came.to_the_bit and came.exact and came.in_parts and came.kills >= 4, came


def test_so_does_one_whose_models_adopt_nothing(fleet: Fleet) -> None:
    came = bring_back(fleet, {name: MODELS / f"{name}.tflite" for name in ("digits", "motion")}, views, exact=True)
    assert came.to_the_bit and came.exact and came.in_parts, came


def test_so_does_a_stock_wake_word_whose_update_fits_in_the_command(fleet: Fleet) -> None:
    file = stock_path("okay_nabu")
    stock = read(file.read_bytes())
    seen = retraining.exposing(stock, retraining.int8_head_of(stock, stock.outputs[0]).seen)
    clips, labels = int8.clips_of(stock.tensors[stock.inputs[0]].shape[1:], 2, 100, 20)
    rows = int8.outputs(seen, clips)[1]

    def heard(fleet: Fleet) -> None:
        with fleet.spool("pi-7") as spool:
            spool.extend("okay-nabu", rows, labels)

    plain = {key: value for key, value in SETTINGS.items() if not key.startswith(("train.", "update."))}
    came = bring_back(fleet, {"okay-nabu": file}, heard, settings={**plain, "train.epochs": "10"})
    assert came.to_the_bit and came.exact and not came.in_parts, came
