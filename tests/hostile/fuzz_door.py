"""Fuzz the Python door with atheris: whatever the bytes, a reader gives a value that is written back the same, or a ModelWireError.

    python -m tests.hostile.fuzz_door                        each door in turn, one line each
    python -m tests.hostile.fuzz_door container --runs 100000
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

if __name__ == "__main__" and "--inside" in sys.argv:
    import atheris

    with atheris.instrument_imports(include=["modelwire"]):
        from modelwire.cards import card
        from modelwire.lattice.rebuild import rebuild, replayed
        from modelwire.lattice.replay import replay
        from modelwire.output_head import recipe
        from modelwire.tflite import file as tflite_file
        from modelwire.update import container, header, manifest
        from modelwire.wire import signing
        from tests.hostile import protocol_doors
else:
    from modelwire.cards import card
    from modelwire.lattice.rebuild import rebuild, replayed
    from modelwire.lattice.replay import replay
    from modelwire.output_head import recipe
    from modelwire.tflite import file as tflite_file
    from modelwire.update import container, header, manifest
    from modelwire.wire import signing
    from tests.hostile import protocol_doors

import numpy as np

from modelwire import _core
from modelwire.errors import ModelWireError
from modelwire.lattice.state import ModelState
from modelwire.limits import Limits
from modelwire.update.sections import Kind
from tests.keys import FLEET_ID
from tests.modelwire.models import KEY

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "vectors" / "wire-1"
MODELS = ROOT / "tests" / "models"
SMALL = Limits(training=10_000_000)  # a second of a slow core


@functools.cache
def parent() -> ModelState:
    """Return the golden vectors' base: what every container is tried on."""
    known = manifest.parse_manifest((VECTORS / "updates" / "manifest.bin").read_bytes())
    flat = np.fromfile(VECTORS / "updates" / "base.bin", np.float32)
    ends = np.cumsum([spec.size for spec in known.schema.tensors])
    return ModelState.of_base(known, [a.copy() for a in np.split(flat, ends[:-1])])


def bits(state: ModelState) -> bytes:
    """Return all that a refusal must leave alone."""
    arrays = b"".join(a.tobytes() for a in (*state.weights, *state.integers))
    return hashlib.sha256(arrays + repr((state.fingerprint, state.exponents)).encode()).digest()


@functools.cache
def untouched() -> bytes:
    """Return the parent's bits before anything was tried on it."""
    return bits(parent())


def resealed(data: bytes) -> bytes:
    """Return a body with its length, checksum and commit put right, so that mutations get past them, and a signature of zeros."""
    if len(data) < header.PREAMBLE_BYTES:
        return data + bytes(header.TRAILER)
    front = data[:24] + struct.pack("<I", len(data) + header.TRAILER)
    data = front + struct.pack("<I", _core.crc32c(front)) + data[header.PREAMBLE_BYTES :]
    names, extension = struct.unpack_from("<II", data, 12)
    at_ext = header.PREAMBLE_BYTES + names
    at_table = at_ext + extension
    digests = (hashlib.sha256(data[at_ext:at_table]).digest(), hashlib.sha256(data[at_table:]).digest())
    return data + header.commit_from(data[:at_ext], *digests) + bytes(signing.SIGNATURE_BYTES)


def try_container(data: bytes) -> None:
    """A container, its sections, and the model after it; then the raw bytes, which only their digest can admit."""
    before = untouched()
    whole = resealed(data)
    try:
        read = container.parse(whole)
        schema = parent().manifest.schema
        recipe_in = bytes(read.stream) if read.header.kind is Kind.RECIPE else b""
        sections = () if recipe_in else read.sections(schema)
        again = container.seal(read.header, sections, schema, KEY, FLEET_ID, recipe=recipe_in).data
        assert again[: len(data) + 32] == whole[: len(data) + 32], "two forms of one update"
        try:  # as if the fingerprint were right
            after = parent().copy()
            if recipe_in:
                after.apply(Kind.DELTA, replayed(after, read, SMALL))
            else:
                after.apply(read.header.kind, sections)
            assert after.fingerprint == after.measure_fingerprint()
            assert all(np.isfinite(w).all() for w in after.weights)
        except ModelWireError:
            pass
        rebuild(parent(), read, limit=SMALL)
    except ModelWireError:
        pass
    assert bits(parent()) == before, "the parent was written to"
    with contextlib.suppress(ModelWireError):
        container.parse(data)


def try_manifest(data: bytes) -> None:
    """A manifest; what is read is written the same."""
    try:
        read = manifest.parse_manifest(data)
    except ModelWireError:
        return
    assert read.encode() == data, "two forms of one manifest"


def try_tflite(data: bytes) -> None:
    """The variables of a model's file lie inside it and apart, and the whole check of a trainable file ends."""
    try:
        variables = tflite_file.read_variables(data)
    except ModelWireError:
        return
    end = 0
    for v in sorted(variables, key=lambda v: v.offset):
        assert v.offset >= end and v.offset + v.nbytes <= len(data), "variables overlap or leave the file"
        end = v.offset + v.nbytes
    try:
        weights = tflite_file.read_weights(data)
        assert tflite_file.write_weights(data, weights) == data
        tflite_file.check_trainable(data)
    except ModelWireError:
        pass


