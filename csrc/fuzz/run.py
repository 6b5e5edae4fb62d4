"""Build the libFuzzer harnesses of this folder under the sanitisers, run each, and print one line for each.

    python csrc/fuzz/run.py [--runs 1000000] [harness ...]
    python csrc/fuzz/run.py --minimise        take over what a run found new into the committed corpus

Exits 1 when anything was reported; the input that did it lies in build/fuzz/<harness>/reports then.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
CSRC = FOLDER.parent
CORPUS = FOLDER / "corpus"
BUILD = CSRC.parent / "build" / "fuzz"
HARNESSES = tuple(sorted(p.stem.removeprefix("fuzz_") for p in FOLDER.glob("fuzz_*.c")))
SANITISERS = "address,undefined,float-cast-overflow"
FLAGS = [
    "-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-ffp-contract=off", "-fno-math-errno",
    "-fno-omit-frame-pointer", "-fno-sanitize-recover=all",
]  # fmt: skip
LONGEST = 4096  # bytes of one input
# A process starts with its parent's peak of memory, which libFuzzer would take for its own: a shell between the two has a small one.
OWN_PEAK = ["/bin/sh", "-c", '"$@"; exit $?', "sh"]
BOUNDS = ["-timeout=5", "-rss_limit_mb=512", "-malloc_limit_mb=64"]  # seconds of one input, MiB of the process, MiB at once


def missing() -> str:
    """Return what this machine lacks for the harnesses, or nothing."""
    compiler = shutil.which("clang")
    if not compiler:
        return "clang is not on this machine: apt-get install clang libclang-rt-14-dev"
    done = subprocess.run([compiler, "--print-runtime-dir"], capture_output=True, text=True, check=False)
    runtime = Path(done.stdout.strip())
    if not any(runtime.glob("libclang_rt.fuzzer*")) and not any(runtime.parent.glob("*/libclang_rt.fuzzer*")):
        return "clang is here without its fuzzer: apt-get install libclang-rt-14-dev"
    return ""


def build_core(into: Path) -> Path:
    """Return the folder of the core's objects, built anew: they are the same for every harness."""
    into.mkdir(parents=True, exist_ok=True)
    sources = [str(p) for p in sorted(CSRC.glob("mw_*.c"))]
    subprocess.run(["clang", *FLAGS, f"-fsanitize=fuzzer-no-link,{SANITISERS}", "-c", *sources], check=True, cwd=into)
    return into


def build(harness: str, into: Path, core: Path) -> Path:
    """Return the program of one harness, built anew into the folder `into`. core: what `build_core` returned."""
    into.mkdir(parents=True, exist_ok=True)
    program = into / harness
    objects = [str(p) for p in sorted(core.glob("mw_*.o"))]
    flags = [*FLAGS, f"-fsanitize=fuzzer,{SANITISERS}"]
    subprocess.run(["clang", *flags, str(FOLDER / f"fuzz_{harness}.c"), *objects, "-lm", "-o", str(program)], check=True)
    return program


def run(harness: str, into: Path, core: Path, runs: int, seed: int = 0) -> tuple[int, list[str], str]:
    """Return how many inputs were executed, the names of what was reported, and all that was said.

    Starts from the committed corpus; what is found new stays under `into`. core: what `build_core` returned.
    seed: of the mutations, 0 for another each time.
    """
    program, found, reports = build(harness, into, core), into / "found", into / "reports"
    for folder in (found, reports):
        folder.mkdir(parents=True, exist_ok=True)
    before = set(reports.iterdir())
    done = subprocess.run(
        [*OWN_PEAK, str(program), f"-runs={runs}", f"-seed={seed}", f"-max_len={LONGEST}", *BOUNDS, "-print_final_stats=1",
         f"-artifact_prefix={reports}/", str(found), str(CORPUS / harness)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False, cwd=into,
        env={**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"},
    )  # fmt: skip
    executed = re.findall(r"number_of_executed_units: (\d+)", done.stdout)
    named = sorted(p.name for p in set(reports.iterdir()) - before)
    if done.returncode and not named:
        named = [f"exit code {done.returncode}"]
    return int(executed[-1]) if executed else 0, named, done.stdout


def minimise(harness: str, core: Path) -> int:
    """Add what reaches new code to the committed corpus and return how many files that was. Files are only ever added."""
    program = build(harness, BUILD / harness, core)
    corpus = CORPUS / harness
    before = len(list(corpus.iterdir()))
    # Edges alone: how often one is taken would keep hundreds of files that differ in nothing else.
    subprocess.run(
        [*OWN_PEAK, str(program), "-merge=1", "-use_counters=0", *BOUNDS, f"-max_len={LONGEST}",
         str(corpus), str(BUILD / harness / "found")],
        check=True, capture_output=True, cwd=BUILD / harness,
    )  # fmt: skip
    return len(list(corpus.iterdir())) - before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("harness", nargs="*", choices=[*HARNESSES, []], metavar="harness", help="all of them when none is named")
    parser.add_argument("--runs", type=int, default=1_000_000, help="executions of each")
    parser.add_argument("--minimise", action="store_true", help="add what was found to the corpus instead of running")
    asked = parser.parse_args()
    if missing():
        print(missing(), file=sys.stderr)
        return 1
    failed, core = False, build_core(BUILD / "core")
    for harness in asked.harness or HARNESSES:
        if asked.minimise:
            print(f"{harness:10} {minimise(harness, core)} files added")
            continue
        executed, reports, said = run(harness, BUILD / harness, core, asked.runs)
        print(f"{harness:10} {executed:>9} executions, {len(reports)} reports", flush=True)
        if reports:
            failed = True
            print(said[-4000:], *(BUILD / harness / "reports" / name for name in reports), sep="\n", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
