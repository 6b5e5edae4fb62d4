"""The golden chains of containers without recipes: all types and classes, clamps, sums, several leaves and blocks, a change of base."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modelwire.lattice.between import difference
from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.output_head.forgotten import KEY as FORGOT
from modelwire.output_head.forgotten import Forgotten
from modelwire.storage import rounded
from modelwire.tensors import Dtype, Schema, TensorClass, TensorSpec
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import Kind, Section, add, invert
from tests.keys import NO_FILE
from tests.modelwire.lattice import test_exact, test_narrow
from tests.modelwire.models import empty, exact_update, model, noisy

from .folder import Vectors

TWO = """\
Two bases: `a.bin` and `b.bin`. A snapshot is on the base that its header names. Where `on` is null, the base is the one whose manifest's
commit is the parent in the header: `a` here."""


def updates() -> None:
    manifest, base = model(0)
    made = Vectors("updates", ModelState.of_base(manifest, base))
    residual, rounds = no_residual(manifest), []
    for version in range(1, 7):
        rng = np.random.default_rng(version)
        size = np.float32(0.02) if version != 4 else np.float32(90.0)  # the fourth meets the end of the range
        trained = [(w + rng.standard_normal(len(w)).astype(np.float32) * size).astype(np.float32) for w in made.state.weights]
        trained[0] = np.abs(trained[0])
        widen = rounds[-1].clamped if rounds else ()
        s = snap(made.state.copy(), trained, residual, density=0.05, max_bytes=1 << 20, widen=widen)
        rounds.append(s)
        said = {"loss_after": 1.0 / version, **({"clamped": list(s.clamped)} if s.clamped else {})}
        made.write(f"{version}-{s.kind.name.lower()}", s.kind, s.sections, s.state, extension=said)
        residual = s.residual
    last = made.state
    made.write("7-snapshot", Kind.SNAPSHOT, last.snapshot(), last, extension={"note": "the root of version 6, in another message"})
    squashed = add(rounds[0].sections, rounds[1].sections, manifest)
    made.write("8-squash-1-2", Kind.DELTA, squashed, made.state_of("2-delta"), on=None, extension={"skipped": [[1, 2]]})
    made.write("9-undo-squash", Kind.DELTA, invert(squashed), made.state_of(None), on="8-squash-1-2")
    moved = made.state_of("1-delta")
    moved.apply(Kind.DELTA, rounds[1].sections)
    later = {"samples": 3, "later": {"what": [1, None, True]}, FORGOT: Forgotten((3, 8, 200)).encode()}
    made.write("10-later-keys", Kind.DELTA, rounds[1].sections, moved, on="1-delta", extension=later)
    made.done("# Deltas on float32, a clamp and its snapshot, a squash and its inverse, keys of later releases and `forgot`, wire 1")


def exact() -> None:
    made = Vectors("exact", test_exact.base(7))
    rounds = []
    for version in (1, 2, 3):
        kind, sections, after = exact_update(made.state, test_exact.trained(version, made.state.weights, 1 / version))
        made.write(f"{version}-exact", kind, sections, after)
        rounds.append(sections)
    made.write("4-snapshot", Kind.SNAPSHOT, made.state.snapshot(), made.state)
    squashed = add(rounds[0], rounds[1], made.state.manifest)
    made.write("5-squash-1-2", Kind.EXACT, squashed, made.state_of("2-exact"), on=None, extension={"skipped": [[1, 2]]})
    made.write("6-undo-squash", Kind.EXACT, invert(squashed), made.state_of(None), on="5-squash-1-2")
    made.done("# A base whose tensors are all exact, one of every type: planes, wire 1")


def mixed() -> None:
    made = Vectors("mixed", test_narrow.base(7))
    residual = no_residual(made.state.manifest)
    for version in (1, 2, 3):
        s = snap(made.state.copy(), test_narrow.trained(version, made.state), residual, density=0.1, max_bytes=1 << 20)
        made.write(f"{version}-delta", s.kind, s.sections, s.state)
        residual = s.residual
    made.write("4-snapshot", Kind.SNAPSHOT, made.state.snapshot(), made.state)
    made.done("# A base of every type and class: the root binds Q of float16 and bfloat16 tensors too, wire 1")


def large() -> None:
    """A tensor of several leaves, and one of two blocks of planes."""
    schema = Schema((TensorSpec("codes", (1000, 270), Dtype.INT8), TensorSpec("kernel", (130, 150))))
    codes = (np.arange(270_000) // 977 % 250 - 125).astype(np.float32)
    codes[5] = -128  # so that the tensor is exact
    base = [codes, (np.arange(19_500) % 512 / 1024 - 0.25).astype(np.float32)]
    manifest = manifest_for(schema, base, **NO_FILE, exponents={})
    assert manifest.classes == (TensorClass.EXACT, TensorClass.LATTICE)
    made = Vectors("large", ModelState.of_base(manifest, base))
    for version, at in ((1, [0, 262_143, 262_144, 269_999]), (2, [131_072, 262_150])):
        after = made.state.copy()
        trained = [after.weights[0].copy(), noisy(after, version, 0.01)[1]]
        trained[0][at] = 7 * version
        s = snap(after, [after.weights[0], trained[1]], no_residual(manifest), density=0.002, max_bytes=1 << 20)
        moved = s.state
        sections = difference(made.state, _with(moved, 0, trained[0]))
        made.write(f"{version}-delta", Kind.DELTA, sections, _applied(made.state, sections))
    made.write("3-snapshot", Kind.SNAPSHOT, made.state.snapshot(), made.state)
    made.done("# A tensor of more than 64 KiB, so of several leaves, and one of two blocks of planes, wire 1")


def base_change() -> None:
    """A lineage that moves to another base and back, in one epoch."""
    manifest, base = model(0)
    made = Vectors("base-change", ModelState.of_base(manifest, base), base_name="a")
    schema = Schema((TensorSpec("bias", (6,)), TensorSpec("kernel", (20, 6)), TensorSpec("scale", (6,), Dtype.FLOAT16)))
    rng = np.random.default_rng(3)
    flat = [rng.standard_normal(6).astype(np.float32), rng.standard_normal(120).astype(np.float32), np.ones(6, np.float32)]
    other = ModelState.of_base(manifest_for(schema, flat, **NO_FILE, exponents={}), flat)
    made.add_base(other, "b")

    def step(state: ModelState, seed: int) -> tuple[Kind, tuple[object, ...], ModelState]:
        s = snap(state.copy(), noisy(state, seed, 0.05), no_residual(state.manifest), density=0.1, max_bytes=1 << 20)
        return s.kind, s.sections, s.state

    made.write("1-delta-a", *step(made.state, 1))
    on_b = step(other, 2)[2]
    made.write("2-snapshot-b", Kind.SNAPSHOT, on_b.snapshot(), on_b)
    made.write("3-delta-b", *step(made.state, 3))
    back = made.state_of("1-delta-a")
    made.write("4-snapshot-a", Kind.SNAPSHOT, back.snapshot(), back)
    made.write("5-delta-a", *step(made.state, 5))
    made.done(f"# A snapshot that names another base, within one epoch, and one that goes back, wire 1\n\n{TWO}")


def corners() -> None:
    """What the other chains leave out: scalars on the lattice, `more` in a manifest, a row that says a unit and no entry."""
    shapes = {"bias": (5,), "gain": (), "kernel": (6, 5)}
    halves = {"half_gain": (), "half_scale": (5,)}
    specs = [TensorSpec(name, shape) for name, shape in shapes.items()]
    schema = Schema(tuple(sorted([*specs, *(TensorSpec(n, s, Dtype.FLOAT16) for n, s in halves.items())], key=lambda t: t.name)))
    rng = np.random.default_rng(17)
    flat = [rounded(t.dtype, (rng.standard_normal(t.size) / 2).astype(np.float32)) for t in schema.tensors]
    manifest = replace(manifest_for(schema, flat, **NO_FILE, exponents={}), more={"licence": "free", "taught": [2, {"on": "barn"}]})
    assert all(manifest.lattice(t) for t in range(len(schema.tensors)))
    made = Vectors("corners", ModelState.of_base(manifest, flat))
    trained = [(w + (0.1 + rng.random(len(w))).astype(np.float32)).astype(np.float32) for w in made.state.weights]
    s = snap(made.state.copy(), trained, no_residual(manifest), density=1.0, max_bytes=1 << 20)
    assert {section.tensor for section in s.sections} >= {schema.index("gain"), schema.index("half_gain")}
    made.write("1-delta", s.kind, s.sections, s.state)
    bias, kernel, half = (schema.index(name) for name in ("bias", "kernel", "half_scale"))
    units = manifest.exponents
    sections = (
        empty(bias, units[bias] + 3),  # at its base, in a larger unit
        empty(half, units[half] + 1),
        Section(kernel, np.array([0, 7, 29], np.uint32), np.array([-2, 1, 3], np.int32), 20, units[kernel] + 2),
    )
    after = made.state.at_base()
    after.apply(Kind.SNAPSHOT, sections)
    made.write("2-snapshot", Kind.SNAPSHOT, sections, after)
    moved = snap(made.state.copy(), noisy(made.state, 3, 0.5), no_residual(manifest), density=0.6, max_bytes=1 << 20)
    assert {s.tensor for s in moved.sections} >= {bias, half}
    made.write("3-delta", moved.kind, moved.sections, moved.state)
    made.write("4-snapshot", Kind.SNAPSHOT, made.state.snapshot(), made.state)
    made.done("# Scalars on the lattice, `more` in a manifest, and a snapshot whose rows of count 0 say a unit alone, wire 1")


def _with(state: ModelState, tensor: int, weights: np.ndarray) -> ModelState:
    after = state.copy()
    after.weights[tensor] = weights.copy()
    return after


def _applied(state: ModelState, sections: object) -> ModelState:
    after = state.copy()
    after.apply(Kind.DELTA, sections)  # type: ignore[arg-type]
    return after


def main() -> None:
    """Write the folders."""
    for make in (updates, exact, mixed, large, base_change, corners):
        make()


