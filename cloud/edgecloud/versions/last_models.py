"""The last model of a device that lost its state: which one it is, and the update that leads a fresh board back to it, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgecloud.registry import Epoch, HeadRow, LineageRow, Store, VersionRow
from modelwire.errors import BadArgument, BadSignature
from modelwire.lattice.between import difference
from modelwire.lattice.replay import kind_of
from modelwire.update import container
from modelwire.update.container import Container
from modelwire.update.header import Header
from modelwire.update.proof import HeaderProof
from modelwire.update.sections import Kind

from . import materialise, squashed
from .unlearning import LIMIT

RECORD_HOLDS = LIMIT.container  # bytes of an update that a command itself carries


@dataclass(frozen=True, slots=True)
class WayBack:
    """What a board in its new epoch has to take over."""

    last: VersionRow
    parent: bytes  # commit of the base, which is the head of the new epoch
    update: bytes  # a container up to and with its commit
    kind: Kind


def offered(store: Store, lineage: LineageRow, epoch: Epoch, head: HeadRow) -> VersionRow | None:
    """Return the version that a model in a new epoch may have back: the last verified head of the newest older epoch that has one.

    None when there is none, when it is on another base than the one that the board was set up with, or when the new epoch has moved on.
    """
    last = store.versions.last_verified(lineage.id, epoch.epoch) if head.version_id is None else None
    return last if last is not None and last.base == epoch.base else None


def way_back(store: Store, lineage: LineageRow, epoch: Epoch, head: HeadRow, keys: Sequence[bytes]) -> WayBack:
    """Return the update that leads from the base of the new epoch to the last model. keys: that speak, or spoke, for the device.

    Raises BadArgument that says why there is none, BadSignature for a version that none of them signed, and as `rebuild`.
    """
    if head.version_id is not None:
        raise BadArgument(
            reason=f"{lineage} has moved on to @{head.version} since it was set up anew",
            fix="set it up anew once more, with edgeagent init --resume, if it is to have its last model back",
        )
    last = store.versions.last_verified(lineage.id, epoch.epoch)
    if last is None:
        raise BadArgument(
            reason=f"no older epoch of {lineage} has a verified version", fix=f"edgecloud log {lineage} --json lists what it ever sent"
        )
    if last.base != epoch.base:
        of, now = (base.name if (base := store.bases.get(commit)) else commit.hex()[:16] for commit in (last.base, epoch.base))
        raise BadArgument(
            reason=f"the last model of {lineage}, @{last.version}, is on the base {of!r}, and the board was set up with {now!r}",
            fix=f"set the board up anew with the file of {of!r}: edgeagent init --resume --model {lineage.model}=FILE",
        )
    # A row may be anybody's who writes to the registry; the operator is about to seal what it leads to.
    _require_signed(squashed.proof_of(store, lineage, last) or materialise.open_container(store, lineage, last), keys, store)
    bases = materialise.LoadedBases(store)
    before, after = bases[epoch.base].state(), materialise.rebuild(store, last, bases)
    if before.root == after.root:
        raise BadArgument(reason=f"{lineage}@{last.version} is the base, bit for bit", fix="nothing is to be sent")
    # Only a snapshot changes units.
    kind = kind_of(after) if before.exponents == after.exponents else Kind.SNAPSHOT
    sections = after.snapshot() if kind is Kind.SNAPSHOT else difference(before, after)
    header = Header(
        kind, lineage.device, lineage.model, epoch.epoch, last.version, epoch.base, after.manifest.schema.id, after.root, after.fingerprint,
        epoch.base if kind is Kind.SNAPSHOT else b"", {"note": f"@{last.version} of epoch {last.epoch}"},
    )  # fmt: skip
    return WayBack(last, epoch.base, container.unsigned(header, sections, after.manifest.schema), kind)


def _require_signed(sent: Container | HeaderProof, keys: Sequence[bytes], store: Store) -> None:
    """Raise BadSignature unless one of these keys sealed a container: its commit binds the root that is rebuilt and proven."""
    for key in keys:
        try:
            sent.verify(key, store.identity.id)
            return
        except BadSignature:
            continue
    raise BadSignature(what=sent.name, signer=f"any of the {len(keys)} keys of {sent.header.device}")
