"""Rebuilds any version from the registry: nearest snapshot or base, then deltas and recipes. Exact and proven, or an error."""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from edgecloud.registry import LineageRow, Status, Store, VersionRow
from modelwire import limits
from modelwire.errors import BadSignature, ModelWireError, NotServed, RegistryDamaged, ReplayMismatch, RootMismatch, WrongBase
from modelwire.identity import weights_node
from modelwire.lattice.rebuild import apply, prove_root
from modelwire.lattice.replay import first_apart
from modelwire.lattice.state import ModelState
from modelwire.tensors import F32
from modelwire.tflite.file import TrainableFile, parse_trainable, read_tensors, read_weights, write_weights
from modelwire.update.container import Container
from modelwire.update.manifest import Manifest, parse_manifest
from modelwire.update.sections import Kind

BASES_KEPT = 8
BACK = "edgecloud restore BACKUP"
MARKED_WEIGHTS = 1 << 28  # of a recipe's checkpoints together: so many are hashed in a few seconds


@dataclass(frozen=True)
class LoadedBase:
    """A base with its weights, parsed and proven against its manifest once, whatever the number of versions rebuilt on it."""

    manifest: Manifest
    weights: tuple[F32, ...]
    file: TrainableFile

    def state(self) -> ModelState:
        """Return version 0, to be changed by its owner alone; the base's arrays are shared by all states."""
        return self._proven.at_base()

    @cached_property
    def _proven(self) -> ModelState:
        return ModelState.of_base(self.manifest, self.weights)


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
        return LoadedBase(manifest, tuple(manifest.schema.flat(read_weights(file))), file)


def open_container(store: Store, lineage: LineageRow, version: VersionRow) -> Container:
    """Return the container of a version, proven to be the one that was stored: commit, digest and every field of its row."""
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


def step(store: Store, lineage: LineageRow, version: VersionRow, state: ModelState, *, prove: bool = True) -> None:
    """Move `state`, the parent's or the base's, to `version` in place, proven against fingerprint and, with `prove`, root.

    A recipe is replayed. Raises RootMismatch when the result is another than its device had: of a recipe with checkpoints it names the
    first that is another, too. After any error the state is of no use.
    """
    container = open_container(store, lineage, version)
    before = state.copy() if _marks_are_looked_at(container, state) else None
    try:
        apply(state, container, limits.LARGE)
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


def rebuild(store: Store, version: VersionRow, bases: LoadedBases) -> ModelState:
    """Return the state of a version. Raises NotServed for a refused one, and any error that keeps it from being exact.

    Its own root is proven. Of the versions on the way the fingerprints are: their roots would take longer than all the rest.
    """
    lineage = store.lineages.by_id(version.lineage)
    require_served(lineage, version)
    state = bases[version.base].state()
    for link in store.versions.chain(version):
        step(store, lineage, link, state, prove=link.id == version.id)
    return state


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

    def __str__(self) -> str:
        return f"{self.lineage}@{self.version.version if self.version else 'base'}"


def check_lineage(store: Store, lineage: LineageRow, bases: LoadedBases) -> Iterator[Checked]:
    """Prove every served version of a lineage, oldest first: one step of work each, whatever the length of the chain.

    Of a stored version bytes and signature are proven: what they make is the ingester's to judge, and it may refuse it.
    """
    state: ModelState | None = None
    reached = b""
    lost: set[int] = set()  # deltas and recipes on these can't be exact either, and need no work to say so
    for version in store.versions.of(lineage.id):
        if version.status is Status.REFUSED:
            continue
        try:
            if version.kind != "snapshot" and version.parent_id in lost:
                raise RegistryDamaged(path="the registry", reason=f"the version before {lineage}@{version.version} is not exact", fix=BACK)
            check_signature(store, lineage, open_container(store, lineage, version))
            if version.status is Status.STORED:
                state, reached = None, b""
                yield Checked(lineage, version, None, waiting=True)
                continue
            if version.parent_id is None or version.kind == "snapshot":
                state = bases[version.base].state()
                if version.parent_id is not None:
                    _require_parent(store, lineage, version)
                step(store, lineage, version, state)
            elif state is not None and reached == version.parent:
                step(store, lineage, version, state)
            else:
                state = rebuild(store, version, bases)
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
        check_signature(store, lineage, open_container(store, lineage, version))
    except ModelWireError as error:
        return Checked(lineage, version, error)
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
