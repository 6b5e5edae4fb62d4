"""Walks back through a graph: which operators have a rule, which tensors want a gradient, and the gradients given so far.

A rule is one function for one kind of operator: it reads the gradient of the output and gives those of the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import prod

from .batch import Batched, lifted
from .stock import Op, Stock
from .writing import ops
from .writing.build import Gate, GraphBuilder, Shape


class NoRule(Exception):
    """An operator whose gradient can't be written; caught where the cut is chosen, never shown as it is."""

    def __init__(self, op: Op, why: str) -> None:
        super().__init__(why)
        self.op, self.why = op, why


HUGE = 3e38  # makes more than 1 of every positive float32 that is not denormal
WORTH_IT = 1 << 12  # entries of a tensor that is not recomputed too early: below, there is nothing to save
Rule = Callable[["Tape", Op, int], None]  # (tape, operator, gradient of its first output, before the fused activation)
RULES: dict[int, Rule] = {}


def rule(*codes: int) -> Callable[[Rule], Rule]:
    """Register the gradient of these operators."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(codes, function))
        return function

    return register


class Tape:
    """The backward pass of one graph. Stock tensors keep their indices in the graph, so an operator's are the graph's."""

    def __init__(self, graph: GraphBuilder, stock: Stock, layout: Batched, trained: Iterable[int], wanted: frozenset[int]) -> None:
        self.graph, self.stock, self.layout, self.wanted = graph, stock, layout, wanted
        self.gradients: dict[int, int] = {}
        self.trained = frozenset(trained)
        self.needed = set(self.trained)
        for op in stock.operators:
            if op.index in wanted and self.needed.intersection(op.inputs):
                self.needed.update(op.outputs)

    def wants(self, tensor: int) -> bool:
        """Return whether something that is trained leads to the tensor, and it has a slope: whole numbers and shapes have none."""
        if tensor >= len(self.stock.tensors):  # one that stands for a stock tensor with more axes
            return tensor in self.needed
        slopes = self.stock.tensors[tensor].type == ops.FLOAT32 and tensor not in self.stock.known
        return tensor in self.trained or (tensor in self.needed and slopes)

    def shape(self, tensor: int) -> Shape:
        return self.graph.shape(tensor)

    def give(self, tensor: int, gradient: int) -> None:
        """Add to the gradient of a tensor: in a chain, since ADD_N's result depends on the number of threads."""
        if self.wants(tensor):
            before = self.gradients.get(tensor)
            self.gradients[tensor] = gradient if before is None else self.graph.add(before, gradient)

    def back(self, frozen: Iterable[Op] = ()) -> None:
        """Run every rule, from the last operator to the first, except for those operators that the loss has dealt with."""
        done = {op.index for op in frozen}
        early = frozenset(t for t in self.stock.moving if self.stock.tensors[t].type == ops.FLOAT32 and prod(self.shape(t)) >= WORTH_IT)
        gate = Gate(early, set(self.gradients.values()))
        self.graph.gate = gate
        for op in reversed(self.stock.operators):
            if op.index not in self.wanted or op.index in done or not any(out in self.gradients for out in op.outputs):
                continue
            if not any(t >= 0 and self.wants(t) for t in op.inputs):
                continue
            if op.code not in RULES:
                raise NoRule(op, "has no gradient here")
            dy = self.gradients.get(op.outputs[0], -1)
            gate.wait_for(next(self.gradients[out] for out in op.outputs if out in self.gradients))
            self.through(op, self.through_fused(op, dy))
        self.graph.gate = None

    def through(self, op: Op, dy: int) -> None:
        """Run the rule of one operator, on its inputs as the forward pass takes them."""
        stands = {t: self.graph.laid(t, shape) for t, shape in lifted(self.stock, op, self.layout).items()}
        self.needed.update(new for t, new in stands.items() if self.wants(t))
        RULES[op.code](self, replace(op, inputs=tuple(stands.get(t, t) for t in op.inputs)) if stands else op, dy)
        for t, new in stands.items():
            if new in self.gradients:
                self.give(t, self.graph.reshape(self.gradients.pop(new), self.shape(t)))

    def through_fused(self, op: Op, dy: int) -> int:
        """Return the gradient before the activation that is fused into the operator."""
        fused = op.fused
        if fused == ops.NONE or dy < 0:
            return dy
        if fused not in ops.FUSED_AS.values():
            raise NoRule(op, f"has the fused activation {fused}, which has no gradient")
        return activation_gradient(self.graph, fused, op.outputs[0], dy)


def activation_gradient(graph: GraphBuilder, fused: int, y: int, dy: int) -> int:
    """Return dy through an activation that gave y."""
    if fused == ops.FUSED_TANH:
        return graph.mul(dy, graph.sub(graph.constant_of(1.0), graph.mul(y, y)))
    # 1 inside and 0 where the activation is flat, by products and a minimum: comparisons and casts break the delegates' part of the graph.
    one, six = graph.constant_of(1.0), graph.constant_of(6.0)
    if fused == ops.FUSED_RELU6:
        inside = graph.mul(y, graph.sub(six, y))
    elif fused == ops.FUSED_RELU_N1_TO_1:
        inside = graph.mul(graph.add(y, one), graph.sub(one, y))
    else:
        inside = y
    return graph.mul(dy, graph.minimum(graph.scale(inside, HUGE), one))
