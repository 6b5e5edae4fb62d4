"""Makes the golden vectors of the kernels with the numpy twin. Files are only ever added: one that exists is left alone.

    python tests/vectors/wire-1/kernels/make.py
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[3]))

from modelwire import _reference as twin  # noqa: E402
from modelwire._reference import coder as twin_coder  # noqa: E402
from modelwire.errors import Malformed  # noqa: E402
from modelwire.output_head_settings import Activation, Loss, Optimizer, OutputHeadSettings, Schedule  # noqa: E402
from modelwire.wire import cbor  # noqa: E402

Case = dict[str, Any]


def shown(array: Any) -> str:
    """Return an array as its dtype and its little-endian bytes in hexadecimal."""
    return f"{array.dtype.name} {array.tobytes().hex()}"


def call(name: str, arrays: dict[str, Any], facts: Case) -> Case:
    """Return one call as a vector: the arrays before and after, the facts, and what came back."""
    before = {n: shown(a) for n, a in arrays.items()}
    result = getattr(twin, name)(*arrays.values(), **facts)
    if isinstance(result, tuple):
        result = [shown(r) if isinstance(r, np.ndarray) else r for r in result]
    after = {n: shown(a) for n, a in arrays.items() if shown(a) != before[n]}
    return {"kernel": name, "before": before, "facts": facts, "result": result, "after": after}


def tensor(seed: int, exponent: int, n: int = 40) -> tuple[Any, Any, Any]:
    """Return base, w and q with awkward bases among ordinary ones."""
    rng = np.random.default_rng(seed)
    unit = np.float32(2.0**exponent)
    base = (rng.standard_normal(n).astype(np.float32) * np.float32(2.0**12)) * unit
    q = rng.integers(-(2**14), 2**14, n).astype(np.int32)
    q[rng.random(n) < 0.4] = 0
    q[:4] = [0, 5, 0, -7]
    base[:4] = np.array([0x80000000, 0x80000000, 0x807FFFFF, 0x00000001], np.uint32).view(np.float32)
    q[4], base[4] = 1234, np.float32(-1234) * unit  # cancels exactly
    w = np.empty_like(base)
    twin.weights_from_q(base, q, w, exponent=exponent)
    return base, w, q


def lattice() -> list[Case]:
    cases = []
    for seed, (exponent, step) in enumerate([(-14, 96), (-96, 255 << 3), (100, 1), (0, 1 << 12)]):
        base, w, q = tensor(seed, exponent)
        rng = np.random.default_rng(100 + seed)
        size = np.float32(step) * np.float32(2.0**exponent)
        trained = w + (rng.standard_normal(len(w)).astype(np.float32) * size)
        residual = ((rng.standard_normal(len(w)).astype(np.float32) * size / np.float32(4)).view(np.uint32) >> 16).astype(np.uint16)
        facts: Case = {"exponent": exponent, "step": step}
        cases.append(call("differences", {"w": w, "trained": trained, "residual": residual, "out": np.zeros_like(w)}, {}))
        # What is sent and adopted of a tensor was a kernel of its own ("snap", "adopt") when lattice.json was made.
        round_ = twin.Round(
            [base], [w.copy()], [q.copy()], [trained], [residual], [residual.copy()],
            exponents=[exponent], kinds=[0], dtypes=[1], starts=[0],
        )  # fmt: skip
        index, value, *_ = round_.adopt_known(steps=[step], thresholds=[float(np.float32(0.6) * size)])
        entries = {"index": index, "value": value}
        cases.append(call("apply_lattice", {"base": base, "w": w.copy(), "q": q.copy(), **entries}, facts))
        cases.append(call("weights_from_q", {"base": base, "q": q, "w": np.zeros_like(w)}, {"exponent": exponent}))
        cases.append(call("q_from_weights", {"base": base, "w": w, "q": np.zeros_like(q)}, {"exponent": exponent}))
        cases.append(call("fingerprint", {"q": q}, {"start": 1000 * seed, "verbatim": False}))
        cases.append(call("fingerprint_sparse", entries, {"step": step, "start": 1000 * seed, "verbatim": False}))
    return cases


def verbatim() -> list[Case]:
    rng = np.random.default_rng(7)
    base = rng.random(12).astype(np.float32).view(np.uint32)
    new = rng.random(12).astype(np.float32)
    new[:3] = [-0.0, 1e-42, 3e38]
    w, q = base.copy(), np.zeros(12, np.int32)
    index = np.arange(12, dtype=np.uint32)
    value = (new.view(np.uint32) - w).view(np.int32)
    cases = [call("apply_verbatim", {"base": base, "w": w, "q": q, "index": index, "value": value}, {})]
    cases.append(call("fingerprint", {"q": q}, {"start": 3, "verbatim": True}))
    cases.append(call("fingerprint_sparse", {"index": index, "value": value}, {"step": 1, "start": 3, "verbatim": True}))
    return cases


def checksum() -> list[Case]:
    texts = [b"", b"123456789", bytes(32), bytes(range(256))]
    return [{"data": text.hex(), "crc32c": twin.crc32c(text)} for text in texts]


def coder() -> list[Case]:
    rng = np.random.default_rng(11)

    def clustered(rows: int, columns: int, share: float, spread: int) -> tuple[int, int, Any, Any]:
        chance = rng.random((rows, 1)) ** 3 * rng.random((1, columns)) ** 3 * share
        index = np.flatnonzero(rng.random((rows, columns)) < chance).astype(np.uint32)
        value = rng.integers(1, spread + 1, len(index)) * rng.choice([-1, 1], len(index))
        return rows, columns, index, value.astype(np.int32)

    ends = np.array([1, -1, 4, 5, -5, 6, 2**22, -(2**22), 2**31 - 1, -(2**31)], np.int32)
    streams: dict[str, list[tuple[int, int, Any, Any]]] = {
        "no section": [],
        "an empty section": [(7, 5, np.zeros(0, np.uint32), np.zeros(0, np.int32))],
        "one entry": [(1, 1, np.zeros(1, np.uint32), np.full(1, -3, np.int32))],
        "the last of many": [(100, 100, np.full(1, 9999, np.uint32), np.ones(1, np.int32))],
        "a full row with the ends of the range": [(1, 10, np.arange(10, dtype=np.uint32), ends)],
        "one column": [clustered(300, 1, 1.0, 2)],
        "a delta of three tensors": [clustered(64, 256, 0.2, 2), clustered(1, 128, 2.0, 3), clustered(128, 10, 1.0, 2)],
        "a dense section of large values": [clustered(20, 33, 1e9, 2**20)],
    }
    return [
        {
            "what": what,
            "sections": [{"rows": r, "columns": c, "index": i.tolist(), "value": v.tolist()} for r, c, i, v in sections],
            "stream": twin.encode_sections(sections).hex(),
        }
        for what, sections in streams.items()
    ]


def refused() -> list[Case]:
    """Streams that every reader refuses, whatever the entries: what it is told to expect, and why it refuses."""
    large = np.array([10**9 + i for i in range(8)], np.int32)
    good = twin.encode_sections([(1, 8, np.arange(8, dtype=np.uint32), large)])
    short = "the bytes end too early"
    longer = "there are more bytes than needed"
    damaged = "no encoder writes these bytes"
    return [
        {"what": what, "rows": 1, "columns": columns, "count": count, "stream": stream.hex(), "reason": reason}
        for what, columns, count, stream, reason in [
            ("the number that halving an odd range for a raw bit leaves over", 8, 8, odd_one_out(large), damaged),
            ("the number behind the whole range", 8, 8, b"\xff" * 4 + good[4:], damaged),
            ("a stream cut by five bytes", 8, 8, good[:-5], short),
            ("a zero byte that could be left off", 8, 8, good + b"\0", longer),
            ("bytes behind the end", 8, 8, good + bytes(8) + b"\1", longer),
            ("a number other than the roundest", 8, 8, not_the_roundest(good), damaged),
            ("plus 2^31", 1, 1, one_value(0, 2**31), damaged),
            ("2^31 + 1 below zero", 1, 1, one_value(1, 2**31 + 1), damaged),
            ("bytes for a section without entries", 8, 0, b"\0\0\0\0\1", longer),
        ]
    ]


def odd_one_out(values: Any) -> bytes:
    """Return the stream of the number that no raw bit uses, at the first range that is odd; what follows may be anything."""

    class Odd(twin_coder._Writer):
        spoilt: tuple[bytes, int] | None = None

        def raw(self, bits: int, count: int) -> int:
            for place in reversed(range(count)):
                if self.width % 2 and not self.spoilt:
                    self.spoilt = (bytes(self.bytes), self.low + self.width - 1)
                super().raw(bits >> place & 1, 1)
            return bits & ((1 << count) - 1)

    out = Odd()
    twin_coder._walk(out, twin_coder._Model(), 1, len(values), len(values), dict(enumerate(values.tolist())))
    assert out.spoilt
    settled, number = out.spoilt
    number += int.from_bytes(settled, "big") << 32
    return number.to_bytes(len(settled) + 4, "big") + b"\1" * 4


def one_value(negative: int, magnitude: int) -> bytes:
    """Return the stream of one value, which need not be an int32, in a section of one entry."""
    out, model = twin_coder._Writer(), twin_coder._Model()
    out.code(model.sign[0][0], negative)
    for p in model.more:
        out.code(p, 1)
    twin_coder._golomb(out, model, magnitude - twin_coder.ESCAPE)
    return out.finish()


def not_the_roundest(stream: bytes) -> bytes:
    """Return a longer stream of the same entries: a number beside the roundest of the last range."""
    for tail in range(1, 256):
        longer = stream + bytes([tail])
        with contextlib.suppress(Malformed):
            twin.decode_sections(longer, [(1, 8, 8)])
            raise AssertionError("a longer stream was taken")
        reader = twin_coder._Reader(longer)
        twin_coder._walk(reader, twin_coder._Model(), 1, 8, 8, None)
        if reader.used >= len(longer):
            return longer
    raise AssertionError("there is no room beside the roundest")


def head() -> list[Case]:
    adam = {"optimizer": Optimizer.ADAM, "rate": 0.01}
    recipes = [
        OutputHeadSettings(50, 10, 300, schedule=Schedule.LINEAR, rate=0.5, rate_end=0.01, decay=1e-3, seed=2**64 - 1),
        OutputHeadSettings(21, 7, 40, (19,), Activation.TANH, Loss.SOFTMAX, Optimizer.MOMENTUM, Schedule.STAIRS, batch=8, every=7, seed=1),
        OutputHeadSettings(16, 5, 40, (17, 12), Activation.RELU, Loss.MSE, batch=16, **adam),
        OutputHeadSettings(33, 3, 40, loss=Loss.LOGISTIC, batch=5, **adam),
    ]
    cases = []
    for seed, (recipe, n, dtype) in enumerate(zip(recipes, (100, 37, 33, 12), ("float32", "int8", "float16", "int8"), strict=True)):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal(n * recipe.features)
        features = (x * 40).clip(-128, 127).astype(np.int8) if dtype == "int8" else x.astype(dtype)
        targets = rng.random(n * recipe.outputs, np.float32)
        wanted: Any = rng.integers(0, recipe.outputs, n).astype(np.uint32) if recipe.loss is Loss.SOFTMAX else targets
        weights = (rng.standard_normal(recipe.size) * 0.3).astype(np.float32)
        weights[:3] = [-0.0, 1e-45, -1e-39]
        arrays = {"features": features, "wanted": wanted, "weights": weights, "slots": np.zeros(recipe.slots * recipe.size, np.float32)}
        before = {name: shown(a) for name, a in arrays.items()}
        losses = twin.head_train(recipe, *arrays.values(), scale=0.03125, step=0, count=recipe.steps)
        outputs = twin.head_infer(recipe, features, weights, scale=0.03125)
        after = {"weights": shown(weights), "slots": shown(arrays["slots"]), "losses": shown(losses), "outputs": shown(outputs)}
        cases.append({"recipe": cbor.encode(recipe.as_value()).hex(), "scale": 0.03125, "before": before, "after": after})
    return cases


def main() -> None:
    for make in (lattice, verbatim, checksum, coder, refused, head):
        path = FOLDER / f"{make.__name__}.json"
        if path.exists():
            print(f"{path.name} is there already and stays as it is")
            continue
        lines = ",\n".join(json.dumps(case) for case in make())
        path.write_text(f"[\n{lines}\n]\n")
        print(f"{path.name} added")


if __name__ == "__main__":
    main()
