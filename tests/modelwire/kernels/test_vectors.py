"""The golden vectors of wire 1: the compiled kernels and their twin both give them, to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwire import _reference as twin
from modelwire import errors
from modelwire._core import kernel
from modelwire.errors import ConfigError
from modelwire.output_head_settings import output_head_settings_of
from modelwire.wire import cbor

FOLDER = Path(__file__).parents[2] / "vectors" / "wire-1" / "kernels"
BOTH = pytest.mark.parametrize("core", [kernel, twin], ids=["compiled", "twin"])


def vectors(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def array(shown: str) -> Any:
    dtype, _, data = shown.partition(" ")
    return np.frombuffer(bytearray.fromhex(data), dtype)


def snap(core: Any, facts: Any, *, w: Any, trained: Any, residual: Any, q: Any) -> Any:
    """Return what is sent of a tensor. Whichever base it has, for these: it is adopted on a copy."""
    index, value, _, clamped, _ = round_of(core, facts, w * 0, w.copy(), q.copy(), trained, residual, residual.copy()).adopt_known(
        steps=[facts["step"]], thresholds=[facts["threshold"]]
    )
    return [index, value, clamped[0]]


def adopt(core: Any, facts: Any, *, base: Any, w: Any, trained: Any, residual: Any, q: Any, index: Any, value: Any) -> None:
    """Take over what is sent, in place; these vectors were sent at the dead zone of 0.6."""
    left = residual.copy()
    least = float(np.float32(0.6) * (np.float32(facts["step"]) * np.float32(2.0 ** facts["exponent"])))
    kept = round_of(core, facts, base, w, q, trained, residual, left).adopt_known(steps=[facts["step"]], thresholds=[least])
    assert (kept[0].tolist(), kept[1].tolist()) == (index.tolist(), value.tolist())
    residual[:] = left


def round_of(core: Any, facts: Any, base: Any, w: Any, q: Any, trained: Any, residual: Any, left: Any) -> Any:
    return core.Round(
        [base], [w], [q], [trained], [residual], [left], exponents=[facts["exponent"]], kinds=[0], dtypes=[1], starts=[0]
    )


@BOTH
@pytest.mark.parametrize("case", [*vectors("lattice"), *vectors("verbatim")], ids=lambda case: case["kernel"])
def test_kernels_give_the_golden_results(core: Any, case: Any) -> None:
    arrays = {name: array(shown) for name, shown in case["before"].items()}
    call = {"snap": snap, "adopt": adopt}.get(case["kernel"])
    result = call(core, case["facts"], **arrays) if call else getattr(core, case["kernel"])(*arrays.values(), **case["facts"])
    if isinstance(case["result"], list):
        result = [f"{r.dtype.name} {r.tobytes().hex()}" if isinstance(r, np.ndarray) else r for r in result]
    assert result == case["result"]
    for name, now in arrays.items():
        assert now.tobytes() == array(case["after"].get(name, case["before"][name])).tobytes(), name


@BOTH
@pytest.mark.parametrize("case", vectors("coder"), ids=lambda case: case["what"])
def test_streams_are_the_golden_bytes_and_read_back(core: Any, case: Any) -> None:
    sections = [
        (s["rows"], s["columns"], np.array(s["index"], np.uint32), np.array(s["value"], np.int32)) for s in case["sections"]
    ]
    assert core.encode_sections(sections).hex() == case["stream"]
    shapes = [(rows, columns, len(index)) for rows, columns, index, _ in sections]
    decoded = core.decode_sections(bytes.fromhex(case["stream"]), shapes)
    assert [(i.tolist(), v.tolist()) for i, v in decoded] == [(s["index"], s["value"]) for s in case["sections"]]


@BOTH
@pytest.mark.parametrize("case", vectors("refused"), ids=lambda case: case["what"])
def test_streams_that_no_encoder_writes_are_refused_for_the_golden_reason(core: Any, case: Any) -> None:
    with pytest.raises(errors.Malformed) as refused:
        core.decode_sections(bytes.fromhex(case["stream"]), [(case["rows"], case["columns"], case["count"])])
    assert refused.value.facts == {"what": "coded sections", "reason": case["reason"]}


@BOTH
@pytest.mark.parametrize("case", vectors("checksum"), ids=lambda case: str(case["crc32c"]))
def test_checksums_are_the_golden_ones(core: Any, case: Any) -> None:
    assert core.crc32c(bytes.fromhex(case["data"])) == case["crc32c"]


@pytest.mark.parametrize("case", vectors("head"), ids=lambda case: case["recipe"][:16])
def test_heads_train_to_the_golden_bits(case: Any) -> None:
    recipe = output_head_settings_of(cbor.decode(bytes.fromhex(case["recipe"])))
    assert cbor.encode(recipe.as_value()).hex() == case["recipe"]
    for name in ("", *kernel.kernel_names(), "twin"):
        core: Any = twin if name == "twin" else kernel
        if name != "twin":
            try:
                kernel.choose(name)
            except ConfigError:  # not for this processor
                continue
        features, wanted, weights, slots = (array(shown) for shown in case["before"].values())
        losses = core.head_train(recipe, features, wanted, weights, slots, scale=case["scale"], step=0, count=recipe.steps)
        outputs = core.head_infer(recipe, features, weights, scale=case["scale"])
        for got, shown in zip((weights, slots, losses, outputs), case["after"].values(), strict=True):
            assert got.tobytes() == array(shown).tobytes(), name
    kernel.choose("")
