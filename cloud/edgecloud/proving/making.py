"""Makes the proof of one version: the same bytes whoever makes it from the same log, and none that the verifier would not take."""

from __future__ import annotations

from collections.abc import Iterable

from edgecloud.registry import LineageRow, Status, Store, VersionRow
from edgecloud.versions import materialise
from edgecloud.versions.materialise import LoadedBase, LoadedBases
from modelwire import limits, storage
from modelwire.errors import BadArgument, ModelWireError, RegistryDamaged
from modelwire.identity import tensor_node
from modelwire.lattice.state import ModelState
from modelwire.merkle import audit_path, leaf, tree_levels
from modelwire.update.proof import header_proof, parse_header_proof

from .exporting_log import Shown, log_lines
from .verifier import proofs
from .verifier.encoding import NotProven, zipped

BACK = "edgecloud restore BACKUP"
NOT_TAKEN = "{name} can't be proven from this registry: {reason}"


def proof_of(store: Store, version: VersionRow, bases: LoadedBases, *, tensor: str | None = None) -> bytes:
    """Return the proof of a version, a zip. tensor: hold this one alone, in the place of the whole file.

    Raises NotServed, BadArgument for a tensor that it does not have or a version that is not judged yet, and any error that keeps the
    version from being exact; RegistryDamaged when what the registry holds proves nothing.
    """
    lineage = store.lineages.by_id(version.lineage)
    materialise.require_served(lineage, version)
    if version.status is Status.STORED:
        raise BadArgument(reason=f"{lineage}@{version.version} is not judged yet", fix="a running edgecloud ingest rebuilds and judges it")
    path = path_to(store, version)
    base = bases[version.base]
    lines = log_lines(store, Shown(lineage.device, {one.commit for one in path}, decided=False))
    files = {
        "headers.bin": b"".join(header_bytes(store, lineage, one) for one in path),
        "log.jsonl": "".join(line + "\n" for line in lines).encode(), "manifest.cbor": base.manifest.encode(),
    }  # fmt: skip
    left = store.thinnings.get(version.id)
    if left is None or not left.gone:
        state = materialise.rebuild(store, version, bases)
        files |= _file(state, base) if tensor is None else _tensor(state, tensor)
    elif tensor is not None:
        raise BadArgument(
            reason=f"the content of {lineage}@{version.version} is gone, so no tensor of it is there",
            fix=f"edgecloud prove {lineage}@{version.version} -o proof.zip proves its header",
        )
    return sealed(store, files, f"{lineage}@{version.version}")


def sealed(store: Store, files: dict[str, bytes], name: str) -> bytes:
    """Return these files with the index that they prove. Raises RegistryDamaged when the verifier would not take them."""
    try:
        facts = proofs.prove(files, store.identity.root + store.identity.id)
    except NotProven as error:
        raise RegistryDamaged(path="the registry", reason=NOT_TAKEN.format(name=name, reason=error), fix=BACK) from None
    return zipped({**files, proofs.INDEX: proofs.to_index(facts)})


def path_to(store: Store, version: VersionRow) -> list[VersionRow]:
    """Return the versions from the first of its line to this one. Raises RegistryDamaged where one is gone."""
    path = [version]
    while path[-1].parent_id is not None:
        before = store.versions.by_id(path[-1].parent_id)
        if before is None or before.commit != path[-1].parent or before.id >= path[-1].id:
            raise RegistryDamaged(path="the registry", reason=f"the version before @{path[-1].version} is gone", fix=BACK)
        path.append(before)
    return path[::-1]


def header_bytes(store: Store, lineage: LineageRow, version: VersionRow) -> bytes:
    """Return the signed header of a version, also of one whose content was dropped. Raises what reading it raises."""
    left = store.thinnings.get(version.id)
    proof = left.proof if left is not None else header_proof(store.blobs.get(version.blob), limits.LARGE)
    try:
        commit = parse_header_proof(proof).commit
    except ModelWireError as error:
        raise RegistryDamaged(path="the registry", reason=f"of {lineage}@{version.version}: {error.message}", fix=BACK) from None
    if commit != version.commit:
        raise RegistryDamaged(path="the registry", reason=f"the header of {lineage}@{version.version} is another's", fix=BACK)
    return proof


def _file(state: ModelState, base: LoadedBase) -> dict[str, bytes]:
    """Return the version's file, and what of the base's file the verifier can't make of it."""
    file = materialise.file_of(state, base)
    places = [(v.offset, v.nbytes) for v in base.file.variables]
    return {"model.tflite": file, "base.bin": b"".join(_kept(base.file.data, places)), "root.bin": state.root_parts.encode()}


def _kept(file: bytes, places: list[tuple[int, int]]) -> Iterable[bytes]:
    """Yield of each leaf of the base's file its weights, or where it holds nothing else its digest."""
    for start, end, within in proofs.leaf_parts(len(file), places):
        if within == [(start, end)]:
            yield leaf(file[start:end])
        else:
            yield from (file[a:b] for a, b in within)


def _tensor(state: ModelState, name: str) -> dict[str, bytes]:
    """Return one tensor's stored bytes with the digests beside its way to the root."""
    schema = state.manifest.schema
    try:
        place = schema.index(name)
    except KeyError:
        named = ", ".join(spec.name for spec in schema.tensors[:20])
        raise BadArgument(reason=f"the model has no tensor {name!r}", fix=f"one of: {named}") from None
    nodes = [tensor_node(i, spec, held) for i, (spec, held) in enumerate(zip(schema.tensors, state.weights, strict=True))]
    data = storage.to_bytes(schema.tensors[place].dtype, state.weights[place])
    path = b"".join(audit_path(tree_levels(nodes), place))
    front = f"{proofs.TENSOR}{place}"
    return {f"{front}.bin": data, f"{front}.path": path, "root.bin": state.root_parts.encode()}
