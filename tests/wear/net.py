"""A net of 3.5 million weights whose last three layers are as large as those of a MobileNetV2 with 1,000 classes, made on the spot.

Its layers are dense: what they compute is of no interest here, how many bytes they are is. Nothing is fetched, and no TensorFlow is needed.
"""

from __future__ import annotations

import functools
from itertools import pairwise

import numpy as np

from edgecloud.graft.grafting import Wish, graft
from edgecloud.graft.writing import flat, ops
from edgecloud.graft.writing.flat import TableNode
from tests.edgecloud.graft.hostile_graphs import Graph, written

INPUTS, CLASSES, BATCH = 64, 1000, 8
WIDTHS = (INPUTS, 440, 1024, 960, 320, 1280, CLASSES)  # the last three: 307,200 and 409,600 and 1,280,000 weights, as there
LAST = "last:3"


@functools.cache
def wide_net(optimizer: str = "sgd") -> bytes:
    """Return the trainable file, in mode last:3 alone."""
    rng, g = np.random.default_rng(35), Graph()
    buffers, layers = list[bytes](), list(pairwise(WIDTHS))
    last = g.tensor((1, INPUTS))
    for i, (takes, gives) in enumerate(layers):
        kernel = rng.normal(0, np.sqrt(2 / takes), (gives, takes)).astype("<f4")
        buffers += [kernel.tobytes(), bytes(4 * gives)]
        w, b = g.tensor((gives, takes), buffer=len(buffers) - 1), g.tensor((gives,), buffer=len(buffers))
        out = g.tensor((1, gives))
        relu = int(i < len(layers) - 1)
        g.op(0, (last, w, b), (out,), (ops.OPTIONS[ops.FULLY_CONNECTED], TableNode({0: flat.i8(relu)})))
        last = out
    answer = g.tensor((1, CLASSES))
    g.op(1, (last,), (answer,), (ops.OPTIONS[ops.SOFTMAX], TableNode({0: flat.f32(1.0)})))
    g.outputs = (answer,)
    stock = written([g], [ops.FULLY_CONNECTED, ops.SOFTMAX], buffers)
    return graft(stock, Wish(train=(LAST,), batch=BATCH, optimizer=optimizer)).file
