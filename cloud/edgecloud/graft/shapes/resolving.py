"""Walks through a stock graph once, from its inputs on, and gives every tensor the shape that a runtime will give it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from edgecloud.graft.writing import ops
from modelwire import limits
from modelwire.errors import ModelError

from . import more_rules
from .at import Array, At, OpenShapeError, Shape
from .folding import ENTRIES, fold
from .rules import RULES

if TYPE_CHECKING:
    from edgecloud.graft.stock import Op, Stock, StockTensor

_ = more_rules  # importing it registers its rules
_WRONG = (LookupError, ValueError, TypeError, ArithmeticError, MemoryError, AssertionError)


@dataclass(slots=True)
class Resolved:
    """What was found in a graph."""

    shapes: list[Shape]  # of each tensor; the file's own where none could be found
    known: dict[int, Array]  # values that no sample changes and an operator gives
    unknown: dict[int, str]  # tensors without a true shape, and why: a sentence that names the operator
    wrong: frozenset[int]  # those of them whose operator takes what does not fit together: a runtime may run it, no one knows as what


@dataclass(slots=True)
class _Walk:
    stock: Stock
    shapes: list[Shape | None]
    values: dict[int, Array] = field(default_factory=dict)  # constants too
    known: dict[int, Array] = field(default_factory=dict)
    unknown: dict[int, str] = field(default_factory=dict)
    wrong: set[int] = field(default_factory=set)

    def constants(self) -> None:
        """Take in what the file holds and an operator may need as a number: all but weights."""
        stock = self.stock
        for t in {t for op in stock.operators for t in op.inputs if t >= 0}:
            tensor = stock.tensors[t]
            if t in stock.source or t in stock.inputs or tensor.size > ENTRIES or tensor.scales:
                continue
            try:
                if tensor.size == 0 or stock.is_constant(t):
                    self.values[t] = stock.value(t)
            except ModelError:
                continue  # of a type that no shape depends on

    def step(self, op: Op) -> None:
        at = At(op, self.stock.tensors, self.shapes, self.values)
        try:
            found: Sequence[Shape | None] = self.found(at)
        except OpenShapeError:
            found = [self.written(op, t) for t in op.outputs]
        except _WRONG as error:
            said = " ".join(str(error).split())[:120]
            self.give_up(op, f"takes what does not fit together ({said})" if said else "takes what does not fit together")
            return
        for t, shape in zip(op.outputs, found, strict=True):
            self.shapes[t] = shape

    def found(self, at: At) -> Sequence[Shape]:
        op = at.op
        rule = RULES.get(op.code)
        if rule is None or not op.outputs:
            raise OpenShapeError
        shapes = rule(at)
        if len(shapes) != len(op.outputs):
            raise ValueError(f"{len(op.outputs)} outputs")
        if any(prod(s) > limits.DEFAULT.elements or len(s) > limits.DEFAULT.rank + 2 for s in shapes):
            raise ValueError("a tensor larger than any is here")
        values = fold(at, shapes)
        if values is not None:
            self.known.update(zip(op.outputs, values, strict=True))
            self.values.update(zip(op.outputs, values, strict=True))
        return shapes

    def written(self, op: Op, t: int) -> Shape | None:
        """Return the shape that the file gives, where that is one: open on the first axis at most, of which a sample has one."""
        tensor = self.stock.tensors[t]
        if tensor.type == ops.RESOURCE or not tensor.open or (tensor.open == (0,) and op.code not in _DATA):
            return tensor.shape
        lost = next((i for i in op.inputs if i in self.unknown), -1)
        said = f"{op.name} (operator {op.index}) gives {tensor.name!r}, whose shape only a run would tell"
        self.unknown[t] = said if lost < 0 else self.unknown[lost]
        return None

    def give_up(self, op: Op, why: str) -> None:
        self.wrong.update(op.outputs)
        for t in op.outputs:
            self.shapes[t] = None
            self.unknown[t] = f"{op.name} (operator {op.index}), giving {self.stock.tensors[t].name!r}, {why}"


_DATA = (ops.WHERE, ops.UNIQUE, ops.SEGMENT_SUM)  # how much they give depends on what they are given


def resolve(stock: Stock, inputs: Mapping[int, Shape] | None = None, values: Mapping[int, Array] | None = None) -> Resolved:
    """Return the shape of every tensor, and the values that depend on shapes and constants alone.

    inputs: shapes of inputs in the place of the file's. values: of constants in the place of the file's.
    Never raises for a graph that contradicts itself: what could not be found says why.
    """
    tensors: Sequence[StockTensor] = stock.tensors
    walk = _Walk(stock, [t.shape for t in tensors])
    for t, shape in (inputs or {}).items():
        walk.shapes[t] = shape
    walk.constants()
    walk.values.update(values or {})
    for op in stock.operators:
        walk.step(op)
    shapes = [tensor.shape if shape is None else shape for tensor, shape in zip(tensors, walk.shapes, strict=True)]
    return Resolved(shapes, walk.known, walk.unknown, frozenset(walk.wrong))
