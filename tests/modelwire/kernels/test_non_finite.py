"""What is no number is refused alike by every kernel and the twin, wherever it stands: the first entry by name, and nothing moves.

The rule is that of csrc/mw.h; doors.py spells it out for every kernel and array. Each array is tried with all kinds of such bits, at
the edges of registers, stretches, tiles and chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest

from modelwire import _reference as twin
from modelwire import errors
from modelwire._core import kernel
from modelwire._reference import model as twin_of_models
from modelwire.lattice.snap import Step, no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.output_head_settings import Loss, Optimizer, OutputHeadSettings
from tests.modelwire.kernels.test_round import PATHS
from tests.modelwire.models import model

from .doors import DIFFERENCE, FLOAT16, FLOAT32, INT8, TRAINED, WEIGHTS, Arrays, Door, adopted, candidates, doors

DOORS = {door.name: door for door in doors()}
# Infinities; quiet and signalling NaNs; the last NaN whose bits, rounded to bfloat16 like a number's, do not carry into the sign, and
# those that do. All with both signs.
WIDE = [s | b for s in (0, 0x80000000) for b in (0x7F800000, 0x7FC00000, 0x7F800001, 0x7FFF7FFF, 0x7FFF8000, 0x7FFFFFFF)]
FEWER = [0x7F800000, 0xFF800000, 0x7FC00000, 0xFF800001, 0x7FFF8000, 0xFFFFFFFF]
BFLOAT16S = [s | b for s in (0, 0x8000) for b in (0x7F80, 0x7FC0, 0x7F81, 0x7FFF)]
FLOAT16S = [s | b for s in (0, 0x8000) for b in (0x7C00, 0x7E00, 0x7C01, 0x7FFF)]
# Tensors shorter than a register, just longer than one, and longer than a stretch or tile (512) with a group and a rest behind it.
PLACES = {1: [0], 7: [6], 33: [0, 15, 16, 32], 530: [31, 511, 512, 527, 528]}
FEW = {33: [0, 15, 32], 130: [63, 64]}  # the latter on both sides of a chunk of a stream


@pytest.fixture(autouse=True, scope="module")
def as_it_was() -> Iterator[None]:
    before, decode = kernel.kernel_name(), cache(twin.decode_sections)
    with pytest.MonkeyPatch.context() as patch:  # the same few streams again and again, and the twin's coder takes its time
        patch.setattr(twin_of_models, "decode_sections", lambda data, shapes: decode(data, tuple(shapes)))
        yield
    kernel.choose(before)


def cores() -> Iterator[tuple[str, Any]]:
    """Give the twin, then each path of the compiled kernels."""
    yield "twin", twin
    for path in PATHS:
        kernel.choose(path)
        yield path, kernel


def kinds(door: Door, array: Any) -> list[int]:
    if array.itemsize == 4:
        return FEWER if door.few else WIDE
    return FLOAT16S if door.halves == FLOAT16 else BFLOAT16S


def spoiled(arrays: Arrays, *faults: tuple[str, int, int]) -> Arrays:
    """Return copies with other bits in some places."""
    out = {name: a.copy() for name, a in arrays.items()}
    for name, place, bits in faults:
        out[name].view(f"u{out[name].itemsize}")[place] = bits
    return out


def outcome(core: Any, door: Door, arrays: Arrays) -> Any:
    """Return all that can be seen of a call: result or error, and what it leaves in memory that means something."""
    after = {name: a.copy() for name, a in arrays.items()}
    with np.errstate(all="ignore"):
        try:
            result = shown(door.call(core, after))
        except errors.ModelWireError as error:
            return (type(error), error.facts), {name: a.tobytes() for name, a in after.items() if name not in door.leaves}
    return result, {name: a.tobytes() for name, a in after.items()}


def shown(result: Any) -> Any:
    if isinstance(result, np.ndarray):
        return result.tobytes()
    return [shown(x) for x in result] if isinstance(result, (tuple, list)) else result


def refused(door: Door, arrays: Arrays, what: str, place: int) -> Any:
    """Return the outcome of a refusal: the entry is named, and every bit is as it was."""
    facts = {"what": what, "tensor": door.tensor, "index": place}
    return (errors.NonFinite, facts), {name: a.tobytes() for name, a in arrays.items() if name not in door.leaves}


def cases(door: Door) -> Iterator[tuple[Arrays, str, int, int]]:
    """Give sound arrays, and what to spoil in them: array, place, bits."""
    for n, places in (FEW if door.few else PLACES).items():
        for q in door.qs:
            sound = door.make(n, q)
            yield from ((sound, name, place, bits) for name in door.says for bits in kinds(door, sound[name]) for place in places)


@pytest.mark.slow("tries every kernel at every position")
@pytest.mark.parametrize("door", doors(), ids=lambda door: door.name)
def test_every_kernel_and_the_twin_keep_the_rule_wherever_what_is_no_number_stands(door: Door) -> None:
    wrong = []
    for sound, name, place, bits in cases(door):
        arrays, what = spoiled(sound, (name, place, bits)), door.says[name]
        expected = refused(door, arrays, what, place) if what else None
        for path, core in cores():
            seen = outcome(core, door, arrays)
            expected = expected or seen
            if seen != expected or (not what and isinstance(seen[0], tuple)):
                wrong.append((path, name, hex(bits), place, len(sound[name]), seen[0]))
    assert not wrong, f"{len(wrong)} of them: {wrong[:5]}"


@pytest.mark.parametrize("name", ["differences", "float32: a known step that sends all", "float32: the largest", "float32: candidates"])
def test_of_several_faults_the_first_entry_s_is_named_and_of_one_entry_s_the_first(name: str) -> None:
    door = DOORS[name]
    arrays = door.make(530, 5)
    for one, other in product(door.says, door.says):
        for place, later in ((3, 4), (31, 511), (511, 512), (513, 529), (9, 9)):
            said = {door.says[x] for x in ((one, other) if place == later else (one,))}
            if "d" in (one, other) and DIFFERENCE in said and "trained" in (one, other) and place == later:
                said.add(TRAINED)  # why a candidate is no number
            what = next((x for x in (TRAINED, DIFFERENCE, WEIGHTS) if x in said), None)
            for bits, more in ((0x7FFFFFFF, 0x7F800000), (0xFF800000, 0xFFFFFFFF)):
                faults = ((other, later, more), (one, place, bits))
                faulty = spoiled(arrays, *((x, p, b >> 16 if arrays[x].itemsize == 2 else b) for x, p, b in faults))
                expected = refused(door, faulty, what, place) if what else None
                for path, core in cores():
                    seen = outcome(core, door, faulty)
                    expected = expected or seen
                    assert seen == expected, (path, faults)


@pytest.mark.parametrize("dtype", [FLOAT32, INT8])
def test_a_candidate_that_is_no_number_is_named_before_one_that_is_out_of_place(dtype: int) -> None:
    for at, ahead in product((0, 22, 23, 24, 25, 47, 48, 98), (0, 1)):  # candidates are taken 24 at a time
        for name, what in (("d", DIFFERENCE), ("base", WEIGHTS), ("w", WEIGHTS)):
            arrays = spoiled(candidates(dtype)(100, 5), (name, at, 0x7FFFFFFF))
            arrays["index"][at + ahead :] = 100
            before = [arrays[x].tobytes() for x in ("w", "q", "first w", "first q")]
            expected = (errors.NonFinite, what) if ahead else (errors.IndexOutOfRange, None)
            for path, core in cores():
                with pytest.raises(errors.ModelWireError) as refusal:
                    adopted(core, arrays, dtype, 1 if dtype == INT8 else 96)
                assert (type(refusal.value), refusal.value.facts.get("what")) == expected, path
                assert [arrays[x].tobytes() for x in ("w", "q", "first w", "first q")] == before


def trained(core: Any, recipe: OutputHeadSettings, rows: Arrays) -> Any:
    """Return what training and the trained head give, or the error; an error leaves weights and slots as they were."""
    weights, slots = rows["weights"].copy(), rows["slots"].copy()
    try:
        losses = core.head_train(recipe, rows["features"], rows["wanted"], weights, slots, scale=1.0, step=0, count=recipe.steps)
        out = core.head_infer(recipe, rows["features"], weights, scale=1.0)
    except errors.ModelWireError as error:
        assert (weights.tobytes(), slots.tobytes()) == (rows["weights"].tobytes(), rows["slots"].tobytes())
        return type(error), error.facts
    return [x.tobytes() for x in (losses, out, weights, slots)]


def head_rows(recipe: OutputHeadSettings, n: int, features: Any) -> Arrays:
    random = np.random.default_rng(n)
    wanted = random.random(n * recipe.outputs, np.float32)
    if recipe.loss is Loss.SOFTMAX:
        wanted = np.arange(n, dtype=np.uint32) % recipe.outputs
    rows = {"features": random.standard_normal(n * recipe.features).astype(features), "wanted": wanted}
    weights = (random.standard_normal(recipe.size) * 0.1).astype(np.float32)
    return rows | {"weights": weights, "slots": np.zeros(recipe.slots * recipe.size, np.float32)}


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("features", [np.float32, np.float16])
def test_a_head_takes_no_row_target_weight_or_slot_that_is_no_number(loss: Loss, features: Any) -> None:
    recipe = OutputHeadSettings(17, 5, 2, (9,), loss=loss, batch=4, optimizer=Optimizer.MOMENTUM)
    rows = head_rows(recipe, 7, features)
    for name, a_row in (("features", 17), ("wanted", 5), ("weights", recipe.size), ("slots", len(rows["slots"]))):
        if name == "wanted" and loss is Loss.SOFTMAX:
            continue
        for bits in FLOAT16S if rows[name].itemsize == 2 else WIDE:
            for place in (0, 15, 16, a_row - 1, len(rows[name]) - 1):
                said = {"what": "the features", "tensor": 0, "index": place // a_row}
                if name != "features":
                    said = {"what": WEIGHTS, "tensor": 0, "index": 0}
                expected: Any = (errors.NonFinite, said)
                if name == "wanted":
                    reason = f"that of row {place // a_row} is no class, or its target is not a finite number"
                    expected = (errors.Malformed, {"what": "labels", "reason": reason})
                for path, core in cores():
                    assert trained(core, recipe, spoiled(rows, (name, place, bits))) == expected, (path, name, place, hex(bits))


@pytest.mark.parametrize("loss", list(Loss))
def test_a_head_ends_at_the_step_whose_outputs_overflow_whichever_of_them_does(loss: Loss) -> None:
    outputs = 19
    recipe = OutputHeadSettings(2, outputs, 3, loss=loss, batch=1)
    rows = head_rows(recipe, 1, np.float32)
    rows["features"][:] = 3e38
    for output in range(outputs):
        for pair in ((3e38, 3e38), (-3e38, -3e38), (3e38, -3e38), (-3e38, 3e38)):  # infinite, or a NaN by two of them
            weights = np.zeros(recipe.size, np.float32)
            weights[2 * output : 2 * output + 2] = pair
            seen = {path: trained(core, recipe, rows | {"weights": weights}) for path, core in cores()}
            assert all(x == seen["twin"] for x in seen.values()), (output, pair)
            if pair[0] != pair[1] or loss is not Loss.SOFTMAX:
                assert seen["twin"][0] is errors.TrainingDiverged and seen["twin"][1]["steps"] == "0"


def settings() -> Iterator[dict[str, Any]]:
    yield from ({"density": 0.3}, {"density": 1.0}, {"step": Step(3, -9)}, {"held": Step(3, -9)}, {"widen": [2]})


@pytest.mark.parametrize("path", PATHS)
def test_a_round_over_what_is_no_number_changes_nothing(path: str) -> None:
    kernel.choose(path)
    manifest, base = model(3)
    random = np.random.default_rng(1)
    for facts in settings():
        for t, spec in enumerate(manifest.schema.tensors):
            for bits in (0x7F800000, 0xFF800000, 0x7FC00000, 0x7FFFFFFF, 0xFFFF8000):
                for place in (0, spec.size // 2, spec.size - 1):
                    state = ModelState.of_base(manifest, base)
                    tensors = [w + random.standard_normal(len(w)).astype(np.float32) * np.float32(0.01) for w in state.weights]
                    tensors[t].view(np.uint32)[place] = bits
                    with pytest.raises(errors.NonFinite) as refusal:
                        snap(state, tensors, no_residual(manifest), **facts)
                    assert refusal.value.facts == {"what": TRAINED, "tensor": spec.name, "index": place}
                    assert state.root == manifest.root and state.fingerprint == (0, 0) == state.measure_fingerprint()
