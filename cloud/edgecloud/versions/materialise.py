"""Rebuilds any version from the registry: nearest snapshot or base, then deltas and recipes. Exact and proven, or an error."""

from __future__ import annotations

import logging
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from edgecloud.registry import LineageRow, Status, Store, VersionRow
from modelwire import limits
from modelwire.errors import (
    BadArgument,
    BadSignature,
    DigestMismatch,
    IndexOutOfRange,
    Malformed,
    ModelWireError,
    NonFinite,
    NotServed,
    RangeOverflow,
    RegistryDamaged,
    ReplayMismatch,
    RootMismatch,
    WrongBase,
)
from modelwire.identity import weights_node
from modelwire.lattice.rebuild import apply, prove_root
from modelwire.lattice.replay import first_apart, kind_of
from modelwire.lattice.state import Counted, ModelState
from modelwire.tensors import F32
from modelwire.tflite.file import TrainableFile, parse_trainable, read_tensors, write_weights
from modelwire.update.container import Container
from modelwire.update.manifest import Manifest, parse_manifest
from modelwire.update.sections import Kind

from . import route, squashed, states
from .ahead import Ahead
from .route import Hop, Route

log = logging.getLogger("edgecloud.versions")
BASES_KEPT = 8
PIPED, PIPED_SIZE = 4, 16 * 1024 * 1024  # updates from which on decoding them ahead pays, and bytes of the largest of them
BACK = "edgecloud restore BACKUP"
# What a part of a way may be found to be; anything else is no fault of what is kept.
_DAMAGE = (RegistryDamaged, RootMismatch, DigestMismatch, IndexOutOfRange, Malformed, NonFinite, RangeOverflow, WrongBase)
MARKED_WEIGHTS = 1 << 28  # of a recipe's checkpoints together: so many are hashed in a few seconds


@dataclass
class LoadedBase:
    """A base with its weights, parsed and proven against its manifest once, whatever the number of versions rebuilt on it."""

    manifest: Manifest
    weights: tuple[F32, ...]
    file: TrainableFile
    _first: ModelState | None = field(default=None, init=False, repr=False)

    def state(self) -> ModelState:
        """Return version 0, to be changed by its owner alone; the base's arrays are shared by all states."""
        if self._first is None:  # its arrays are of use to the first who asks; what all share is the base
            self._first = ModelState.of_base(self.manifest, self.weights)
            return self._first
        return self._first.at_base()


class LoadedBases:
    """The bases of a registry, the last few kept in memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: OrderedDict[bytes, LoadedBase] = OrderedDict()

    def __getitem__(self, commit: bytes) -> LoadedBase:
        if commit not in self._kept:
            self._kept[commit] = self._load(commit)
            if len(self._kept) > BASES_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(commit)
        return self._kept[commit]

    def _load(self, commit: bytes) -> LoadedBase:
        row = self._store.bases.get(commit)
        if row is None:
            raise RegistryDamaged(path="the registry", reason=f"the base {commit.hex()[:16]} is gone", fix=BACK)
        manifest = parse_manifest(row.manifest)
        if manifest.commit != commit or manifest.file_sha256 != row.file:
            raise RegistryDamaged(path="the registry", reason=f"the manifest of base {row.name!r} has changed", fix=BACK)
        file = parse_trainable(self._store.blobs.get(row.file))
        schema, flat = read_tensors(file)
        if schema.id != manifest.schema.id:
            raise RegistryDamaged(path="the registry", reason=f"the file of base {row.name!r} is not its manifest's", fix=BACK)
        return LoadedBase(manifest, tuple(flat), file)


def open_container(store: Store, lineage: LineageRow, version: VersionRow) -> Container:
    """Return the container of a version, proven to be the one that was stored: commit, digest and every field of its row."""
    require_own(store, lineage, version)
    sent = store.blobs.container(version.blob, limits.LARGE)
    header = sent.header
    row = (
        lineage.device, lineage.model, version.epoch, version.version, version.kind, version.commit, version.parent, version.root,
        version.size, version.extension,
    )  # fmt: skip
    said = (
        header.device, header.model, header.epoch, header.version, header.kind.name.lower(), sent.commit, header.parent, header.root,
        sent.size, sent.extension,
    )  # fmt: skip
    other_base = header.base not in (b"", version.base)  # a snapshot names its own
    if row != said or other_base or struct.pack("<QQ", *header.fingerprint) != version.fingerprint:
        reason = f"the row of {lineage}@{version.version} does not agree with its container"
        raise RegistryDamaged(path="the registry", reason=reason, fix=BACK)
    return sent


def require_own(store: Store, lineage: LineageRow, version: VersionRow) -> None:
    """Raise Thinned for a version that is no longer recoverable, BadArgument for one of which a squash has taken its container's place."""
    left = store.thinnings.get(version.id) if _may_be_let_go(version) else None
    if left is None:
        return
    squashed.require_held(store, lineage, version)
    raise BadArgument(
        reason=f"what {lineage}@{version.version} was sent as, a {version.kind}, was dropped; its header and signature are kept",
        fix=f"the version itself is recoverable: edgecloud materialise {lineage}@{version.version} -o FILE",
    )


