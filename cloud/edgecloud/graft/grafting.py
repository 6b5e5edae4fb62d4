"""Writes onto a stock .tflite the signatures that train it: infer, eval, train, get_weights, set_weights; and features and state.

The stock file is inside the new one, whole and unchanged; constants that are not trained are read from where they stand.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from modelwire.errors import Malformed, NotTrainable
from modelwire.tflite import file as tflite_file
from modelwire.tflite.flatbuffer import U32
from modelwire.tflite.notes import ENTRY, SCORE, THRESHOLD, HeadNotes, Mode, notes_of

from . import describing, loss, optimizers, scoring
from .batch import Batched, batched, forward, single, stock_table, stock_tensors
from .cuts import Cut, cuts, named
from .faster import instead_of
from .fronts import called, singly
from .fronts.stateless import STREAM, Fresh, fresh
from .inputs import Entered, InputPart, check_layers, entered, labels_of, output_of, without_zip
from .inputs import Wish as Wish
from .inputs import output_named as output_named
from .layers import Layer, layers, select
from .rules import conv, dense, functions, pointwise, sequences, shape, space
from .stock import Op, Stock, consistent, read
from .tape import NoRule, Tape
from .weights.plain import made_plain, not_plain, plain_layers
from .widening import widen
from .writing import flat, ops, parts
from .writing.build import FileBuilder, GraphBuilder, Shape, tensor_table
from .writing.standins import stand_in

_ = (conv, dense, functions, pointwise, sequences, shape, space)  # importing them registers the gradients


@dataclass(frozen=True, slots=True)
class Grafted:
    """A trainable file, and what is in it."""

    file: bytes
    stock: Stock
    layers: tuple[Layer, ...]  # of the deepest mode
    loss: str
    modes: tuple[Mode, ...]  # cheapest first
    graphs: Mapping[str, GraphBuilder]  # by the name of the mode that it trains, for estimates
    output_head: HeadNotes | None
    features: str  # name of the stock tensor that the signature gives; empty when there is none
    signatures: tuple[str, ...]
    stored: Mapping[str, str]  # how the stock file stores a trained weight, where that is not float32
    singly: int  # operators that run once for each sample
    parts: tuple[InputPart, ...] = ()  # what x holds, where the stock file takes several inputs or other than float32
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # text files that the stock file brings along, as lines


def graft(data: bytes, wish: Wish) -> Grafted:
    """Return the trainable form of a stock file.

    Raises NotTrainable, naming the operator and the deepest cut that works, where a gradient would have to pass what has none;
    BadArgument for a wish that does not fit the file; Malformed for no .tflite.
    """
    with consistent(wish.model):
        given = entered(without_zip(data), wish)
        made = _grafted(given, wish, hashlib.sha256(data).hexdigest())
    return replace(made, parts=given.parts, labels=labels_of(data))


def _grafted(given: Entered, wish: Wish, origin: str) -> Grafted:
    stock = given.stock
    output = output_of(stock, wish)
    if wish.add_classes:
        stock = read(widen(stock, output, wish.add_classes))
    one = fresh(stock, wish.model).stock
    every = layers(one, output)
    check_layers(one, every, wish)
    selected = cuts(one, every, wish.train, wish.modes)
    plainer, instead = made_plain(stock, selected[-1].weights.values(), wish.model)
    trained = tuple(Cut(cut.name, plain_layers(cut.layers, instead)) for cut in selected)
    try:
        return _Graft(fresh(plainer, wish.model), output, trained, wish, origin, given.parts, not_plain(one, selected[-1].weights)).made()
    except NoRule as refused:
        raise _refusal(one, output, every, wish, refused) from None


def training(stock: Stock, selected: tuple[Layer, ...], wish: Wish) -> GraphBuilder:
    """Return the subgraph that would train these layers. Raises NoRule where a gradient can't pass."""
    return _training(stock, output_of(stock, wish), selected, wish)


def _training(stock: Stock, output: int, selected: tuple[Layer, ...], wish: Wish) -> GraphBuilder:
    plainer, instead = made_plain(stock, (t for layer in selected for t in layer.weights.values()), wish.model)
    cut = Cut(named(wish.train), plain_layers(selected, instead))
    return _Graft(fresh(plainer, wish.model), output, (cut,), wish).train(cut)


