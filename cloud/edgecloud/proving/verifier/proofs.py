"""One version: its weights or its header alone, the signed way to its base, and the log that says whose signature that is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from .encoding import LEAF, fail, root_by_path, sha, tree_root, unzipped
from .headers import BaseManifest, SignedHeader, check_path, facts_of, read_headers
from .logs import read_log
from .placing import Place, weight_places

FORMAT, INDEX = "edge proof 1", "index.json"
ALWAYS, FILE, TENSOR = {"headers.bin", "log.jsonl", "manifest.cbor"}, {"base.bin", "model.tflite", "root.bin"}, "tensor-"
_INFINITY = {1: (0x7F800000, "<u4"), 2: (0x7C00, "<u2"), 3: (0x7F80, "<u2")}  # float32, float16, bfloat16: all ones is no number


def check_proof(data: bytes, fleet: bytes, *, header_alone: bool = False) -> dict[str, Any]:
    """Return what a proof proves: all that its index says. fleet: root key and id. Raises NotProven.

    header_alone: take one that holds no weights although the log does not say that its content is gone.
    """
    files = unzipped(data)
    said = read_index(files)
    index = files.pop(INDEX)
    facts = prove(files, fleet)
    for name in sorted(facts.keys() | said.keys()):
        if name not in facts or name not in said or facts[name] != said[name]:
            fail(f"{INDEX}, {name[:40]}", "it is not what the files prove")
    if index != to_index(facts):
        fail(INDEX, "it is not written as this format writes it")
    if facts["holds"] == "header" and not facts["thinned"] and not header_alone:
        fail("weights", "the proof holds none; --header-alone takes what the signed header proves without them")
    return facts


def read_index(files: dict[str, bytes]) -> dict[str, Any]:
    """Return what the index of a proof says, which may be false."""
    try:
        said = json.loads(files.get(INDEX, b""))
    except (ValueError, RecursionError):
        fail(INDEX, "it is missing, or no JSON")
    form = said.get("format") if isinstance(said, dict) else None
    if form != FORMAT:
        fail(f"{INDEX}, format", f"{str(form)[:40]!r} is a proof of another release; this program reads {FORMAT!r}")
    return dict(said)


def to_index(facts: dict[str, Any]) -> bytes:
    """Return the one index that says this."""
    return json.dumps(facts, indent=1, sort_keys=True).encode() + b"\n"


def prove(files: dict[str, bytes], fleet: bytes) -> dict[str, Any]:
    """Return what the files of a proof prove together. Raises NotProven."""
    names, tensor = files.keys(), sorted(name for name in files if name.startswith(TENSOR))
    if names not in (ALWAYS, ALWAYS | FILE, ALWAYS | {"root.bin", *tensor}) or len(tensor) not in (0, 2):
        fail("the zip", f"it does not hold the files of a proof, but {', '.join(sorted(names))[:300]}")
    base, path = BaseManifest.read(files["manifest.cbor"]), list(read_headers(files["headers.bin"]))
    head, lines = path[-1], files["log.jsonl"].decode("ascii").split("\n")
    log, taken = read_log(lines, fleet, head.device)
    if lines[taken:] != [""]:
        fail("log.jsonl", "something comes behind its signed end")
    says, holds = check_path(path, base, log), "header"
    if "root.bin" in files:
        check_root(files["root.bin"], base, head)
        holds = "tensor" if tensor else "file"
        says += prove_tensor(files, tensor, base) if tensor else prove_file(files, base)
    else:
        gone = "Its content is gone, as the log says" if head.commit in log.thinned else "The proof holds no weights"
        says.append(f"{gone}: the header proves who published this root, on what, and that nothing else can be put in its place.")
    return {
        **facts_of(head), "format": FORMAT, "holds": holds, "thinned": head.commit in log.thinned, "base": base.commit.hex(),
        "fleet": fleet[32:].hex(), "log_entries": log.number, "path": len(path), "says": says + log.limits(),
        "files": {name: sha(data).hex() for name, data in sorted(files.items())},
    }  # fmt: skip


def check_root(parts: bytes, base: BaseManifest, head: SignedHeader) -> None:
    """A root is the digest of these parts: schema, weights, units, and the integers that a short float has forgotten."""
    if sha(parts) != head.root or parts[:1] != b"\x03" or len(parts) != 97 + len(base.rows) or parts[1:33] != base.schema:
        fail("root.bin", f"it is not what the root of {head.name} is made of")


def prove_file(files: dict[str, bytes], base: BaseManifest) -> list[str]:
    """The weights of the file are the root's, and every other byte of it is the base's."""
    file = files["model.tflite"]
    if len(file) != base.size:
        fail("model.tflite", f"it has {len(file)} bytes, and the base's file has {base.size}")
    places = weight_places(file, base.rows)
    tensors = [file[at : at + size] for at, size in places]
    if tree_root([base.node(i, data) for i, data in enumerate(tensors)]) != files["root.bin"][33:65]:
        fail("model.tflite", "its weights are not those of the root")
    if tree_root(list(base_leaves(file, places, files["base.bin"]))) != base.tree:
        fail("model.tflite or base.bin", "beside its weights the file is not the base's")
    finite = all(is_finite(kind, data) for (_, kind, _), data in zip(base.rows, tensors, strict=True))
    weights, rest = sum(prod(shape) for _, _, shape in base.rows), base.size - sum(size for _, size in places)
    return [
        f"model.tflite holds these weights, bit for bit: {weights} in {len(tensors)} tensors, {_numbers(finite)}.",
        f"All else in it, {rest} of {base.size} bytes, is the base's. Its SHA-256 is {sha(file).hex()}.",
    ]


def base_leaves(file: bytes, places: Sequence[Place], kept: bytes) -> Iterator[bytes]:
    """Yield the digests of the base file's leaves, made from a version's file.

    kept: for each leaf the base's own weights that lie in it, or where it is all weights its digest: what is given otherwise gives
    another tree.
    """
    at = 0
    for start, end, within in leaf_parts(len(file), places):
        if within == [(start, end)]:
            at += 32
            yield kept[at - 32 : at]
            continue
        piece = bytearray(file[start:end])
        for a, b in within:
            piece[a - start : b - start] = kept[at : at + b - a]
            at += b - a
        yield sha(b"\x00", piece)
    if at != len(kept):
        fail("base.bin", f"it has {len(kept)} bytes, and the file needs {at}")


def leaf_parts(size: int, places: Sequence[Place]) -> Iterator[tuple[int, int, list[Place]]]:
    """Yield first byte and end of each leaf of a file, and of the weights that lie in it."""
    spans, first = sorted(places), 0
    for start in range(0, size, LEAF):
        end = min(start + LEAF, size)
        while first < len(spans) and sum(spans[first]) <= start:
            first += 1
        n = first
        within: list[Place] = []
        while n < len(spans) and spans[n][0] < end:
            within.append((max(spans[n][0], start), min(sum(spans[n]), end)))
            n += 1
        yield start, end, within


def prove_tensor(files: dict[str, bytes], names: Sequence[str], base: BaseManifest) -> list[str]:
    """One tensor's stored bytes are those under the root."""
    number = names[0][len(TENSOR) :].partition(".")[0]
    tensor = int(number) if number.isascii() and number.isdigit() else -1
    if list(names) != [f"{TENSOR}{tensor}.bin", f"{TENSOR}{tensor}.path"] or not 0 <= tensor < len(base.rows):
        fail("the zip", f"{names[0][:40]!r} is no tensor of the base")
    data, path = files[names[0]], files[names[1]]
    if root_by_path(base.node(tensor, data), tensor, len(base.rows), path) != files["root.bin"][33:65]:
        fail(f"{names[0]} or {names[1]}", "it is not the tensor under the root")
    name, kind, shape = base.rows[tensor]
    return [f"{names[0]} is the tensor {name!r} {list(shape)} of it, bit for bit as it is stored, {_numbers(is_finite(kind, data))}."]


def is_finite(kind: int, data: bytes) -> bool:
    """Whether stored weights are numbers, every one."""
    if kind not in _INFINITY:
        return True
    infinity, form = _INFINITY[kind]
    return not bool((np.frombuffer(data, form) & infinity == infinity).any())


def _numbers(finite: bool) -> str:
    return "all of them numbers" if finite else "NOT all of them numbers"


