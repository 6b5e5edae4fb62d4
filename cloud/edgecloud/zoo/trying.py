"""Looks at one file and makes of it what can be made, in a process of its own.

    python -m edgecloud.zoo.trying MEMORY SECONDS FILE FOLDER BATCH MODE...

Prints what came out as one JSON document, and writes one trainable file for each mode that can be made.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgecloud.graft.grafting import Wish, graft
from edgecloud.graft.inspecting import missing_rules
from edgecloud.graft.stock import Stock, consistent, read
from edgecloud.graft.writing import ops
from edgecommon.files import read_model_file
from modelwire.errors import Malformed, ModelWireError, NotTrainable
from modelwire.tflite import file as tflite_file

from .limited import bound

INT8_HEAD = "int8 head"
FLOAT, INT8, TRAINABLE, UNREAD = "float", "int8", "trainable", "unreadable"
_LAYERS = (ops.FULLY_CONNECTED, ops.CONV_2D, ops.DEPTHWISE_CONV_2D)
_INT16 = 7  # TensorType
_CODES = (ops.INT8, ops.UINT8, _INT16)


def tried(data: bytes, modes: Sequence[str], batch: int, folder: Path, *, model: str) -> dict[str, Any]:
    """Return what a file is and, of each mode, why it can't be made, or the name of the file in `folder` that has it."""
    try:
        with consistent(model):
            stock = read(data, model)
            kind = kind_of(stock)
    except ModelWireError as error:
        return {"kind": UNREAD, "reason": said(error), "modes": [], "missing": []}
    made: list[dict[str, str]] = []
    if kind == INT8:
        made.append(_head(data, folder, model))
    if kind == FLOAT or (made and made[0]["reason"]):
        wished = modes if kind == FLOAT else modes[:1]
        made += [_grafted(data, Wish(train=(mode,), batch=batch, model=model), folder) for mode in wished]
    if kind == TRAINABLE:
        made.append(_as_it_is(data, folder, model))
    missing = []
    if kind == FLOAT:
        with contextlib.suppress(ModelWireError):  # what keeps it from being looked at is said by its modes
            missing = [list(pair) for pair in missing_rules(data, Wish(train=("all",), batch=batch, model=model))]
    return {"kind": kind, "reason": "", "modes": made, "missing": missing, "operators": dict(Counter(op.name for op in stock.operators))}


def kind_of(stock: Stock) -> str:
    """Return what a file is: trainable already, int8 where layers give codes, else float."""
    if any(t.text(2) == "train" for t in stock.root.tables(7)):
        return TRAINABLE
    given = (stock.tensors[op.outputs[0]].type for op in stock.operators if op.code in _LAYERS and op.outputs)
    return INT8 if any(type in _CODES for type in given) else FLOAT


def said(error: ModelWireError) -> str:
    """Return why, without the file's name in front: a table has that beside it."""
    return str(error.facts.get("reason", error))


def _grafted(data: bytes, wish: Wish, folder: Path) -> dict[str, str]:
    mode = " ".join(wish.train)
    try:
        made = graft(data, wish)
    except ModelWireError as error:
        return {"mode": mode, "reason": said(error), "file": "", "named": type(error).__name__}
    name = f"{mode.replace(':', '_')}.tflite"
    (folder / name).write_bytes(made.file)
    (folder / f"stock_{name}").write_bytes(made.stock.data)  # what its infer must equal: the file without what it brings along
    return {"mode": mode, "reason": "", "file": name, "named": "", "stock": f"stock_{name}"}


def _head(data: bytes, folder: Path, model: str) -> dict[str, str]:
    try:
        head = tflite_file.read_head(data, model=model)
        if head is None:
            reason = "its output comes from no dense layer of int8, directly or through a logistic or a softmax"
            raise NotTrainable(model=model, reason=reason)
    except ModelWireError as error:
        return {"mode": INT8_HEAD, "reason": said(error), "file": "", "named": type(error).__name__}
    (folder / "int8.tflite").write_bytes(data)
    return {"mode": INT8_HEAD, "reason": "", "file": "int8.tflite", "named": ""}


def _as_it_is(data: bytes, folder: Path, model: str) -> dict[str, str]:
    try:
        tflite_file.check_trainable(data, model=model)
    except ModelWireError as error:
        return {"mode": "as it is", "reason": said(error), "file": "", "named": type(error).__name__}
    (folder / "own.tflite").write_bytes(data)
    return {"mode": "as it is", "reason": "", "file": "own.tflite", "named": ""}


def main(words: Sequence[str]) -> None:
    path, folder, batch, *modes = bound(words)
    name = Path(path).name
    try:
        data = read_model_file(Path(path), name)
        if data[4:8] != b"TFL3":
            raise Malformed(what=name, reason="it does not carry the mark TFL3")
        document = tried(data, modes, int(batch), Path(folder), model=name)
    except ModelWireError as error:
        document = {"kind": UNREAD, "reason": said(error), "modes": [], "missing": []}
    print(json.dumps(document))


if __name__ == "__main__":
    main(sys.argv[1:])
