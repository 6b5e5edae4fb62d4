"""Attacks on updates of kind recipe, sealed with the device's own valid key; each is written as a file with its error in its name.

    python -m tests.hostile.recipes

Those in attacks/recipe-updates are to be tried on the base of tests/vectors/wire-1/recipe-updates. Files are only ever added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modelwire.wire import cbor
from tests.modelwire.golden import base, data

from .make_attacks import slug
from .mutations import Open, Row, flip, of, opened

FOLDER = Path(__file__).parent / "attacks"
BASE = "recipe-updates"
Change = Callable[[Open], Open]
_FIELDS = [
    "format", "features", "outputs", "steps", "hidden", "activation", "loss", "optimizer", "schedule", "batch", "every", "seed",
    "rate", "rate_end", "factor", "decay",
]  # fmt: skip
_ROWS = ["format", "dtype", "scale", "rows", "features", "layout", "count", "medians", "stream", "kind", "wanted"]
_names = base(BASE).manifest.schema
KERNEL, BIAS, STATISTIC = (_names.index(name) for name in ("dense_kernel", "dense_bias", "bn_moving_variance"))


def said(change: Callable[[Any], object]) -> Change:
    """Return a change to what the recipe's CBOR holds, written in its canonical form again."""

    def lie(o: Open) -> Open:
        value = cbor.decode(o.stream)
        change(value)
        return replace(o, stream=cbor.encode(value))

    return lie


def head(**fields: Any) -> Change:
    return said(lambda v: [v[2].__setitem__(_FIELDS.index(name), x) for name, x in fields.items()])


def rows(**fields: Any) -> Change:
    return said(lambda v: [v[4].__setitem__(_ROWS.index(name), x) for name, x in fields.items()])


def layers(*places: list[int]) -> Change:
    return said(lambda v: v.__setitem__(3, list(places)))


def halves(bits: int) -> Change:
    """Return a change to one float16 feature of one row whose bits are these."""
    from modelwire.output_head.rows import _stream  # the writer refuses them: only its coder writes what the reader must refuse

    integer = -1 - (bits & 0x7FFF) if bits & 0x8000 else bits
    matrix = np.full((1, 37), integer, np.int64)
    counts, stream = _stream([matrix])
    labels = _stream([np.array([[3]], np.int64)])[1]
    return rows(dtype=2, scale=1.0, rows=1, layout=0, count=counts[0], medians=0, stream=stream, kind=0, wanted=[1, labels])


def labelled(label: int) -> Change:
    """Return a change to a recipe of one row with this label."""
    from modelwire.output_head.rows import _stream

    counts, stream = _stream([np.full((1, 37), 5, np.int64)])
    labels = _stream([np.array([[label]], np.int64)])[1]
    return rows(rows=1, layout=0, count=counts[0], medians=0, stream=stream, wanted=[1, labels])


