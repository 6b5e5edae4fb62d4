"""Versions whose own containers were dropped: what leads to them now, what proves them, and what to say of those that are gone."""

from __future__ import annotations

import struct

from edgecloud.registry import LineageRow, SquashRow, Store, VersionRow
from modelwire import limits
from modelwire.errors import BadSignature, RegistryDamaged, Thinned
from modelwire.update.container import Container, parse_unsigned
from modelwire.update.proof import HeaderProof

BACK = "edgecloud restore BACKUP"


def require_held(store: Store, lineage: LineageRow, version: VersionRow) -> None:
    """Raise Thinned for a version that is no longer recoverable; the error names the nearest ones that are."""
    left = store.thinnings.get(version.id)
    if left is not None and left.gone:
        raise thinned(store, lineage, version)


def thinned(store: Store, lineage: LineageRow, version: VersionRow) -> Thinned:
    """Return what is said of a version that is gone."""
    near = [n for n in store.thinnings.nearest(lineage.id, version.version) if n is not None]
    said = " and ".join(f"@{n}" for n in near) if near else "none"
    facts = {"name": f"{lineage}@{version.version}", "nearest": said}
    if not near:
        return Thinned(**facts)
    one = min(near, key=lambda n: abs(n - version.version))
    return Thinned(**facts, fix=f"edgecloud materialise {lineage}@{one} -o FILE")


def open_squash(store: Store, lineage: LineageRow, version: VersionRow, squash: SquashRow) -> Container:
    """Return the update that leads to a version in the place of its own. Raises RegistryDamaged unless it is the one that its rows say."""
    start = store.versions.by_id(squash.from_id) if squash.from_id is not None else None
    sent = parse_unsigned(store.blobs.get(squash.blob), limits.LARGE)
    header = sent.header
    parent = start.commit if start is not None else version.base
    said = (
        header.device, header.model, header.epoch, header.version, header.kind.name.lower(), header.parent, header.root,
        struct.pack("<QQ", *header.fingerprint),
    )  # fmt: skip
    row = (
        lineage.device, lineage.model, version.epoch, version.version, squash.kind, parent, version.root, version.fingerprint,
    )  # fmt: skip
    if said != row or header.base not in (b"", version.base):
        reason = f"the row of {lineage}@{version.version} does not agree with the squash that leads to it"
        raise RegistryDamaged(path="the registry", reason=reason, fix=BACK)
    return sent


def before(store: Store, version: VersionRow) -> int | None:
    """Return the id of the version that what leads to this one begins on: its parent, or the start of its squash; None: a base."""
    squash = store.thinnings.squash(version.id)
    return version.parent_id if squash is None else squash.from_id


def proof_of(store: Store, lineage: LineageRow, version: VersionRow) -> HeaderProof | None:
    """Return what is left of a version's own container, its commit proven, None where all of it is held.

    Raises BadSignature unless a key that ever spoke for the device has sealed it, RegistryDamaged when it is another's.
    """
    left = store.thinnings.get(version.id)
    if left is None:
        return None
    from edgecloud.audit.tampering import require_proof  # a registry that was never thinned does without

    proof = require_proof(left.proof, lineage, version)
    keys = store.devices.keys(lineage.device)
    for known in keys:
        try:
            proof.verify(known.key, store.identity.id)
            return proof
        except BadSignature:
            continue
    raise BadSignature(what=f"{lineage}@{version.version}", signer=f"any of the {len(keys)} keys of {lineage.device}")
