"""Makes of a stock file that keeps state from call to call one of a single sample, whose state starts fresh: what training needs.

A variable that is read has the value that it starts with, or the one that it was given before in the same call; so none is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgecloud.graft.stock import Op, Stock, read
from edgecloud.graft.writing import copying, flat, ops
from edgecloud.graft.writing.build import tensor_table
from edgecloud.graft.writing.flat import Node, Number, OldNode, TableNode
from modelwire.errors import NotTrainable
from modelwire.tflite.flatbuffer import U8, U32, Table

from . import called

STREAM = "stream"  # the signature that goes on where the last call left off
_STATE = (ops.VAR_HANDLE, ops.READ_VARIABLE, ops.ASSIGN_VARIABLE, ops.CALL_ONCE)


@dataclass(frozen=True, slots=True)
class Fresh:
    """A stock file of one sample, and the one that it was made of."""

    stock: Stock
    streaming: Stock | None  # the file as it was, with the same tensors; None where it keeps no state


def fresh(stock: Stock, model: str) -> Fresh:
    """Return the file with its state taken out, in the same bytes as the one that keeps it; itself where it keeps none.

    Raises NotTrainable where a state has no first value in the file, or is handed to a loop or a branch.
    """
    if not any(op.code in _STATE or any(_kept(stock, t) for t in op.inputs) for op in stock.operators):
        return Fresh(stock, None)
    data = _Taken(stock, model).file()
    return Fresh(read(data, model), read(data, model, graph=len(stock.subgraphs)))


class _Taken:
    """The walk through the operators, in the order in which a runtime runs them."""

    def __init__(self, stock: Stock, model: str) -> None:
        self.stock, self.model = stock, model
        self.tensors: list[Node] = [OldNode(t.byte) for t in stock.tensors]
        self.handles: dict[int, tuple[str, str]] = {}  # the variable of each handle
        self.held: dict[tuple[str, str], int] = {}  # the tensor that each variable was given in this call
        self.instead: dict[int, int] = {}  # the tensor that stands for one that was read
        self.first = self.first_values()
        self.buffers: list[Node] = []
        self.started: set[int] = set()  # tensors that the runtime keeps, and that are made zero before they are taken

    def refuse(self, reason: str) -> NotTrainable:
        return NotTrainable(model=self.model, reason=reason)

    def file(self) -> bytes:
        stock, made = self.stock, list[tuple[Node, tuple[int, ...], tuple[int, ...]]]()
        for op in stock.operators:
            if op.code == ops.VAR_HANDLE:
                self.handles[op.outputs[0]] = _name(stock.table_at(op.byte))
            elif op.code == ops.READ_VARIABLE:
                self.read(op.inputs[0], op.outputs[0])
            elif op.code == ops.ASSIGN_VARIABLE:
                self.held[self.variable(op.inputs[0])] = self.instead.get(op.inputs[1], op.inputs[1])
            elif op.code != ops.CALL_ONCE:
                made += self.zeros(op)
                made.append(self.made(op))
        if set(stock.outputs) & (self.instead.keys() | self.handles.keys()):
            raise self.refuse("one of its outputs is its state itself; a model that answers can be trained")
        wanted, kept = set(stock.outputs), list[Node]()
        for node, inputs, outputs in reversed(made):
            if wanted.intersection(outputs):  # what only the next call would see is left out
                wanted.update(inputs)
                kept.append(node)
        code = TableNode({0: flat.i8(ops.ZEROS_LIKE), 3: flat.i32(ops.ZEROS_LIKE)})
        behind = [OldNode(stock.subgraphs[0])]
        return copying.with_main_graph(stock, self.tensors, kept[::-1], self.buffers, codes=[code], behind=behind)

    def zeros(self, op: Op) -> Iterator[tuple[Node, tuple[int, ...], tuple[int, ...]]]:
        """Return what makes the state zero that the runtime keeps for an operator, as it is in a file that was just opened.

        Nothing forbids that an operator gives such a tensor; the runtimes' own way, to reset it, fails in both of them where a delegate
        took part.
        """
        for t in op.inputs:
            if not _kept(self.stock, t) or t in self.started:
                continue
            tensor = self.stock.tensors[t]
            if tensor.type != ops.FLOAT32:
                kind = ops.TYPE_NAMES.get(tensor.type, "of another type")
                raise self.refuse(f"its state {tensor.name!r} is {kind}, and only float32 can be started anew")
            self.started.add(t)
            self.buffers.append(TableNode({0: flat.data(bytes(4 * tensor.size))}))
            number = len(self.stock.buffers) + len(self.buffers) - 1
            self.tensors.append(tensor_table(tensor.shape, ops.FLOAT32, "", number))
            takes, gives = (len(self.tensors) - 1,), (t,)
            fields: dict[int, Number | Node] = {0: flat.u32(len(self.stock.codes)), 1: flat.integers(takes), 2: flat.integers(gives)}
            yield TableNode(fields), takes, gives

    def made(self, op: Op) -> tuple[Node, tuple[int, ...], tuple[int, ...]]:
        """Return an operator that takes no variable, with what it takes and gives."""
        taken = next((t for t in op.inputs if t in self.handles), None)
        if taken is not None:
            name = self.handles[taken][1]
            raise self.refuse(f"its state {name!r} is handed to {op.name} (operator {op.index}), where it can't be started anew")
        inputs = tuple(self.instead.get(t, t) for t in op.inputs)
        node = OldNode(op.byte) if inputs == op.inputs else copying.operator(self.stock.table_at(op.byte), inputs, op.outputs)
        return node, inputs, op.outputs

    def variable(self, handle: int) -> tuple[str, str]:
        if handle not in self.handles:
            raise self.refuse("it keeps state in a variable that is not named where it is used")
        return self.handles[handle]

    def read(self, handle: int, out: int) -> None:
        """Note what stands for a value that is read: one of this call, or else a constant under the same index."""
        variable = self.variable(handle)
        if variable in self.held:
            self.instead[out] = self.held[variable]
            return
        if variable not in self.first:
            raise self.refuse(f"its state {variable[1]!r} has no first value in the file")
        self.tensors[out] = self.first[variable]

    def first_values(self) -> Mapping[tuple[str, str], Node]:
        """Return the tensor, a constant, that each variable starts with: as the subgraphs that run once assign it."""
        stock, out = self.stock, dict[tuple[str, str], Node]()
        for op in stock.operators:
            if op.code != ops.CALL_ONCE:
                continue
            number = op.option(0)
            if not 0 < number < len(stock.subgraphs):
                raise stock.root.file.malformed(f"an operator calls subgraph {number} of {len(stock.subgraphs)}")
            tables = list(Table(stock.root.file, stock.subgraphs[number]).tables(0))
            handles: dict[int, tuple[str, str]] = {}
            for code, table, _ in called.operators(stock, number):
                inputs, outputs = table.integers(1), table.integers(2)
                if code == ops.VAR_HANDLE and len(outputs) == 1:
                    handles[outputs[0]] = _name(table)
                elif code == ops.ASSIGN_VARIABLE and len(inputs) == 2 and inputs[0] in handles and 0 <= inputs[1] < len(tables):
                    value = tables[inputs[1]]
                    if stock.buffers[value.integer(2, U32)][1] if value.integer(2, U32) < len(stock.buffers) else 0:
                        out[handles[inputs[0]]] = OldNode(value.at)
                else:
                    raise self.refuse(f"subgraph {number}, which starts its state, does more than assign constants: {ops.name(code)}")
        return out


def _kept(stock: Stock, tensor: int) -> bool:
    return tensor >= 0 and stock.tensors[tensor].kept and tensor not in stock.source


def _name(table: Table) -> tuple[str, str]:
    """Return the variable that a VAR_HANDLE names."""
    options = table.table(4) if table.integer(3, U8) else None
    return ("", "") if options is None else (options.text(0) or "", options.text(1) or "")
