"""An int8 head as numbers and back: the same codes, a scale that holds the logits, and any output that a dense layer leads to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modelwire.errors import NotTrainable
from modelwire.tflite.file import read_weights, write_weights
from modelwire.tflite.graph import parse
from modelwire.tflite.int8_finder import find_behind
from modelwire.tflite.int8_head import BIAS, KERNEL, OUTPUT_SCALE, OUTPUT_ZERO
from modelwire.tflite.int8_numbers import each, layer_of, to_integers, wider
from tests.modelwire.tflite.test_int8_head import LOGISTIC, LOGITS, SOFTMAX, found
from tests.stock import STOCK

FILES = pytest.mark.parametrize("file", [SOFTMAX, LOGISTIC], ids=["softmax", "logistic"])


@FILES
def test_numbers_become_the_codes_that_they_came_from(file: bytes) -> None:
    head = found(file)
    weights = read_weights(file)
    scales = (each(head.kernel_scales, head.outputs), each(head.bias_scales, head.outputs))
    again = to_integers(head, *layer_of(head, weights), *scales)
    assert again[KERNEL].tobytes() == weights[KERNEL].tobytes() and again[BIAS].tobytes() == weights[BIAS].tobytes()
    assert write_weights(file, {**weights, **again}) == file


@pytest.mark.slow("tries thousands of scales")
@pytest.mark.parametrize(("room", "centred", "short"), [(1.5, True, 0.0), (255 / 254, False, 0.5)])
def test_a_wider_scale_holds_the_logits_that_it_was_made_for(room: float, centred: bool, short: float) -> None:
    """short: by so much of a code a scale without room may miss the least of them, as its zero point is a whole number."""
    rng = np.random.default_rng(7)
    for _ in range(500):
        least, most = -float(rng.exponential(10.0)) * rng.integers(0, 2), float(rng.exponential(10.0)) + 1e-3
        made = wider(least, most, room=room, centred=centred)
        scale, zero = float(made[OUTPUT_SCALE][0]), int(made[OUTPUT_ZERO].astype("<i4").view("<i8")[0])
        head = replace(found(SOFTMAX), output_scale=scale, output_zero=zero)
        low, high = head.reach
        assert -128 <= zero <= 127 and low <= least + short * scale * (1 + 1e-6) and most <= high + short * scale * (1 + 1e-6)
        assert scale <= 1.0001 * room * (most - least) / 255


def test_the_head_behind_an_output_is_the_one_that_a_device_trains_and_its_logits_may_be_the_output() -> None:
    for file in (SOFTMAX, LOGISTIC):
        assert find_behind(file, parse(file), parse(file).graphs[0].outputs[0], "test") == found(file)
    bare = find_behind(SOFTMAX, parse(SOFTMAX), LOGITS, "test")
    assert bare.given == LOGITS and not bare.logistic and OUTPUT_SCALE not in bare.names  # whoever reads the logits knows their scale
    dense = (STOCK / "dense.tflite").read_bytes()
    with pytest.raises(NotTrainable, match="float32, not int8"):
        find_behind(dense, parse(dense), parse(dense).graphs[0].outputs[0], "test")
