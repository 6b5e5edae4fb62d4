"""Measures what recovery takes on this machine, so that a promise in time becomes one in work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from edgecloud.registry import Store
from edgecloud.versions.route import Rates
from modelwire import limits
from modelwire.lattice.replay import kind_of
from modelwire.lattice.state import ModelState
from modelwire.output_head.rows import Rows
from modelwire.output_head.trainer import train_head
from modelwire.output_head_settings import OutputHeadSettings
from modelwire.tensors import Schema, TensorSpec
from modelwire.update.container import parse_unsigned, unsigned
from modelwire.update.header import Header
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import Kind, Sections, section_of

WEIGHTS = 1 << 20  # of the model that is measured with
TIMES = 5  # the fastest of them counts: whatever else the machine does only adds


def measure() -> Rates:
    """Return what work takes here. Takes about a second. One-off costs of a query and a file are the usual ones."""
    usual = Rates()
    schema = Schema((TensorSpec("kernel", (WEIGHTS // 1024, 1024)),))
    base = [np.random.default_rng(1).standard_normal(WEIGHTS, np.float32)]
    manifest = manifest_for(schema, base, file_sha256=bytes(32), file_size=0, file_tree=bytes(32), exponents={})
    zero = ModelState.of_base(manifest, base)
    proven = _fastest(lambda: zero.at_base().root)
    update, full = _container(zero, 0.02), _container(zero, 1.0)
    light, heavy = parse_unsigned(update), parse_unsigned(full, limits.LARGE)
    state = zero.at_base()
    forward = _fastest(lambda: zero.at_base().apply_container(light)) - _fastest(zero.at_base)
    whole = _fastest(lambda: state.apply_container(heavy))
    return Rates(
        weight=proven / WEIGHTS, state=usual.state, state_byte=max(1e-12, whole / len(full)), update=usual.update,
        update_byte=max(1e-12, forward / len(update)), multiply=_multiply(),
    )  # fmt: skip


def measured(store: Store, now: int, *, again: bool = False) -> Rates:
    """Return the rates of this machine from the registry; measured and kept there when there are none yet, or again."""
    known = store.policies.rates()
    if again or not known:
        rates = measure()
        store.policies.set_rates(asdict(rates), now)
        return rates
    return Rates(**{name: seconds for name, (seconds, _) in known.items() if name in asdict(Rates())})


def _container(zero: ModelState, share: float) -> bytes:
    """Return an update of a share of the weights, or for all of them a state, as bytes."""
    rng, state = np.random.default_rng(2), zero.at_base()
    index = np.flatnonzero(rng.random(WEIGHTS) < share).astype(np.uint32)
    steps = np.rint(rng.standard_normal(len(index)) * (1 if share < 1 else 8)).astype(np.int64)
    section = section_of(0, steps * 96, state.exponents[0], index=index)
    sections: Sections = () if section is None else (section,)
    state.apply(kind_of(state), sections)
    kind, manifest = Kind.SNAPSHOT if share == 1 else Kind.DELTA, state.manifest
    header = Header(
        kind, "measure", "measure", 1, 1, manifest.commit, manifest.schema.id, bytes(32), state.fingerprint,
        manifest.commit if kind is Kind.SNAPSHOT else b"",
    )  # fmt: skip
    return unsigned(header, sections, manifest.schema, limits.LARGE)


def _multiply() -> float:
    """Return the seconds of one multiply-add of a recipe's training."""
    head = OutputHeadSettings(features=256, outputs=16, hidden=(), steps=20, batch=32, rate=0.01, seed=1)
    rng = np.random.default_rng(3)
    rows = Rows(rng.integers(-127, 128, (64, 256)).astype(np.int8), np.arange(64, dtype=np.uint32) % 16, scale=1 / 64)
    start = [(np.zeros((16, 256), np.float32), np.zeros(16, np.float32))]
    return _fastest(lambda: train_head(head, rows, start)) / head.work(len(rows))


def _fastest(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(TIMES):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best
