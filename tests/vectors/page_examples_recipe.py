"""Write the worked example of docs/format/recipe.md: a whole update of kind recipe, byte by byte, and what it comes to.

    python -m tests.vectors.page_examples_recipe

It stands between `<!-- example: recipe -->` and `<!-- end -->`, and is written anew each time.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelwire.lattice.replay import replay
from modelwire.lattice.state import ModelState
from modelwire.output_head.recipe import Recipe, layers_in
from modelwire.output_head.row_ids import encode_ids
from modelwire.output_head.rows import Rows
from modelwire.output_head_settings import OutputHeadSettings
from modelwire.tensors import Schema, TensorSpec
from modelwire.update.container import seal
from modelwire.update.header import Header
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import Kind
from modelwire.wire import cbor
from tests.keys import FLEET_ID, NO_FILE
from tests.modelwire.models import KEY

PAGE = Path(__file__).parents[2] / "docs" / "format" / "recipe.md"
START, END = "<!-- example: recipe -->\n", "<!-- end -->\n"
HEAD = ("format 1", "features", "outputs", "steps", "hidden: none", "activation: ReLU", "loss: softmax", "optimizer: SGD",
        "schedule: constant", "batch", "every", "seed", "rate 0.5", "rate end 0", "factor 0.5", "decay 0", "beta1 0.9 as float32",
        "beta2 0.999 as float32", "epsilon 1e-7 as float32")  # fmt: skip
ROWS = ("format 1", "dtype: int8", "scale 0.25", "rows", "features", "layout: its transpose, a row for each feature", "count", "medians",
        "stream: four entries", "kind: labels")  # fmt: skip
Line = tuple[bytes, str]


def base() -> ModelState:
    """Return the base of the example."""
    schema = Schema((TensorSpec("bias", (2,)), TensorSpec("kernel", (3, 2))))
    weights = [np.array([0.5, -0.5], np.float32), np.array([1, -1, 0.25, 0, -0.75, 2], np.float32)]
    return ModelState.of_base(manifest_for(schema, weights, **NO_FILE, exponents={}), weights)


def recipe(state: ModelState) -> Recipe:
    """Return the recipe of the example on its base."""
    head = OutputHeadSettings(3, 2, 2, batch=1, seed=9, rate=0.5)
    rows = Rows(np.array([[1, 0, -2], [0, 3, 4]], np.int8), labels=np.array([1, 0], np.uint32), scale=0.25)
    return Recipe(head, layers_in(state.manifest.schema, head, [("kernel", "bias")]), rows)


def update() -> tuple[ModelState, ModelState, bytes]:
    """Return the base, the version that the update comes to, and the update."""
    state = base()
    made = recipe(state)
    after, m = replay(state, made), state.manifest
    extension: dict[str, cbor.Value] = {"rows": encode_ids([7, 8]), "samples": 2}
    header = Header(Kind.RECIPE, "pi-7", "digits", 1, 1, m.commit, m.schema.id, after.root, after.fingerprint, b"", extension)
    return state, after, seal(header, (), m.schema, KEY, FLEET_ID, recipe=made.encode()).data


def example() -> str:
    """Return the text of the example."""
    state, after, data = update()
    lines = "\n".join(_shown(_lines(data, recipe(state).encode())))
    kernel, bias = after.weights[1], after.weights[0]
    return f"""
The base has two float32 tensors, `bias` of 2 (0.5, -0.5) and `kernel` of [3, 2] (1, -1, 0.25, 0, -0.75, 2), in the schema in this
order. With `file` and `tree` of 32 zero bytes and a `size` of 1, its manifest is

```
{_block(state.manifest.encode())}
```

and its commit `{state.manifest.commit.hex()}`. The units
are 2^{state.manifest.exponents[0]} of `bias` and 2^{state.manifest.exponents[1]} of `kernel`. The device `pi-7` trains the layer,
whose matrix is stored as [inputs, neurons], on two rows: the features 0.25, 0, -0.5 with label 1, and 0, 0.75, 1 with label 0.
They are of its samples 7 and 8. Two steps of one row each come to

    bias    {_numbers(bias)}
    kernel  {_numbers(kernel)}

