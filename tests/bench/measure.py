"""Measures everything of one bench run: speeds, bytes, chains, memory and threads, as ratios, and the keys of bench.json from them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from modelwire.tensors import F32
from tests.bench import chain, ours, rivals, timing, typed
from tests.bench.material import FULL, QUICK, TINY, Case, Size, large_case, small_cases, stored

KEYS = (
    "encode_known_step_over_memcpy", "encode_total_over_memcpy", "encode_topk_over_memcpy", "encode_topk_portable_over_memcpy",
    "apply_1pct_over_memcpy", "apply_01pct_over_memcpy", "numpy_over_encode", "topk_torch_over_encode", "bytes_over_deepcabac",
    "bytes_over_zstd_patch", "chain_percent_float32_mlp", "chain_percent_float32_cnn", "chain_percent_float32_mbn",
    "exact_bytes_over_zstd_patch", "exact_speed_over_zstd_patch", "int8_bytes_over_best", "temp_bytes_per_sent_weight",
    "threads2_speedup",
)  # fmt: skip
EXACT = ("bytes over zstd -3 patch", "times its speed", "encode over memcpy")
INT8 = ("whole container, %", "best of bsdiff4, bitshuffle+zstd, %", "over the best")
Keys = dict[str, float | None]
Kept = list[tuple[list[F32], list[F32]]]


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    size: Size
    seeds: int
    updates: int
    repeats: int
    sweep: tuple[float, ...]  # densities of the chart
    slow_rivals: bool  # those that take seconds to minutes on the MobileNet


FULL_PLAN = Plan(FULL, 3, chain.UPDATES, 7, (0.001, 0.003, 0.0075, 0.015, 0.04), True)
QUICK_PLAN = Plan(QUICK, 1, 5, 5, (0.002, 0.01), False)
TINY_PLAN = Plan(TINY, 1, 2, 2, (0.01, 0.05), True)


@dataclass(frozen=True)
class Row:
    """A name, a value a column (None: not measured), and what is said beside it."""

    name: str
    values: list[float | None]
    note: str = ""


@dataclass
class Report:
    """Everything that one run found."""

    speeds: list[Row] = field(default_factory=list)  # columns: the cases of `speed_cases`, then their geometric mean; times memcpy
    speed_cases: list[str] = field(default_factory=list)
    sizes: list[Row] = field(default_factory=list)  # percent of the file, a column a case
    size_cases: list[str] = field(default_factory=list)
    exact: list[Row] = field(default_factory=list)  # a row a case and float type, columns EXACT
    int8: list[Row] = field(default_factory=list)  # a row a case, columns INT8
    coder: list[Row] = field(default_factory=list)  # bytes of ours over DeepCABAC's, a column a case
    coder_cases: list[str] = field(default_factory=list)
    chains: list[chain.Result] = field(default_factory=list)
    walks: dict[str, float] = field(default_factory=dict)  # net -> apply of a whole chain, an update's share, times memcpy
    patches: dict[str, dict[str, float]] = field(default_factory=dict)  # net -> rival -> percent of float32 an update, freely trained
    sweeps: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)  # net -> (density, percent, loss)
    points: list[tuple[str, float, float]] = field(default_factory=list)  # (method, percent, times memcpy), of the MobileNet
    keys: Keys = field(default_factory=lambda: dict.fromkeys(KEYS))
    notes: list[str] = field(default_factory=list)


def measure(plan: Plan, say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)) -> Report:
    """Return the report of one run."""
    report = Report()
    say("material: training the nets")
    cases = list(small_cases(plan.size))
    large = large_case(plan.size)
    mobile = next(c for c in cases if c.name == "mbn all")
    say("speed")
    measure_speed(report, [mobile, large], plan.repeats)
    say("memory and threads")
    measure_memory(report, large)
    twin = _copy(mobile)
    report.keys["threads2_speedup"] = timing.threads_speedup([_round_trip(mobile), _round_trip(twin)], plan.repeats)
    say("bytes")
    measure_sizes(report, cases, plan.slow_rivals)
    measure_points(report, mobile, plan)
    measure_exact(report, [*cases, large], plan.repeats)
    measure_int8(report, [c for c in cases if c.name.endswith(("all", "chain"))])
    measure_coder(report, [*cases, large])
    measure_chains(report, plan, say)
    report.notes += rivals.missing()
    return report


def measure_speed(report: Report, cases: Sequence[Case], repeats: int) -> None:
    found: dict[str, list[float | None]] = {}
    memory: dict[str, str] = {}
    for case in cases:
        ratios = _speeds(case, repeats)
        thin = ours.Applying(replace(case, density=0.001))
        ratios["apply, 0.1 %"] = _against_memcpy(case, thin.apply, thin.reset, repeats)
        for name, ratio in ratios.items():
            found.setdefault(name, []).append(ratio)
    case = cases[-1]
    for name, call in (
        ("encode with range coder", ours.Encoding(case).encode),
        (rivals.NumpyPipeline.name, rivals.NumpyPipeline().prepare(case)),
        ("apply, 1 %", ours.Applying(case).apply),
    ):
        peak = timing.peak_rss(call)
        said = f", peak of the process +{peak / case.nbytes:.3f}" if peak is not None else ""
        memory[name] = f"temporary memory {timing.temporary_bytes(call) / case.nbytes:.3f} of the model{said}"
    report.speed_cases = [c.name for c in cases]
    report.speeds = [Row(n, [*values, mean(values)], memory.get(n, "")) for n, values in found.items()]
    rows = {row.name: row.values[-1] for row in report.speeds}
    topk = rows["adopt pass, exact count"]
    for key, name in (
        ("encode_known_step_over_memcpy", "adopt pass, known step"),
        ("encode_topk_over_memcpy", "adopt pass, exact count"),
        ("encode_topk_portable_over_memcpy", "adopt pass, exact count, portable C"),
        ("encode_total_over_memcpy", "encode with range coder"),
        ("apply_1pct_over_memcpy", "apply, 1 %"),
        ("apply_01pct_over_memcpy", "apply, 0.1 %"),
    ):
        report.keys[key] = rows.get(name)
    report.keys["numpy_over_encode"] = over(rows[rivals.NumpyPipeline.name], topk)
    report.keys["topk_torch_over_encode"] = over(rows.get(rivals.TorchTopk.name), topk)
    if not ours.compiled():
        report.notes.append("encode_topk_portable_over_memcpy: null, this process runs the numpy kernels")


def _speeds(case: Case, repeats: int) -> dict[str, float]:
    adopting, encoding, applying = ours.Adopting(case), ours.Encoding(case), ours.Applying(case)
    calls = {
        "memcpy": timing.Timed(rivals.Memcpy().prepare(case)),
        "adopt pass, known step": timing.Timed(adopting.known_step, adopting.reset),
        "adopt pass, exact count": timing.Timed(adopting.exact_count, adopting.reset),
        "encode with range coder": timing.Timed(encoding.encode, encoding.reset),
        "apply, 1 %": timing.Timed(applying.apply, applying.reset),
        rivals.NumpyPipeline.name: timing.Timed(rivals.NumpyPipeline().prepare(case)),
    }
    if ours.compiled():

        def in_portable_c() -> None:
            with ours.portable():
                adopting.exact_count()

        calls["adopt pass, exact count, portable C"] = timing.Timed(in_portable_c, adopting.reset)
    if rivals.TorchTopk().available():
        calls[rivals.TorchTopk.name] = timing.Timed(rivals.TorchTopk().prepare(case))
    seconds = timing.fastest(calls, repeats)
    return {name: s / seconds["memcpy"] for name, s in seconds.items() if name != "memcpy"}


def _against_memcpy(case: Case, call: timing.Call, before: timing.Call | None, repeats: int) -> float:
    calls = {"memcpy": timing.Timed(rivals.Memcpy().prepare(case)), "it": timing.Timed(call, before)}
    seconds = timing.fastest(calls, repeats)
    return seconds["it"] / seconds["memcpy"]


def measure_memory(report: Report, case: Case) -> None:
    sent = sum(len(s.index) for s in case.sections())
    report.keys["temp_bytes_per_sent_weight"] = timing.temporary_bytes(ours.Encoding(case).encode) / sent


def measure_sizes(report: Report, cases: Sequence[Case], slow: bool) -> None:
    """Percent of the file: whole signed containers of ours, differences of the rivals; float16 and int8 of the cases of all layers."""
    columns = [(c, "float32") for c in cases] + [(c, d) for c in cases if c.name.endswith("all") for d in ("float16", "int8")]
    report.size_cases = [c.name if d == "float32" else f"{c.name} {d}" for c, d in columns]
    own: list[float | None] = [100 * len(ours.sealed(c, c.sections())) / c.nbytes if d == "float32" else None for c, d in columns]
    report.sizes = [Row("modelwire, whole container", own, "lossy, adopted by the device: compare at equal quality (chains)")]
    for rival in rivals.LOSSLESS:
        if not rival.available():
            continue
        values: list[float | None] = []
        for case, dtype in columns:
            old, new = case.files(dtype)
            width = {"float32": 4, "float16": 2, "int8": 1}[dtype]
            skip = len(new) > rival.most or (not slow and len(new) > 2 << 20) or (isinstance(rival, rivals.ZipNN) and width == 1)
            values.append(None if skip else 100 * rival.encode(old, new, width)[0] / len(new))
        report.sizes.append(Row(rival.name, values))


def measure_exact(report: Report, cases: Sequence[Case], repeats: int) -> None:
    """Exact planes of freely trained floats: bytes of all cases, speed of those of all layers; 16-bit types of those alone."""
    rival = rivals.ZstdPatch3()
    for t in (typed.floats(c, d) for c in cases for d in (typed.FLOATS if c.name.endswith("all") else typed.FLOATS[:1])):
        old, new = t.files()
        source = np.frombuffer(new, np.uint8)
        copy = np.empty_like(source)
        calls = {"memcpy": timing.Timed(lambda: np.copyto(copy, source)), "own": timing.Timed(lambda: typed.planes(t))}  # noqa: B023
        seconds = timing.fastest(calls, repeats)
        size, spent = rival.encode(old, new, t.dtype.width) if rival.available() else (None, None)
        faster = over(spent, seconds["own"]) if t.all_layers else None
        report.exact.append(Row(t.name, [over(typed.exact_bytes(t), size), faster, seconds["own"] / seconds["memcpy"]]))
    report.keys["exact_bytes_over_zstd_patch"] = mean([row.values[0] for row in report.exact])
    report.keys["exact_speed_over_zstd_patch"] = mean([row.values[1] for row in report.exact])


def measure_int8(report: Report, cases: Sequence[Case]) -> None:
    """Every changed code, in whole signed containers, over the better of bsdiff4 and bitshuffle+zstd."""
    for t in map(typed.int8, cases):
        old, new = t.files()
        own = typed.int8_bytes(t)
        sizes = [r.encode(old, new, 1)[0] for r in rivals.INT8 if r.available()]
        best = own / min(sizes) if len(sizes) == len(rivals.INT8) else None
        report.int8.append(Row(t.name, [100 * own / len(new), 100 * min(sizes) / len(new) if sizes else None, best]))
    report.keys["int8_bytes_over_best"] = mean([row.values[2] for row in report.int8])


def measure_points(report: Report, case: Case, plan: Plan) -> None:
    """Speed against bytes of each method, on all layers of the MobileNet."""
    memcpy = timing.fastest({"memcpy": timing.Timed(rivals.Memcpy().prepare(case))}, plan.repeats)["memcpy"]
    for density in (0.001, 0.01, 0.1):
        at = replace(case, density=density)
        encoding = ours.Encoding(at)
        ratio = _against_memcpy(at, encoding.encode, encoding.reset, max(3, plan.repeats // 3))
        report.points.append((f"modelwire {100 * density:g} %", 100 * len(ours.payload(at, at.sections())) / case.nbytes, ratio))
    old, new = case.files()
    for rival in rivals.LOSSLESS:
        if rival.available() and len(new) <= rival.most and (plan.slow_rivals or len(new) <= 2 << 20):
            size, seconds = rival.encode(old, new, 4)
            # A clock tick is the least that a clock can tell.
            report.points.append((rival.name, 100 * size / len(new), max(seconds, 1e-6) / memcpy))


def measure_coder(report: Report, cases: Sequence[Case]) -> None:
    report.coder_cases = [c.name for c in cases]
    rival = rivals.DeepCabac()
    if not rival.available():
        return
    ratios: list[float | None] = []
    speeds: list[float | None] = []
    for case in cases:
        sections = case.sections()
        size, seconds = rival.encode(case, sections)
        own = timing.fastest({"own": timing.Timed(lambda: ours.payload(case, sections))}, 3)["own"]  # noqa: B023
        ratios.append(len(ours.payload(case, sections)) / size)
        speeds.append(seconds / own)
    report.coder = [Row("bytes over DeepCABAC", ratios), Row("times its speed", speeds)]
    report.keys["bytes_over_deepcabac"] = mean(ratios)


def measure_chains(report: Report, plan: Plan, say: Callable[[str], None]) -> None:
    ratios: list[float | None] = []
    for short, recipe in (("mlp", plan.size.dense), ("cnn", plan.size.conv), ("mbn", plan.size.mobile)):
        kept: Kept = []
        runs = []
        for seed in range(plan.seeds):
            say(f"chain of {plan.updates} updates: {short}, seed {seed}")
            runs.append(chain.chain(recipe, seed, chain.DENSITY, updates=plan.updates, watch=_keep(kept, max(1, plan.updates // 2))))
        result = chain.result_of(short, runs)
        report.walks[short] = _walk(runs[0], plan.repeats)
        report.chains.append(result)
        percent = 100 * result.bytes / runs[0].schema.nbytes
        report.keys[f"chain_percent_float32_{short}"] = percent
        old, new = (stored(flat, flat, "float32") for flat in kept[0])
        patches = {}
        for rival in rivals.LOSSLESS:
            wanted = plan.slow_rivals or len(new) <= 2 << 20 or isinstance(rival, rivals.ZstdPatch19)
            if rival.available() and len(new) <= rival.most and wanted:
                patches[rival.name] = 100 * rival.encode(old, new, 4)[0] / len(new)
        report.patches[short] = patches
        ratios.append(over(percent, patches.get(rivals.ZstdPatch19.name)))
        if short == "mlp":
            sweep = []
            for density in plan.sweep:
                say(f"chart: {short}, density {100 * density:g} %")
                given = density == chain.DENSITY
                at = runs if given else [chain.chain(recipe, s, density, updates=plan.updates) for s in range(plan.seeds)]
                one = chain.result_of(short, at)
                sweep.append((density, 100 * one.bytes / at[0].schema.nbytes, one.loss))
            report.sweeps[short] = sweep
    report.keys["bytes_over_zstd_patch"] = mean(ratios)


def _keep(kept: Kept, which: int) -> chain.Watch:
    """Return what keeps the freely trained weights around update `which` of the first chain that it watches."""

    def watch(version: int, before: list[F32], after: list[F32], container: bytes) -> None:
        if version == which and not kept:
            kept.append((before, after))

    return watch


def _walk(course: chain.Course, repeats: int) -> float:
    walking = ours.ApplyingChain(course.base, course.sealed)
    source = np.concatenate(course.base.weights)
    copy = np.empty_like(source)
    calls = {
        "memcpy": timing.Timed(lambda: np.copyto(copy, source)),
        "walk": timing.Timed(walking.apply, walking.reset),
    }
    seconds = timing.fastest(calls, repeats)
    return seconds["walk"] / len(course.sealed) / seconds["memcpy"]


def _round_trip(case: Case) -> timing.Call:
    """Return what a device and the centre do with one model: encode, apply, and take it back."""
    encoding, applying = ours.Encoding(case), ours.Applying(case)

    def call() -> None:
        encoding.again()
        applying.apply()
        applying.reset()

    return call


def mean(values: Sequence[float | None]) -> float | None:
    """Return the geometric mean of those that are there, None of none."""
    there = [v for v in values if v is not None]
    return math.exp(float(np.mean(np.log(there)))) if there else None


def over(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b is not None else None


def _copy(case: Case) -> Case:
    """Return the same case in memory of its own."""
    return replace(case, state=case.state.copy(), trained=[a.copy() for a in case.trained], residual=[a.copy() for a in case.residual])
