"""What somebody without a key can make of proofs: every field of every file altered, files swapped, and tricks with the zip.

A forger writes the index anew and zips as a proof is zipped: what is refused must be refused for what it says, not for how it is packed.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from edgecloud.proving.verifier import proofs
from edgecloud.proving.verifier.encoding import NotProven, plain, sha, to_line, unzipped, zipped
from edgecloud.proving.verifier.evidence import DAMAGED
from edgecloud.proving.verifier.headers import BaseManifest, SignedHeader, read_headers
from edgecloud.proving.verifier.placing import weight_places
from modelwire.wire import cbor

Files = dict[str, bytes]
Forgery = tuple[str, bytes]
# Of a header proof: name, first byte and bytes; names and signature follow.
HEADER_FIELDS = (
    ("magic", 0, 4), ("release", 4, 4), ("container magic", 8, 8), ("wire", 16, 4), ("header bytes", 20, 4), ("extension bytes", 24, 4),
    ("sections", 28, 4), ("total", 32, 4), ("crc", 36, 4), ("kind", 40, 1), ("hash", 41, 1), ("device length", 42, 1),
    ("model length", 43, 1), ("epoch", 44, 4), ("version", 48, 8), ("schema", 56, 32), ("parent", 88, 32), ("root", 120, 32),
    ("fingerprint", 152, 16), ("names", 168, 8),
)  # fmt: skip
RECORD_FIELDS = (("magic", 0, 4), ("release", 4, 1), ("role", 5, 1), ("length", 6, 2), ("fleet", 8, 16), ("body", 24, 8))


def index_for(files: Files, index: bytes, fleet: bytes) -> bytes:
    """Return the index that a forger writes: what the files prove, if anything, else what it said with the digests of these files."""
    try:
        return proofs.to_index(proofs.prove(files, fleet))
    except (NotProven, *DAMAGED):
        said = json.loads(index)
        return proofs.to_index(said | {"files": {name: sha(data).hex() for name, data in sorted(files.items())}})


def forgeries(proof: bytes, others: list[bytes], fleet: bytes, seed: int) -> Iterator[Forgery]:
    """Yield what was altered, and the altered proof. others: good proofs, of this and other devices. None is equal to `proof`."""
    rng = np.random.default_rng(seed)
    files = unzipped(proof)
    index = files.pop(proofs.INDEX)
    for what, altered in _of_files(files, others, rng):
        data = zipped({**altered, proofs.INDEX: index_for(altered, index, fleet)})
        if data != proof:
            yield what, data
    yield from _of_index(files, index)
    yield from _of_zip(proof, rng)


def _of_files(files: Files, others: list[bytes], rng: np.random.Generator) -> Iterator[tuple[str, Files]]:
    for make in (_manifest, _headers, _root, _weights, _tensor, _log):
        for what, changed in make(files, rng):
            yield what, {**files, **changed}
    for name, data in files.items():
        for what, made in _bytes(data, rng):
            yield f"{name}: {what}", {**files, name: made}
        yield f"{name}: left out", {one: held for one, held in files.items() if one != name}
        yield f"{name}: under another name", {(f"x{name}" if one == name else one): held for one, held in files.items()}
    yield "a file too many", {**files, "readme.txt": b"true"}
    for number, other in enumerate(others):
        foreign = unzipped(other)
        foreign.pop(proofs.INDEX)
        for name in sorted(foreign.keys() & files.keys()):
            if foreign[name] != files[name] and not _earlier_log(name, files, foreign):
                if name == "headers.bin" and _last(files).root == _last(foreign).root:
                    continue  # as before a snapshot: the rest is a good proof of that version, too
                mine, theirs = _last(files), _last(foreign)
                if name == "log.jsonl" and mine.device == theirs.device:
                    continue  # a later version's log proves an earlier one as well
                yield f"{name}: that of proof {number}", {**files, name: foreign[name]}
                if name == "headers.bin" and mine.device == theirs.device and "root.bin" not in foreign:
                    continue  # headers alone are a good proof of the version that they lead to
                rest = {one: files[one] if one == name else foreign[one] for one in foreign}
                yield f"all but {name}: that of proof {number}", rest


def _earlier_log(name: str, files: Files, foreign: Files) -> bool:
    """Whether a log is as good as this one: the centre's, of the same device, which enters the same updates."""
    if name not in ("log.jsonl", "manifest.cbor", "root.bin", "base.bin"):
        return False
    return files["headers.bin"] == foreign["headers.bin"]


def _last(files: Files) -> SignedHeader:
    return list(read_headers(files["headers.bin"]))[-1]


