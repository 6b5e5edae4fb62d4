"""Says what of a registry is lost, and puts a lost head together from what still is exact and the leaves that its board gives.

Nothing is guessed: a digest counts once all of them come to the root that the device signed, a leaf once it has its digest, the state once
its root and fingerprint are the version's. What that can't be shown of stays lost, and is named.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from edgecloud.registry import LineageRow, Request, Store, VersionRow
from edgecloud.versions import materialise, route, squashed, states
from edgecloud.versions.materialise import LoadedBases
from modelwire import storage
from modelwire.errors import ModelWireError, RegistryDamaged
from modelwire.identity import RootParts, node_of_leaves, tensor_leaves
from modelwire.lattice.state import ModelState
from modelwire.merkle import LEAF_BYTES, leaf, merkle
from modelwire.tensors import Held
from modelwire.update.manifest import Manifest
from modelwire.wire import cbor, records
from modelwire.wire.commands import LEAVES_MAX, PIECE_MAX, Leaf, Leaves
from modelwire.wire.records import NOT_UNDERSTOOD, Command

Place = tuple[int, int]  # tensor and leaf


@dataclass(frozen=True, slots=True)
class LostVersion:
    """A version of which something is lost, and what."""

    lineage: LineageRow
    version: VersionRow
    bytes: ModelWireError | None  # why its update can't be read; None: it is whole
    weights: ModelWireError | None  # why it can't be rebuilt; None: it can, by another way

    def __str__(self) -> str:
        return f"{self.lineage}@{self.version.version}"


@dataclass(slots=True)
class Mending:
    """How far a lost head has come back."""

    lineage: LineageRow
    version: VersionRow
    near: str  # from what it is put together
    ask: list[Leaves] = field(default_factory=list)  # digests that the board has not told
    fetch: list[Leaf] = field(default_factory=list)  # pieces that it has not given
    bad: list[Place] = field(default_factory=list)  # leaves that are not those of the near state, once that is known
    state: ModelState | None = None  # the version's, proven
    why_not: str = ""  # why it can't be mended by leaves; empty while it can


def losses(store: Store, lineage: LineageRow, bases: LoadedBases) -> Iterator[LostVersion | None]:
    """Yield of each served version of a model what of it is lost, None where nothing is."""
    doubted = set()
    for one in materialise.check_lineage(store, lineage, bases):
        if one.error is None:
            yield None
        elif one.version is not None:
            doubted.add(one.version.id)
    broken: set[route.Part] = set()  # found once, and gone around by all that come after
    for version in store.versions.of(lineage.id) if doubted else ():
        if version.id not in doubted:
            continue
        bytes_lost = weights_lost = None
        try:
            materialise.require_signed(store, lineage, version)
            if (squash := store.thinnings.squash(version.id)) is not None:
                squashed.open_squash(store, lineage, version, squash)
        except ModelWireError as error:
            bytes_lost = error
        try:
            materialise.rebuild(store, version, bases, avoid=broken)
        except ModelWireError as error:
            weights_lost = error
        yield LostVersion(lineage, version, bytes_lost, weights_lost) if bytes_lost or weights_lost else None


def head_of(store: Store, lineage: LineageRow) -> VersionRow | None:
    """Return the head of a model in its present epoch; None while that is its base."""
    epoch = store.lineages.current(lineage.id)
    head = store.lineages.head(lineage.id, epoch.epoch) if epoch is not None else None
    return store.versions.by_id(head.version_id) if head is not None and head.version_id is not None else None


def mend(store: Store, lineage: LineageRow, version: VersionRow, bases: LoadedBases) -> Mending:
    """Return how far a lost head has come back by what its board has told, and what is to be asked for next."""
    state, near = _nearest(store, lineage, version, bases)
    mending = Mending(lineage, version, near)
    manifest, told = state.manifest, _Told(store.requests.of(lineage.id), version.commit)
    if manifest.kept:
        mending.why_not = "some of its tensors are float16 or bfloat16 on the lattice: their integers do not follow from leaves"
    elif told.old_agent:
        mending.why_not = "its agent is of an earlier release, which gives no leaves"
    if mending.why_not:
        return mending
    counts = [-(-spec.size * spec.dtype.width // LEAF_BYTES) for spec in manifest.schema.tensors]
    mending.ask = [
        Leaves(t, first) for t, count in enumerate(counts) for first in range(0, count, LEAVES_MAX) if (t, first) not in told.digests
    ]
    if mending.ask:
        return mending
    digests = [_joined(told, t, count) for t, count in enumerate(counts)]
    if not _is_root(manifest, digests, state.exponents, version.root):
        mending.why_not = "what its board told are not the leaves of this version: it stands at another one, or has other units"
        return mending
    pieces: dict[Place, bytes] = {}
    for t, spec in enumerate(manifest.schema.tensors):
        mine = tensor_leaves(spec, state.weights[t])
        for n, digest in enumerate(digests[t]):
            if mine[n] == digest:
                continue
            mending.bad.append((t, n))
            size = min(LEAF_BYTES, spec.size * spec.dtype.width - n * LEAF_BYTES)
            whole = b"".join(told.pieces.get((digest, start), b"") for start in range(0, size, PIECE_MAX))
            if leaf(whole) == digest:
                pieces[t, n] = whole
            else:
                mending.fetch += [Leaf(t, n, start, digest) for start in range(0, size, PIECE_MAX) if (digest, start) not in told.pieces]
    if not mending.fetch and len(pieces) < len(mending.bad):
        mending.why_not = "a leaf that its board gave has another digest than it told"
    elif not mending.fetch:
        mending.state = _assembled(state, pieces, version, str(lineage))
    return mending


class _Told:
    """What a board has answered about one version: digests of leaves, and pieces of them."""

    def __init__(self, requests: Sequence[Request], commit: bytes) -> None:
        self.digests: dict[Place, bytes] = {}  # of one answer, by tensor and the first leaf
        self.pieces: dict[tuple[bytes, int], bytes] = {}  # by the leaf's digest and their first byte
        self.old_agent = False
        for request in sorted((r for r in requests if r.answered_at is not None), key=lambda r: r.number):
            if request.verb not in (Leaves.VERB, Leaf.VERB):
                continue
            asked = records.expect(records.parse(request.record), Command)
            if request.verb == Leaf.VERB and not request.ok and request.text == NOT_UNDERSTOOD:
                self.old_agent = True
            if request.ok and (request.verb == Leaf.VERB or asked.parent == commit):
                self._take(request, asked)

    def _take(self, request: Request, asked: Command) -> None:
        body = cbor.decode(request.body, "the answer") if request.body else {}
        if not isinstance(body, dict):
            return
        said = asked.body
        if request.verb == Leaves.VERB and isinstance(digests := body.get("leaves"), bytes) and len(digests) % 32 == 0:
            assert isinstance(said["tensor"], int) and isinstance(said["first"], int)  # as it was sealed
            self.digests[said["tensor"], said["first"]] = digests
        elif request.verb == Leaf.VERB and isinstance(piece := body.get("bytes"), bytes) and len(piece) <= PIECE_MAX:
            assert isinstance(said["digest"], bytes) and isinstance(said["start"], int)  # as it was sealed
            self.pieces[said["digest"], said["start"]] = piece
            self.old_agent = False


def _joined(told: _Told, tensor: int, count: int) -> list[bytes]:
    joined = b"".join(told.digests[tensor, first] for first in range(0, count, LEAVES_MAX))
    return [joined[i : i + 32] for i in range(0, len(joined), 32)]


def _is_root(manifest: Manifest, digests: Sequence[Sequence[bytes]], exponents: Sequence[int], root: bytes) -> bool:
    """Whether these are the leaves of the model with this root."""
    schema = manifest.schema
    sizes = [-(-spec.size * spec.dtype.width // LEAF_BYTES) for spec in schema.tensors]
    if [len(one) for one in digests] != sizes:
        return False
    nodes = [node_of_leaves(t, spec, one) for t, (spec, one) in enumerate(zip(schema.tensors, digests, strict=True))]
    return RootParts(schema.id, merkle(nodes), tuple(exponents), merkle([])).root == root


def _nearest(store: Store, lineage: LineageRow, version: VersionRow, bases: LoadedBases) -> tuple[ModelState, str]:
    """Return the state of the nearest version before this one that still is exact, on the same base; else the base's."""
    before, broken = version, set[route.Part]()
    while before.parent_id is not None:
        found = store.versions.by_id(before.parent_id)
        if found is None or found.base != version.base:
            break
        before = found
        try:
            return materialise.rebuild(store, before, bases, avoid=broken), f"{lineage}@{before.version}"
        except ModelWireError:
            continue
    return bases[version.base].state(), "its base"


