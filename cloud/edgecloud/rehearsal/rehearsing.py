"""Rehearses a file, each of its modes in a process of its own, and gathers what was found."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelwire.errors import ModelWireError
from modelwire.tflite.notes import Mode, notes_of

from .limited import Ended, RehearsalLimits, told_by

_MARGIN = 20.0  # seconds for a process to start and to load the runtime, on a machine that does other things


@dataclass(frozen=True, slots=True)
class ModeRun:
    """How one mode ran. Times are medians on this machine; 0 for what was not reached."""

    mode: str
    signature: str
    reason: str = ""  # what failed, with the operator where the runtime names it; "" when all passed
    stage: str = "start"  # the last that was begun
    delegate: str = ""  # which kernels computed: xnnpack, plain or unknown
    fallback: str = ""  # why the default delegate was left out
    losses: tuple[float, ...] = ()  # at the suggested rate, step by step, on made-up samples
    falls: bool | None = None  # whether the loss fell at the suggested rate; None: not tried
    learning_rate: float = 0.0  # suggested; 0: none was found
    rates_cut: bool = False  # the range test ran out of its time
    infer_ms: float = 0.0
    eval_ms: float = 0.0  # a whole batch
    step_ms: float = 0.0  # a whole batch
    memory: int = 0  # bytes resident at most beyond the bare runtime, open and training; of an int8 classifier, running

    @property
    def passed(self) -> bool:
        return not self.reason


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What was found out about a file."""

    runtime: str  # package and version, as "ai-edge-litert 2.3.0"; "" where none is installed
    no_runtime: str  # why there is none that works; "" where there is
    runs: tuple[ModeRun, ...]  # cheapest first, up to the first that failed when that is asked for

    @property
    def passed(self) -> bool:
        """Whether it was rehearsed, and nothing failed."""
        return bool(self.runtime and self.runs) and all(run.passed for run in self.runs)

    @property
    def reason(self) -> str:
        """The first thing that failed, and in which mode; "" when nothing did."""
        return next((f"mode {run.mode}: {run.reason}" for run in self.runs if run.reason), "")


@dataclass(frozen=True, slots=True)
class StockRun:
    """How a stock file ran as it is."""

    runtime: str
    no_runtime: str
    reason: str
    infer_ms: float
    memory: int  # bytes, beyond the bare runtime

    @property
    def passed(self) -> bool:
        return bool(self.runtime) and not self.reason


def _unheard(_stage: str) -> None:
    pass


def rehearsed(
    file: bytes, *, stock: bytes | None = None, modes: Sequence[str] | None = None, model: str = "the model",
    limits: RehearsalLimits | None = None, rates: bool = True, said: Callable[[str], None] = _unheard,
) -> Rehearsal:  # fmt: skip
    """Return how a trainable file runs, or an int8 classifier as it is. Nothing that is wrong with the file is raised.

    stock: the file that `infer` must equal to the bit. modes: by name; None for all. rates: whether a learning rate is looked for.
    said: told what is under way.
    """
    limits = limits or RehearsalLimits()
    try:
        every = notes_of(file, model=model).modes
    except ModelWireError as e:
        return Rehearsal("", "", (ModeRun("", "", str(e.facts.get("reason", e.message))),))
    runtime = ""
    chosen = [m for m in every if modes is None or m.name in modes]
    chosen += [Mode(name, "", ()) for name in modes or () if name not in {m.name for m in every}]
    runs: list[ModeRun] = []
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as made:
        folder = Path(made)
        (folder / "file.tflite").write_bytes(file)
        if stock is not None:
            (folder / "stock.tflite").write_bytes(stock)
        for mode in chosen:
            asked = {
                "file": str(folder / "file.tflite"), "stock": str(folder / "stock.tflite") if stock is not None else "",
                "mode": mode.name, "model": model, "rates": rates, "whole": not runs, "limits": asdict(limits),
            }  # fmt: skip
            ended = _ended("mode", asked, folder, limits, lambda stage, name=mode.name: said(f"{name}: {stage}"))  # type: ignore[misc]
            if "no_runtime" in ended.said:
                return Rehearsal("", str(ended.said["no_runtime"]), ())
            runs.append(_run(mode, ended))
            runtime = runtime or ended.runtime
    return Rehearsal(runtime or "unknown", "", tuple(runs))


def ran(file: bytes, *, model: str = "the model", limits: RehearsalLimits | None = None) -> StockRun:
    """Return how a stock file runs as it is, under the same limits: what a graft of it can be measured by."""
    limits = limits or RehearsalLimits()
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as made:
        folder = Path(made)
        (folder / "file.tflite").write_bytes(file)
        asked = {"file": str(folder / "file.tflite"), "stock": "", "model": model, "limits": asdict(limits)}
        ended = _ended("stock", asked, folder, limits, _unheard)
    found = ended.said
    if "no_runtime" in found:
        return StockRun("", str(found["no_runtime"]), "", 0.0, 0)
    reason = "" if found.get("passed") else str(found.get("reason") or f"{ended.stage}: {ended.reason}")
    return StockRun(ended.runtime or "unknown", "", reason, _number(found, "infer_ms"), int(_number(found, "memory")))


def _ended(what: str, asked: Mapping[str, Any], folder: Path, limits: RehearsalLimits, said: Callable[[str], None]) -> Ended:
    seconds = limits.seconds + limits.rates * bool(asked.get("rates")) + _MARGIN
    return told_by([what, json.dumps(asked)], folder=folder, seconds=seconds, said=said)


def _run(mode: Mode, ended: Ended) -> ModeRun:
    """Return what the other process found of one mode. It ran what a stranger may have made: its words are read as such."""
    found = ended.said
    reason = str(found.get("reason", "")) if found else ended.reason
    if not reason and not found.get("passed"):
        reason = "its process ended without a result"
    losses = found.get("losses")
    falls = found.get("falls")
    return ModeRun(
        mode=mode.name, signature=mode.signature, reason=f"{ended.stage}: {reason}" if reason else "", stage=ended.stage,
        delegate=str(found.get("delegate", "")), fallback=str(found.get("fallback", "")),
        losses=tuple(float(v) for v in losses) if isinstance(losses, list) else (), falls=falls if isinstance(falls, bool) else None,
        learning_rate=_number(found, "learning_rate"), rates_cut=bool(found.get("rates_cut", False)),
        infer_ms=_number(found, "infer_ms"), eval_ms=_number(found, "eval_ms"), step_ms=_number(found, "step_ms"),
        memory=int(_number(found, "memory")),
    )  # fmt: skip


def _number(found: Mapping[str, Any], key: str) -> float:
    value = found.get(key, 0.0)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0
