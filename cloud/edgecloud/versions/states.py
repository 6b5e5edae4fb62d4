"""Kept states: what is written of a version's state, and what is read back. A snapshot that no device has signed, and no version.

All of Q against the base, coded as a snapshot's sections are or, where most weights have moved, as `dense` says, with the header that the
version has. Derived from the containers, so it may be lost; whoever reads one proves digest, header and fingerprint here, and the root of
what it comes to.
"""

from __future__ import annotations

import struct

from edgecloud.registry import LineageRow, Store, VersionRow
from modelwire import limits
from modelwire.errors import ModelWireError, RegistryDamaged, RootMismatch, WrongBase
from modelwire.lattice.state import ModelState
from modelwire.update.container import parse_unsigned, unsigned
from modelwire.update.header import Header
from modelwire.update.sections import Kind

from . import dense

MADE_AGAIN = "edgecloud compact drops it and makes it again; the version itself is not lost"


def encode(state: ModelState, lineage: LineageRow, version: VersionRow) -> bytes:
    """Return what is kept of a state, which is the version's. Raises RootMismatch when it is not: all its weights are hashed."""
    if state.root != version.root:
        raise RootMismatch(what=f"{lineage}@{version.version}", kind="root", device=str(lineage))
    header = Header(
        Kind.SNAPSHOT, lineage.device, lineage.model, version.epoch, version.version, version.parent, state.manifest.schema.id,
        version.root, state.fingerprint, version.base,
    )  # fmt: skip
    sections, schema = state.snapshot(), state.manifest.schema
    usual = unsigned(header, sections, schema, limits.LARGE)
    return dense.encode(header, sections, schema, len(usual)) or usual


def decode(data: bytes, fresh: ModelState, lineage: LineageRow, version: VersionRow, where: object) -> ModelState:
    """Return a kept state. fresh: the state of the version's base, which is moved. The root of the result is the caller's to prove.

    where: the registry, for the error. Raises RegistryDamaged.
    """
    name = f"{lineage}@{version.version}"
    try:
        kept, sections = dense.decode(data, fresh.manifest.schema) if dense.is_dense(data) else (parse_unsigned(data, limits.LARGE), None)
        header = kept.header
        said = (header.kind, header.device, header.model, header.version, header.root, struct.pack("<QQ", *header.fingerprint))
        if said != (Kind.SNAPSHOT, lineage.device, lineage.model, version.version, version.root, version.fingerprint):
            raise RegistryDamaged(path=where, reason=f"the kept state of {name} is another's", fix=MADE_AGAIN)
        if sections is None:
            fresh.apply_container(kept)
        elif header.base != fresh.manifest.commit:
            raise WrongBase(what="the kept state", kind="base", expected=fresh.manifest.commit.hex()[:16], got=header.base.hex()[:16])
        else:
            fresh.apply(Kind.SNAPSHOT, sections, expect=header.fingerprint)
    except RegistryDamaged:
        raise
    except ModelWireError as error:
        raise RegistryDamaged(path=where, reason=f"the kept state of {name} is damaged: {error.message}", fix=MADE_AGAIN) from None
    return fresh


def read(store: Store, lineage: LineageRow, version: VersionRow, fresh: ModelState) -> ModelState | None:
    """Return the kept state of a version, None when there is none by now. Raises RegistryDamaged, naming the version."""
    try:
        data = store.states.get(version.id)
    except RegistryDamaged as error:
        reason = f"the kept state of {lineage}@{version.version} is damaged: {error.facts['reason']}"
        raise RegistryDamaged(path=error.facts["path"], reason=reason, fix=MADE_AGAIN) from None
    return None if data is None else decode(data, fresh, lineage, version, "the registry")
