"""Proofs: a hundred good ones are taken and a thousand altered ones are not, by the one file that a regulator runs.

    python -m tests.evidence.centre.proofs
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType

from edgecloud.proving import assembling, making
from edgecloud.versions.materialise import LoadedBases
from tests.edgecloud.proving.fleets import Fleet, make_fleet, make_thinned
from tests.edgecloud.proving.forging import Forgery, forgeries
from tests.evidence.centre import Figures

THINNED = 7  # proofs of a history of which five versions are gone
PROOFS, FORGERIES, FORGERIES_FULL = 100, 1000, 20_000


def verifier(folder: Path) -> ModuleType:
    """Return the assembled program, as a module."""
    path = folder / "verify_proof.py"
    path.write_text(assembling.verify_proof_py())
    spec = importlib.util.spec_from_file_location("verify_proof", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it
    spec.loader.exec_module(module)
    return module


def good_proofs(fleet: Fleet, count: int) -> list[bytes]:
    """Return proofs of all versions, and of their tensors one by one, until there are so many."""
    bases, made = LoadedBases(fleet.store), []
    versions = list(fleet.versions())[:count]
    for version in versions:
        made.append(making.proof_of(fleet.store, version, bases))
    for version in versions[::2]:
        for spec in bases[version.base].manifest.schema.tensors:
            if len(made) == count:
                return made
            made.append(making.proof_of(fleet.store, version, bases, tensor=spec.name))
    return made


def some_forgeries(proofs: list[bytes], key: bytes, count: int) -> Iterator[Forgery]:
    """Yield so many forgeries, in turn of each proof, each time others of its fields."""
    sources = []
    for number, proof in enumerate(proofs):
        others = [proofs[(number + 1) % len(proofs)], proofs[(number + 17) % len(proofs)]]
        sources.append(list(forgeries(proof, others, key, number)) if number % 5 == 0 else [])
    step = 0
    while count:
        for source in sources:
            if not source or not count:
                continue
            # A step that has no factor in common with most lengths comes past every field.
            yield source[step * 7919 % len(source)]
            count -= 1
        step += 1


def measure(full: bool) -> Figures:
    """Return how many good proofs and how many altered ones the verifier takes. full: more altered ones."""
    with tempfile.TemporaryDirectory() as name:
        fleet, thinned = make_fleet(Path(name)), make_thinned(Path(name) / "thinned")
        program = verifier(Path(name))
        proofs = [*good_proofs(thinned, THINNED), *good_proofs(fleet, PROOFS - THINNED)]
        assert fleet.key == thinned.key
        accepted = sum(_taken(program, proof, fleet.key) for proof in proofs)
        wanted = FORGERIES_FULL if full else FORGERIES
        tried = taken = 0
        for what, forged in islice(some_forgeries(proofs, fleet.key, wanted), wanted):
            tried += 1
            if _taken(program, forged, fleet.key):
                taken += 1
                print(f"TAKEN: {what}", file=sys.stderr)
    return {"proofs_accepted": accepted, "proofs_made": len(proofs), "forgeries_tried": tried, "forgeries_accepted": taken}


def _taken(program: ModuleType, data: bytes, key: bytes) -> bool:
    try:
        program.check(data, key)
    except program.NotProven:
        return False
    return True


if __name__ == "__main__":
    for key, value in measure("--full" in sys.argv).items():
        print(f"{key:20}{value}")
