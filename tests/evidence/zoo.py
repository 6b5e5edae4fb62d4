"""What is promised of any stock model: over the public files of tests/models/zoo.json, in both runtimes, and over damaged files.

    python -m tests.evidence.zoo --run OUT.json         tries every file in the runtime of this Python, for the page and for the figures
    python -m tests.evidence.zoo --page                 writes the table into docs/model-zoo.md from what was tried last
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecloud.rehearsal import RehearsalLimits
from edgecloud.zoo import counting, running
from edgecommon.runtime import load
from tests.edgecloud.graft import mutants
from tests.models import zoo

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build" / "evidence"
PAGE = ROOT / "docs" / "model-zoo.md"
BEGIN, END = "<!-- made by `make zoo`; what is written here by hand is lost -->", "<!-- end of what `make zoo` makes -->"
OTHER = ROOT / os.environ.get("VENV_TFLITE", ".venv-tflite") / "bin" / "python"
MODES, BATCH = ("head", "all"), 2
ALLOWANCE = RehearsalLimits(memory=6 << 30, seconds=300.0, rates=20.0)
MUTANTS, MUTANTS_FULL, GRADIENTS, GRADIENTS_FULL, TIMED, TIMED_FULL = 400, 2000, 8, 20, 8, 40
SMALL = 1 << 20  # bytes of the files whose gradients and times are looked at without FULL=1
Figures = dict[str, int | float | str]
Tried = dict[str, Any]  # one file, as `running.described` says it


def measure(full: bool) -> Figures:
    """Return the figures. full: 2,000 mutants, and gradients and times of more files."""
    for word in zoo.fetch():
        print(word, file=sys.stderr)
    files = zoo.files()
    if not files:
        raise SystemExit("none of the public files can be had here: nothing is measured")
    run(OUT / "zoo-litert.json")
    if OTHER.exists():
        subprocess.run([OTHER, "-m", "tests.evidence.zoo", "--run", OUT / "zoo-tflite.json"], check=True, cwd=ROOT)
    else:
        (OUT / "zoo-tflite.json").unlink(missing_ok=True)
        print("tflite-runtime is not here: its half is left out", file=sys.stderr)
    tried = read()
    came = Counter(each.how for each in mutants.every(MUTANTS_FULL if full else MUTANTS))
    counted = count(tried)
    figures: Figures = {**counted, "broken": counted["broken"] + came[mutants.BROKEN], "packages": len(zoo.pins()), "runtimes": len(tried)}
    ways = (mutants.RUNS, mutants.REFUSED, mutants.STOCK_FAILS, mutants.BROKEN)
    figures |= {f"mutants_{how.replace(' ', '_')}": came[how] for how in ways}
    chosen = [p for p in files if full or p.stat().st_size <= SMALL]
    figures |= _gradients(chosen, GRADIENTS_FULL if full else GRADIENTS)
    return figures | _times(chosen[:: max(1, len(chosen) // (TIMED_FULL if full else TIMED))])


def run(out: Path) -> None:
    """Try every file in the installed runtime, two at a time, and write down what came."""
    paths = sorted(zoo.files(), key=lambda path: path.stat().st_size)
    installed = load()
    out.parent.mkdir(parents=True, exist_ok=True)
    every = []
    for number, file in enumerate(running.tried(paths, MODES, BATCH, ALLOWANCE, jobs=2), 1):
        every.append(running.described(file) | {"file": f"{file.path.parent.name}/{file.path.name}"})
        print(f"{installed.package}: {number} of {len(paths)}, {every[-1]['file']}", file=sys.stderr)
        # At once: whoever ends it early has what was tried.
        out.write_text(json.dumps({"runtime": f"{installed.package} {installed.version}", "files": every}, indent=1) + "\n")


def read(folder: Path = OUT) -> dict[str, dict[str, Tried]]:
    """Return what was tried last: by runtime, by file."""
    out = {}
    for path in sorted(folder.glob("zoo-*.json")):
        document = json.loads(path.read_text())
        out[str(document["runtime"])] = {str(file["file"]): file for file in document["files"]}
    return out


def count(tried: Mapping[str, Mapping[str, Tried]]) -> dict[str, int]:
    """Return how many files are all that is promised, in every runtime that runs them as they are; and of how many."""
    figures = dict.fromkeys(("float_files", "float_head_ok", "float_all_ok", "int8_files", "int8_ok", "broken"), 0)
    for seen in _together(tried):
        kind = seen[0]["kind"]
        if kind == "float":
            figures["float_files"] += 1
            for mode in MODES:
                figures[f"float_{mode}_ok"] += all(result(file, mode) == running.LEARNS for file in seen)
        elif kind == "int8":
            figures["int8_files"] += 1
            figures["int8_ok"] += all(running.LEARNS in (result(file, "int8 head"), result(file, "head")) for file in seen)
        figures["broken"] += sum(mode["result"] == running.BROKEN for file in seen for mode in file["modes"])
    return figures


def _together(tried: Mapping[str, Mapping[str, Tried]]) -> Iterator[list[Tried]]:
    """Yield each file as it came out in the runtimes that run it as it is; a file that none of them runs is left out."""
    for name in sorted({name for files in tried.values() for name in files}):
        seen = [files[name] for files in tried.values() if name in files and files[name]["runs"]]
        if seen:
            yield seen


def result(file: Tried, mode: str) -> str:
    """Return how a mode of a file came out; "" where it was not tried."""
    return next((str(m["result"]) for m in file["modes"] if m["mode"] == mode), "")


def _gradients(files: Sequence[Path], most: int) -> Figures:
    try:
        from tests.models.check_gradients import checked
    except ImportError as error:
        print(f"the gradients are not looked at: {error}", file=sys.stderr)
        return {"gradient_files": 0, "gradient_bad": 0}
    came = [each for each in checked(files, most=most) if each.result != "left"]
    return {"gradient_files": len(came), "gradient_bad": sum(each.result == "wrong" for each in came)}


def _times(files: Sequence[Path]) -> Figures:
    keys = ("step_over_eval_median", "eval_over_inference_median", "peak_foretold_share", "ms_foretold_share")
    try:
        from tests.models.measure_costs import measured
    except ImportError as error:
        print(f"times and memory are not looked at: {error}", file=sys.stderr)
        return dict.fromkeys(keys, "not measured")
    found = measured(files)
    return {key: "not measured" if found[key] is None else found[key] for key in keys}


def page(tried: Mapping[str, Mapping[str, Tried]]) -> str:
    """Return the part of the page that is made: what was counted, every file, what keeps files out."""
    counted = count(tried)
    names = list(tried)
    lines = [
        f"Tried with {' and '.join(names)}, batches of {BATCH}, plain SGD. Of the files that a runtime runs as they are:", "",
        "| | files | learn, head | learn, all |", "|---|---|---|---|",
        f"| float | {counted['float_files']} | {counted['float_head_ok']} | {counted['float_all_ok']} |",
        f"| int8 | {counted['int8_files']} | {counted['int8_ok']} | |", "",
        "| file | kind | KiB | head | all | why not |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name in sorted({name for files in tried.values() for name in files}):
        lines.append(_row(name, [files[name] for files in tried.values() if name in files]))
    rules = _missing(tried)
    if rules:
        lines += ["", "What keeps float files from being trained whole:", "", "| operator | unlocks alone | keeps out |", "|---|---|---|"]
        lines += [f"| `{rule.operator}` | {rule.unlocks} | {rule.blocks} |" for rule in rules]
    return "\n".join(lines)


def _row(name: str, seen: Sequence[Tried]) -> str:
    ran = [file for file in seen if file["runs"]]
    file = ran[0] if ran else seen[0]
    cells = []
    for modes in (("head", "int8 head"), ("all",)):
        came = [[result(each, mode) for mode in modes if result(each, mode)] for each in ran]
        words = [running.LEARNS if running.LEARNS in each else each[0] for each in came if each]
        cells.append(" / ".join(dict.fromkeys(words)))
    reasons = [m["reason"] for each in ran for m in each["modes"] if m["result"] != running.LEARNS and m["reason"]]
    why = reasons[0] if reasons else "" if ran else f"no runtime runs it: {file['reason']}"
    text = why.replace("|", "\\|").replace("\n", " ")
    return f"| {name} | {file['kind']} | {file['bytes'] // 1024} | {cells[0]} | {cells[1]} | {text[:180]} |"


def _missing(tried: Mapping[str, Mapping[str, Tried]]) -> tuple[counting.MissingRule, ...]:
    files = next(iter(tried.values()), {}).values()
    pairs = [[(str(name), str(why)) for name, why in file["missing"]] for file in files if file["runs"]]
    return counting.missing_among(pairs)


def write_page() -> None:
    """Put the table into the page."""
    before, rest = PAGE.read_text().split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{page(read())}\n\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Try the public files.")
    parser.add_argument("--run", type=Path, metavar="OUT.json")
    parser.add_argument("--page", action="store_true")
    args = parser.parse_args()
    if args.run:
        run(args.run.resolve())
    if args.page:
        write_page()


if __name__ == "__main__":
    main()