def _may_be_let_go(version: VersionRow) -> bool:
    """Return whether something of it may be gone: never of what is not judged yet, and each of those is asked about."""
    return version.status is not Status.STORED


def carrier(store: Store, lineage: LineageRow, version: VersionRow) -> Container:
    """Return what leads to a version: its own container, or the squash that has taken its place. Raises as `open_container`."""
    squash = store.thinnings.squash(version.id) if _may_be_let_go(version) else None
    return open_container(store, lineage, version) if squash is None else squashed.open_squash(store, lineage, version, squash)


def require_signed(store: Store, lineage: LineageRow, version: VersionRow) -> None:
    """Raise unless a key that ever spoke for the device has sealed a version: its container, or the header that is left of it."""
    if squashed.proof_of(store, lineage, version) is None:
        check_signature(store, lineage, open_container(store, lineage, version))


def step(
    store: Store, lineage: LineageRow, version: VersionRow, state: ModelState, *, prove: bool = True, counted: Counted | None = None
) -> None:
    """Move `state`, the parent's or the base's, to `version` in place, proven against fingerprint and, with `prove`, root.

    A recipe is replayed. Raises RootMismatch when the result is another than its device had: of a recipe with checkpoints it names the
    first that is another, too. After any error the state is of no use. counted: as `modelwire.lattice.rebuild.apply` says.
    """
    container = carrier(store, lineage, version)
    before = state.copy() if _marks_are_looked_at(container, state) else None
    try:
        apply(state, container, limits.LARGE, counted=counted)
        if prove:
            prove_root(state, container)
    except ReplayMismatch as error:
        if before is None:
            raise
        raise at_checkpoint(error, first_apart(before, container.recipe(limits.LARGE), limits.LARGE)) from None


def _marks_are_looked_at(container: Container, state: ModelState) -> bool:
    """Return whether a recipe has checkpoints whose roots take less than seconds to compare: a liar must not keep a rebuild busy."""
    marks = container.recipe(limits.LARGE).checkpoints if container.header.kind is Kind.RECIPE else None
    return marks is not None and len(marks.roots) * state.manifest.schema.size <= MARKED_WEIGHTS


def at_checkpoint(error: ReplayMismatch, step: int) -> ReplayMismatch:
    """Return the error with the step of the first checkpoint that came out otherwise; 0: all of them are equal."""
    kind = f"root after step {step}, at a checkpoint," if step else f"{error.facts['kind']}, behind checkpoints that are all equal,"
    return ReplayMismatch(**{**error.facts, "kind": kind})


@dataclass(frozen=True, slots=True)
class Begun:
    """A rebuild that somebody has begun: the way was found, and the kept state that it starts at is being decoded."""

    way: Route
    kept: Callable[[], ModelState] | None  # waits for it and raises as `states.read`; None where the way starts at a base


def rebuild(
    store: Store, version: VersionRow, bases: LoadedBases, *, avoid: set[route.Part] | None = None, told: list[Route] | None = None,
    begun: Begun | None = None,
) -> ModelState:  # fmt: skip
    """Return the state of a version, by the cheapest way. Raises NotServed for a refused one, and any error that keeps it from being exact.

    Its own root is proven. Of the versions on the way the fingerprints are: their roots would take longer than all the rest. A part of
    the way that turns out to be damaged is gone around where that is possible, and the log names it.
    avoid: parts known to be damaged; what is found out is added. told: is given the way that was taken. begun: the first way to be tried.
    """
    lineage = store.lineages.by_id(version.lineage)
    require_served(lineage, version)
    squashed.require_held(store, lineage, version)
    avoid = set() if avoid is None else avoid
    first, hurry = None, True
    while (way := begun.way if begun is not None else route.find(store, version, route.rates_of(store), avoid)) is not None:
        broken, kept = _Place(), begun.kept if begun is not None else None
        begun = None
        state = bases[version.base if isinstance(way.start, int) else way.start].state()  # a lost base can't be gone around
        try:
            state = _walk(store, lineage, version, way, state, broken, hurry=hurry, kept=kept)
        except _DAMAGE as error:
            first = first or error
            if not isinstance(error, RegistryDamaged):
                if way.plain and hurry:
                    hurry = False
                    continue
                if way.plain:  # all that was kept or inverted is out of it: it is the device's own
                    raise
                if squashed.before(store, version) is not None and broken.part == ("forward", version.id):
                    return _on_proven_parent(store, lineage, version, bases, avoid)
            bad = broken.part if isinstance(error, RegistryDamaged) else way.soft
            if bad in avoid:
                raise
            log.warning("%s@%s: %s; another way is looked for", lineage, version.version, error)
            avoid.add(bad)
            continue
        if told is not None:
            told.append(way)
        return state
    raise first or RegistryDamaged(path="the registry", reason=f"what {lineage}@{version.version} was made on is not whole", fix=BACK)


