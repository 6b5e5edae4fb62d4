"""What the commands that write a trainable file, and `bases add`, share: the file is rehearsed before it is trusted to a board."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

from edgecloud.rehearsal import ModeRun, Rehearsal, rehearsed
from edgecommon.printing import draw_progress
from modelwire.errors import NotTrainable
from modelwire.tflite.notes import notes_of

from .answer import Document

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A file with the word of its rehearsal in its notes, and what is said of it. `found` is None where it was not asked for."""

    file: bytes
    found: Rehearsal | None

    def document(self) -> Document:
        """Return what a document says of it: null where it was not run."""
        return {"rehearsed": describe(self.found)}

    def words(self) -> tuple[tuple[str, str], ...]:
        """Return the same as text."""
        return (("rehearsed", say(self.found)), ("learning rates", _rates(self.found)))


def add_rehearsal(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-rehearse", action="store_true", help="do not run it as a board will before it is written; its notes say so")


def rehearse(args: argparse.Namespace, file: bytes, *, stock: bytes | None, model: str) -> Rehearsed:
    """Return the file with its rehearsal in its notes. Raises NotTrainable, naming what failed, for a file that does not run."""
    found = None if args.no_rehearse else rehearsed(file, stock=stock, model=model, said=progress(model))
    return noted(file, found, model)


def noted(file: bytes, found: Rehearsal | None, model: str, way: Callable[[tuple[ModeRun, ...]], str] = lambda _runs: "") -> Rehearsed:
    """Return the file with the word of its rehearsal. way: what to say of a file that does not run. Raises NotTrainable for one."""
    from edgecloud.graft.writing.noted import with_rehearsal  # `bases` needs none of it

    require(found, model, way)
    passed = found is not None and found.passed
    rates = {run.mode: run.learning_rate for run in found.runs} if found is not None and passed else {}
    file = with_rehearsal(file, found.runtime if found is not None and passed else "", rates)
    notes_of(file, model=model)
    return Rehearsed(file, found)


def require(found: Rehearsal | None, model: str, way: Callable[[tuple[ModeRun, ...]], str] = lambda _runs: "") -> None:
    """Raise NotTrainable for a file that was run and failed."""
    if found is not None and found.reason:
        said = f"{found.runtime} does not run it: {found.reason}{way(found.runs)}"
        raise NotTrainable(model=model, reason=f"{said}; --no-rehearse lets it pass all the same")


def progress(model: str) -> Callable[[str], None]:
    """Return what says, on a terminal, what is under way."""
    if not sys.stderr.isatty():
        return lambda _said: None
    return lambda said: draw_progress(f"rehearsing {model}, {said}")


def describe(found: Rehearsal | None) -> Document | None:
    """Return what a document says of a rehearsal."""
    if found is None:
        return None
    return {
        "runtime": found.runtime or None, "no_runtime": found.no_runtime or None, "passed": found.passed,
        "modes": [
            {
                "mode": run.mode, "kernels": run.delegate or None, "learning_rate": run.learning_rate or None, "cut_short": run.rates_cut,
                "infer_ms": run.infer_ms or None, "eval_ms": run.eval_ms or None, "step_ms": run.step_ms or None, "bytes": run.memory,
            }
            for run in found.runs
        ],
    }  # fmt: skip


def say(found: Rehearsal | None, *, took: bool = True) -> str:
    """Return the same as a line. took: with what it took on this machine."""
    if found is None:
        return "no, as asked: whether it runs shows on the board"
    if not found.runtime:
        return f"no: no runtime works here ({found.no_runtime}); whether it runs shows on the board"
    costs = ", ".join(f"{r.mode} {r.step_ms:.3g} ms a step, {r.memory / _MIB:.0f} MiB" for r in found.runs if r.step_ms and took)
    return f"it runs with {found.runtime}" + (f"; here {costs}" if costs else "")


def _rates(found: Rehearsal | None) -> str:
    runs = found.runs if found is not None else ()
    said = [f"{r.mode} {r.learning_rate:g}{' (cut short)' if r.rates_cut else ''}" for r in runs if r.learning_rate]
    without = [r for r in runs if not r.learning_rate and (r.rates_cut or r.falls is False)]
    none = [f"{r.mode} none found{' in time' if r.rates_cut else ''}" for r in without]
    return ", ".join([*said, *none])


def said_by_notes(word: str | None) -> str:
    """Return what a file's own notes say of it: nothing where they are silent."""
    return "" if word is None else word or "no, its notes say"