def deepest(stock: Stock, output: int, every: Sequence[Layer], wish: Wish, refused: int = -1) -> int:
    """Return how many of the last layers can be trained; 0 when not even the head can.

    refused: the operator that was refused. What lies behind it is tried first: building a step takes seconds for thousands of layers.
    """
    kernels = [layer.operator for layer in every if layer.kernel]
    likely = sum(operator > refused for operator in kernels)
    low, high = 0, len(kernels) + 1  # so many can be trained, and so many can't: a deeper cut passes all that a shallower one does
    while high - low > 1:
        count = next((n for n in (likely, likely + 1) if low < n < high), (low + high) // 2)
        try:
            chosen = select(stock, every, (f"last:{count}",))
            _training(stock, output, chosen, replace(wish, train=(f"last:{count}",)))
        except (NoRule, NotTrainable):
            high = count
        else:
            low = count
    return low


def _refusal(stock: Stock, output: int, every: Sequence[Layer], wish: Wish, refused: NoRule) -> NotTrainable:
    best = deepest(stock, output, every, wish, refused.op.index)
    way = f"the deepest cut that works is --train last:{best}" if best else "no cut of it works: convert the model to end in front of that"
    tensor = stock.tensors[refused.op.outputs[0]].name
    where = f"{refused.op.name} (operator {refused.op.index}, giving {tensor!r}), which {refused.why}"
    return NotTrainable(model=wish.model, reason=f"the gradient would have to pass {where}; {way}")


@dataclass
class _Graft:
    given: Fresh
    output: int
    cuts: tuple[Cut, ...]  # the last is the deepest
    wish: Wish
    origin: str = ""  # SHA-256 of the file that the author has
    parts: tuple[InputPart, ...] = ()  # what x holds
    stored: Mapping[str, str] = field(default_factory=dict)  # how the author's file stores weights that are not plain float32
    stock: Stock = field(init=False)  # of one sample
    file: FileBuilder = field(init=False)
    weights: dict[str, int] = field(init=False)  # the stock tensor of each that any mode trains

    def __post_init__(self) -> None:
        self.stock, streaming = self.given.stock, self.given.streaming
        self.file = FileBuilder(self.stock, self.wish.model)
        self.weights = self.cuts[-1].weights
        # As the file holds them: a shape alone says nothing about how much there is.
        shapes = {name: self.stock.value(t).shape for name, t in self.weights.items()}
        self.moments = optimizers.moments([frozenset(cut.weights) for cut in self.cuts])
        self.slots = optimizers.slots(self.wish.optimizer, shapes, self.moments)
        self.variables = frozenset(self.weights.values())
        self.leading = self.stock.leading_to(self.output)
        self.place = loss.place(self.stock, self.output, self.wish.loss)
        self.many: Batched = singly.layout(self.stock, self.wish.batch, wanted=self.leading, trained=self.variables)
        # The first subgraph is what a program that knows no signatures runs: the model as it was, with the present weights.
        self.first = first = GraphBuilder(self.file, "infer" if streaming is None else STREAM)
        called.keep(self.file, self.stock, *(() if streaming is None else (streaming,)))
        self.infer = first if streaming is None else GraphBuilder(self.file, "infer")
        self.init = GraphBuilder(self.file, "init")
        # The optimizer's slots by what moves together: a signature makes room for those that it moves, and inference for none.
        self.init_slots = [GraphBuilder(self.file, f"init_slots_{i + 1}") for i, _ in enumerate(self.moments)] if self.slots else []
        self.signed: list[str] = []
        if self.wish.score:
            scoring.check(self.stock, self.output, self.place.kind, self.weights)

    def stream(self, graph: GraphBuilder, streaming: Stock) -> None:
        """Write the signature that keeps its state from call to call, as the stock file does."""
        everything = frozenset(op.index for op in streaming.operators)
        self.continue_stock(graph, single(streaming), everything, stock=streaming)
        self.sign(graph, STREAM, {"x": streaming.inputs[0]}, self.outputs())

    def made(self) -> Grafted:
        self.initialise()
        one = single(self.stock)
        everything = frozenset(op.index for op in self.stock.operators)
        if self.given.streaming is not None:
            self.stream(self.first, self.given.streaming)
        self.continue_stock(self.infer, one, everything)
        self.sign(self.infer, "infer", {"x": self.stock.inputs[0]}, self.outputs())
        if not self.many.singly:  # what runs once a sample is judged by `infer` as well
            evaluate = GraphBuilder(self.file, "eval")
            self.evaluate(evaluate)
            self.sign(evaluate, "eval", {"x": self.stock.inputs[0]}, {"output": self.output})
        graphs = {cut.name: self.train(cut) for cut in reversed(self.cuts)}
        shapes = {name: self.stock.tensors[t].shape for name, t in self.weights.items()}
        self.access("weights", dict(sorted({**shapes, **({THRESHOLD: (1,)} if self.wish.score else {})}.items())), [self.init])
        if self.slots:
            self.access("state", {slot.name: slot.initial.shape for slot in self.slots}, self.init_slots)
        features = self.features(one)
        name = self.stock.tensors[features].name if features >= 0 else ""
        if self.wish.score:
            self.score(one)
        modes = tuple(Mode(cut.name, signature, tuple(cut.weights)) for cut, signature in self.signatures().items())
        output_head = describing.output_head(self.stock, self.cuts[0].layers, features, self.place)
        file = self.file.write({ENTRY: self.notes(name, modes, output_head)})
        try:
            tflite_file.check_trainable(file, model=self.wish.model)
        except Malformed as error:
            # Larger than a reader allows for: no fault of the stock file's, and a shallower cut is smaller.
            raise NotTrainable(model=self.wish.model, reason=f"no device would read its graft ({error}); train fewer layers") from error
        notes_of(file, model=self.wish.model)
        signed, trained = tuple(self.signed), self.cuts[-1].layers
        said = (self.stored, len(self.many.singly), self.parts)
        return Grafted(file, self.stock, trained, self.place.kind, modes, graphs, output_head, name, signed, *said)

    def signatures(self) -> dict[Cut, str]:
        """Return the signature of each cut."""
        out: dict[Cut, str] = {}
        for cut in self.cuts[:-1]:
            name = "train_" + re.sub(r"\W+", "_", cut.name, flags=re.ASCII).strip("_")
            out[cut] = name if name not in out.values() else f"{name}_{len(out)}"
        return out | {self.cuts[-1]: "train"}

    def sign(self, graph: GraphBuilder, key: str, inputs: dict[str, int], outputs: dict[str, int]) -> None:
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
        if self.wish.score:
            buffer = self.file.buffer(scoring.NONE_YET.tobytes(), own=True)
            graph.assign(graph.variable(THRESHOLD), graph.tensor((1,), name=THRESHOLD, buffer=buffer))
        for slot in self.slots:
            for group, own in zip(self.moments, self.init_slots, strict=True):
                if slot.moves & group:
                    own.assign(own.variable(slot.name), own.constant_of(slot.initial))

    def start_slots(self, graph: GraphBuilder, names: Set[str]) -> None:
        """Append the calls that give the slots of these weights their first values."""
        for group, own in zip(self.moments, self.init_slots, strict=bool(self.slots)):
            if group & names:
                graph.call_once(own)

    def continue_stock(
        self, graph: GraphBuilder, layout: Batched, wanted: frozenset[int], *, faster: frozenset[int] = frozenset(),
        stock: Stock | None = None, reads: frozenset[int] | None = None,
    ) -> dict[str, int]:  # fmt: skip
        """Append stock operators to an empty graph, with the weights that they take read from their variables; return the handles.

        faster: weights whose layers take the form of matrix products. stock: another file with these tensors, whose operators they are.
        reads: the operators whose weights are read; None: the same ones.
        """
        stock = stock or self.stock
        # What infers keeps each operator of the stock file; elsewhere what depends on shapes alone is a constant, which the delegates want.
        stock_tensors(graph, stock, layout, self.variables, None if graph in (self.infer, self.first) else stock.known)
        taken = {t for op in stock.operators if op.index in (wanted if reads is None else reads) for t in op.inputs}
        handles: dict[str, int] = {}
        for name, t in self.weights.items():
            if t in taken:
                if not handles:
                    graph.call_once(self.init)
                handles[name] = graph.variable(name)
                graph.add_op(ops.READ_VARIABLE, [handles[name]], [t])
        for t in (*stock.inputs, *stock.outputs):
            if t not in self.variables:
                tensor = stock.tensors[t]
                graph.tensors[t] = stock_table(tensor, layout.shapes[t], tensor.buffer if stock.is_constant(t) else 0)
        wanted = singly.append(graph, stock, layout, self.wish.batch, self.variables, wanted)
        forward(graph, stock, layout, self.variables, wanted, self.other_forms(graph, faster) if faster else None)
        return handles

    def other_forms(self, graph: GraphBuilder, faster: frozenset[int]) -> Callable[[Op], bool]:
        """Return what appends an operator in the form that a step wants, and says whether it has one."""
        forms = (instead_of(graph, faster), stand_in(graph))
        return lambda op: any(form(op) for form in forms)

    def train(self, cut: Cut) -> GraphBuilder:
        """Write the signature that trains one cut.

        A layer that it does not train keeps the stock file's operator, even where its weights are a variable for a deeper cut's sake: the
        gradients are then those of a file with this cut alone, to the bit.
        """
        key, weights = self.signatures()[cut], cut.weights
        graph, faster = GraphBuilder(self.file, key), frozenset(weights.values())
        region = self.trained_by(weights)
        at_once = parts.samples_at_once(self.stock, self.many, self.wish.batch, region)
        whole = at_once == self.wish.batch
        first = self.leading if whole else self.leading - region
        handles = self.continue_stock(graph, self.many, first, faster=faster, reads=self.leading)
        y = graph.tensor(graph.shape(self.output), name="y")
        rate = graph.tensor((), name="lr")
        if whole:
            value, gradients = self.backward(graph, self.many, y, weights)
        else:
            value, gradients = self.in_parts(graph, region, at_once, y, weights)
        self.start_slots(graph, weights.keys())
        kept = [slot for slot in self.slots if slot.moves & weights.keys()]
        slots = {slot.name: graph.variable(slot.name) for slot in kept}
        state = {slot.name: graph.read(slots[slot.name], slot.initial.shape) for slot in kept}
        for name, new in optimizers.step(graph, self.wish.optimizer, weights, gradients, state, rate, self.moments).items():
            graph.assign({**handles, **slots}[name], new)
        self.sign(graph, key, {"x": self.stock.inputs[0], "y": y, "lr": rate}, {"loss": value})
        return graph

    def trained_by(self, weights: Mapping[str, int]) -> frozenset[int]:
        """Return the operators that a gradient of these weights has to pass, and those behind them."""
        needed, region = set(weights.values()), set()
        for op in self.stock.operators:
            if op.index in self.leading and needed.intersection(op.inputs):
                needed.update(op.outputs)
                region.add(op.index)
        return frozenset(region)

    def backward(
        self, graph: GraphBuilder, layout: Batched, y: int, weights: Mapping[str, int], share: int = 1
    ) -> tuple[int, dict[str, int]]:
        """Append loss and gradients to a forward pass, and return them. share: of how many parts of the batch this is one."""
        tape = Tape(graph, self.stock, layout, weights.values(), self.leading)
        value = loss.write(graph, tape, self.place, self.output, y, share)
        tape.back(self.place.behind)
        lost = [name for name, t in weights.items() if t not in tape.gradients]
        if lost:
            takes = next(op for op in self.stock.operators if op.index in self.leading and weights[lost[0]] in op.inputs)
            raise NoRule(takes, f"takes {lost[0]!r}, from which nothing that has a gradient leads to the loss")
        return value, {name: tape.gradients[t] for name, t in weights.items()}

    def part(self, name: str, region: frozenset[int], samples: int, faster: frozenset[int]) -> tuple[GraphBuilder, Batched]:
        """Return a subgraph that is still to be copied: the forward pass of a region for some samples."""
        graph, layout = GraphBuilder(self.file, name, listed=False), batched(self.stock, samples, wanted=self.leading)
        stock_tensors(graph, self.stock, layout, self.variables, self.stock.known)
        forward(graph, self.stock, layout, self.variables, region, self.other_forms(graph, faster))
        return graph, layout

    def in_parts(
        self, graph: GraphBuilder, region: frozenset[int], samples: int, y: int, weights: Mapping[str, int]
    ) -> tuple[int, dict[str, int]]:
        """Append a region's forward and backward pass part by part, and return the loss and the gradients of the whole batch."""
        part, layout = self.part(graph.name, region, samples, frozenset(weights.values()))
        own_y = part.tensor(part.shape(self.output))
        value, gradients = self.backward(part, layout, own_y, weights, self.wish.batch // samples)
        copies = parts.BatchParts(graph, part, self.stock)
        cut_up = {t: t for t in parts.entries_of(self.stock, region)} | {own_y: y}
        totals: list[int] = []
        for given in copies.each(self.wish.batch, samples, cut_up, [value, *gradients.values()]):
            totals = [graph.add(total, one) for total, one in zip(totals, given, strict=True)] if totals else given
        return totals[0], dict(zip(gradients, totals[1:], strict=True))

    def evaluate(self, graph: GraphBuilder) -> None:
        """Append the forward pass for the whole batch, part by part where that is faster."""
        moving = self.stock.moving
        region = frozenset(op.index for op in self.stock.operators if op.index in self.leading and moving.intersection(op.outputs))
        at_once = parts.samples_at_once(self.stock, self.many, self.wish.batch, region)
        if at_once == self.wish.batch:
            self.continue_stock(graph, self.many, self.leading, faster=self.variables)
            return
        self.continue_stock(graph, self.many, self.leading - region, faster=self.variables, reads=self.leading)
        part, _ = self.part(graph.name, region, at_once, self.variables)
        x = self.stock.inputs[0]
        outputs = [given[0] for given in parts.BatchParts(graph, part, self.stock).each(self.wish.batch, at_once, {x: x}, [self.output])]
        # Into the stock's own output, by the name that it has there.
        graph.add_op(ops.CONCATENATION, outputs, [self.output], {0: flat.i32(0)})

    def access(self, what: str, shapes: dict[str, Shape], first: Sequence[GraphBuilder]) -> None:
        """Write get_... and set_... for the variables of these names. first: the subgraphs that give them their first values."""
        get, put = GraphBuilder(self.file, f"get_{what}"), GraphBuilder(self.file, f"set_{what}")
        for graph in (get, put):
            for init in first:
                graph.call_once(init)
        self.sign(get, get.name, {}, {name: get.read(get.variable(name), shape) for name, shape in shapes.items()})
        given = {name: put.tensor(shape, name=name) for name, shape in shapes.items()}
        for name, t in given.items():
            put.assign(put.variable(name), t)
        # The result of an operator: a bare constant can't be an output everywhere.
        ok = put.op(ops.RESHAPE, (put.constant_of([1]), put.constant_of([1])), (1,), type=ops.INT32)
        self.sign(put, put.name, given, {"ok": ok})

    def features(self, one: Batched) -> int:
        """Write `features`: the only tensor through which the cheapest mode sees the input; returns it, or -1 when there are several.

        It is computed with the present weights of deeper modes: what was kept of it is of no use once they have moved.
        """
        needed = Tape(self.infer, self.stock, one, self.cuts[0].weights.values(), self.leading).needed
        entries = {
            t for op in self.stock.operators if op.index in self.leading and needed.intersection(op.inputs)
            for t in op.inputs if t >= 0 and t not in needed and t in self.stock.moving
        }  # fmt: skip
        if len(entries) != 1 or entries <= set(self.stock.inputs):
            return -1
        (seen,) = entries
        graph = GraphBuilder(self.file, "features")
        self.continue_stock(graph, one, self.stock.leading_to(seen))
        tensor = self.stock.tensors[seen]
        graph.tensors[seen] = tensor_table(one.shapes[seen], ops.FLOAT32, tensor.name, 0)
        self.sign(graph, "features", {"x": self.stock.inputs[0]}, {"features": seen})
        return seen

    def score(self, one: Batched) -> None:
        """Write `score`: how badly a sample is reconstructed, and whether that is beyond the threshold."""
        graph = GraphBuilder(self.file, SCORE)
        if not self.continue_stock(graph, one, self.leading):
            graph.call_once(self.init)
        threshold = graph.read(graph.variable(THRESHOLD), (1,))
        outputs = scoring.write(graph, self.stock.inputs[0], self.output, threshold)
        self.sign(graph, SCORE, {"x": self.stock.inputs[0]}, outputs)

    def notes(self, features: str, modes: Sequence[Mode], output_head: HeadNotes | None) -> bytes:
        """Return what the file says of itself, as JSON."""
        tensors = {name: self.stock.tensors[t] for name, t in self.weights.items()}
        said: dict[str, object] = {
            "stock_sha256": self.origin, "batch": self.wish.batch, "loss": self.place.kind, "optimizer": self.wish.optimizer,
            "output": self.stock.tensors[self.output].name, "features": features,
            "weights": {
                name: {"tensor": tensor.name, "shape": list(tensor.shape)} | ({"stored": self.stored[name]} if name in self.stored else {})
                for name, tensor in tensors.items()
            },
            "score": self.wish.score, "streams": self.given.streaming is not None,
            **({"inputs": [{"name": p.name, "shape": list(p.shape), "type": p.type} for p in self.parts]} if self.parts else {}),
        }  # fmt: skip
        if self.wish.add_classes:
            classes = self.stock.tensors[self.output].shape[-1]
            said["added_classes"] = {name: classes - len(self.wish.add_classes) + i for i, name in enumerate(self.wish.add_classes)}
        return describing.notes(said, modes, output_head)
