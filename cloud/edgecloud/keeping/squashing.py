"""One update in the place of a run of them: computed from the states at both ends, and proven before anything goes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from edgecloud.registry import LineageRow, Store, VersionRow
from edgecloud.versions import materialise
from modelwire import limits
from modelwire.errors import RegistryDamaged, RootMismatch
from modelwire.lattice.between import difference
from modelwire.lattice.replay import kind_of
from modelwire.lattice.state import ModelState
from modelwire.update.container import parse_unsigned, unsigned
from modelwire.update.header import Header
from modelwire.update.sections import Kind


def walk(store: Store, lineage: LineageRow, start: ModelState, run: Sequence[VersionRow], bases: materialise.LoadedBases) -> ModelState:
    """Return the state at the end of a run of versions that begins on `start`, which is left as it is; the root of the end is proven."""
    state = start.copy()
    for version in run:
        if version.base != state.manifest.commit:  # a snapshot went over to another base
            state = bases[version.base].state()
        materialise.step(store, lineage, version, state, prove=version is run[-1])
    return state


def squash(lineage: LineageRow, version: VersionRow, parent: bytes, before: ModelState, after: ModelState) -> bytes:
    """Return the update from one state to another, a container without a signature, proven to lead there bit for bit.

    version: at the end; after: its state. parent: commit of what `before` is the state of, or of the base.
    Raises RootMismatch when it does not come to the root that the version has.
    """
    alike = before.manifest.commit == after.manifest.commit and before.exponents == after.exponents
    kind = kind_of(after) if alike else Kind.SNAPSHOT
    base = version.base if kind is Kind.SNAPSHOT else b""
    a, b = struct.unpack("<QQ", version.fingerprint)
    header = Header(
        kind, lineage.device, lineage.model, version.epoch, version.version, version.base if kind is Kind.SNAPSHOT else parent,
        after.manifest.schema.id, version.root, (a, b), base,
    )  # fmt: skip
    sections = difference(before, after) if alike else after.snapshot()
    data = unsigned(header, sections, after.manifest.schema, limits.LARGE)
    prove(data, before if alike else after.at_base(), lineage, version)
    return data


def prove(data: bytes, start: ModelState, lineage: LineageRow, version: VersionRow) -> None:
    """Raise RootMismatch unless a squash takes `start`, which is left as it is, to the root of a version."""
    state = start.copy()
    state.apply_container(parse_unsigned(data, limits.LARGE))
    if state.root != version.root:
        raise RootMismatch(what=f"the squash that leads to {lineage}@{version.version}", kind="root", device=str(lineage))


def kind_in(data: bytes) -> str:
    """Return the kind of a squash, as its row names it."""
    return parse_unsigned(data, limits.LARGE).header.kind.name.lower()


def require_start(store: Store, version: VersionRow | None, base: bytes, bases: materialise.LoadedBases) -> ModelState:
    """Return the state of a version, None: of its lineage's base, proven. Raises as `rebuild`."""
    if version is None:
        return bases[base].state()
    if store.versions.by_id(version.id) is None:
        raise RegistryDamaged(path="the registry", reason=f"version {version.version} is gone", fix=materialise.BACK)
    return materialise.rebuild(store, version, bases)
