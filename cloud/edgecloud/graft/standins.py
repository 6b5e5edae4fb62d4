"""Other forms, for train and eval, of operators that a board should not train with: their last bits differ, so `infer` keeps the operators."""

from __future__ import annotations

from collections.abc import Callable

from .stock import Op
from .writing import flat, ops
from .writing.build import GraphBuilder


def stand_in(graph: GraphBuilder) -> Callable[[Op], bool]:
    """Return what appends such an operator's other form, and says whether it has one."""

    def append(op: Op) -> bool:
        if op.code == ops.ADD_N:
            _add_n(graph, op)
        elif op.code == ops.ELU:
            _elu(graph, op)
        else:
            return False
        return True

    return append


def _add_n(graph: GraphBuilder, op: Op) -> None:
    """A chain of additions: the bits of ADD_N depend on the number of threads."""
    *first, last = op.inputs
    out = op.outputs[0]
    if not first:
        graph.add_op(ops.RESHAPE, (last, graph.constant_of(graph.shape(out))), [out], {0: flat.integers(graph.shape(out))})
        return
    total = first[0]
    for t in first[1:]:
        total = graph.op(ops.ADD, (total, t), graph.shape(out), type=graph.types[out])
    graph.add_op(ops.ADD, (total, last), [out])


def _elu(graph: GraphBuilder, op: Op) -> None:
    """x, or exp(x) - 1 below 0: ELU is missing from the reference kernels, by which steps may be done again."""
    x, zero = op.inputs[0], graph.constant_of(0.0)
    below = graph.sub(graph.exp(graph.minimum(x, zero)), graph.constant_of(1.0))
    graph.add_op(ops.SELECT_V2, (graph.compare(ops.GREATER, x, zero), x, below), [op.outputs[0]])
