"""Prints the smallest .tflite that proves a runtime works (y = x + x), as edgecommon/runtime.py holds it: zlib, then base85.

Needs tensorflow (its copy of the schema) and flatbuffers; not needed at run time.
"""

from __future__ import annotations

import base64
import zlib

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema


def probe_model() -> bytes:
    """Return a model of one ADD over float32 [4]; its only input and output stand in the plain subgraph."""
    code, op, graph, model = schema.OperatorCodeT(), schema.OperatorT(), schema.SubGraphT(), schema.ModelT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    code.version = 1
    op.opcodeIndex, op.inputs, op.outputs = 0, np.array([0, 0], np.int32), np.array([1], np.int32)
    op.builtinOptionsType, op.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    tensors = []
    for name in ("x", "y"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, np.array([4], np.int32), schema.TensorType.FLOAT32, 0
        tensors.append(tensor)
    graph.tensors, graph.inputs, graph.outputs, graph.operators = tensors, np.array([0], np.int32), np.array([1], np.int32), [op]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    model.description = ""
    builder = flatbuffers.Builder(512)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


if __name__ == "__main__":
    text = base64.b85encode(zlib.compress(probe_model(), 9)).decode()
    for at in range(0, len(text), 120):
        print(f'    "{text[at : at + 120]}"')
