"""What the installed kernels make of the golden vectors and of a fixed stream of numbers: one SHA-256 each, as JSON.

    python hw/wheels/digests.py

Runs where a wheel is installed, with the tests' vectors beside it. On every processor it must print the same digests; beside them it says
which kernels it has there.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

ROUNDS = 24  # of the fixed stream
LENGTH = 1000


def main() -> None:
    numpy, kernel = import_module("numpy"), import_module("modelwire._core.kernel")
    own = sum(Path(str(path.locate())).stat().st_size for path in metadata.files("edgeagent") or ())
    about = {
        "python": sys.version.split()[0], "numpy": numpy.__version__, "kernels": list(kernel.kernel_names()),
        "bytes": own, "from": kernel.__file__,
    }  # fmt: skip
    print(json.dumps({"about": about, "digests": {**golden_states(), **golden_kernels(), **stream()}}))


def golden_states() -> dict[str, str]:
    """Return a digest of the state after each golden container: every weight, and the root."""
    from tests.modelwire import golden
    from tests.vectors.folder import stored

    states = {f"{folder}/{name}": golden.state_of(folder, name) for folder, name in golden.CASES}
    return {name: sha256(stored(state), state.root) for name, state in states.items()}


def golden_kernels() -> dict[str, str]:
    """Return a digest of what each golden call of a kernel gives, and of its arrays afterwards."""
    from modelwire._core import kernel
    from modelwire.output_head_settings import output_head_settings_of
    from modelwire.wire import cbor
    from tests.modelwire.kernels.test_vectors import adopt, array, snap, vectors

    out = {}
    for n, case in enumerate([*vectors("lattice"), *vectors("verbatim")]):
        arrays = {name: array(shown) for name, shown in case["before"].items()}
        call: Any = {"snap": snap, "adopt": adopt}.get(case["kernel"])
        result = call(kernel, case["facts"], **arrays) if call else getattr(kernel, case["kernel"])(*arrays.values(), **case["facts"])
        seen = result if isinstance(result, list) else [result]
        out[f"kernels/{n}-{case['kernel']}"] = sha256(*(as_bytes(one) for one in seen), *(one.tobytes() for one in arrays.values()))
    for n, case in enumerate(vectors("head")):
        settings = output_head_settings_of(cbor.decode(bytes.fromhex(case["recipe"])))
        features, wanted, weights, slots = (array(shown) for shown in case["before"].values())
        losses = kernel.head_train(settings, features, wanted, weights, slots, scale=case["scale"], step=0, count=settings.steps)
        outputs = kernel.head_infer(settings, features, weights, scale=case["scale"])
        out[f"kernels/head-{n}"] = sha256(*(one.tobytes() for one in (weights, slots, losses, outputs)))
    return out


def stream() -> dict[str, str]:
    """Return a digest of weights, codes and checksums made of one fixed stream of numbers: subnormals and both zeros are among them."""
    import numpy as np

    from modelwire._core import kernel
    from modelwire.limits import Q_MAX
    from tests.crossisa.stream import Stream

    numbers, out = Stream(0x9E3779B97F4A7C15), {}
    for n in range(ROUNDS):
        bits = np.array([numbers.rnd() for _ in range(LENGTH)], np.uint32)
        exponent = int(bits[0] % 41) - 30
        near = (bits & np.uint32(0x807FFFFF)) | ((np.uint32(exponent + 127) - bits % np.uint32(20) + np.uint32(10)) << np.uint32(23))
        base = np.where(bits % 7 == 0, bits & np.uint32(0x807FFFFF), near).astype(np.uint32).view(np.float32)
        q = (np.array([numbers.rnd() for _ in range(LENGTH)], np.int64) % (2 * Q_MAX + 1) - Q_MAX).astype(np.int32)
        w = np.empty_like(base)
        kernel.weights_from_q(base, q, w, exponent=exponent)
        index = np.flatnonzero(bits % 5 == 0).astype(np.uint32)
        value = np.where(q[index] == 0, 1, q[index]).astype(np.int32)
        coded = kernel.encode_sections([(1, LENGTH, index, value)])
        out[f"stream/{n}"] = sha256(w.tobytes(), coded, str(kernel.crc32c(w.tobytes())).encode())
    return out


def as_bytes(value: Any) -> bytes:
    return bytes(value.tobytes()) if hasattr(value, "tobytes") else repr(value).encode()


def sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + bytes(part))
    return digest.hexdigest()


if __name__ == "__main__":
    main()