@dataclass(slots=True)
class _Place:
    """Where on a way a walk is."""

    part: route.Part = ("state", 0)


def _walk(
    store: Store, lineage: LineageRow, version: VersionRow, way: Route, state: ModelState, place: _Place, *, hurry: bool,
    kept: Callable[[], ModelState] | None,
) -> ModelState:  # fmt: skip
    """Return the state that a way leads to, its root proven. state: the base's, which is moved; place: is moved along.

    hurry: decode updates ahead; what is wrong with one is then said in fewer words. kept: gives the state that the way starts at, where
    it is decoded already.
    """
    rows = {one: _row(store, lineage, one) for hop in way.hops for one in (hop.link.id, hop.before) if isinstance(one, int)}
    piped = _piped(way, version, hurry)
    opened = ((partial(carrier, store, lineage, rows[hop.link.id]), hop.back) for hop in piped)
    ahead = Ahead(opened, state.manifest.schema) if piped else None
    try:
        if isinstance(way.start, int):
            place.part = "state", way.start
            start = kept() if kept is not None else states.read(store, lineage, _row(store, lineage, way.start), state)
            if start is None:
                reason = f"the kept state of version row {way.start} is gone"
                raise RegistryDamaged(path="the registry", reason=reason, fix=states.MADE_AGAIN)
            state = start
        for hop in way.hops:
            place.part = hop.part
            row = rows[hop.link.id]
            if hop not in piped:
                step(store, lineage, row, state, prove=hop.link.id == version.id)
                continue
            assert ahead is not None
            after = rows[hop.before] if hop.back and isinstance(hop.before, int) else row
            first, second = struct.unpack("<QQ", after.fingerprint)
            state.apply(kind_of(state), ahead.next(), expect=(first, second))
    finally:
        if ahead is not None:
            ahead.close()
    stepped = bool(way.hops) and way.hops[-1] not in piped
    if not stepped and state.root != version.root:
        raise RootMismatch(what=f"{lineage}@{version.version}", kind="root", device=str(lineage))
    return state


def _piped(way: Route, version: VersionRow, hurry: bool) -> tuple[Hop, ...]:
    """Return the hops whose updates are decoded ahead: those back, and where it saves time those forward but the last one's own."""
    back = tuple(hop for hop in way.hops if hop.back)
    forward = tuple(hop for hop in way.hops if not hop.back and hop.link.kind in route.INVERTIBLE and hop.link.id != version.id)
    hurry = hurry and len(back) + len(forward) >= PIPED and max((hop.link.size for hop in forward), default=0) <= PIPED_SIZE
    return tuple(hop for hop in way.hops if hop.back or (hurry and hop in forward))


def _on_proven_parent(
    store: Store, lineage: LineageRow, version: VersionRow, bases: LoadedBases, avoid: set[route.Part]
) -> ModelState:
    """Return a version's state, stepped from its parent's, whose root is proven: what goes wrong then is the update's own."""
    state = rebuild(store, _row(store, lineage, squashed.before(store, version) or 0), bases, avoid=avoid)
    step(store, lineage, version, state)
    return state


def _row(store: Store, lineage: LineageRow, version_id: int) -> VersionRow:
    row = store.versions.by_id(version_id)
    if row is None:
        raise RegistryDamaged(path="the registry", reason=f"a version of {lineage} is gone", fix=BACK)
    return row


def require_served(lineage: LineageRow, version: VersionRow) -> None:
    """Raise NotServed for a refused version."""
    if version.status is Status.REFUSED:
        raise NotServed(name=f"{lineage}@{version.version}", device=str(lineage), reason=version.reason)


