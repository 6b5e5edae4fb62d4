"""The shape of what operators give that look entries up, reduce, count, or keep a state."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from edgecloud.graft.writing import ops

from .at import At, OpenShapeError, Shape
from .rules import REDUCES, dims, rule


@rule(*REDUCES)
def reduce(at: At) -> Sequence[Shape]:
    x = at.shape()
    gone = {at.axis(i, len(x)) for i in at.values(1)}
    keep = at.op.option(0, small=True)
    return [tuple(1 if i in gone else n for i, n in enumerate(x) if keep or i not in gone)]


@rule(ops.ARG_MAX, ops.ARG_MIN)
def arg_extreme(at: At) -> Sequence[Shape]:
    x = at.shape()
    gone = at.axis(at.value(1), len(x))
    return [x[:gone] + x[gone + 1 :]]


@rule(ops.GATHER)
def gather(at: At) -> Sequence[Shape]:
    x, places = at.shape(0), at.shape(1)
    axis, shared = at.axis(at.op.option(0), len(x)), at.op.option(1)
    shared += len(places) if shared < 0 else 0
    if shared > axis or x[:shared] != places[:shared]:
        raise ValueError(f"{shared} axes shared by {list(x)} and {list(places)}")
    return [(*x[:axis], *places[shared:], *x[axis + 1 :])]


@rule(ops.GATHER_ND)
def gather_nd(at: At) -> Sequence[Shape]:
    x, places = at.shape(0), at.shape(1)
    if places[-1] > len(x):
        raise ValueError(f"places of {places[-1]} axes in {list(x)}")
    return [(*places[:-1], *x[places[-1] :])]


@rule(ops.SCATTER_ND, ops.UNSORTED_SEGMENT_SUM, ops.UNSORTED_SEGMENT_MAX, ops.UNSORTED_SEGMENT_MIN, ops.UNSORTED_SEGMENT_PROD)
def scatter(at: At) -> Sequence[Shape]:
    if at.op.code == ops.SCATTER_ND:
        return [dims(at.values(2))]
    return [dims((at.value(2), *at.shape(0)[len(at.shape(1)) :]))]


@rule(ops.EMBEDDING_LOOKUP)
def embedding(at: At) -> Sequence[Shape]:
    (n,), rows = at.shape(0), at.shape(1)
    return [(n, *rows[1:])]


@rule(ops.SPARSE_TO_DENSE)
def sparse_to_dense(at: At) -> Sequence[Shape]:
    return [dims(at.values(1))]


@rule(ops.MATRIX_DIAG)
def matrix_diag(at: At) -> Sequence[Shape]:
    x = at.shape()
    return [(*x, x[-1])]


@rule(ops.ONE_HOT)
def one_hot(at: At) -> Sequence[Shape]:
    shape = list(at.shape(0))
    axis = at.op.option(0)
    shape.insert(len(shape) if axis == -1 else at.axis(axis, len(shape) + 1), at.value(1))
    return [dims(shape)]


@rule(ops.TOPK_V2)
def top_k(at: At) -> Sequence[Shape]:
    x, k = at.shape(0), at.value(1)
    if k > x[-1]:
        raise ValueError(f"the {k} largest of {x[-1]}")
    return [dims((*x[:-1], k))] * 2


@rule(ops.RANGE)
def range_(at: At) -> Sequence[Shape]:
    start, end, step = (at.array(i).item() for i in range(3))
    return [(max(0, ceil((end - start) / step)),)]


@rule(ops.RFFT2D)
def rfft_2d(at: At) -> Sequence[Shape]:
    x, (rows, columns) = at.shape(0), at.values(1)
    return [dims((*x[:-2], rows, columns // 2 + 1))]


@rule(ops.NON_MAX_SUPPRESSION_V4, ops.NON_MAX_SUPPRESSION_V5)
def non_max_suppression(at: At) -> Sequence[Shape]:
    most = dims((at.value(2),))
    return [most, ()] if at.op.code == ops.NON_MAX_SUPPRESSION_V4 else [most, most, ()]


@rule(ops.WHERE, ops.UNIQUE, ops.SEGMENT_SUM)
def by_values(at: At) -> Sequence[Shape]:
    raise OpenShapeError


# Layers with a state.


@rule(ops.RNN)
def rnn(at: At) -> Sequence[Shape]:
    return [(at.shape()[0], at.shape(1)[0])]


@rule(ops.UNIDIRECTIONAL_SEQUENCE_RNN)
def sequence_rnn(at: At) -> Sequence[Shape]:
    return [(*at.shape()[:2], at.shape(1)[0])]


@rule(ops.LSTM, ops.UNIDIRECTIONAL_SEQUENCE_LSTM)
def lstm(at: At) -> Sequence[Shape]:
    if len(at.op.outputs) != 1:
        raise OpenShapeError  # the basic kernel, which gives its temporaries too
    return [(*at.shape()[:-1], at.shape(8)[1])]


@rule(ops.BIDIRECTIONAL_SEQUENCE_LSTM)
def both_ways_lstm(at: At) -> Sequence[Shape]:
    front, there, back = at.shape()[:2], at.shape(8)[1], at.shape(25)[1]
    return [(*front, there + back)] if at.op.option(3, small=True) else [(*front, there), (*front, back)]


@rule(ops.BIDIRECTIONAL_SEQUENCE_RNN)
def both_ways_rnn(at: At) -> Sequence[Shape]:
    front, there, back = at.shape()[:2], at.shape(1)[0], at.shape(5)[0]
    return [(*front, there + back)] if at.op.option(2, small=True) else [(*front, there), (*front, back)]


@rule(ops.SVDF)
def svdf(at: At) -> Sequence[Shape]:
    filters, ranks = at.shape(1)[0], at.op.option(0)
    if ranks < 1 or filters % ranks:
        raise ValueError(f"{filters} filters of rank {ranks}")
    return [(at.shape()[0], filters // ranks)]




@rule(ops.WHILE)
def loop(at: At) -> Sequence[Shape]:
    """What goes round keeps its shape, as far as the file does not say otherwise: a loop that makes it grow is found when it is run."""
    found = []
    for place, t in enumerate(at.op.outputs):
        tensor, shape = at.tensors[t], at.shape(place)
        if -1 in tensor.open:
            raise OpenShapeError
        fixed = [i for i in range(len(tensor.shape)) if i not in tensor.open]
        if len(tensor.shape) != len(shape) or any(tensor.shape[i] != shape[i] for i in fixed):
            if tensor.open:
                raise OpenShapeError
            raise ValueError(f"{list(shape)} goes in, and {list(tensor.shape)} comes out")
        found.append(shape)
    return found
