"""What the negative vectors of recipes have in common: the good recipes that they are made of, and how they are changed and written."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from modelwire.lattice.replay import checkpoints_of
from modelwire.output_head import rows as coded_rows
from modelwire.output_head.recipe import HeadLayer, Recipe
from modelwire.output_head.rows import Rows
from modelwire.output_head_settings import Loss, OutputHeadSettings
from modelwire.wire import cbor
from tests.modelwire.golden import state_of
from tests.vectors.recipe_readers import READERS
from tests.vectors.refused import Refused

DEEP = {"folder": "recipe-updates-deep", "container": "1-own-targets-float16"}  # b1 b2 b3 w1 w2 w3: [7] [4] [9] [9, 7] [4, 7] [4, 9]
MIXED = {"folder": "mixed", "container": None}  # b16 bias codes f16 f32 moving_mean
ROWS, FEATURES, OUTPUTS = 5, 9, 7
B1, B2, B3, W1, W2, W3 = range(6)
HEAD_FIELDS = [
    "format", "features", "outputs", "steps", "hidden", "activation", "loss", "optimizer", "schedule", "batch", "every", "seed",
    "rate", "rate_end", "factor", "decay", "beta1", "beta2", "epsilon",
]  # fmt: skip
ROW_FIELDS = ["format", "dtype", "scale", "rows", "features", "layout", "count", "medians", "stream", "kind", "wanted"]
Change = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Case:
    """A vector before it is written."""

    name: str
    rules: tuple[str, ...]
    error: str
    read_as: str
    data: bytes
    held: Mapping[str, Any]  # what its reader holds
    good: bytes  # what the same reader takes, when it holds `good_held`
    good_held: Mapping[str, Any]

    @property
    def file(self) -> str:
        """The name of its file, which says the rule, what is wrong, and the error."""
        words = "".join(c if c.isascii() and c.isalnum() else "-" for c in self.name)
        return f"{self.rules[0]}-{'-'.join(filter(None, words.split('-')))}.{self.error}.bin"


def head(**changes: Any) -> OutputHeadSettings:
    return replace(OutputHeadSettings(FEATURES, OUTPUTS, 4, batch=2, every=3, seed=1), **changes)


def features() -> Any:
    """Return int8 features of all rows."""
    return np.random.default_rng(50).integers(-3, 4, (ROWS, FEATURES)).astype(np.int8)


def labels() -> Any:
    return np.array([3, 0, 6, 1, 3], np.uint32)


@functools.cache
def good(kind: str) -> Recipe:
    """Return a recipe on DEEP that is right: softmax, half, mse, own, checkpoints, or hidden."""
    places = (HeadLayer(W1, B1, True),)
    int8 = Rows(features(), labels=labels(), scale=2.0**-4)
    targets = (np.arange(ROWS * OUTPUTS) / 16).astype(np.float32).reshape(ROWS, OUTPUTS)
    if kind == "softmax":
        return Recipe(head(), places, int8)
    if kind == "half":
        return Recipe(head(), places, Rows(features().astype(np.float16), labels=labels()))
    if kind == "mse":
        return Recipe(head(loss=Loss.MSE), places, Rows(features(), targets=targets, scale=2.0**-4))
    if kind == "checkpoints":
        one = Recipe(head(steps=7), places, int8)
        return replace(one, checkpoints=checkpoints_of(state_of(**_place(DEEP)), one, 2))
    three = (*places, HeadLayer(W2, B2, False), HeadLayer(W3, B3, True))
    deep = head(outputs=FEATURES, hidden=(7, 4), loss=Loss.MSE)
    assert kind == "hidden"
    return Recipe(deep, three, Rows(features(), scale=2.0**-4))


def _place(held: Mapping[str, Any]) -> dict[str, Any]:
    return {"folder": held["folder"], "name": held["container"]}


def of(rule: str, name: str, change: Change, error: str = "Malformed", *, on: str = "softmax") -> Case:
    """Return a good recipe with a change to what its CBOR holds. The change may return another value instead."""
    data = good(on).encode()
    value: Any = cbor.decode(data)
    changed: Any = change(value)
    return Case(name, (rule,), error, "recipe", cbor.encode(value if changed is None else changed), DEEP, data, DEEP)


def put(index: int, new: Any) -> Change:
    """Return the change of one of the recipe's six."""
    return lambda v: v.__setitem__(index, new)


def of_head(**new: Any) -> Change:
    return lambda v: _set(v[2], HEAD_FIELDS, new)


def of_rows(**new: Any) -> Change:
    return lambda v: _set(v[4], ROW_FIELDS, new)


def _set(fields: list[Any], names: Sequence[str], new: Mapping[str, Any]) -> None:
    for name, value in new.items():
        fields[names.index(name)] = value


def coded(integers: Any, layout: int, centres: Any = None) -> dict[str, Any]:
    """Return the fields of rows whose features have these integers, whatever they are; of layout 2 with these centres."""
    whole = np.asarray(integers, np.int64)
    parts = [whole if layout == 0 else whole.T]
    if layout == 2:
        parts = [(whole - centres).T, np.asarray(centres, np.int64).reshape(-1, 1)]
    counts, stream = coded_rows._stream(parts)
    return {"layout": layout, "count": counts[0], "medians": counts[1] if layout == 2 else 0, "stream": stream}


def coded_labels(numbers: Any) -> list[Any]:
    """Return what stands under `wanted` for these labels, whatever they are."""
    counts, stream = coded_rows._stream([np.asarray(numbers, np.int64).reshape(-1, 1)])
    return [counts[0], stream]


def index_of(made: Sequence[Case]) -> str:
    """Return the content of index.json."""
    rows = [{"file": c.file, "rules": c.rules, "error": c.error, "as": c.read_as, "with": dict(c.held)} for c in made]
    return "[\n" + ",\n".join(f" {json.dumps({k: v for k, v in row.items() if v != {}})}" for row in rows) + "\n]\n"


def write(page: str, folder: Path, made: Sequence[Case]) -> None:
    """Write the vectors into a new folder. Raises FileExistsError where there is one, AssertionError when a reader disagrees."""
    folder.mkdir(parents=True)
    assert len({case.file for case in made}) == len(made), "two vectors have one name"
    for case in made:
        (folder / case.file).write_bytes(case.data)
        verdict = Refused(page, folder / case.file, case.rules, case.error, case.read_as, case.held).verdict(READERS)
        assert verdict == case.error, f"{case.file}: {verdict or 'taken'}"
        READERS[case.read_as](case.good, case.good_held)
    (folder / "index.json").write_text(index_of(made))
    print(f"{len(made)} vectors in {folder}")
