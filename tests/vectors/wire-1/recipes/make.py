"""Makes the golden recipes. Files are only ever added: one that exists is left alone.

    python tests/vectors/wire-1/recipes/make.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[3]))

from modelwire.lattice.replay import replay  # noqa: E402
from modelwire.lattice.state import ModelState  # noqa: E402
from modelwire.output_head.recipe import Recipe, layers_in  # noqa: E402
from modelwire.output_head.rows import Rows, quantized  # noqa: E402
from modelwire.output_head_settings import Loss, Optimizer, OutputHeadSettings  # noqa: E402
from modelwire.update.manifest import parse_manifest  # noqa: E402


def version_0() -> ModelState:
    """Return the base of the golden updates."""
    manifest = parse_manifest((FOLDER.parent / "updates" / "manifest.bin").read_bytes())
    flat, base, at = np.frombuffer((FOLDER.parent / "updates" / "base.bin").read_bytes(), "<f4"), [], 0
    for spec in manifest.schema.tensors:
        base.append(flat[at : at + spec.size].copy())
        at += spec.size
    return ModelState.of_base(manifest, base)


def recipes() -> dict[str, Recipe]:
    rng = np.random.default_rng(5)
    x = np.maximum(rng.standard_normal((50, 37)), 0).astype(np.float32)
    labels = rng.integers(0, 40, 50).astype(np.uint32)
    softmax = OutputHeadSettings(37, 40, 60, rate=0.2, decay=1e-4, seed=11)
    linear = OutputHeadSettings(37, 40, 30, loss=Loss.MSE, optimizer=Optimizer.ADAM, rate=0.01, batch=7)
    places = layers_in(version_0().manifest.schema, softmax, [("dense_kernel", "dense_bias")])
    middle = rng.integers(-60, 60, 37)
    targets = (rng.integers(-8, 9, (20, 40)) / 8).astype(np.float32)
    around = Rows((middle + rng.integers(-4, 5, (20, 37))).astype(np.int8), targets=targets, scale=2.0**-7)
    return {
        "softmax-int8": Recipe(softmax, places, quantized(x, labels=labels)),
        "softmax-float16": Recipe(softmax, places, Rows(x.astype(np.float16), labels=labels)),
        "linear-int8-centred": Recipe(linear, places, around),
    }


def main() -> None:
    expected = FOLDER / "expected.json"
    roots = json.loads(expected.read_text()) if expected.exists() else {}
    for name, recipe in recipes().items():
        if name in roots:
            print(f"{name} is there already and stays as it is")
            continue
        (FOLDER / f"{name}.bin").write_bytes(recipe.encode())
        roots[name] = replay(version_0(), recipe).root.hex()
    expected.write_text(json.dumps(roots, indent=2) + "\n")


if __name__ == "__main__":
    main()
