"""Damaged model files: what a graft makes of each either runs, or is refused by a named error, within bounds of time and memory.

    python -m tests.edgecloud.graft.mutants --count 2000        prints how they came out, and the seed of each that is broken

A mutant is a stock file of the tests with bytes flipped, fields spliced, shapes edited, or indices of tensors, operators and buffers
swapped. Each is tried in a process of its own, so that a crash of the runtime is seen.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import random
import resource
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecloud.graft.grafting import Grafted, Wish, graft
from edgecloud.graft.inspecting import look
from edgecommon import runtime
from modelwire.errors import ModelWireError
from modelwire.tflite import file as tflite_file
from modelwire.tflite.flatbuffer import U32, File, Table

MODELS = Path(__file__).parents[2] / "models"
SIZE_MAX = 80_000  # bytes of a file that is mutated: what a mutation hits is then structure as often as weights
# What looking at one mutant may take. Files here are up to 80 kB; a limit on address space counts what numpy reserves too.
SECONDS, MEMORY = 20.0, 512 << 20  # of processor time, which other programs take nothing of
RUN_SECONDS = 60.0  # of a graft that was made: its operators may be as long as shapes of a mutant say
DIMENSIONS = (-1, 0, 1, 2, 3, 5, 7, 64, 1000, 65_536, 1 << 20, (1 << 31) - 1)
RUNS, REFUSED, STOCK_FAILS, BROKEN = "runs", "refused", "stock fails", "broken"


@dataclass(frozen=True, slots=True)
class Came:
    """How one mutant came out."""

    seed: int
    source: str
    how: str  # RUNS, REFUSED, STOCK_FAILS: the runtime runs the mutant itself no better; or BROKEN
    why: str
    seconds: float = 0.0
    memory: int = 0  # bytes resident at most beyond what was before, of looking and grafting


@functools.cache
def sources() -> tuple[tuple[str, bytes], ...]:
    """Return the names and bytes of the files that are mutated: the layer files and small stock files of the tests."""
    folders = [f for f in MODELS.iterdir() if f.is_dir() and f.name not in ("data", "stories")]
    paths = sorted(p for folder in folders for p in folder.glob("*.tflite") if p.stat().st_size <= SIZE_MAX)
    return tuple((p.stem, p.read_bytes()) for p in paths)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the structure of a file lies: first bytes of its 4-byte fields by what they are."""

    shapes: tuple[int, ...]
    indices: tuple[int, ...]  # of tensors that operators, inputs and outputs name
    buffers: tuple[int, ...]  # that tensors name
    codes: tuple[int, ...]  # that operators name
    counts: tuple[int, ...]  # in front of vectors
    read: tuple[tuple[int, int], ...]  # spans of all that a reader looks at


@functools.cache
def places(data: bytes) -> Places:
    """Return where what a mutation may hit lies in a sound file."""
    file = File(memoryview(data), what="a source", entries=len(data))
    root = file.root(b"TFL3")
    shapes, indices, buffers, codes, counts = ([0] * 0 for _ in range(5))

    def entries(table: Table, number: int, into: list[int]) -> None:
        v = table.vector(number, 4)
        if v.count:
            counts.append(v.start - 4)
            into += range(v.start, v.start + 4 * v.count, 4)

    def field(table: Table, number: int, into: list[int]) -> None:
        if (at := table.field(number, 4)) is not None:
            into.append(at)

    for graph in root.tables(2):
        for number in (1, 2):
            entries(graph, number, indices)
        for t in graph.tables(0):
            entries(t, 0, shapes)
            entries(t, 7, shapes)
            field(t, 2, buffers)
        for op in graph.tables(3):
            entries(op, 1, indices)
            entries(op, 2, indices)
            field(op, 0, codes)
    for t in root.tables(4):
        v = t.vector(0, 1)
        if v.count:
            counts.append(v.start - 4)
    pairs = iter(file.spans)
    read = tuple(zip(pairs, pairs, strict=True))
    return Places(tuple(shapes), tuple(indices), tuple(buffers), tuple(codes), tuple(counts), read)


