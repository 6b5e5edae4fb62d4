"""Gives every variable's initial value a buffer of its own in a converted .tflite, so that it can be overwritten alone.

The converter stores equal constants once: two zero biases would share bytes. Needs tensorflow (its copy of the schema) and flatbuffers.
"""

from __future__ import annotations

from collections import Counter
from copy import copy
from typing import Any

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

ALIGNMENT = 16  # bytes; the runtimes read constants in place with vector loads


class AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose bytes start at a multiple of 16; the generated code would place them anywhere."""

    def Pack(self, builder: Any) -> int:
        where = None
        if self.data is not None and len(self.data):
            data = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(data), ALIGNMENT)
            builder.head = builder.head - len(data)
            builder.Bytes[builder.head : builder.head + len(data)] = data
            where = builder.EndVector()
        schema.BufferStart(builder)
        if where is not None:
            schema.BufferAddData(builder, where)
        return int(schema.BufferEnd(builder))


def with_own_buffers(file: bytes) -> bytes:
    """Return the model with each initial value (the constant of an ASSIGN_VARIABLE) alone in its buffer, all data aligned."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(file, 0))
    buffers = []
    for old in model.buffers:
        new = AlignedBuffer()
        new.data = old.data
        buffers.append(new)
    model.buffers = buffers
    users = Counter(tensor.buffer for graph in model.subgraphs for tensor in graph.tensors)
    for graph in model.subgraphs:
        readers = Counter(int(i) for op in graph.operators if op.inputs is not None for i in op.inputs)
        for op in graph.operators:
            if model.operatorCodes[op.opcodeIndex].builtinCode != schema.BuiltinOperator.ASSIGN_VARIABLE:
                continue
            index = int(op.inputs[1])
            tensor = graph.tensors[index]
            data = buffers[tensor.buffer].data
            if data is None or not len(data):
                continue  # a value computed at run time
            if readers[index] > 1:  # one constant assigned to several variables
                readers[index] -= 1
                users[tensor.buffer] += 1
                tensor = copy(tensor)
                op.inputs = np.array([op.inputs[0], len(graph.tensors)], np.int32)
                graph.tensors.append(tensor)
            if users[tensor.buffer] > 1:
                users[tensor.buffer] -= 1
                own = AlignedBuffer()
                own.data = np.array(data, np.uint8)
                tensor.buffer = len(buffers)
                buffers.append(own)
    builder = flatbuffers.Builder(len(file))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
