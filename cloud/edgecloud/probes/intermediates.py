"""What each layer of versions gives on a probe set, computed once: kept where MISTIQUE's gamma says that it pays, within a bound.

One run gives all layers of a version, so they are judged together: gamma = (t_rerun - t_read) * n_query / S, in seconds a stored byte, with
S the bytes that they take, of a chunk that several versions share its part. Each query counts. Where the bound is reached, the least gamma
goes first. Derived data: all of it can be made again. Source: Vartak et al., MISTIQUE, SIGMOD 2018, section 5.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata

from edgecloud.registry import OUTPUT, IntermediateRow, ObservedRow, ProbeRow, Store
from edgecloud.settings import from_environment
from edgecloud.versions import materialise, naming
from edgecommon import runtime
from modelwire.errors import BadArgument, Malformed
from modelwire.limits import MIB
from modelwire.planning import mistique_gamma, mistique_read_s
from modelwire.tensors import F32

from . import coding, running
from .coding import EXACT, QUANTILES
from .sets import ProbeSet

READ_RATE = 200e6  # bytes of float32 a second, before any of a set was read
GAMMA_MIN, MOST = "0.1", "256"  # seconds saved a MiB and query; MiB of all intermediates


@dataclass(frozen=True, slots=True)
class IntermediateSettings:
    """How intermediates are kept."""

    gamma_min: float = float(GAMMA_MIN) / MIB  # seconds saved a byte
    most: int = int(MOST) * MIB  # bytes of all
    bits: int = QUANTILES
    pool: bool = False  # of a layer with rows and columns, the mean alone

    @classmethod
    def from_environment(cls, *, all_bits: bool = False, pool: bool = False) -> IntermediateSettings:
        """Return what EDGECLOUD_GAMMA_MIN (seconds a MiB) and EDGECLOUD_INTERMEDIATES (MiB) say. Raises BadArgument."""
        gamma, most = (_number(*one) for one in (("GAMMA_MIN", GAMMA_MIN), ("INTERMEDIATES", MOST)))
        return cls(gamma / MIB, int(most * MIB), EXACT if all_bits else QUANTILES, pool)


@dataclass(frozen=True, slots=True)
class LayerSeen:
    """What one layer of a version gave for all rows."""

    name: str
    values: F32  # [n, ...]
    error: float  # root mean square of these less what was computed; 0 where they are that
    chunk: bytes  # equal where the computed values are

    @property
    def spread(self) -> float:
        """The norm of what was lost."""
        return float(self.error * self.values.size**0.5)


@dataclass(frozen=True, slots=True)
class VersionSeen:
    """What one version gave on a probe set."""

    name: str
    reason: str  # why there is nothing
    output: F32 | None = None
    layers: tuple[LayerSeen, ...] = ()
    read: bool = False  # from what is kept, not computed now
    kept: bool = False  # after this query
    gamma: float = 0.0  # seconds saved a byte
    raw: int = 0  # bytes of outputs and layers as float32

    def __repr__(self) -> str:
        return f"<{self.name} on probes: {self.reason or f'{len(self.layers)} layers'}>"


def way_of(settings: IntermediateSettings, layers: bool) -> str:
    """Return what must be equal for what is kept to be what would be computed here now, as text."""
    versions = [f"{package} {version}" for package, _ in runtime.PACKAGES.values() if (version := _installed(package))]
    kept = f"layers in {settings.bits} bits{', pooled' if settings.pool else ''}" if layers else "outputs"
    return f"{', '.join(versions)}; {runtime.isa()}; {kept}"


def seen(
    store: Store, places: Sequence[naming.Place], row: ProbeRow, probes: ProbeSet, bases: materialise.LoadedBases, *, now: int,
    layers: bool = False, exact: bool = False, keep: bool = True, settings: IntermediateSettings | None = None,
    limits: running.RunLimits | None = None, progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[VersionSeen]:  # fmt: skip
    """Return what each version gives on a probe set, in order: read where it is kept, else computed, and kept where that pays.

    layers: of each layer, too. exact: compute all anew, to the bit, keep and count nothing. keep: count this query and keep what pays;
    the store must be writable. Raises RuntimeUnusable; what goes wrong in one version is its reason.
    """
    settings, keep = settings or IntermediateSettings(), keep and not exact
    way, found = way_of(settings, layers), dict[int, VersionSeen]()
    decoded: dict[bytes, F32] = {}  # what versions share is read once
    if not exact:
        for n, place in enumerate(places):
            known = store.intermediates.get(place.version.id if place.version else None, place.base, row.digest, way)
            if known is not None and (read := _read(store, place, known, decoded, keep=keep, now=now)) is not None:
                found[n] = read
                progress(len(found), len(places))
    left = sorted((n for n in range(len(places)) if n not in found), key=lambda n: places[n].base)
    started = time.perf_counter()
    models = (running.of_place(store, places[n], bases) for n in left)
    runs = running.outputs(models, probes.x, layers=layers, pool=settings.pool, limits=limits)
    for done, (n, run) in enumerate(zip(left, runs, strict=True), 1):
        # What comes with the first model, a process and an interpreter, is a part of what each costs alone.
        each = (time.perf_counter() - started) / done
        found[n] = _computed(store, places[n], row, run, each, way, settings, keep=keep, now=now)
        progress(len(found), len(places))
    return [found[n] for n in range(len(places))]


def _read(
    store: Store, place: naming.Place, known: ObservedRow, decoded: dict[bytes, F32], *, keep: bool, now: int
) -> VersionSeen | None:
    """Return what is kept of a version; None where that is not all there."""
    started = time.perf_counter()
    rows = store.intermediates.layers(known)
    if not rows or rows[0].layer != OUTPUT:
        return None
    out: list[LayerSeen] = []
    for one in rows:
        if one.chunk not in decoded:
            data = store.intermediates.chunk(one.chunk)
            if data is None:
                return None
            try:
                decoded[one.chunk] = coding.read(data)
            except Malformed:
                return None
        out.append(LayerSeen(one.name, decoded[one.chunk], one.error, one.chunk))
    took = time.perf_counter() - started
    if keep:
        known = store.intermediates.asked(_with(known, read_s=took, asked_at=now))
    gamma = mistique_gamma(known.rerun_s, took, known.queries, _share(store, rows))
    return VersionSeen(str(place), "", out[0].values, tuple(out[1:]), True, True, gamma, known.raw)


def _computed(
    store: Store, place: naming.Place, row: ProbeRow, run: running.ModelRun, seconds: float, way: str, settings: IntermediateSettings,
    *, keep: bool, now: int,
) -> VersionSeen:  # fmt: skip
    if run.reason or run.output is None:  # what gives no finite numbers gives them all the same
        return VersionSeen(str(place), run.reason)
    bits = [EXACT, *([settings.bits] * len(run.layers))]  # accuracies are of what the model truly gave
    named = [("output", run.output), *run.layers]
    chunks = [coding.chunk_of(values, each) for (_, values), each in zip(named, bits, strict=True)]
    layers = tuple(LayerSeen(name, values, 0.0, chunk) for (name, values), chunk in zip(named, chunks, strict=True))[1:]
    raw = sum(values.nbytes for _, values in named)
    if not keep:
        return VersionSeen(str(place), "", run.output, layers, raw=raw)
    asked = ObservedRow(place.version.id if place.version else None, place.base, row.digest, way, 1, seconds, raw / READ_RATE, raw, now)
    with store.transaction():
        known = store.intermediates.asked(asked)
        store.intermediates.drop(known)  # what is left of one that could not be read
        held = {c: of for c, of in store.intermediates.sizes(chunks).items() if store.intermediates.chunk(c) is not None}
        new = {c: (values, each) for (_, values), c, each in zip(named, chunks, bits, strict=True) if c not in held}
        made = {c: coding.keep(*of) for c, of in new.items()}
        size = sum(of[0] / (of[1] + 1) for of in held.values()) + sum(len(one.data) for one in made.values())
        gamma = mistique_gamma(known.rerun_s, mistique_read_s(len(run.output), raw / len(run.output), READ_RATE), known.queries, size)
        pays = gamma >= settings.gamma_min and size <= settings.most
        if pays:
            errors = {**{c: of[2] for c, of in held.items()}, **{c: one.error for c, one in made.items()}}
            rows = [IntermediateRow(n + OUTPUT, name, errors[c], c) for n, ((name, _), c) in enumerate(zip(named, chunks, strict=True))]
            store.intermediates.put(known, rows, {c: one.data for c, one in made.items()})
            gone = make_room(store, settings.most)
            pays = known.id not in gone
    return VersionSeen(str(place), "", run.output, layers, False, pays, gamma, raw)


def make_room(store: Store, most: int) -> set[int]:
    """Let the least gamma go until so many bytes are kept at most, and return the numbers of the rows whose layers went."""
    gone = set[int]()
    if store.intermediates.total() <= most:
        return gone
    worth = [(mistique_gamma(o.rerun_s, min(o.read_s, o.rerun_s), o.queries, size), o.id, o) for o, size in store.intermediates.kept()]
    for _, id, observed in sorted(worth):
        if store.intermediates.total() <= most:
            break
        store.intermediates.drop(observed)
        gone.add(id)
    return gone


def _share(store: Store, rows: Sequence[IntermediateRow]) -> float:
    return sum(size / max(1, shared) for size, shared, _ in store.intermediates.sizes([*{r.chunk for r in rows}]).values())


def _with(row: ObservedRow, *, read_s: float, asked_at: int) -> ObservedRow:
    return ObservedRow(row.version_id, row.base, row.probe, row.way, row.queries, row.rerun_s, read_s, row.raw, asked_at, row.id)


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _number(name: str, default: str) -> float:
    text = from_environment(name, default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise BadArgument(reason=f"EDGECLOUD_{name} is {text!r}, no number from 0 up", fix=f"write one such as {default}")
    return value

