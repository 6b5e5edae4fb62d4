"""Variants: bases that the fleet's root key vouches for, with what a board needs to run them. The statement travels inside `desired`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modelwire import limits
from modelwire.errors import Malformed
from modelwire.names import check_name, check_own_name
from modelwire.wire import cbor, more, signing
from modelwire.wire.signing import Role

from .sealed import Reader, opened, seal

if TYPE_CHECKING:  # who reads a statement needs no arrays
    from modelwire.update.manifest import Manifest

MAGIC, WHAT = b"\x89MWV", "variant"
PARENTS_MAX = 64


@dataclass(frozen=True, slots=True)
class Variant:
    """A base that may be deployed, as the root key says it. Its file is proven by digest and tree, so its source needs no trust."""

    fleet: str
    model: str  # the model whose devices may run it
    name: str  # for people; plain text
    commit: bytes  # of the base's manifest: what `desired` names
    file: bytes  # SHA-256 of the .tflite
    size: int  # bytes of the file
    tree: bytes  # over its leaves of 64 KiB, as in the manifest
    schema: bytes  # schema id, 32 bytes
    exact: bool  # whether its manifest was made with all tensors exact
    runtime: str  # the runtime class that it needs, the first word of a runtime key ("litert", "tflite"); empty: any
    ram: int  # bytes that a board needs free for it to train; 0: not known
    parents: tuple[bytes, ...]  # commits that it was made of: a base, or the versions of a merge
    at: int  # Unix seconds of the operator's clock; information
    number: int  # rises for each model: a director never offers an older one as a new one
    type_id: str = ""  # an approval's identifier (RXSWIN), where the operator keeps one
    more: Mapping[str, cbor.Value] = field(default_factory=dict, kw_only=True)

    def require_manifest(self, manifest: Manifest) -> None:
        """Raise Malformed unless a manifest that was made from the file is the one that the statement names."""
        said = (self.commit, self.file, self.size, self.tree, self.schema)
        if said != (manifest.commit, manifest.file_sha256, manifest.file_size, manifest.file_tree, manifest.schema.id):
            raise Malformed(what=WHAT, reason="its file makes another manifest than it names")


def statement(variant: Variant, key: signing.Signer, fleet: bytes) -> bytes:
    """Return the variant as the root key seals it. fleet: the fleet's id. Raises Malformed for one that no reader would take, TooLarge."""
    _check(variant)
    values: dict[str, cbor.Value] = {
        "fleet": variant.fleet, "model": variant.model, "name": variant.name, "commit": variant.commit, "file": variant.file,
        "size": variant.size, "tree": variant.tree, "schema": variant.schema, "exact": variant.exact, "runtime": variant.runtime,
        "ram": variant.ram, "parents": list(variant.parents), "at": variant.at, "number": variant.number, "type_id": variant.type_id,
    }  # fmt: skip
    sealed = seal(MAGIC, values | more.to_be_sent(variant.more), key, Role.ROOT, fleet)
    read(sealed, key.public, fleet)
    return sealed


def read(data: bytes, root: bytes, fleet: bytes) -> Variant:
    """Return the variant that the root key `root` vouches for in the fleet with this id. Raises as `sealed.opened`, and Malformed."""
    values, further = opened(data, MAGIC, WHAT, root, Role.ROOT, fleet, "the fleet's root key")
    take = Reader(values, WHAT)
    variant = Variant(
        take.text("fleet"), take.text("model"), take.text("name", limits.NAME_MAX), take.exactly("commit", 32), take.exactly("file", 32),
        take.whole("size", 1, limits.DEFAULT.model_file), take.exactly("tree", 32), take.exactly("schema", 32), take.yes("exact"),
        take.text("runtime", limits.NAME_MAX), take.whole("ram"),
        tuple(bytes(p) for p in take.each("parents", PARENTS_MAX, _commit, "commits") if isinstance(p, bytes)),
        take.whole("at"), take.whole("number", 1), take.text("type_id", limits.NAME_MAX), more=further,
    )  # fmt: skip
    take.end()
    _check(variant)
    return variant


def _check(variant: Variant) -> None:
    check_own_name("fleet name", variant.fleet)
    check_name("model name", variant.model)
    if not 0 < variant.size <= limits.DEFAULT.model_file or variant.number < 1 or len(variant.parents) > PARENTS_MAX:
        raise Malformed(what=WHAT, reason="its size, number or parents are out of range")
    more.check_keys(variant.more, WHAT)


def _commit(value: cbor.Value) -> bool:
    return isinstance(value, bytes) and len(value) == 32
