"""The way back to a model that a device had, bit for bit: to its last one, for a board that lost its state, or to any of its versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgecloud.registry import Epoch, HeadRow, LineageRow, Status, Store, VersionRow
from modelwire.errors import BadArgument, BadSignature
from modelwire.lattice.between import difference
from modelwire.lattice.replay import kind_of
from modelwire.update import container
from modelwire.update.container import Container
from modelwire.update.header import Header
from modelwire.update.proof import HeaderProof
from modelwire.update.sections import Kind, Sections

from . import materialise, squashed
from .unlearning import LIMIT

RECORD_HOLDS = LIMIT.container  # bytes of an update that a command itself carries


@dataclass(frozen=True, slots=True)
class WayBack:
    """What a board has to take over."""

    last: VersionRow  # the version that it comes to
    parent: bytes  # commit of its head; of the base, where a new epoch has none yet
    update: bytes  # a container up to and with its commit
    kind: Kind


@dataclass(frozen=True, slots=True)
class Rollback:
    """The update that leads from the head of a model to a version that it had."""

    head: HeadRow
    root: bytes  # of the version
    update: bytes  # a container up to and with its commit; empty: the head is that model already, bit for bit
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


def rollback(store: Store, lineage: LineageRow, epoch: Epoch, head: HeadRow, target: VersionRow | None, keys: Sequence[bytes]) -> Rollback:
    """Return the update that leads from the head to a version of the same model, of whichever epoch: the smaller of delta and snapshot.

    target: the version; None: the base that the epoch began with. keys: that speak, or spoke, for the device. Raises BadArgument for a
    version on another base or one that is not proven yet, NotServed for a refused one, Thinned for one that is gone, BadSignature for one
    that none of the keys signed, and as `rebuild`.
    """
    at = store.versions.by_id(head.version_id) if head.version_id is not None else None
    base, wanted = at.base if at is not None else epoch.base, target.base if target is not None else epoch.base
    name = f"{lineage}@{target.version if target is not None else 'base'}"
    if wanted != base:
        of, now = (known.name if (known := store.bases.get(commit)) else commit.hex()[:16] for commit in (wanted, base))
        raise BadArgument(
            reason=f"{name} is on the base {of!r}, and the board is on {now!r}: an update leads to no other base",
            fix=f"deploy the base {of!r} to it first: a board takes another base only by a rollout",
        )
    bases = materialise.LoadedBases(store)
    for version in (target, at):
        if version is not None:
            materialise.require_served(lineage, version)
            _require_signed(squashed.proof_of(store, lineage, version) or materialise.open_container(store, lineage, version), keys, store)
    if target is not None and target.status is Status.STORED:
        raise BadArgument(reason=f"{name} is not proven yet", fix="wait until it is: edgecloud log lists it as verified then")
    after = materialise.rebuild(store, target, bases) if target is not None else bases[base].state()
    if (at.root if at is not None else bases[base].manifest.root) == after.root:
        return Rollback(head, after.root, b"", kind_of(after))
    before, schema = materialise.rebuild(store, at, bases) if at is not None else bases[base].state(), after.manifest.schema
    number = head.version + 1  # it means nothing: the board gives its own

    def sealed(kind: Kind, sections: Sections) -> bytes:
        header = Header(
            kind, lineage.device, lineage.model, epoch.epoch, number, head.commit, schema.id, after.root, after.fingerprint,
            base if kind is Kind.SNAPSHOT else b"", {"note": f"back to {name.partition('@')[2]}"},
        )  # fmt: skip
        return container.unsigned(header, sections, schema)

    whole = sealed(Kind.SNAPSHOT, after.snapshot())
    if before.exponents != after.exponents:  # only a snapshot changes units
        return Rollback(head, after.root, whole, Kind.SNAPSHOT)
    step = sealed(kind_of(after), difference(before, after))
    if len(step) <= RECORD_HOLDS or len(step) < len(whole):  # what goes into a command costs no transfer
        return Rollback(head, after.root, step, kind_of(after))
    return Rollback(head, after.root, whole, Kind.SNAPSHOT)


def _require_signed(sent: Container | HeaderProof, keys: Sequence[bytes], store: Store) -> None:
    """Raise BadSignature unless one of these keys sealed a container: its commit binds the root that is rebuilt and proven."""
    for key in keys:
        try:
            sent.verify(key, store.identity.id)
            return
        except BadSignature:
            continue
    raise BadSignature(what=sent.name, signer=f"any of the {len(keys)} keys of {sent.header.device}")
