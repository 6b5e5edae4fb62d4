"""Writes onto a stock .tflite the signatures that train it: infer, eval, train, get_weights, set_weights; and features and state.

The stock file is inside the new one, whole and unchanged; constants that are not trained are read from where they stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from modelwire import tflite_file
from modelwire.errors import BadArgument, NotTrainable
from modelwire.flatbuffer import U32

from . import loss as losses
from . import ops, optimizers, rules_conv, rules_dense, rules_pointwise, rules_shape
from .batch import Batched, batched, forward, single, stock_tensors
from .build import File, Graph, Shape, tensor_table
from .faster import instead_of
from .layers import Layer, layers, select
from .stock import Stock, consistent, read
from .tape import NoRule, Tape
from .widening import widen

NOTES = "edgeagent.trainable"  # name of the metadata entry
CONTRACT = 1  # of docs/trainable-models.md
_ = (rules_conv, rules_dense, rules_pointwise, rules_shape)  # importing them registers the gradients


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a graft."""

    train: tuple[str, ...] = ("head",)  # head, last:N, all, or names
    loss: str = "auto"
    optimizer: str = "sgd"
    batch: int = 16
    output: str = ""  # name of the output that is trained; empty: the first
    add_classes: tuple[str, ...] = ()  # names of classes that the stock file does not know
    model: str = "the model"  # its name, for errors


@dataclass(frozen=True, slots=True)
class Grafted:
    """A trainable file, and what is in it."""

    file: bytes
    stock: Stock
    layers: tuple[Layer, ...]
    loss: str
    train: Graph  # for estimates
    features: str  # name of the stock tensor that the signature gives; empty when there is none
    signatures: tuple[str, ...]


def graft(data: bytes, wish: Wish) -> Grafted:
    """Return the trainable form of a stock file.

    Raises NotTrainable, naming the operator and the deepest cut that works, where a gradient would have to pass what has none;
    BadArgument for a wish that does not fit the file; Malformed for no .tflite.
    """
    with consistent(wish.model):
        return _grafted(read(data, wish.model), wish)


def _grafted(stock: Stock, wish: Wish) -> Grafted:
    check_stock(stock, wish)
    output = output_of(stock, wish)
    origin = stock.sha256
    if wish.add_classes:
        stock = read(widen(stock, output, wish.add_classes))
    found = layers(stock, output)
    chosen = select(stock, found, wish.train)
    try:
        return _Graft(stock, output, chosen, wish, origin).made()
    except NoRule as refused:
        raise _refusal(stock, output, found, wish, refused) from None


def training(stock: Stock, chosen: tuple[Layer, ...], wish: Wish) -> Graph:
    """Return the subgraph that would train these layers. Raises NoRule where a gradient can't pass."""
    return _Graft(stock, output_of(stock, wish), chosen, wish).train()


def deepest(stock: Stock, output: int, found: Sequence[Layer], wish: Wish) -> int:
    """Return how many of the last layers can be trained; 0 when not even the head can."""
    best = 0
    for count in range(1, sum(layer.kernel for layer in found) + 1):
        try:
            _Graft(stock, output, select(stock, found, (f"last:{count}",)), wish).train()
        except (NoRule, NotTrainable):
            break
        best = count
    return best


def _refusal(stock: Stock, output: int, found: Sequence[Layer], wish: Wish, refused: NoRule) -> NotTrainable:
    best = deepest(stock, output, found, wish)
    way = f"the deepest cut that works is --train last:{best}" if best else "no cut of it works"
    tensor = stock.tensors[refused.op.outputs[0]].name
    where = f"{refused.op.name} (operator {refused.op.index}, giving {tensor!r}) {refused.why}"
    return NotTrainable(model=wish.model, reason=f"the gradient would have to pass {where}; {way}")


def check_stock(stock: Stock, wish: Wish) -> None:
    """Raise NotTrainable for a file that can't be grafted at all."""

    def refuse(reason: str) -> NotTrainable:
        return NotTrainable(model=wish.model, reason=reason)

    if [t.text(2) for t in stock.root.tables(7) if t.text(2) == "train"]:
        raise refuse("it has a signature 'train' already; edgecloud pack makes a trainable file ready")
    if len(stock.inputs) != 1:
        raise refuse(f"it takes {len(stock.inputs)} inputs; train(x, y, lr) has one")
    x = stock.tensors[stock.inputs[0]]
    if x.type != ops.FLOAT32 or len(x.shape) < 2 or x.shape[0] != 1:
        kind = ops.TYPE_NAMES.get(x.type, "of another type")
        quantized = x.type in (ops.INT8, ops.UINT8)
        way = "; an int8 classifier is a base as it is, and edgecloud int8-head fit retrains its head" if quantized else ""
        raise refuse(f"its input is {kind}{list(x.shape)}; one sample of float32 is needed, its first axis 1{way}")
    if len(stock.subgraphs) > 1:
        raise refuse(f"it has {len(stock.subgraphs)} subgraphs: loops, branches or state, which can't be run on a batch")
    for op in stock.operators:
        if op.code in (ops.CUSTOM, ops.ADD_N, ops.ELU):
            raise refuse(f"it uses {op.name} (operator {op.index}), which {_UNUSABLE[op.code]}")
    if not 1 <= wish.batch <= 4096:
        raise BadArgument(reason=f"a batch of {wish.batch}", fix="--batch 16; between 1 and 4096")