def check_signature(store: Store, lineage: LineageRow, container: Container) -> None:
    """Raise BadSignature unless some key that ever spoke for the device sealed this container."""
    keys = store.devices.keys(lineage.device)
    for known in keys:
        try:
            container.verify(known.key, store.identity.id)
            return
        except BadSignature:
            continue
    raise BadSignature(what=f"{lineage}@{container.header.version}", signer=f"any of the {len(keys)} keys of {lineage.device}")


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of proving one version."""

    lineage: LineageRow
    version: VersionRow | None  # None: the base
    error: ModelWireError | None  # None: exact, or waiting
    waiting: bool = False  # its bytes are whole; the ingester has not judged yet what they make
    thinned: bool = False  # it is no longer recoverable; what its device sealed of it is proven

    def __str__(self) -> str:
        return f"{self.lineage}@{self.version.version if self.version else 'base'}"


def check_lineage(store: Store, lineage: LineageRow, bases: LoadedBases) -> Iterator[Checked]:
    """Prove every served version of a lineage, oldest first: one step of work each, whatever the length of the chain.

    Of a stored version bytes and signature are proven: what they make is the ingester's to judge, and it may refuse it.
    """
    state: ModelState | None = None
    reached = b""
    gone, squashes = store.thinnings.of(lineage.id), store.thinnings.squashes(lineage.id)
    lost: set[int] = set()  # deltas and recipes on these can't be exact either, and need no work to say so
    kept, broken = bool(store.states.of(lineage.id)), set[route.Part]()  # but where a kept state may lead to them by another way
    for version in store.versions.each(lineage.id):
        if version.status is Status.REFUSED:
            continue
        try:
            squash = squashes.get(version.id)
            before = squash.from_id if squash is not None else version.parent_id
            if (squash.kind if squash is not None else version.kind) != "snapshot" and before in lost:
                if not kept or squash is not None:
                    reason = f"the version before {lineage}@{version.version} is not exact"
                    raise RegistryDamaged(path="the registry", reason=reason, fix=BACK)
                state, reached = None, b""
            require_signed(store, lineage, version)
            if gone.get(version.id):
                yield Checked(lineage, version, None, thinned=True)
                continue
            if version.status is Status.STORED:
                state, reached = None, b""
                yield Checked(lineage, version, None, waiting=True)
                continue
            if squash is not None:  # whatever is kept beside it: its own bytes are proven
                start = store.versions.by_id(before) if before is not None else None
                if start is None:
                    state = bases[version.base].state()
                elif state is None or reached != start.commit:
                    state = rebuild(store, start, bases)
                step(store, lineage, version, state)
            elif version.parent_id is None or version.kind == "snapshot":
                state = bases[version.base].state()
                if version.parent_id is not None:
                    _require_parent(store, lineage, version)
                step(store, lineage, version, state)
            elif state is not None and reached == version.parent:
                step(store, lineage, version, state)
            else:
                state = rebuild(store, version, bases, avoid=broken)
        except ModelWireError as error:
            state, reached = None, b""
            lost.add(version.id)
            yield Checked(lineage, version, error)
            continue
        reached = version.commit
        yield Checked(lineage, version, None)


def check_version(store: Store, version: VersionRow, bases: LoadedBases) -> Checked:
    """Prove one version, whatever its chain takes. A stored one that is whole and does not come out is the ingester's to judge."""
    lineage = store.lineages.by_id(version.lineage)
    try:
        require_signed(store, lineage, version)
    except ModelWireError as error:
        return Checked(lineage, version, error)
    left = store.thinnings.get(version.id)
    if left is not None and left.gone:
        return Checked(lineage, version, None, thinned=True)
    try:
        rebuild(store, version, bases)
    except ModelWireError as error:
        if version.status is Status.STORED:
            return Checked(lineage, version, None, waiting=True)
        return Checked(lineage, version, error)
    return Checked(lineage, version, None)


def file_of(state: ModelState, base: LoadedBase) -> bytes:
    """Return the `.tflite` of a state: the base's file with these weights as its initial values."""
    return write_weights(base.file, state.named())


def prove_file(state: ModelState, file: bytes, name: str) -> None:
    """Raise unless a bare `.tflite` holds a version's weights, bit for bit: WrongBase for other tensors, RootMismatch for other weights.

    A file has the weights and neither units nor what lies behind a short float: the weights node of the root is what proves it.
    """
    schema, flat = read_tensors(parse_trainable(file))
    ours = state.manifest.schema
    if schema.id != ours.id:
        raise WrongBase(what="the file", kind="schema", expected=ours.id.hex()[:16], got=schema.id.hex()[:16])
    if weights_node(schema, flat) != state.root_parts.weights:
        raise RootMismatch(what=f"the file, against {name}", kind="weights node", device=name.partition("@")[0])


def _require_parent(store: Store, lineage: LineageRow, version: VersionRow) -> None:
    parent = store.versions.by_id(version.parent_id or 0)
    if parent is None or parent.commit != version.parent:
        raise RegistryDamaged(path="the registry", reason=f"the parent of {lineage}@{version.version} is gone", fix=BACK)