def _bytes(data: bytes, rng: np.random.Generator) -> Iterator[Forgery]:
    yield "empty", b""
    yield "cut by a byte", data[:-1]
    yield "a byte longer", data + b"\0"
    yield "twice", data * 2
    for _ in range(6):
        place, bit = int(rng.integers(len(data))), int(rng.integers(8))
        yield f"bit {bit} of byte {place}", data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
    a, b = sorted(int(n) for n in rng.integers(len(data), size=2))
    yield f"without bytes {a} to {b}", data[:a] + data[b + 1 :]


def _manifest(files: Files, _: object) -> Iterator[tuple[str, Files]]:
    values = cbor.decode(files["manifest.cbor"])
    assert isinstance(values, dict)
    for name in values:
        for what, other in _others(values[name]):
            yield f"manifest.cbor, {name}: {what}", {"manifest.cbor": cbor.encode({**values, name: other})}
    rows: Any = values["tensors"]
    for place, row in enumerate(rows[:3]):
        for column, value in enumerate(row):
            for what, other in _others(value):
                made = [*rows[:place], [*row[:column], other, *row[column + 1 :]], *rows[place + 1 :]]
                yield f"manifest.cbor, tensor {place}, column {column}: {what}", {"manifest.cbor": cbor.encode({**values, "tensors": made})}
    yield "manifest.cbor: a key more", {"manifest.cbor": cbor.encode({**values, "x": 1})}


