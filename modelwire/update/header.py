"""What a container starts with: the preamble's lengths, and the header, which says of which version it is. docs/format/container.md.

All that an update says of itself without its content, so that a version whose content is gone can still be proven (proof.py).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from modelwire import _core, limits
from modelwire.errors import DigestMismatch, Malformed, TooLarge, UnsupportedWire
from modelwire.names import check_own_name
from modelwire.wire import cbor, more, signing

from .sections import Kind

MAGIC = b"\x89MWU\r\n\x1a\n"  # like PNG's: text-mode transfer, a cleared high bit or a swapped line end damage it
VERSION = 1
SHA256 = 1
_PREAMBLE = struct.Struct("<8sIIIIII")  # magic, version, header, extension, sections, total, crc32c
_HEADER = struct.Struct("<BBBBIQ32s32s32s16s")  # kind, hash, name lengths, epoch, version, schema, parent, root, fingerprint
_COMMIT = b"\x04"
PREAMBLE_BYTES, HEADER_BYTES = _PREAMBLE.size, _HEADER.size  # without names and base
ROW_BYTES = 12  # of the section table
TRAILER = 32 + signing.SIGNATURE_BYTES  # commit and signature


@dataclass(frozen=True, slots=True)
class Header:
    """What an update says of itself."""

    kind: Kind
    device: str
    model: str
    epoch: int  # >= 1, granted by the centre; counts losses of state
    version: int  # >= 1, chosen by the device, strictly rising
    parent: bytes  # commit of the parent, 32 bytes; the base's commit for a first update
    schema_id: bytes
    root: bytes  # of the weights after the update
    fingerprint: tuple[int, int]  # after the update
    base: bytes = b""  # commit of the base; snapshots alone name it
    extension: Mapping[str, cbor.Value] = field(default_factory=dict)  # metrics; never needed to rebuild

    def __repr__(self) -> str:
        return f"<header {self.device}/{self.model}@{self.version}: {self.kind.name.lower()}, epoch {self.epoch}>"

    def __hash__(self) -> int:
        return hash((self.device, self.model, self.epoch, self.version, self.parent, self.root))


@dataclass(frozen=True, slots=True)
class Preamble:
    """The lengths that a container starts with, within the limits."""

    header: int  # bytes, names included
    extension: int  # bytes
    sections: int  # rows of the section table
    total: int  # bytes of the whole container, signature included


def read_preamble(view: memoryview, limit: limits.Limits, *, length: int | None = None) -> Preamble:
    """Return the lengths at the start of `view`. Raises Malformed, DigestMismatch, UnsupportedWire or TooLarge.

    length: of the container, where it is all there.
    """
    magic, version, header, extension, sections, total, crc = _PREAMBLE.unpack_from(view)
    if magic != MAGIC:
        raise Malformed(what="container", reason="it does not start as one")
    if crc != _core.crc32c(view[: PREAMBLE_BYTES - 4]):
        raise DigestMismatch(what="the container's preamble")
    if version != VERSION:
        raise UnsupportedWire(what="wire version", got=version, reads=VERSION)
    if length not in (None, total):
        raise Malformed(what="container", reason=f"it says {total} bytes and has {length}: cut off, or more than one")
    _check_sizes(limit, header, extension, sections)
    if header < HEADER_BYTES + 2 or PREAMBLE_BYTES + header + extension + ROW_BYTES * sections + TRAILER > total:
        raise Malformed(what="container", reason="its parts do not fit in its length")
    return Preamble(header, extension, sections, total)


def write_front(header: Header, *, extension: int, sections: int, content: int, limit: limits.Limits) -> bytes:
    """Return preamble and header of an update whose other parts have so many bytes; sections: rows. Raises Malformed or TooLarge."""
    _check_header(header)
    device, model = header.device.encode(), header.model.encode()
    head = _HEADER.pack(
        header.kind, SHA256, len(device), len(model), header.epoch, header.version,
        header.schema_id, header.parent, header.root, struct.pack("<QQ", *header.fingerprint),
    ) + header.base + device + model  # fmt: skip
    total = PREAMBLE_BYTES + len(head) + extension + content + TRAILER
    _check_sizes(limit, len(head), extension, sections)
    if total > limit.container:
        raise TooLarge(what="the container", size=total, limit=limit.container)
    front = _PREAMBLE.pack(MAGIC, VERSION, len(head), extension, sections, total, 0)[:-4]
    return front + struct.pack("<I", _core.crc32c(front)) + head


def commit_from(front: bytes, extension: bytes, content: bytes) -> bytes:
    """Return the commit of an update. front: preamble and header; the digests of its extension, and of table, stream and planes."""
    return hashlib.sha256(_COMMIT + front + extension + content).digest()


def read_header(data: bytes, extension: dict[str, cbor.Value]) -> Header:
    """Return what an update says of itself. Raises Malformed or UnsupportedWire."""
    kind, digest, n_device, n_model, epoch, version, schema_id, parent, root, lanes = _HEADER.unpack_from(data)
    if digest != SHA256:
        raise UnsupportedWire(what="digest algorithm", got=digest, reads=SHA256)
    if kind not in tuple(Kind):
        raise UnsupportedWire(what="kind of update", got=kind, reads="0 (snapshot), 1 (delta), 2 (exact), 3 (recipe)")
    n_base = 32 if kind == Kind.SNAPSHOT else 0
    names = _HEADER.size + n_base
    if names + n_device + n_model != len(data):
        raise Malformed(what="container", reason="the header's parts do not fill it exactly")
    try:
        device, model = data[names : names + n_device].decode("ascii"), data[names + n_device :].decode("ascii")
    except UnicodeDecodeError:
        raise Malformed(what="container", reason="a name is not ASCII") from None
    fingerprint = struct.unpack("<QQ", lanes)
    header = Header(
        Kind(kind), device, model, epoch, version, parent, schema_id, root,
        (fingerprint[0], fingerprint[1]), data[_HEADER.size : names], extension,
    )  # fmt: skip
    _check_header(header)
    return header


def read_extension(data: bytes, limit: limits.Limits) -> dict[str, cbor.Value]:
    """Return what stands beside an update. Raises Malformed, TooLarge or NotUnderstood."""
    if not data:
        return {}
    extension = cbor.decode(data, "extension", limit)
    if not isinstance(extension, dict) or not extension:
        raise Malformed(what="container", reason="the extension is not a map with content")
    more.check_keys(extension, "the extension")
    return extension


def _check_sizes(limit: limits.Limits, header: int, extension: int, sections: int) -> None:
    for what, size, bound in (
        ("the header", header, limit.header),
        ("the extension", extension, limit.extension),
        ("the section table", sections, limit.tensors),
    ):
        if size > bound:
            raise TooLarge(what=what, size=size, limit=bound)


def _check_header(h: Header) -> None:
    check_own_name("device name", h.device)
    check_own_name("model name", h.model)
    if not 0 < h.epoch < 1 << 32:
        raise Malformed(what="container", reason=f"epoch {h.epoch} is out of range")
    if not 0 < h.version < 1 << 63:
        raise Malformed(what="container", reason=f"version {h.version} is out of range")
    if len(h.base) != (32 if h.kind is Kind.SNAPSHOT else 0):
        raise Malformed(what="container", reason="a snapshot names its base, other updates do not")
    if any(len(d) != 32 for d in (h.parent, h.schema_id, h.root)):
        raise Malformed(what="container", reason="a digest is not 32 bytes")