def mutant(seed: int) -> tuple[str, bytes]:
    """Return the name of the source and the bytes of a mutant: the same for a seed, whatever the machine."""
    rng = random.Random(seed)
    name, whole = sources()[rng.randrange(len(sources()))]
    at, data = places(whole), bytearray(whole)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(_KINDS)(rng, data, at)
    return name, bytes(data)


def _flips(rng: random.Random, data: bytearray, at: Places) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        first, end = rng.choice(at.read) if rng.random() < 0.8 else (0, len(data))
        data[rng.randrange(first, max(first + 1, end))] ^= 1 << rng.randrange(8)


def _shape(rng: random.Random, data: bytearray, at: Places) -> None:
    place = rng.choice(at.shapes or at.indices)
    old = int.from_bytes(data[place : place + 4], "little", signed=True)
    new = rng.choice((*DIMENSIONS, old + 1, 2 * old, old - 1))
    data[place : place + 4] = (new & 0xFFFFFFFF).to_bytes(4, "little")


def _index(rng: random.Random, data: bytearray, at: Places) -> None:
    kind = rng.choice((at.indices, at.indices, at.buffers, at.codes))
    if kind:
        place = rng.choice(kind)
        new = rng.choice((U32.unpack_from(data, rng.choice(kind))[0], rng.randrange(64), 0xFFFFFFFF))
        data[place : place + 4] = int(new).to_bytes(4, "little")


def _splice(rng: random.Random, data: bytearray, at: Places) -> None:
    every = (*at.shapes, *at.indices, *at.buffers, *at.codes, *at.counts)
    to, source = rng.choice(every), rng.choice(every)
    data[to : to + 4] = data[source : source + 4]


