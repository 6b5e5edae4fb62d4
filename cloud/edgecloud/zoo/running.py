"""Tries files: what each is, what can be made of it, and whether that opens, gives the same, trains and learns in the installed runtime."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgecloud.rehearsal import ModeRun, RehearsalLimits, ran, rehearsed
from edgecommon.files import read_model_file
from modelwire.errors import ModelWireError

from . import limited, trying

# How one mode of one file came out.
LEARNS, TRAINS, REFUSED, BROKEN, NOT_RUN = "learns", "trains", "refused", "broken", "not run"
SUFFIXES = (".tflite", ".lite")


@dataclass(frozen=True, slots=True)
class ModeTried:
    """One mode of one file."""

    mode: str
    came: str  # LEARNS: it opens, infers as the stock file does, trains, and its loss fell; TRAINS: all but the last
    reason: str = ""  # why it is not LEARNS
    run: ModeRun | None = None  # None where there was nothing to run


@dataclass(frozen=True, slots=True)
class FileTried:
    """One file: what it is, whether the installed runtime runs it as it stands, and its modes."""

    path: Path
    sha256: str
    size: int  # bytes
    kind: str
    runs: bool | None  # None: no runtime is installed
    reason: str  # why it can't be read or run
    modes: tuple[ModeTried, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()  # operators that keep `all` from being trained, and why
    infer_ms: float = 0.0
    operators: dict[str, int] = field(default_factory=dict)

    def mode(self, name: str) -> ModeTried | None:
        """Return one of its modes; of a file with one layer, `all` is what `head` is."""
        return next((m for m in self.modes if m.mode == name), None)


def found(paths: Sequence[Path]) -> list[Path]:
    """Return the model files among these and in the folders among them, sorted; a file that is named is taken whatever its name."""
    out: set[Path] = set()
    for path in paths:
        if path.is_dir():
            out |= {p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file()}
        else:
            out.add(path)
    return sorted(out)


def tried(
    paths: Sequence[Path], modes: Sequence[str], batch: int, allowance: RehearsalLimits, *, rates: bool = True, jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[FileTried]:
    """Yield what came of each file, in order. batch: samples of a step. allowance: what one child of the rehearsal may take.

    jobs: files at a time; the times that are measured are then those of a machine that does other things.
    """
    with ThreadPoolExecutor(jobs) as pool:
        begun = [pool.submit(one, path, modes, batch, allowance, rates=rates) for path in paths]
        try:
            for number, each in enumerate(begun):
                progress(number, len(paths))
                yield each.result()
            progress(len(paths), len(paths))
        finally:
            for each in begun:
                each.cancel()


def one(path: Path, modes: Sequence[str], batch: int, allowance: RehearsalLimits, *, rates: bool = True) -> FileTried:
    """Return what came of one file; whatever it holds, this returns."""
    try:
        data = read_model_file(path, "a model file")
    except ModelWireError as error:
        return FileTried(path, "", 0, trying.UNREAD, None, trying.said(error))
    digest, size = hashlib.sha256(data).hexdigest(), len(data)
    with tempfile.TemporaryDirectory(prefix="edgecloud-zoo-") as name:
        folder = Path(name)
        bounds = limited.ChildBounds(seconds=allowance.seconds)
        ended = limited.run("edgecloud.zoo.trying", [str(path), str(folder), str(batch), *modes], bounds)
        if not isinstance(ended.answer, dict):
            return FileTried(path, digest, size, trying.UNREAD, None, f"looking at it {ended.reason}")
        looked: dict[str, Any] = ended.answer
        if looked["kind"] == trying.UNREAD:
            return FileTried(path, digest, size, trying.UNREAD, None, looked["reason"])
        stock = ran(data, model=path.name, limits=allowance)
        runs = None if stock.no_runtime else not stock.reason
        came = tuple(_came(made, folder, allowance, rates=rates, model=path.name) for made in looked["modes"])
    missing = tuple((str(name), str(why)) for name, why in looked["missing"])
    return FileTried(
        path, digest, size, looked["kind"], runs, stock.reason or stock.no_runtime, came, missing, stock.infer_ms, looked["operators"]
    )


def _came(made: dict[str, str], folder: Path, allowance: RehearsalLimits, *, rates: bool, model: str) -> ModeTried:
    """Return how one mode came out. made: what `trying` says of it."""
    if made["reason"]:
        return ModeTried(made["mode"], REFUSED, made["reason"])
    file = (folder / made["file"]).read_bytes()
    stock = (folder / made["stock"]).read_bytes() if made.get("stock") else None
    rehearsal = rehearsed(file, stock=stock, model=model, limits=allowance, rates=rates)
    run = rehearsal.runs[0] if rehearsal.runs else None
    if rehearsal.no_runtime:
        return ModeTried(made["mode"], NOT_RUN, rehearsal.no_runtime, run)
    if not rehearsal.passed or run is None:
        return ModeTried(made["mode"], BROKEN, rehearsal.reason, run)
    if made["mode"] == trying.INT8_HEAD:
        return _fitted(made["mode"], folder / made["file"], allowance, run)
    if run.falls is not True:
        why = "no learning rate was looked for" if run.falls is None else "no learning rate that was tried made its loss fall"
        return ModeTried(made["mode"], TRAINS, why, run)
    return ModeTried(made["mode"], LEARNS, "", run)


def _fitted(mode: str, file: Path, allowance: RehearsalLimits, run: ModeRun) -> ModeTried:
    """Return how an int8 head came out that runs: its loss falls once it is retrained, and the layers in front keep their bits."""
    ended = limited.run("edgecloud.zoo.codes", [str(file)], limited.ChildBounds(seconds=allowance.seconds))
    found: dict[str, Any] = ended.answer if isinstance(ended.answer, dict) else {"reason": f"retraining it {ended.reason}"}
    if found["reason"]:
        return ModeTried(mode, TRAINS, found["reason"], run)
    if not found["same"]:
        return ModeTried(mode, BROKEN, "the layers in front of its head give other codes once that is retrained", run)
    if not found["after"] < found["before"]:
        return ModeTried(mode, TRAINS, f"its loss was {found['before']:.3g} and is {found['after']:.3g} once it is retrained", run)
    return ModeTried(mode, LEARNS, "", replace(run, losses=(found["before"], found["after"]), falls=True))


def described(file: FileTried) -> dict[str, Any]:
    """Return the same as a document."""
    return {
        "file": str(file.path), "sha256": file.sha256, "bytes": file.size, "kind": file.kind, "runs": file.runs, "reason": file.reason,
        "infer_ms": file.infer_ms or None, "operators": file.operators, "missing": [list(pair) for pair in file.missing],
        "modes": [_described(m) for m in file.modes],
    }  # fmt: skip


def _described(tried: ModeTried) -> dict[str, Any]:
    run = tried.run
    told: dict[str, Any] = {} if run is None else {
        "delegate": run.delegate, "losses": list(run.losses), "learning_rate": run.learning_rate or None, "memory": run.memory,
        "infer_ms": run.infer_ms or None, "eval_ms": run.eval_ms or None, "step_ms": run.step_ms or None, "stage": run.stage,
    }  # fmt: skip
    return {"mode": tried.mode, "result": tried.came, "reason": tried.reason, **told}
