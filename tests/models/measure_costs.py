"""Measures what grafted files take to train, beside what was foretold: time, memory, and how a step compares with evaluation and inference.

    python -m tests.models.measure_costs FOLDER [FOLDER ...]

Each file and cut runs in a process of its own, so that its memory is its own. Times are thread-CPU time, the minimum of many; what is
compared with each other ran in the same process, in turns. A figure of this script is never a test: machines are busy.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgecloud.graft.costs import cost, machine_rate
from edgecloud.graft.grafting import Wish, graft
from edgecommon.runtime import interpreter_for, load
from modelwire.errors import ModelWireError

CUTS = ("head", "last:3", "all")
BATCH = 16
SECONDS = 1.0  # of measuring in turns
LIMIT = 120.0  # seconds that one file and cut may take
LARGEST = 32 << 20  # bytes of a stock file that is measured: larger ones take minutes a step


def measured(files: Sequence[Path], cuts: Sequence[str] = CUTS) -> dict[str, Any]:
    """Return the figures over all files that can be grafted, and the single `pairs` of file and cut behind them.

    step_over_eval_median and eval_over_inference_median are over cuts that train all layers; peak_foretold_share is of the pairs whose
    memory was foretold within 1/1.5 to 1.5 of what was measured, ms_foretold_share of those whose time was within a factor of 2. Of what
    was not measured the figure is None.
    """
    rate = machine_rate(0.5)
    pairs = [pair for path in files for pair in _pairs(path, cuts, rate)]
    deep = [p for p in pairs if p["deepest"]]

    def share(within: Callable[[dict[str, Any]], bool]) -> float | None:
        return round(sum(map(within, pairs)) / len(pairs), 3) if pairs else None

    return {
        "step_over_eval_median": round(median(p["step_ms"] / p["eval_ms"] for p in deep), 3) if deep else None,
        "eval_over_inference_median": round(median(p["eval_ms"] / p["inference_ms"] for p in deep), 3) if deep else None,
        "peak_foretold_share": share(lambda p: 1 / 1.5 <= p["peak_foretold"] / p["peak"] <= 1.5),
        "ms_foretold_share": share(lambda p: 0.5 <= p["ms_foretold"] / p["step_ms"] <= 2),
        "pairs": pairs,
    }


def _pairs(path: Path, cuts: Sequence[str], rate: float) -> Iterator[dict[str, Any]]:
    stock, seen = path.read_bytes(), set[bytes]()
    if len(stock) > LARGEST:
        return
    for cut in reversed(cuts):  # the deepest first: what fails there is often right further down
        try:
            made = graft(stock, Wish(train=(cut,), batch=BATCH, model=path.stem))
        except ModelWireError:
            continue
        if made.file in seen:
            continue
        seen.add(made.file)
        found = _in_child(stock, made.file)
        if found is not None:
            taken = cost(made.graphs[made.modes[-1].name])
            foretold = {"peak_foretold": taken.process_bytes, "ms_foretold": taken.milliseconds(rate)}
            yield {"file": path.stem, "folder": path.parent.name, "cut": cut, "deepest": cut == "all", **found, **foretold}


def _in_child(stock: bytes, trainable: bytes) -> dict[str, float] | None:
    """Return what was measured in a process of its own; None where the runtime can't run it or takes too long."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("stock.tflite", "trainable.tflite")]
        for path, data in zip(paths, (stock, trainable), strict=True):
            path.write_bytes(data)
        command = [sys.executable, "-m", "tests.models.measure_costs", "--one", *map(str, paths)]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True, cwd=Path(__file__).parents[2])
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
            return None
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def _one(stock: Path, trainable: Path) -> dict[str, float]:
    runtime = load()
    before = _peak()
    ours = interpreter_for(runtime.interpreter, trainable, delegates=True)
    step = _call(ours, "train")
    step()
    step()
    after = _peak()
    theirs = interpreter_for(runtime.interpreter, stock, delegates=True)
    for detail in theirs.get_input_details():
        theirs.set_tensor(detail["index"], _noise(tuple(detail["shape"])).astype(detail["dtype"]))
    # One inference of a small net is less than the clock can tell: they are measured by the batch.
    runs = {"step_ms": step, "eval_ms": _call(ours, "eval"), "inference_ms": lambda: [theirs.invoke() for _ in range(BATCH)]}
    best, end = dict.fromkeys(runs, float("inf")), time.monotonic() + SECONDS
    for run in runs.values():
        run()
    turns = 0
    while turns < 3 or time.monotonic() < end:
        for name, run in runs.items():
            start = time.thread_time()
            run()
            best[name] = min(best[name], 1e3 * max(time.thread_time() - start, 1e-6))
        turns += 1
    return {"peak": after - before, **best}


def _call(interpreter: Any, signature: str) -> Callable[[], object]:
    runner = interpreter.get_signature_runner(signature)
    given: dict[str, Any] = {}
    for name, detail in runner.get_input_details().items():
        value = _noise(tuple(detail["shape"]))
        if name == "y":
            value = (value == value.max(-1, keepdims=True)).astype(np.float32)
        given[name] = np.float32(1e-6) if name == "lr" else value.astype(detail["dtype"])
    return lambda: runner(**given)


def _noise(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _peak() -> int:
    """Return the most bytes that this process ever had in memory; not of the process that started it, as getrusage has it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def main(given: Sequence[str]) -> None:
    if given[0] == "--one":
        print(json.dumps(_one(Path(given[1]), Path(given[2]))))
        return
    files = sorted(path for folder in given for path in Path(folder).rglob("*.tflite"))
    found = measured(files)
    for p in found.pop("pairs"):
        ratios = f"step/eval {p['step_ms'] / p['eval_ms']:.2f}, eval/inference {p['eval_ms'] / p['inference_ms']:.2f}"
        memory = f"{p['peak'] / 2**20:.1f} MiB (foretold {p['peak_foretold'] / 2**20:.1f})"
        print(f"{p['folder']}/{p['file']} {p['cut']}: {p['step_ms']:.3g} ms (foretold {p['ms_foretold']:.3g}), {memory}, {ratios}")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
