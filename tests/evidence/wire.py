"""What wire 1 promises: every rule has bytes that break it, a stranger reads it all, nothing is taken where it does not belong."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from modelwire import kernels
from modelwire.update.container import seal
from modelwire.update.header import Header
from modelwire.update.proof import check_chain, header_proof, parse_header_proof
from modelwire.update.sections import Kind, section_of
from tests.hostile import fuzz_door, protocol_doors
from tests.keys import FLEET_ID
from tests.modelwire.models import KEY, flat
from tests.modelwire.update.test_proof import chain
from tests.system import replays
from tests.vectors import container_readers, protocol_readers, recipe_readers, refused

ROOT = Path(__file__).resolve().parents[2]
READERS = {**container_readers.READERS, **recipe_readers.READERS, **protocol_readers.READERS}
RUNS = 1_000_000
NEW_DOORS = (*protocol_doors.DOORS, "container", "recipe", "manifest")
Figures = dict[str, int | float | str]


def measure(full: bool) -> Figures:
    """Return the figures. full: the fuzzing of every new parser too, a million inputs each."""
    figures: Figures = {"kernels": kernels.describe(), **_rules(), **_stranger(), **_thinned()}
    with tempfile.TemporaryDirectory() as folder:
        tally = replays.measure(Path(folder))
    figures |= {"replay_pairs": tally.pairs, "replays_accepted": len(tally.wrongly), "messages_taken_where_they_belong": tally.taken}
    figures["one_section_signed_update_bytes"] = _smallest()
    return figures | (_fuzz() if full else {})


def _rules() -> Figures:
    """Count rules and vectors here, and how many vectors have another verdict than theirs, with both kernels."""
    known, vectors = refused.rules(), list(refused.vectors())
    out: Figures = {"rules": len(known), "rules_without_vector": len(refused.rules_without_vector()), "negative_vectors": len(vectors)}
    out["lines_that_say_must_outside_a_rule"] = len(refused.unnumbered())
    for kernel in ("compiled", "reference"):
        environment = {**os.environ, "MODELWIRE_KERNEL": "reference"} if kernel == "reference" else dict(os.environ)
        done = subprocess.run(
            [sys.executable, "-m", "tests.evidence.verdicts"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        out[f"negative_vectors_with_another_verdict_{kernel}"] = int(done.stdout.split()[-1])
    return out


def wrong_verdicts() -> list[str]:
    """Return the negative vectors that are taken, or refused by another error than the one that they name."""
    return [str(v.file) for v in refused.vectors() if v.verdict(READERS) != v.error]


def _stranger() -> Figures:
    """Run the independent decoder's tests over all vectors."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "stranger.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={results}"]
        subprocess.run([*command, "tests/modelwire/test_stranger.py"], cwd=ROOT, capture_output=True, check=False)
        counts: Counter[str] = Counter()
        for suite in ElementTree.parse(results).getroot().iter("testsuite"):
            for name in ("tests", "failures", "errors", "skipped"):
                counts[name] += int(suite.get(name, 0))
    failed = counts["failures"] + counts["errors"]
    return {"stranger_tests_passed": counts["tests"] - failed - counts["skipped"], "stranger_tests_failed": failed}


def _thinned() -> Figures:
    """Prove a chain of twenty versions by what is left of them."""
    start, containers = chain(20)
    left = [header_proof(data) for data in containers]
    proofs = [parse_header_proof(data) for data in left]
    check_chain(proofs, start.manifest.commit, KEY.public, FLEET_ID)
    return {"thinned_versions_proven": len(proofs), "bytes_of_a_header_proof": max(map(len, left))}


def _smallest() -> int:
    """Return the bytes of a signed update of one section with one change."""
    state = flat([1.0] * 4096)
    m = state.manifest
    dq = state.integers[0].astype("int64")
    dq[5] = 3
    section = section_of(0, dq, m.exponents[0])
    assert section is not None
    after = state.copy()
    after.apply(Kind.DELTA, (section,))
    header = Header(Kind.DELTA, "pi-7", "digits", 1, 1, m.commit, m.schema.id, after.root, after.fingerprint)
    return len(seal(header, (section,), m.schema, KEY, FLEET_ID).data)


def _fuzz() -> Figures:
    """Fuzz the new parsers."""
    out: Figures = {}
    for door in NEW_DOORS:
        executed, reports, _ = fuzz_door.run(door, RUNS // fuzz_door.DOORS[door].weight, 1, ROOT / "build" / "fuzz" / "door")
        out[f"fuzz_runs_{door}"], out[f"fuzz_reports_{door}"] = executed, len(reports)
    return out
