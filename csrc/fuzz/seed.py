"""Write the first inputs of each harness, out of the golden vectors. Files are only ever added.

    python csrc/fuzz/seed.py
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from modelwire.update import container, manifest, planes  # noqa: E402

CORPUS = Path(__file__).resolve().parent / "corpus"
VECTORS = ROOT / "tests" / "vectors" / "wire-1"
Shape = tuple[int, int, int]


def add(harness: str, data: bytes) -> None:
    """Put one input into the corpus, by libFuzzer's own kind of name; longer ones than a run takes are left out."""
    if len(data) > 4096:
        return
    folder = CORPUS / harness
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / hashlib.sha1(data).hexdigest()
    if not file.exists():
        file.write_bytes(data)


def decoding(shapes: list[Shape], stream: bytes) -> bytes:
    """Return an input of fuzz_decode."""
    return bytes([len(shapes) - 1]) + b"".join(struct.pack("<HHH", *s) for s in shapes) + stream


def encoding(rows: int, columns: int, index: list[int], value: list[int]) -> bytes:
    """Return an input of fuzz_encode with entries in full."""
    entries = b"".join(struct.pack("<Ii", i, v) for i, v in zip(index, value, strict=True))
    return struct.pack("<BHB", min(rows, 255), columns, 1) + entries


def array(shown: str) -> np.ndarray:
    """Return an array of the vectors: its dtype, then its bytes in hexadecimal."""
    dtype, _, content = shown.partition(" ")
    return np.frombuffer(bytes.fromhex(content), dtype)


def step_of(step: int) -> bytes:
    """Return a step as the harnesses read it: odd mantissa, shift."""
    shift = (step & -step).bit_length() - 1
    return bytes([step >> shift, shift])


def from_coder() -> None:
    """The coder's vectors: streams for the decoder, entries for the encoder."""
    for case in json.loads((VECTORS / "kernels" / "coder.json").read_text()):
        sections = case["sections"]
        if 0 < len(sections) <= 6:
            add("decode", decoding([(s["rows"], s["columns"], len(s["index"])) for s in sections], bytes.fromhex(case["stream"])))
        for s in sections:
            add("encode", encoding(s["rows"], s["columns"], s["index"], s["value"]))


def from_updates() -> None:
    """The streams of the golden updates, as a decoder meets them."""
    schema = manifest.parse_manifest((VECTORS / "updates" / "manifest.bin").read_bytes()).schema
    for file in sorted((VECTORS / "updates").glob("*-*.bin")):
        update = container.parse(file.read_bytes())
        rows = [schema.tensors[e.tensor] for e in update.entries]
        add("decode", decoding([(r.rows, r.columns, e.count) for r, e in zip(rows, update.entries, strict=True)], update.stream))
        for section, row in zip(update.sections(schema), rows, strict=True):
            add("encode", encoding(row.rows, row.columns, section.index.tolist(), section.value.tolist()))


def from_arrays() -> None:
    """The vectors of the lattice and of verbatim tensors."""
    for file in ("lattice.json", "verbatim.json"):
        for case in json.loads((VECTORS / "kernels" / file).read_text()):
            arrays = {name: array(shown) for name, shown in case["before"].items()}
            facts = case["facts"]
            unit = struct.pack("<b", facts.get("exponent", 0))
            step = step_of(facts.get("step", 1))
            if {"base", "q", "index"} <= set(arrays):
                verbatim = int("verbatim" in case["kernel"])
                head = bytes([verbatim]) + unit + step + bytes([min(len(arrays["base"]), 64), len(arrays["index"])])
                add("apply", head + b"".join(arrays[k].tobytes() for k in ("base", "q", "index", "value") if k in arrays))
            if "trained" in arrays and "q" in arrays:
                head = unit + step + b"\0" + struct.pack("<fB", facts.get("threshold", 0.0), len(arrays["w"]))
                base = arrays.get("base", arrays["w"])
                add("snap", head + b"".join(a.tobytes() for a in (base, arrays["q"], arrays["trained"], arrays["residual"])))
            if "q" in arrays:
                add("integrity", step + struct.pack("<BIB", "verbatim" in case["kernel"], 1000, 7) + arrays["q"].tobytes())


def from_planes() -> None:
    """The golden exact updates: the first tensors' bits and planes, behind a base of their size."""
    schema = manifest.parse_manifest((VECTORS / "exact" / "manifest.bin").read_bytes()).schema
    raw, starts = (VECTORS / "exact" / "base.bin").read_bytes(), [0]
    for spec in schema.tensors:
        starts.append(starts[-1] + spec.size * spec.dtype.width)
    for file in sorted((VECTORS / "exact").glob("*-*.bin")):
        for section in container.parse(file.read_bytes()).plane_sections(schema).values():
            width = section.dtype.width
            block = next(planes.blocks(section.planes, section.entries, width))
            changed, packed = block.unpack(width)
            head = struct.pack("<BBHH", section.dtype - 1, 0, section.entries, block.count)
            base = raw[starts[section.tensor] : starts[section.tensor + 1]]
            add("planes", head + base + base[::-1] + changed.tobytes() + packed.tobytes())


def from_heads() -> None:
    """Heads of every loss, optimizer and depth, with features of each type and weights of a usual size."""
    for k in range(9):
        rng = np.random.default_rng(k)
        depth, dtype = k % 3, (0, 8, 16)[k // 3]
        features, outputs, n = 5 + 9 * depth, 2 + k, 6
        hidden = [int(x) for x in rng.integers(1, 20, depth)]
        widths = [features, *hidden, outputs]
        size = sum(widths[i + 1] * (widths[i] + 1) for i in range(depth + 1))
        flags = dtype | (2 if depth else 0) | (4 if depth > 1 else 0)
        settings = [flags, features, outputs, *hidden, k, k, k // 2, k // 3, 3, 5, 2]
        rates = [int(x * 2**31) for x in (0.1, 0.01, 0.001, 0.5, 0.9, 0.99)]
        front = bytes(settings) + struct.pack("<I6I", k, *rates) + bytes([n, 2]) + struct.pack("<I", 2**25)
        x = rng.standard_normal(n * features)
        rows = (x * 40).clip(-128, 127).astype(np.int8) if dtype == 8 else x.astype(np.float16 if dtype == 16 else np.float32)
        labels = rng.integers(0, outputs, n).astype(np.uint32)
        targets, weights = rng.random(n * outputs, np.float32), (rng.standard_normal(size) * 0.3).astype(np.float32)
        add("head", front + b"".join(a.tobytes() for a in (rows, labels, targets, weights)))


def main() -> None:
    """Write every seed that is not there yet."""
    from_coder()
    from_updates()
    from_arrays()
    from_planes()
    from_heads()
    add("integrity", b"123456789")  # the checksum's own test word


if __name__ == "__main__":
    main()