ATTACKS: dict[str, Change] = {
    "a recipe with a section.Malformed": lambda o: replace(o, rows=(Row(KERNEL, 1, 1, 0, -14, 0, 1),)),
    "a recipe that says it has a section.Malformed": of(sections=1),
    "a recipe that is empty.Malformed": of(stream=b""),
    "a recipe that names a base.Malformed": of(base=bytes(32)),
    "a recipe that says it is a delta.Malformed": of(kind=1),
    "a recipe that says it is a snapshot.Malformed": of(kind=0, base=base(BASE).manifest.commit),
    "a recipe that says it is exact.Malformed": of(kind=2),
    "kind 4.UnsupportedWire": of(kind=4),
    "a recipe cut by a byte.Malformed": of(cut=1),
    "a recipe with a byte behind it.Malformed": of(extra=b"\0"),
    "a recipe nested 2000 deep.Malformed": of(stream=b"\x81" * 2000),
    "a recipe of 2^64 items.Malformed": of(stream=b"\x9b" + b"\xff" * 8),
    "a recipe of 10,000 items.TooLarge": of(stream=b"\x99\x27\x10" + bytes(10_000)),
    "a recipe that is a map.Malformed": of(stream=b"\xa1\x61a\x01"),
    "a recipe of format 2.Malformed": said(lambda v: v.__setitem__(0, 2)),
    "a recipe of format true.Malformed": said(lambda v: v.__setitem__(0, True)),
    "a trainer of tomorrow.UnsupportedWire": said(lambda v: v.__setitem__(1, 2)),
    "checkpoints of no steps.Malformed": said(lambda v: v.__setitem__(5, [0, bytes(32)])),
    "a checkpoint past the last step.Malformed": said(lambda v: v.__setitem__(5, [1, bytes(32) * 1024])),
    "a recipe with one item more.Malformed": said(lambda v: v.append(0)),
    "a head of format 2.Malformed": head(format=2),
    "a head that trains for 2^32 steps.TooLarge": head(steps=2**32 - 1),
    "a head of no steps.Malformed": head(steps=0),
    "a head of 4097 outputs.Malformed": head(outputs=4097),
    "a head of 65537 features.Malformed": head(features=65537),
    "a head with other widths than its tensors.ShapeMismatch": head(outputs=39),
    "a head with three hidden layers.Malformed": head(hidden=[8, 8, 8]),
    "a head with a hidden layer that is placed nowhere.ModelError": head(hidden=[8]),
    "a loss of tomorrow.Malformed": head(loss=4),
    "an optimiser of tomorrow.Malformed": head(optimizer=0),
    "a batch of no rows.Malformed": head(batch=0),
    "a rate below zero.Malformed": head(rate=-0.5),
    "a rate that is minus zero.Malformed": head(rate=-0.0),
    "a rate that is no float32.Malformed": head(rate=0.1),
    "a rate past float32.Malformed": head(rate=1e39),
    "a rate at which training diverges.TrainingDiverged": head(rate=2.0**127, decay=2.0**127),
    "no layers.Malformed": layers(),
    "four layers.Malformed": layers(*[[KERNEL, BIAS, 0]] * 4),
    "one layer too many.ModelError": layers([KERNEL, BIAS, 0], [STATISTIC, BIAS, 0]),
    "a layer in a tensor that is not there.ModelError": layers([4095, BIAS, 0]),
    "a layer in a tensor past every schema.Malformed": layers([4096, BIAS, 0]),
    "a layer in a tensor below zero.Malformed": layers([-1, BIAS, 0]),
    "a layer's matrix and biases in one tensor.ModelError": layers([KERNEL, KERNEL, 0]),
    "a layer the other way round.ShapeMismatch": layers([KERNEL, BIAS, 0]),
    "biases in a statistic.ShapeMismatch": layers([KERNEL, STATISTIC, 1]),
    "a layer with a flag of 2.Malformed": layers([KERNEL, BIAS, 2]),
    "rows of format 2.Malformed": rows(format=2),
    "rows of float32.Malformed": rows(dtype=1),
    "4294967295 rows.TooLarge": rows(rows=0xFFFFFFFF),
    "no rows.Malformed": rows(rows=0),
    "rows that are one more than coded.Malformed": rows(rows=61),
    "rows of 38 features for a head of 37.Malformed": rows(features=38),
    "a scale of zero.Malformed": rows(scale=0.0),
    "a scale of 2^101.Malformed": rows(scale=2.0**101),
    "a layout of tomorrow.Malformed": rows(layout=3),
    "more entries than the rows have.Malformed": rows(count=60 * 37 + 1),
    "fewer entries than coded.Malformed": rows(count=3),
    "a stream of ones.Malformed": rows(stream=b"\xff" * 900),
    "no stream.Malformed": rows(stream=b""),
    "a stream that is no bytes.Malformed": rows(stream=7),
    "rows without labels for a softmax.ShapeMismatch": rows(kind=1, wanted=None),
    "targets that are not finite.Malformed": rows(kind=1, wanted=[1, np.full(60, np.nan, "<f4").tobytes()]),
    "targets of another length.Malformed": rows(kind=1, wanted=[40, bytes(4 * 60 * 39)]),
    "a kind of target of tomorrow.Malformed": rows(kind=2, wanted=None),
    "more labels than rows.Malformed": said(lambda v: v[4][_ROWS.index("wanted")].__setitem__(0, 61)),
    "a label past the outputs.Malformed": labelled(40),
    "a label past every class.Malformed": labelled(4096),
    "a feature that is infinite.Malformed": halves(0x7C00),
    "a feature that is not a number.Malformed": halves(0xFE00),
    "a feature past its type.Malformed": halves(0x1FFFF),
    "the fingerprint of another model.ReplayMismatch": lambda o: replace(o, fingerprint=flip(o.fingerprint, 3)),
    "the root of another model.ReplayMismatch": lambda o: replace(o, root=flip(o.root, 3)),
    "another schema.WrongBase": lambda o: replace(o, schema_id=flip(o.schema_id, 0)),
}


def files() -> dict[str, bytes]:
    """Return every attack as its file's name, below attacks/, and content."""
    good = data(BASE, "1-sgd-int8")
    return {f"{BASE}/{slug(name)}.bin": change(opened(good)).resealed() for name, change in ATTACKS.items()}


def main() -> None:
    """Write every attack that is not there yet."""
    (FOLDER / BASE).mkdir(exist_ok=True)
    for name, content in files().items():
        if not (FOLDER / name).exists():
            (FOLDER / name).write_bytes(content)
            print(name)


if __name__ == "__main__":
    main()
