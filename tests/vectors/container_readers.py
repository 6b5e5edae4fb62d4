"""How the bytes of docs/format/container.md and docs/format/coder.md are read, for their negative vectors: the whole way, by the page.

What a reader holds comes from the vector's `with`: the state of its model as `folder` and `on` (a golden folder, a container in it), or as
`manifest` and `weights` of a base, in hexadecimal; `limits` that are not the default ones; `fleet_id` and `key` where they are not those
of all vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelwire import _core, storage
from modelwire.identity import RootParts, parse_root_parts
from modelwire.lattice.rebuild import rebuild
from modelwire.lattice.state import ModelState
from modelwire.limits import Limits
from modelwire.tensors import Held as Weights
from modelwire.update import container, proof
from modelwire.update.manifest import Manifest, parse_manifest
from modelwire.wire import cbor, signing
from tests.keys import FLEET_ID
from tests.modelwire import golden
from tests.modelwire.models import KEY

from .refused import Reader

Held = Mapping[str, Any]


def read_cbor(data: bytes, held: Held) -> cbor.Value:
    """One CBOR text, under the default limits."""
    return cbor.decode(data)


def read_manifest(data: bytes, held: Held) -> Manifest:
    """A base's manifest."""
    return parse_manifest(data, _limits(held))


def read_base(data: bytes, held: Held) -> ModelState:
    """A base's stored weights, all tensors in order. manifest: of the base."""
    return _base(bytes.fromhex(held["manifest"]), data)


def read_root_proof(data: bytes, held: Held) -> RootParts:
    """A root proof. root: that it has to prove, in hexadecimal."""
    parts = parse_root_parts(data)
    parts.prove(bytes.fromhex(held["root"]))
    return parts


def read_container(data: bytes, held: Held) -> ModelState:
    """A signed container, on the state that is held: layout, commit, signature, content, fingerprint and root."""
    limit = _limits(held)
    read = container.parse(data, limit)
    read.verify(_key(held), _fleet(held))
    state = _base(*(bytes.fromhex(held[k]) for k in ("manifest", "weights"))) if "manifest" in held else _golden(held)
    return rebuild(state, read, limit=limit)


def read_header_proof(data: bytes, held: Held) -> bytes:
    """A chain of one header proof. start: the commit that it starts from."""
    return proof.check_chain([proof.parse_header_proof(data)], bytes.fromhex(held["start"]), _key(held), _fleet(held))


def read_signature(data: bytes, held: Held) -> None:
    """A public key of 32 bytes, a signature of 64, and the message."""
    signing.verify(data[:32], b"", b"", data[96:], data[32:96], what="the message", signer="the key")


def read_stream(data: bytes, held: Held) -> Sequence[object]:
    """A stream of the range coder. shapes: [rows, columns, count] of each section."""
    return _core.decode_sections(data, [tuple(shape) for shape in held["shapes"]])


READERS: dict[str, Reader] = {
    "cbor": read_cbor,
    "manifest": read_manifest,
    "base": read_base,
    "root-proof": read_root_proof,
    "container": read_container,
    "header-proof": read_header_proof,
    "ed25519": read_signature,
    "stream": read_stream,
}


def _limits(held: Held) -> Limits:
    return Limits(**held.get("limits", {}))


def _key(held: Held) -> bytes:
    return bytes.fromhex(held["key"]) if "key" in held else KEY.public


def _fleet(held: Held) -> bytes:
    return bytes.fromhex(held["fleet_id"]) if "fleet_id" in held else FLEET_ID


def _golden(held: Held) -> ModelState:
    return golden.state_of(held["folder"], held.get("on"))


def _base(manifest: bytes, weights: bytes) -> ModelState:
    known = parse_manifest(manifest)
    flat: list[Weights] = []
    at = 0
    for spec in known.schema.tensors:
        end = at + spec.size * spec.dtype.width
        flat.append(storage.from_bytes(spec.dtype, weights[at:end]))
        at = end
    return ModelState.of_base(known, flat)