def _assembled(near: ModelState, pieces: dict[Place, bytes], version: VersionRow, name: str) -> ModelState:
    """Return the state with these leaves in the place of its own. Raises RegistryDamaged unless it is the version's."""
    weights: list[Held] = []
    for t, (spec, held) in enumerate(zip(near.manifest.schema.tensors, near.weights, strict=True)):
        data = bytearray(storage.to_bytes(spec.dtype, held))
        for (tensor, n), piece in pieces.items():
            if tensor == t:
                data[n * LEAF_BYTES : n * LEAF_BYTES + len(piece)] = piece
        weights.append(storage.from_bytes(spec.dtype, bytes(data)))
    state = ModelState.of_weights(near.manifest, near.base, weights, near.exponents)
    if state.root != version.root or struct.pack("<QQ", *state.fingerprint) != version.fingerprint:
        raise RegistryDamaged(path="the registry", reason=f"the leaves of {name}@{version.version} do not make its root and fingerprint")
    return state


def keep(store: Store, mending: Mending, now: int) -> None:
    """Keep the state of a head that came back, so that it, and what goes back or on from it, can be had again."""
    assert mending.state is not None
    if store.states.row(mending.version.id) is not None:
        store.states.drop([mending.version.id])  # whatever it holds, the version can't be had from it
    store.states.put(mending.version.id, mending.lineage.id, states.encode(mending.state, mending.lineage, mending.version), now)


def damaged_states(store: Store, lineage: LineageRow, bases: LoadedBases) -> list[VersionRow]:
    """Return the versions whose kept states are not what they must be: derived data, which is dropped and made again."""
    out = []
    for row in store.states.of(lineage.id):
        version = store.versions.by_id(row.version_id)
        if version is None:
            continue
        try:
            kept = states.read(store, lineage, version, bases[version.base].state())
            if kept is not None and kept.root != version.root:
                raise RegistryDamaged(path="the registry", reason=f"the kept state of @{version.version} has another root")
        except ModelWireError:
            out.append(version)
    return out