after rounding to the lattice: Q of `bias` is {_numbers(after.integers[0])}, of `kernel` {_numbers(after.integers[1])}.
Sealed with the private key 00 01 ... 1F, for the fleet 00 01 ... 0F, the update has {len(data)} bytes:

```
{lines}
```
"""


def filled(text: str) -> str:
    """Return the page with the example in its place, whether one is there or not. Raises ValueError without a place."""
    place = re.compile(re.escape(START) + r"(?:.*?" + re.escape(END) + ")?", re.S)
    if not place.search(text):
        raise ValueError(f"the page has no {START.strip()}")
    return place.sub(lambda _: START + example() + "\n" + END, text, count=1)


def _lines(data: bytes, made: bytes) -> list[Line]:
    """Return the bytes of the update in pieces, and what each is."""
    _, _, header, extension, _, _, _ = struct.unpack_from("<8sIIIIII", data)
    lines: list[Line] = []

    def take(at: int, *parts: tuple[int, str]) -> int:
        for size, what in parts:
            lines.append((data[at : at + size], what))
            at += size
        return at

    at = take(0, (8, "preamble: magic"), (4, "version 1"), (4, f"header: {header} bytes"), (4, f"extension: {extension} bytes"),
              (4, "sections: none"), (4, f"total: {len(data)} bytes"), (4, "crc32c"))  # fmt: skip
    at = take(at, (1, "header: kind 3, recipe"), (1, "hash 1"), (1, "device: 4 bytes"), (1, "model: 6 bytes"), (4, "epoch 1"),
              (8, "version 1"), (32, "schema id"), (32, "parent: the base's commit"), (32, "root"), (8, "fingerprint, lane 0"),
              (8, "fingerprint, lane 1"), (4, "`pi-7`"), (6, "`digits`"))  # fmt: skip
    at = take(at, (extension, 'extension: {"rows": 07 01, "samples": 2}'))
    lines += _recipe_lines(made)
    at += len(made)
    assert take(at, (32, "commit"), (64, "signature")) == len(data) and b"".join(part for part, _ in lines) == data
    return lines


def _recipe_lines(made: bytes) -> list[Line]:
    value: Any = cbor.decode(made)
    _, _, head, layers, rows, _ = value
    lines = [(b"\x86\x01\x01", "recipe: an array of six; format 1, trainer 1")]
    lines += [(b"\x93", "the head: an array of 19"), *((cbor.encode(v), _said(name, v)) for name, v in zip(HEAD, head, strict=True))]
    lines += [(cbor.encode(layers), "layers: one, matrix in tensor 1, biases in tensor 0, inputs first")]
    lines += [(b"\x8b", "rows: an array of 11"), *((cbor.encode(v), _said(name, v)) for name, v in zip(ROWS, rows, strict=False))]
    lines += [(cbor.encode(rows[10]), "wanted: one label is not 0, and their stream"), (b"\xf6", "checkpoints: none")]
    assert b"".join(part for part, _ in lines) == made
    return lines


def _said(name: str, value: object) -> str:
    """Return the name, with the number where it does not say one itself."""
    return f"{name} {value}" if type(value) is int and " " not in name else name


def _shown(lines: Sequence[Line]) -> list[str]:
    """Return the pieces as hexadecimal, at most 16 bytes a line, with what they are behind the first."""
    out = []
    for data, what in lines:
        for at in range(0, len(data), 16):
            out.append(f"{data[at : at + 16].hex(' '):49}{'' if at else what}".rstrip())
    return out


def _block(data: bytes) -> str:
    return "\n".join(data[at : at + 32].hex(" ") for at in range(0, len(data), 32))


def _numbers(array: Any) -> str:
    return ", ".join(f"{x:.9g}" for x in array.tolist())


def main() -> None:
    """Write the page."""
    PAGE.write_text(filled(PAGE.read_text()))


if __name__ == "__main__":
    main()