_UNUSABLE = {
    ops.CUSTOM: "only its author's code can run", ops.ADD_N: "gives other bits with another number of threads",
    ops.ELU: "is missing from the reference kernels",
}  # fmt: skip


def output_named(stock: Stock, name: str) -> int:
    """Return the output of this name. Raises BadArgument when there is none."""
    names = {stock.tensors[t].name: t for t in stock.outputs}
    if name not in names:
        raise BadArgument(reason=f"no output is called {name!r}", fix=f"name one of: {', '.join(names)}")
    return names[name]


def output_of(stock: Stock, wish: Wish) -> int:
    """Return the output that is trained."""
    chosen = output_named(stock, wish.output) if wish.output else stock.outputs[0]
    found = stock.tensors[chosen]
    if found.type != ops.FLOAT32 or not found.shape or found.shape[0] != 1:
        raise NotTrainable(model=wish.model, reason=f"its output {found.name!r} is not float32 with one sample on its first axis")
    return chosen


@dataclass
class _Graft:
    stock: Stock
    output: int
    chosen: tuple[Layer, ...]
    wish: Wish
    origin: str = ""  # SHA-256 of the file that the author has
    file: File = field(init=False)
    weights: dict[str, int] = field(init=False)  # the stock tensor of each

    def __post_init__(self) -> None:
        self.file = File(self.stock, self.wish.model)
        self.weights = dict(sorted({name: t for layer in self.chosen for name, t in layer.weights.items()}.items()))
        # As the file holds them: a shape alone says nothing about how much there is.
        shapes = {name: self.stock.value(t).shape for name, t in self.weights.items()}
        self.slots = optimizers.slots(self.wish.optimizer, shapes)
        self.variables = frozenset(self.weights.values())
        self.leading = self.stock.leading_to(self.output)
        self.place = losses.place(self.stock, self.output, self.wish.loss)
        self.many: Batched = batched(self.stock, self.wish.batch, wanted=self.leading)
        self.infer = Graph(self.file, "infer")  # the first subgraph: what a program that knows no signatures runs
        self.init = Graph(self.file, "init")
        self.signed: list[str] = []

    def made(self) -> Grafted:
        self.initialise()
        one = single(self.stock)
        everything = frozenset(op.index for op in self.stock.operators)
        self.continue_stock(self.infer, one, everything)
        self.sign(self.infer, "infer", {"x": self.stock.inputs[0]}, self.outputs())
        evaluate = Graph(self.file, "eval")
        self.continue_stock(evaluate, self.many, self.leading, faster=True)
        self.sign(evaluate, "eval", {"x": self.stock.inputs[0]}, {"output": self.output})
        train = self.train()
        shapes = {name: self.stock.tensors[t].shape for name, t in self.weights.items()}
        self.access("weights", shapes)
        if self.slots:
            self.access("state", {slot.name: slot.initial.shape for slot in self.slots})
        features = self.features(one)
        name = self.stock.tensors[features].name if features >= 0 else ""
        file = self.file.write({NOTES: self.notes(name)})
        tflite_file.check_trainable(file, model=self.wish.model)
        return Grafted(file, self.stock, self.chosen, self.place.kind, train, name, tuple(self.signed))

    def sign(self, graph: Graph, key: str, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        self.file.sign(key, graph, inputs, outputs)
        self.signed.append(key)

    def outputs(self) -> dict[str, int]:
        """Return the outputs of infer: `output`, which is trained, and the file's others by their names."""
        out = {"output": self.output}
        for t in self.stock.outputs:
            if t != self.output:
                name = re.sub(r"\W", "_", self.stock.tensors[t].name, flags=re.ASCII).lstrip("0123456789") or "other"
                out[name if name not in out else f"{name}_{t}"] = t
        return out

    def initialise(self) -> None:
        """Write the subgraph that gives each variable its first value: the stock file's own bytes where nothing else reads them."""
        graph, stock = self.init, self.stock
        readers = [0] * len(stock.buffers)
        for each in stock.tensors:
            readers[each.buffer] += 1
        for table in stock.root.tables(6):
            readers[table.integer(1, U32)] += 1
        for name, t in self.weights.items():
            tensor = stock.tensors[t]
            if readers[tensor.buffer] == 1 and stock.is_constant(t):
                buffer = tensor.buffer
            else:
                buffer = self.file.buffer(stock.value(t).astype("<f4").tobytes(), own=True)
            graph.assign(graph.variable(name), graph.tensor(tensor.shape, name=name, buffer=buffer))
        for slot in self.slots:
            graph.assign(graph.variable(slot.name), graph.constant_of(slot.initial))

    def continue_stock(self, graph: Graph, at: Batched, wanted: frozenset[int], *, faster: bool = False) -> dict[str, int]:
        """Append stock operators to an empty graph, with the weights read from their variables; return the handles."""
        stock_tensors(graph, self.stock, at, self.variables)
        graph.call_once(self.init)
        handles = {}
        for name, t in self.weights.items():
            handles[name] = graph.variable(name)
            graph.add_op(ops.READ_VARIABLE, [handles[name]], [t])
        for t in (*self.stock.inputs, *self.stock.outputs):
            if t not in self.variables:
                tensor = self.stock.tensors[t]
                graph.tensors[t] = tensor_table(at.shapes[t], tensor.type, tensor.name, 0)
        instead = instead_of(graph, self.variables) if faster else None
        forward(graph, self.stock, at, self.variables, wanted, instead)
        return handles

    def train(self) -> Graph:
        graph = Graph(self.file, "train")
        handles = self.continue_stock(graph, self.many, self.leading, faster=True)
        y = graph.tensor(graph.shape(self.output), name="y")
        rate = graph.tensor((), name="lr")
        tape = Tape(graph, self.stock, self.many, self.weights.values(), self.leading)
        value = losses.write(graph, tape, self.place, self.output, y)
        tape.back(self.place.behind)
        lost = [name for name, t in self.weights.items() if t not in tape.gradients]
        if lost:
            raise NotTrainable(model=self.wish.model, reason=f"nothing leads from {lost[0]!r} to the loss")
        slots = {slot.name: graph.variable(slot.name) for slot in self.slots}
        state = {slot.name: graph.read(slots[slot.name], slot.initial.shape) for slot in self.slots}
        gradients = {name: tape.gradients[t] for name, t in self.weights.items()}
        for name, new in optimizers.step(graph, self.wish.optimizer, self.weights, gradients, state, rate).items():
            graph.assign({**handles, **slots}[name], new)
        self.sign(graph, "train", {"x": self.stock.inputs[0], "y": y, "lr": rate}, {"loss": value})
        return graph

    def access(self, what: str, shapes: dict[str, Shape]) -> None:
        """Write get_... and set_... for the variables of these names."""
        get, put = Graph(self.file, f"get_{what}"), Graph(self.file, f"set_{what}")
        get.call_once(self.init)
        self.sign(get, get.name, {}, {name: get.read(get.variable(name), shape) for name, shape in shapes.items()})
        put.call_once(self.init)
        given = {name: put.tensor(shape, name=name) for name, shape in shapes.items()}
        for name, t in given.items():
            put.assign(put.variable(name), t)
        # The result of an operator: a bare constant can't be an output everywhere.
        ok = put.op(ops.RESHAPE, (put.constant_of([1]), put.constant_of([1])), (1,), type=ops.INT32)
        self.sign(put, put.name, given, {"ok": ok})

    def features(self, one: Batched) -> int:
        """Write `features`: the only tensor through which the trained layers see the input; returns it, or -1 when there are several."""
        needed = Tape(self.infer, self.stock, one, self.weights.values(), self.leading).needed
        entries = {
            t for op in self.stock.operators if op.index in self.leading and needed.intersection(op.inputs)
            for t in op.inputs if t >= 0 and t not in needed and t in self.stock.moving
        }  # fmt: skip
        if len(entries) != 1 or entries <= set(self.stock.inputs):
            return -1
        (found,) = entries
        graph = Graph(self.file, "features")
        stock_tensors(graph, self.stock, one, self.variables)  # none of which it reads
        for t in (self.stock.inputs[0], found):
            graph.tensors[t] = tensor_table(one.shapes[t], ops.FLOAT32, self.stock.tensors[t].name, 0)
        forward(graph, self.stock, one, frozenset(), self.stock.leading_to(found))
        self.sign(graph, "features", {"x": self.stock.inputs[0]}, {"features": found})
        return found

    def notes(self, features: str) -> bytes:
        """Return what the file says of itself, as JSON."""
        tensors = {name: self.stock.tensors[t] for name, t in self.weights.items()}
        weights = {name: {"tensor": tensor.name, "shape": list(tensor.shape)} for name, tensor in tensors.items()}
        said: dict[str, object] = {
            "contract": CONTRACT, "stock_sha256": self.origin, "batch": self.wish.batch, "loss": self.place.kind,
            "optimizer": self.wish.optimizer, "output": self.stock.tensors[self.output].name, "features": features, "weights": weights,
        }  # fmt: skip
        if self.wish.add_classes:
            classes = self.stock.tensors[self.output].shape[-1]
            said["added_classes"] = {name: classes - len(self.wish.add_classes) + i for i, name in enumerate(self.wish.add_classes)}
        return json.dumps(said, separators=(",", ":")).encode()