def try_recipe(data: bytes) -> None:
    """A recipe; what is read is written to something that reads the same, and a short one is replayed or refused."""
    try:
        read = recipe.parse_recipe(data, SMALL)
    except ModelWireError:
        return
    again = recipe.parse_recipe(read.encode())
    assert again.encode() == read.encode(), "two forms of one recipe"
    before = untouched()
    with contextlib.suppress(ModelWireError):
        after = replay(parent(), read, limit=SMALL)
        assert after.fingerprint == after.measure_fingerprint()
        assert all(np.isfinite(w).all() for w in after.weights)
    assert bits(parent()) == before, "the parent was written to"


def try_card(data: bytes) -> None:
    """A data card; what is read is written the same, and merges with itself."""
    try:
        read = card.parse_card(data)
    except ModelWireError:
        return
    assert read.encode() == data, "two forms of one card"
    twice = card.merge(read, read)
    assert twice.samples == 2 * read.samples
    for sketch in twice.sketches:
        assert not sketch.variance < 0 and not np.isinf(sketch.quantile(0.5))


def recipe_seeds() -> list[bytes]:
    return [f.read_bytes() for f in sorted((VECTORS / "recipes").glob("*.bin"))]


def card_seeds() -> list[bytes]:
    whole = card.card_of(
        6, labels=np.array([0, 1, 1, 2, 9, 9]), hours=np.array([0, 7, 7, 8, 23, 23]), tags={"sky": list("aabbbc"), "board": ["pi-4"]},
        channels=[card.Channel("blur"), card.Channel("heat", 290.0, 3, 4)], values=np.linspace(-9, 300, 12).reshape(6, 2),
        judged=4, loss_before=0.5, loss_after=0.25,
    )  # fmt: skip
    return [whole.encode(), card.merge(whole, whole).encode(), card.Card().encode()]


def container_seeds() -> list[bytes]:
    recipe_on_base = VECTORS / "recipe-updates" / "1-sgd-int8.bin"  # the same base
    return [f.read_bytes()[: -header.TRAILER] for f in [*sorted((VECTORS / "updates").glob("*-*.bin")), recipe_on_base]]


def manifest_seeds() -> list[bytes]:
    return [(VECTORS / "updates" / "manifest.bin").read_bytes()]


def tflite_seeds() -> list[bytes]:
    return [(MODELS / name).read_bytes() for name in ("tiny.tflite", "tiny_shared.tflite")]


@dataclass(frozen=True)
class Door:
    """What is tried, where its inputs start from, the bytes of the longest, and how many executions count as one."""

    target: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    longest: int
    weight: int = 1


DOORS = {
    "container": Door(try_container, container_seeds, 8192),
    **{name: Door(*door) for name, door in protocol_doors.DOORS.items()},
    "recipe": Door(try_recipe, recipe_seeds, 4096, 4),
    "card": Door(try_card, card_seeds, 1024),
    "manifest": Door(try_manifest, manifest_seeds, 2048),
    "tflite": Door(try_tflite, tflite_seeds, 24576, 10),  # a parse of 20 KB takes milliseconds
}


def fuzz(door: str, corpus: str, reports: str, runs: int, seed: int) -> None:
    """Run one door in this process, which ends with it."""
    bounds = ["-timeout=5", "-rss_limit_mb=1024", f"-max_len={DOORS[door].longest}"]
    how = [f"-seed={seed}", f"-runs={runs}", "-print_final_stats=1", f"-artifact_prefix={reports}/"]
    atheris.Setup([sys.argv[0], *bounds, *how, corpus], DOORS[door].target)
    atheris.Fuzz()


def run(door: str, runs: int, seed: int = 0, reports: Path | None = None) -> tuple[int, list[str], str]:
    """Return how many inputs one door was given, the names of what was reported, and all that was said."""
    with tempfile.TemporaryDirectory() as folder:
        corpus, kept = Path(folder) / "corpus", reports or Path(folder) / "reports"
        corpus.mkdir()
        kept.mkdir(parents=True, exist_ok=True)
        before = set(kept.iterdir())
        for n, data in enumerate(DOORS[door].seeds()):
            (corpus / f"{n}").write_bytes(data)
        done = subprocess.run(
            ["/bin/sh", "-c", '"$@"; exit $?', "sh",  # or the peak of the memory of this process counted as the other's
             sys.executable, "-m", "tests.hostile.fuzz_door", door, "--inside", str(corpus), str(kept),
             "--runs", str(runs), "--seed", str(seed)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        )  # fmt: skip
        named = sorted(p.name for p in set(kept.iterdir()) - before)
    executed = re.findall(r"number_of_executed_units: (\d+)|Done (\d+) (?:runs )?in", done.stdout)
    if done.returncode and not named:
        named = [f"exit code {done.returncode}"]
    return int(next(filter(None, executed[-1]))) if executed else 0, named, done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("door", nargs="*", choices=[*DOORS, []], metavar="door", help="all of them when none is named")
    parser.add_argument("--runs", type=int, default=1_000_000, help="executions of each; of tflite a tenth")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; 0: another each time")
    parser.add_argument("--inside", nargs=2, metavar=("CORPUS", "REPORTS"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        fuzz(asked.door[0], *asked.inside, asked.runs, asked.seed)
        return 0
    if find_spec("atheris") is None:
        print("atheris is not installed (pip install atheris): the Python door is left out")
        return 0
    failed = False
    for door in asked.door or DOORS:
        executed, reports, said = run(door, asked.runs // DOORS[door].weight, asked.seed, ROOT / "build" / "fuzz" / "door")
        print(f"{door:10} {executed:>9} executions, {len(reports)} reports", flush=True)
        if reports:
            failed = True
            print(said[-4000:], file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