def _count(rng: random.Random, data: bytearray, at: Places) -> None:
    place = rng.choice(at.counts)
    old = U32.unpack_from(data, place)[0]
    data[place : place + 4] = int(rng.choice((0, 1, max(0, old - 1), old // 2, old + 1, 0x7FFFFFFF))).to_bytes(4, "little")


_KINDS: tuple[Callable[[random.Random, bytearray, Places], None], ...] = (_flips, _flips, _shape, _shape, _index, _index, _splice, _count)


def tried(seed: int) -> Came:
    """Return how the mutant of a seed came out. Forks: for a process without threads."""
    name, data = mutant(seed)
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(heard)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            _in_child(data, told)
        finally:
            os._exit(0)
    os.close(told)
    lines = _lines(heard, SECONDS + RUN_SECONDS + 20)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    said: dict[str, str] = {}
    for line in lines:
        said |= json.loads(line)
    seconds, memory = float(said.get("seconds", 0)), int(said.get("memory", 0))
    how, why = said.get("how", ""), said.get("why", "")
    if not how:  # it ended before it said how: in the runtime, or before
        ended = f"ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "ended"
        stage = said.get("stage", "graft")
        how, why = (STOCK_FAILS if stage == "stock" else BROKEN), f"{stage}: {ended}"
    return Came(seed, name, how, why, seconds, memory)


def _lines(heard: int, seconds: float) -> list[str]:
    until, said = time.monotonic() + seconds, b""
    while (left := until - time.monotonic()) > 0 and select.select([heard], [], [], left)[0]:
        part = os.read(heard, 65536)
        if not part:
            break
        said += part
    os.close(heard)
    return [line for line in said.decode().split("\n")[:-1] if line]


def _in_child(data: bytes, told: int) -> None:
    """Look at a mutant, graft it, and run what was made; each stage is told before it begins."""

    def say(**what: object) -> None:
        os.write(told, json.dumps({k: str(v) for k, v in what.items()}).encode() + b"\n")

    def late(_signal: int, _frame: object) -> None:
        raise TimeoutError

    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.RLIM_INFINITY))
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident()
    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    made: dict[str, bytes] = {}
    like: dict[str, bytes] = {}  # the stock file behind one input, which infer must equal
    reasons: list[str] = []
    try:
        for mode in ("head", "all"):
            for call in (lambda m=mode: graft(data, Wish(train=(m,), batch=2)), lambda: tflite_file.read_head(data)):
                try:
                    result = call()
                except ModelWireError as error:
                    reasons.append(f"{type(error).__name__}: {error}"[:300])
                else:
                    if isinstance(result, Grafted):
                        made[mode], like[mode] = result.file, result.stock.data
        with contextlib.suppress(ModelWireError):
            look(data, Wish(batch=2), rate=1e9)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the finding
        signal.setitimer(signal.ITIMER_PROF, 0)
        say(how=BROKEN, why=f"unnamed {error!r}"[:300], seconds=time.process_time(), memory=_resident() - before)
        return
    say(seconds=time.process_time(), memory=_resident() - before)
    signal.setitimer(signal.ITIMER_PROF, 0)
    if not made:
        say(how=REFUSED, why=reasons[0] if reasons else "")
        return
    signal.alarm(int(RUN_SECONDS))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _run(data, made, like, say)


def _resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _run(data: bytes, made: dict[str, bytes], like: dict[str, bytes], say: Callable[..., None]) -> None:
    """Run the mutant itself, and then each graft of it: opened, infer equal to the bit, two steps."""
    installed = runtime.load()
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.RLIM_INFINITY))
    say(stage="stock")
    try:
        stock = runtime.interpreter_for(installed.interpreter, data, delegates=False)
        given = [_some(d) for d in stock.get_input_details()]
        _outputs(stock, given)
    except (*runtime.FAILURES, TypeError) as error:
        say(how=STOCK_FAILS, why=error)
        return
    for mode, file in made.items():
        say(stage=f"run {mode}")
        try:
            opened = installed.open(file, delegates=False)
            x = np.zeros((opened.batch, *opened.input_shape), np.float32)
            y = opened.evaluate(x)
            for _ in range(2):
                opened.train(x, y, 0.0)
            plain = runtime.interpreter_for(installed.interpreter, like[mode], delegates=False)
            given = [_some(d) for d in plain.get_input_details()]
            expected = _outputs(plain, given)
            got = _outputs(runtime.interpreter_for(installed.interpreter, file, delegates=False), given)
        except (ModelWireError, *runtime.FAILURES, TypeError) as error:
            if type(error).__name__ == "TrainingDiverged":
                continue
            say(how=BROKEN, why=f"{mode}: {error}"[:400])
            return
        if not set(expected) <= set(got):
            say(how=BROKEN, why=f"{mode}: infer gives other bits than the file")
            return
    say(how=RUNS, why="")


def _some(detail: Mapping[str, Any]) -> NDArray[Any]:
    shape, dtype = tuple(int(n) for n in detail["shape"]), np.dtype(detail["dtype"])
    value = np.random.default_rng(0).standard_normal(shape)
    return value.astype(dtype) if dtype.kind == "f" else np.ones(shape, dtype)


def _outputs(interpreter: Any, given: list[NDArray[Any]]) -> list[bytes]:
    for detail, value in zip(interpreter.get_input_details(), given, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return [np.asarray(interpreter.get_tensor(d["index"])).tobytes() for d in interpreter.get_output_details()]


def every(count: int, first: int = 0) -> Iterator[Came]:
    """Yield how the mutants of `count` seeds came out."""
    runtime.load()  # once, before the forks
    sources()
    for seed in range(first, first + count):
        yield tried(seed)


def main() -> None:
    parser = argparse.ArgumentParser(description="Try damaged model files.")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    counted: Counter[str] = Counter()
    slowest, largest = 0.0, 0
    for came in every(args.count, args.first):
        counted[came.how] += 1
        slowest, largest = max(slowest, came.seconds), max(largest, came.memory)
        if came.how == BROKEN or came.memory > 100 << 20 or came.seconds > SECONDS / 2:
            print(came, flush=True)
    print(dict(counted), f"slowest {slowest:.2f} s, largest {largest / 2**20:.0f} MiB", file=sys.stderr)


if __name__ == "__main__":
    main()
