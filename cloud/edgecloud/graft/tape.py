"""Walks back through a graph: which operators have a rule, which tensors want a gradient, and the gradients given so far.

A rule is one function for one kind of operator: it reads the gradient of the output and gives those of the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from .batch import Batched, lifted
from .stock import Op, Stock
from .writing import ops
from .writing.build import GraphBuilder, Shape


class NoRule(Exception):
    """An operator whose gradient can't be written; caught where the cut is chosen, never shown as it is."""

    def __init__(self, op: Op, why: str) -> None:
        super().__init__(why)
        self.op, self.why = op, why


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
        self.needed = set(trained)
        for op in stock.operators:
            if op.index in wanted and self.needed.intersection(op.inputs):
                self.needed.update(op.outputs)

    def wants(self, tensor: int) -> bool:
        """Return whether something that is trained leads to the tensor."""
        return tensor in self.needed

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
        for op in reversed(self.stock.operators):
            if op.index not in self.wanted or op.index in done or not self.needed.intersection(op.outputs):
                continue
            if not self.needed.intersection(op.inputs) or not any(out in self.gradients for out in op.outputs):
                continue
            if op.code not in RULES:
                raise NoRule(op, "has no gradient here")
            dy = self.gradients.get(op.outputs[0], -1)
            self.through(op, self.through_fused(op, dy))

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
    low, high = {ops.FUSED_RELU: (0.0, None), ops.FUSED_RELU6: (0.0, 6.0), ops.FUSED_RELU_N1_TO_1: (-1.0, 1.0)}[fused]
    inside = graph.compare(ops.GREATER, y, graph.constant_of(low))
    if high is not None:
        inside = graph.both(inside, graph.compare(ops.LESS, y, graph.constant_of(high)))
    return graph.mul(dy, graph.as_float(inside))