def _others(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield other values of the same kind, and none."""
    if isinstance(value, bool):
        yield "the other", not value
    elif isinstance(value, int):
        yield "one more", value + 1
        yield "zero", 0 if value else 7
    elif isinstance(value, bytes):
        yield "a bit", bytes([value[0] ^ 1]) + value[1:] if value else b"x"
        yield "shorter", value[:-1] if value else b"xy"
    elif isinstance(value, str):
        yield "longer", value + "x"
    elif isinstance(value, list):
        yield "reversed", value[::-1] if value != value[::-1] else [*value, 1]
        yield "shorter", value[:-1]
    yield "null", None


def _headers(files: Files, rng: np.random.Generator) -> Iterator[tuple[str, Files]]:
    ends, at, data = [], 0, files["headers.bin"]
    while at < len(data):
        at += 8 + 32 + struct.unpack_from("<I", data, at + 20)[0] + 128
        ends.append(at)
    starts = [0, *ends[:-1]]
    pieces = [data[a:b] for a, b in zip(starts, ends, strict=True)]
    # Then what is left without the last one is a good proof of the version before.
    proves_less = len(pieces) > 1 and ("root.bin" not in files or pieces[-1][120:152] == pieces[-2][120:152])
    for n in sorted({0, len(pieces) - 1}):
        piece, fields = pieces[n], [*HEADER_FIELDS]
        fields += [("extension digest", len(piece) - 128, 32), ("content digest", len(piece) - 96, 32), ("signature", len(piece) - 64, 64)]
        for name, start, size in fields:
            place = start + int(rng.integers(size))
            flipped = piece[:place] + bytes([piece[place] ^ 1 << int(rng.integers(8))]) + piece[place + 1 :]
            yield f"header {n}, {name}", {"headers.bin": b"".join([*pieces[:n], flipped, *pieces[n + 1 :]])}
            zero = piece[:start] + bytes(size) + piece[start + size :]
            yield f"header {n}, {name}: zero", {"headers.bin": b"".join([*pieces[:n], zero, *pieces[n + 1 :]])}
        if n + 1 < len(pieces) or not proves_less:
            yield f"header {n}: left out", {"headers.bin": b"".join(pieces[:n] + pieces[n + 1 :])}
        yield f"header {n}: twice", {"headers.bin": b"".join([*pieces[:n], piece, *pieces[n:]])}
    yield "headers: the other way round", {"headers.bin": b"".join(pieces[::-1])}
    if len(pieces) > 1:
        if not proves_less:
            yield "headers: up to the version before", {"headers.bin": b"".join(pieces[:-1])}
        yield "headers: the last alone", {"headers.bin": pieces[-1]}
        yield "headers: two signatures swapped", {"headers.bin": _swapped_signatures(pieces)}


def _swapped_signatures(pieces: list[bytes]) -> bytes:
    a, b = pieces[-2:]
    return b"".join([*pieces[:-2], a[:-64] + b[-64:], b[:-64] + a[-64:]])


def _root(files: Files, _: object) -> Iterator[tuple[str, Files]]:
    if "root.bin" not in files:
        return
    data = files["root.bin"]
    for name, place in (("mark", 0), ("schema", 1), ("weights", 33), ("units", 65), ("integers", len(data) - 1)):
        yield f"root.bin, {name}", {"root.bin": data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]}


def _weights(files: Files, rng: np.random.Generator) -> Iterator[tuple[str, Files]]:
    """Bits of weights that no arithmetic tells apart, weights in each other's place, and all else of the file."""
    if "model.tflite" not in files:
        return
    file, base = files["model.tflite"], BaseManifest.read(files["manifest.cbor"])
    places = weight_places(file, base.rows)

    def put(at: int, data: bytes) -> Files:
        return {"model.tflite": file[:at] + data + file[at + len(data) :]}

    for (name, kind, _), (at, size) in list(zip(base.rows, places, strict=True))[:6]:
        width = {1: 4, 2: 2, 3: 2, 4: 1, 5: 4}[kind]
        last = at + width * int(rng.integers(size // width)) + width - 1
        yield f"{name}: the sign of one weight", put(last, bytes([file[last] ^ 0x80]))
        yield f"{name}: one that is no number", put(last - width + 1, b"\xff" * width)
        yield f"{name}: a lowest bit", put(last - width + 1, bytes([file[last - width + 1] ^ 1]))
        yield f"{name}: zero", put(at, bytes(size))
        yield f"{name}: the other way round", put(at, file[at : at + size][::-1])
        if "base.bin" in files:
            yield f"{name}: elsewhere in the file", put((at + 4096) % (len(file) - size), file[at : at + size])
    for (a, n), (b, m) in pairwise(places):
        if n == m and file[a : a + n] != file[b : b + m]:
            made = bytearray(file)
            made[a : a + n], made[b : b + m] = file[b : b + m], file[a : a + n]
            yield "two tensors swapped", {"model.tflite": bytes(made)}
    outside = np.ones(len(file), bool)
    for at, size in places:
        outside[at : at + size] = False
    for place in rng.choice(np.flatnonzero(outside), 40):
        yield f"byte {place}, which is no weight", put(int(place), bytes([file[place] ^ 1 << int(rng.integers(8))]))
    yield "base.bin: zero", {"base.bin": bytes(len(files["base.bin"]))}


def _tensor(files: Files, _: object) -> Iterator[tuple[str, Files]]:
    for name in [name for name in files if name.endswith(".path")]:
        data, front = files[name], name[: -len(".path")]
        yield f"{name}: digests swapped", {name: data[32:64] + data[:32] + data[64:]}
        yield f"{name}: shorter", {name: data[32:]}
        yield f"{front}.bin: zero", {f"{front}.bin": bytes(len(files[f"{front}.bin"]))}
        yield f"{front}: two tensors", {"tensor-99.bin": files[f"{front}.bin"], "tensor-99.path": data}


def _log(files: Files, rng: np.random.Generator) -> Iterator[tuple[str, Files]]:
    text = files["log.jsonl"].decode().splitlines()
    lines = [json.loads(line) for line in text]

    def put(made: list[Any]) -> Files:
        return {"log.jsonl": "".join((one if isinstance(one, str) else to_line(one)) + "\n" for one in made).encode()}

    for n, line in enumerate(lines):
        yield f"log, line {n}: left out", put(lines[:n] + lines[n + 1 :])
        yield f"log, line {n}: twice", put([*lines[:n], line, *lines[n:]])
        for name, value in line.items():
            others = _others(bytes.fromhex(value)) if name in ("cbor", "digests", "link", "signature") else _others(value)
            for what, other in others:
                yield f"log, line {n}, {name}: {what}", put([*lines[:n], {**line, name: plain(other)}, *lines[n + 1 :]])
        yield f"log, line {n}: with spaces", put([*text[:n], " " + text[n], *text[n + 1 :]])
        if "entry" in line:
            for what, entry in _entries(bytes.fromhex(line["cbor"]), rng):
                says = plain(_read(entry)) if _read(entry) is not None else {}
                yield f"log, entry {line['entry']}, {what}", put([*lines[:n], {**line, "cbor": entry.hex(), "says": says}, *lines[n + 1 :]])
            as_float = text[n].replace(f'"entry":{line["entry"]}', f'"entry":{line["entry"]}.0')
            yield f"log, entry {line['entry']}: as a float", put([*text[:n], as_float, *text[n + 1 :]])
            record = line["says"].get("record", {})
            if line["says"]["kind"] in ("trust", "epoch", "head", "verdict", "thin", "policy") or record.get("verb") == "admit":
                hidden = {"after": line["entry"] - 1, "digests": sha(bytes.fromhex(line["cbor"])).hex()}
                if not _may_hide(line, files):
                    yield f"log, entry {line['entry']}: hidden", put([*lines[:n], hidden, *lines[n + 1 :]])


def _may_hide(line: dict[str, Any], files: Files) -> bool:
    """Whether a proof that hides this entry says less and nothing false: the verdict on an update on the way, or another key's entry."""
    head, says = _last(files), line["says"]
    if says["kind"] == "verdict":
        return bool(says["commit"] != head.commit.hex())
    if says["kind"] in ("thin", "policy"):
        return "root.bin" in files or (says["kind"] == "thin" and head.commit.hex() not in says["gone"])
    return says["kind"] == "act" or (says["kind"] == "epoch" and says["epoch"] != head.epoch)


def _read(entry: bytes) -> Any:
    try:
        return cbor.decode(entry)
    except Exception:  # noqa: BLE001 - whatever keeps it from being read, it is a forgery all the same
        return None


def _entries(entry: bytes, rng: np.random.Generator) -> Iterator[Forgery]:
    values = cbor.decode(entry)
    assert isinstance(values, dict)
    for name, value in values.items():
        for what, other in _others(value):
            yield f"{name}: {what}", cbor.encode({**values, name: other})
    record = values.get("record")
    if isinstance(record, bytes):
        for name, start, size in (*RECORD_FIELDS, ("signature", len(record) - 64, 64)):
            place = start + int(rng.integers(size))
            flipped = record[:place] + bytes([record[place] ^ 1 << int(rng.integers(8))]) + record[place + 1 :]
            yield f"record, {name}", cbor.encode({**values, "record": flipped})


def _of_index(files: Files, index: bytes) -> Iterator[Forgery]:
    said = json.loads(index)
    for name, value in said.items():
        for what, other in _others(value if not isinstance(value, dict) else sorted(value)):
            yield f"index.json, {name}: {what}", zipped({**files, proofs.INDEX: proofs.to_index({**said, name: other})})
        less = {one: held for one, held in said.items() if one != name}
        yield f"index.json, without {name}", zipped({**files, proofs.INDEX: proofs.to_index(less)})
    for n, sentence in enumerate(said["says"]):
        made = [*said["says"][:n], sentence.replace("not", "").replace("Not", "") + " Truly.", *said["says"][n + 1 :]]
        yield f"index.json, sentence {n}", zipped({**files, proofs.INDEX: proofs.to_index({**said, "says": made})})
    yield "index.json: another release", zipped({**files, proofs.INDEX: proofs.to_index({**said, "format": "edge proof 2"})})
    yield "index.json: in one line", zipped({**files, proofs.INDEX: json.dumps(said, sort_keys=True).encode()})
    yield "index.json: a key more", zipped({**files, proofs.INDEX: proofs.to_index({**said, "trusted": True})})


def _of_zip(proof: bytes, rng: np.random.Generator) -> Iterator[Forgery]:
    files = unzipped(proof)
    for what, made in _bytes(proof, rng):
        yield f"the zip: {what}", made
    yield "the zip: something before it", b"#!/bin/sh\n" + proof
    yield "the zip: with a comment", proof[:-2] + struct.pack("<H", 4) + b"true"
    variants: dict[str, Callable[[zipfile.ZipFile, str, bytes], None]] = {
        "deflated": lambda z, name, data: z.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED),
        "with dates": lambda z, name, data: z.writestr(zipfile.ZipInfo(name, (2026, 1, 2, 3, 4, 6)), data),
        "in folders": lambda z, name, data: z.writestr(zipfile.ZipInfo(f"../{name}"), data),
    }
    for what, write in variants.items():
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as z:
            for name, data in files.items():
                write(z, name, data)
        yield f"the zip: {what}", out.getvalue()
    for name in files:
        double = zipped({**files, f"{name}!": b"false"}).replace(f"{name}!".encode(), f"{name[:-1]}{name[-1]}!".encode())
        yield f"the zip: {name} and another of almost its name", double
    yield "the zip: a name twice", _twice(files)


def _twice(files: Files) -> bytes:
    """Return a zip in which one name stands twice, first with other bytes."""
    name = "model.tflite" if "model.tflite" in files else "headers.bin"
    first = name[:-1] + chr(ord(name[-1]) - 1)
    made = zipped({**files, first: files[name][:-1] + b"\x55"})
    return made.replace(first.encode(), name.encode())
