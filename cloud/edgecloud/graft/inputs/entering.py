"""What is asked of a graft, and the stock graph that it starts from: behind one input x; or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgecloud.graft.fronts import called
from edgecloud.graft.layers import Layer
from edgecloud.graft.stock import Stock, read
from edgecloud.graft.writing import ops
from modelwire.errors import BadArgument, NotTrainable

from .builtin import builtin
from .choosing import chosen
from .joining import InputPart, joined
from .sizing import sized, unbatched


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a graft."""

    train: tuple[str, ...] = ("head",)  # head, last:N, all, or names
    modes: tuple[str, ...] = ()  # shallower cuts that the board may choose instead: head, last:N, or a name
    loss: str = "auto"
    optimizer: str = "sgd"
    batch: int = 16
    output: str = ""  # name of the output that is trained; empty: the first
    add_classes: tuple[str, ...] = ()  # names of classes that the stock file does not know
    signature: str = ""  # of the stock file: which of its subgraphs is meant; empty: the first
    size: tuple[int, ...] = ()  # of one sample, where the stock file leaves that open
    score: bool = False  # whether an auto-encoder scores samples against a threshold
    model: str = "the model"  # its name, for errors


@dataclass(frozen=True, slots=True)
class Entered:
    """A stock graph with one float32 input."""

    stock: Stock
    parts: tuple[InputPart, ...]  # what that holds; empty where it is the stock file's own


def entered(data: bytes, wish: Wish) -> Entered:
    """Return the graph that is meant of a stock file, behind one input x. data: the file without a zip.

    Raises NotTrainable where a sample can't be told from the inputs.
    """
    stock = builtin(chosen(read(data, wish.model), wish.signature, wish.model), wish.model)
    check_stock(stock, wish)
    stock = unbatched(sized(stock, wish.size, wish.model), wish.model)
    return Entered(*joined(stock, wish.model, _named_output(stock, wish)))


def check_stock(stock: Stock, wish: Wish) -> None:
    """Raise NotTrainable for a file that can't be grafted at all."""

    def refuse(reason: str) -> NotTrainable:
        return NotTrainable(model=wish.model, reason=reason)

    if [t.text(2) for t in stock.root.tables(7) if t.text(2) == "train"]:
        raise refuse("it has a signature 'train' already; edgecloud pack makes a trainable file ready")
    if why := called.refused(stock):
        raise refuse(why)
    for op in stock.operators:
        if op.code == ops.CUSTOM and op.custom not in called.CUSTOM_OF_RUNTIMES:
            gives = f", giving {stock.tensors[op.outputs[0]].name!r}" if op.outputs else ""
            way = "convert it with builtin operators alone" if op.name.startswith("Flex") else "convert the model without it"
            raise refuse(f"it uses {op.name} (operator {op.index}{gives}), which only its author's code can run; {way}")
    if not 1 <= wish.batch <= 4096:
        raise BadArgument(reason=f"a batch of {wish.batch}", fix="--batch 16; between 1 and 4096")


def output_named(stock: Stock, name: str) -> int:
    """Return the output of this name. Raises BadArgument when there is none."""
    names = {stock.tensors[t].name: t for t in stock.outputs}
    if name not in names:
        raise BadArgument(reason=f"no output is called {name!r}", fix=f"name one of: {', '.join(names)}")
    return names[name]


def output_of(stock: Stock, wish: Wish) -> int:
    """Return the output that is trained."""
    trained = _named_output(stock, wish)
    tensor = stock.tensors[trained]
    if tensor.type != ops.FLOAT32 or not tensor.shape or tensor.shape[0] != 1:
        kind = f"{ops.TYPE_NAMES.get(tensor.type, 'of another type')}{list(tensor.shape)}"
        reason = f"its output {tensor.name!r} is {kind}; one sample of float32 is needed, its first axis 1{_way(tensor.type)}"
        raise NotTrainable(model=wish.model, reason=reason)
    return trained


def _named_output(stock: Stock, wish: Wish) -> int:
    if not stock.outputs:
        raise NotTrainable(model=wish.model, reason="it gives no output")
    return output_named(stock, wish.output) if wish.output else stock.outputs[0]


def _way(kind: int) -> str:
    """Return what to do with a file that is quantized throughout; empty for another type."""
    int8 = "; an int8 classifier is a base as it is (edgecloud bases add), and edgecloud int8-head fit retrains its head"
    return int8 if kind in (ops.INT8, ops.UINT8) else ""


def check_layers(stock: Stock, every: Sequence[Layer], wish: Wish) -> None:
    """Raise NotTrainable for a file without a layer of float weights."""
    if not any(layer.kernel for layer in every):
        whole = any(t.type == ops.INT8 and t.scales and t.size > 1 for t in stock.tensors)
        reason = f"it has no layer with float weights that leads to its output{_way(ops.INT8) if whole else ''}"
        raise NotTrainable(model=wish.model, reason=reason)
