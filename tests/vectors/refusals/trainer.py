"""Write the negative vectors of docs/format/trainer.md: recipes that are right, and whose training is refused.

    python -m tests.vectors.refusals.trainer

Vectors are only added, never edited: it refuses to overwrite.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from modelwire.output_head.recipe import Recipe
from modelwire.output_head.rows import Rows
from modelwire.output_head_settings import Loss, Optimizer
from tests.vectors.refused import FOLDER as REFUSED

from .recipe_cases import DEEP, FEATURES, OUTPUTS, ROWS, Case, coded_labels, features, good, labels, of, of_rows, write

FOLDER = REFUSED / "trainer"
_LARGEST = float.fromhex("0x1.fffffep+127")
_WILD = 2.0**127


def cases() -> Iterator[Case]:
    """Yield every negative vector of the page, in the order of its rules."""
    for part in (_widths, _wanted, _labels, _losses, _weights):
        yield from part()


def _of(rules: str | tuple[str, ...], name: str, recipe: Recipe, error: str) -> Case:
    said = (rules,) if isinstance(rules, str) else rules
    return Case(name, said, error, "recipe", recipe.encode(), DEEP, good("softmax").encode(), DEEP)


def _rows(width: int = FEATURES, **wanted: Any) -> Rows:
    return Rows(np.resize(features(), (ROWS, width)), scale=2.0**-4, **wanted)


def _targets(outputs: int = OUTPUTS, of_all: float = 0.5) -> Any:
    return np.full((ROWS, outputs), of_all, np.float32)


def _widths() -> Iterator[Case]:
    for width in (1, FEATURES - 1, FEATURES + 1):
        yield _of("T1", f"rows of {width} features", replace(good("softmax"), rows=_rows(width, labels=labels())), "ShapeMismatch")
        own = replace(good("mse"), rows=_rows(width, targets=_targets()))
        yield _of("T1", f"rows with targets of {width} features", own, "ShapeMismatch")


def _wanted() -> Iterator[Case]:
    softmax, mse = good("softmax"), good("mse")
    yield _of("T2", "softmax on targets", replace(softmax, rows=_rows(targets=_targets())), "ShapeMismatch")
    yield _of("T2", "softmax on features alone", replace(softmax, rows=_rows()), "ShapeMismatch")
    for loss in (Loss.MSE, Loss.LOGISTIC):
        recipe, name = mse.with_settings(loss=loss), loss.name.lower()
        yield _of("T3", f"{name} on labels", replace(recipe, rows=_rows(labels=labels())), "ShapeMismatch")
        for outputs in (1, OUTPUTS - 1, OUTPUTS + 1):
            yield _of("T3", f"{name} on {outputs} targets", replace(recipe, rows=_rows(targets=_targets(outputs))), "ShapeMismatch")
        yield _of("T3", f"{name} on nine features as targets of seven outputs", replace(recipe, rows=_rows()), "ShapeMismatch")


def _labels() -> Iterator[Case]:
    """Labels of one row, of all, and of one that no batch reaches; and one behind a step that would diverge."""
    for label in (OUTPUTS, 4095):
        for place in (0, ROWS - 1):
            numbers = labels()
            numbers[place] = label
            yield of("T4", f"label {label} of row {place}", of_rows(wanted=coded_labels(numbers)))
    numbers = np.full(ROWS, OUTPUTS, np.uint32)
    yield of("T4", "all labels one too high", of_rows(wanted=coded_labels(numbers)))
    for place in range(ROWS):  # one of them is in the only batch, four are in none
        numbers = labels()
        numbers[place] = OUTPUTS
        recipe = replace(good("softmax").with_settings(steps=1, batch=1), rows=_rows(labels=numbers))
        yield _of("T4", f"a training of one row of which row {place} has a label too high", recipe, "Malformed")
    for place in range(ROWS):
        numbers = labels()
        numbers[place] = OUTPUTS
        wild = good("softmax").with_settings(steps=ROWS, batch=1, rate=_WILD, decay=_WILD)
        wild = replace(wild, rows=_rows(labels=numbers))
        yield _of(("T4", "T5"), f"label of row {place} and a training that diverges", wild, "Malformed")


def _losses() -> Iterator[Case]:
    """Losses that are infinite or NaN in the first step, in a later one, and in the last."""
    huge = replace(good("mse"), rows=_rows(targets=_targets(of_all=_LARGEST)))
    yield _of("T5", "squares of a target that overflow", huge, "TrainingDiverged")
    yield _of("T5", "squares of outputs that overflow", replace(good("mse"), rows=replace(_rows(targets=_targets()), scale=2.0**100)),
              "TrainingDiverged")  # fmt: skip
    far = np.full((ROWS, FEATURES), 127, np.int8)
    logistic = good("mse").with_settings(loss=Loss.LOGISTIC)
    rows = Rows(far, targets=_targets(of_all=-_LARGEST), scale=2.0**100)
    yield _of("T5", "logistic of a target that overflows", replace(logistic, rows=rows), "TrainingDiverged")
    for steps in (2, 4):
        wild = replace(good("softmax"), rows=replace(good("softmax").rows, scale=2.0**20)).with_settings(steps=steps, rate=2.0**100)
        yield _of("T5", f"softmax that overflows in the second of {steps} steps", wild, "TrainingDiverged")
    hidden = replace(good("hidden"), rows=Rows(far, scale=2.0**100))
    yield _of("T5", "two hidden layers that learn features of 2 to the 100", hidden, "TrainingDiverged")


def _weights() -> Iterator[Case]:
    """Trainings whose losses are all finite, and whose weights or slots are not: behind one step, and behind several."""
    for optimizer in Optimizer:
        recipe = good("softmax").with_settings(steps=1, rate=_WILD, decay=_WILD, optimizer=optimizer)
        yield _of("T6", f"weights of {optimizer.name.lower()} behind the only step", recipe, "TrainingDiverged")
    rows = replace(good("softmax").rows, scale=2.0**80)
    for steps in (1, 4):
        # Gradients are finite and their squares are not: Adam divides by them, so the weights stay as they are.
        recipe = replace(good("softmax"), rows=rows).with_settings(steps=steps, optimizer=Optimizer.ADAM)
        yield _of("T6", f"slots of adam behind {steps} steps", recipe, "TrainingDiverged")
    momentum = replace(good("softmax"), rows=rows).with_settings(steps=1, optimizer=Optimizer.MOMENTUM, rate=_LARGEST)
    yield _of("T6", "weights of momentum whose move overflows", momentum, "TrainingDiverged")


def main() -> None:
    """Write the vectors."""
    write("trainer", FOLDER, list(cases()))


if __name__ == "__main__":
    main()
