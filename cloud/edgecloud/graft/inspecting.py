"""Says what a .tflite holds and what of it can be trained: operators, layers, and what each cut would cost in memory and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

from modelwire.errors import BadArgument, NotTrainable
from modelwire.tflite import file as tflite_file
from modelwire.tflite import graph as tflite_graph
from modelwire.tflite.notes import Notes, notes_of

from .costs import GraftCost, cost, machine_rate, parsed_graph
from .cuts import named
from .fronts.stateless import fresh
from .grafting import training
from .inputs import Entered, InputPart, Wish, check_layers, chosen, entered, labels_of, output_of, without_zip
from .layers import Layer, layers, select
from .stock import Stock, consistent, read
from .tape import RULES, NoRule


@dataclass(frozen=True, slots=True)
class ModeReport:
    """One way to train it: what that trains and what a step of it costs; or why it can't be made."""

    name: str  # as graft takes it
    layers: int  # 0 where the file is a trainable one, which knows its weights alone
    entries: int
    cost: GraftCost | None
    milliseconds: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found in a file."""

    stock: Stock
    signatures: tuple[str, ...]
    operators: tuple[tuple[str, int, bool], ...]  # name, how many, whether a gradient can pass
    layers: tuple[Layer, ...]
    modes: tuple[ModeReport, ...]
    reason: str  # why nothing of it can be trained; empty otherwise
    notes: Notes | None  # of a file that is trainable already
    rate: float  # multiplications a second that the estimates are for
    parts: tuple[InputPart, ...] = ()  # what x of a graft holds, where that is not the file's own input
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # lines of the text files that it brings along


def look(data: bytes, wish: Wish, *, rate: float = 0.0) -> Looked:
    """Return what a file holds. rate: multiplications a second of the board; 0 measures this machine.

    Raises Malformed for no .tflite, BadArgument for an output that is not there. A file that can't be trained is looked at all the same.
    """
    with consistent(wish.model):
        return replace(_looked(data, wish, rate or machine_rate()), labels=labels_of(data))


def _looked(data: bytes, wish: Wish, rate: float) -> Looked:
    stock = chosen(read(data, wish.model), wish.signature, wish.model)
    counted = Counter(op.name for op in stock.operators)
    rules = {op.name: op.code in RULES for op in stock.operators}
    operators = tuple((name, n, rules[name]) for name, n in counted.most_common())
    signatures = tuple(t.text(2) or "" for t in stock.root.tables(7))
    every: tuple[Layer, ...] = ()
    modes: tuple[ModeReport, ...] = ()
    parts: tuple[InputPart, ...] = ()
    reason = ""
    notes = None
    try:
        if "train" in signatures:
            notes, modes = _trainable(stock.data, wish, rate)
            return Looked(stock, signatures, operators, every, modes, reason, notes, rate)
        given: Entered = entered(without_zip(data), wish)
        parts, one = given.parts, fresh(given.stock, wish.model).stock
        every = layers(one, output_of(one, wish))
        check_layers(one, every, wish)
        modes = _modes(one, every, wish, rate)
    except NotTrainable as error:
        reason = str(error.facts["reason"])
    return Looked(stock, signatures, operators, every, modes, reason, notes, rate, parts)


def _trainable(data: bytes, wish: Wish, rate: float) -> tuple[Notes, tuple[ModeReport, ...]]:
    """Return what a trainable file says of itself, and what its modes cost. Raises NotTrainable when it breaks the contract."""
    tflite_file.check_trainable(data, model=wish.model)
    notes, m = notes_of(data, model=wish.model), tflite_graph.parse(data)
    sizes = {v.name: prod(v.shape) for v in tflite_file.read_variables(m, model=wish.model)}
    modes = []
    for mode in notes.modes:
        taken = cost(parsed_graph(m.graphs[m.signatures[mode.signature].graph]))
        modes.append(ModeReport(mode.name, 0, sum(sizes[w] for w in mode.weights), taken, taken.milliseconds(rate)))
    return notes, tuple(modes)


def _modes(stock: Stock, every: tuple[Layer, ...], wish: Wish, rate: float) -> tuple[ModeReport, ...]:
    """Return the head, doublings of it, and all; up to the first that can't be made."""
    kernels = sum(layer.kernel for layer in every)
    counts = [1, *(n for n in (2, 3, 5, 10, 20, 50, 100) if n < kernels), *([kernels] if kernels > 1 else [])]
    modes = []
    for count in counts:
        name = "head" if count == 1 else "all" if count == kernels else f"last:{count}"
        modes.append(mode(stock, every, replace(wish, train=(name,)), rate))
        if modes[-1].cost is None:
            break
    return tuple(modes)


def missing_rules(data: bytes, wish: Wish) -> tuple[tuple[str, str], ...]:
    """Return what keeps `wish.train` from being trained: each operator that its gradient would have to pass and can't, and why.

    Operators without any rule are all named; of those whose rule refuses one form, the first. Empty where nothing keeps it, or where
    something else than a rule does. Raises Malformed.
    """
    with consistent(wish.model):
        try:
            stock = entered(without_zip(data), wish).stock
            output = output_of(stock, wish)
            every = layers(stock, output)
            return _missing(stock, output, select(stock, every, wish.train), wish)
        except (NotTrainable, BadArgument):
            return ()


def _missing(stock: Stock, output: int, chosen: tuple[Layer, ...], wish: Wish) -> tuple[tuple[str, str], ...]:
    leading = stock.leading_to(output)
    needed = {t for layer in chosen for t in layer.weights.values()}
    found: dict[str, str] = {}
    for op in stock.operators:
        if op.index in leading and needed.intersection(op.inputs):
            needed.update(op.outputs)
            if op.code not in RULES:
                found.setdefault(op.name, "has no gradient here")
    try:
        training(stock, chosen, wish)
    except NoRule as refused:
        found.setdefault(refused.op.name, refused.why)
    except (NotTrainable, BadArgument):
        pass
    return tuple(sorted(found.items()))


def mode(stock: Stock, every: tuple[Layer, ...], wish: Wish, rate: float) -> ModeReport:
    """Return what one cut costs."""
    chosen = select(stock, every, wish.train)
    entries, name = sum(layer.entries(stock) for layer in chosen), named(wish.train)
    try:
        graph = training(stock, chosen, wish)
    except NoRule as refused:
        where = f"{refused.op.name} (operator {refused.op.index}, giving {stock.tensors[refused.op.outputs[0]].name!r})"
        return ModeReport(name, len(chosen), entries, None, 0.0, f"{where} {refused.why}")
    except (NotTrainable, BadArgument) as error:
        return ModeReport(name, len(chosen), entries, None, 0.0, str(error.facts["reason"]))
    taken = cost(graph)
    return ModeReport(name, len(chosen), entries, taken, taken.milliseconds(rate))
