"""The signed headers of updates, the base's manifest, and the way from one to the other. A commit is computed, never read."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from .encoding import fail, is_signed, leaf_digests, map_of, sha, short_key, tree_root
from .logs import ReadLog
from .placing import WIDTHS, Row

UPDATE = b"modelwire update 1\0"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
KINDS = ("snapshot", "delta", "exact", "recipe")


@dataclass(frozen=True)
class SignedHeader:
    """What an update says of itself, and the device's signature over all of it."""

    kind: int
    device: str
    model: str
    epoch: int
    version: int
    schema: bytes
    parent: bytes
    root: bytes
    base: bytes  # that a snapshot names; empty otherwise
    commit: bytes
    extension: bytes  # SHA-256 of what the device said beside the update
    signature: bytes

    @property
    def name(self) -> str:
        return f"{self.device}/{self.model}@{self.version}"


def read_headers(data: bytes) -> Iterator[SignedHeader]:
    """Yield the header proofs that lie one behind the other; one at least."""
    at = 0
    while at < len(data) or not at:
        if len(data) - at < 40:
            fail("headers", f"byte {at}: it ends too early")
        magic, version, container, wire, size = struct.unpack_from("<4sI8sII", data, at)
        if (magic, version, container, wire) != (b"\x89MWH", 1, b"\x89MWU\r\n\x1a\n", 1):
            fail("headers", f"byte {at}: no header of release 1")
        end = at + 8 + 32 + size
        front, digests, signature = data[at + 8 : end], data[end : end + 64], data[end + 64 : end + 128]
        if len(signature) != 64 or size < 128:
            fail("headers", f"byte {at}: it ends too early")
        kind, algorithm, n, m, epoch, number, schema, parent, root, _ = struct.unpack_from("<BBBBIQ32s32s32s16s", front, 32)
        base, names = (front[160:192], front[192:]) if kind == 0 else (b"", front[160:])
        if len(names) != n + m or algorithm != 1 or kind >= len(KINDS):
            fail("headers", f"byte {at}: its parts do not fill it, or are not of release 1")
        device, model = names[:n].decode("ascii"), names[n:].decode("ascii")
        if not NAME.match(device) or not NAME.match(model):
            fail("headers", f"byte {at}: no name of a device and a model")
        commit = sha(b"\x04", front, digests)
        yield SignedHeader(kind, device, model, epoch, number, schema, parent, root, base, commit, digests[:32], signature)
        at = end + 128


@dataclass(frozen=True)
class BaseManifest:
    """The base's manifest: digests of its file and the table of its tensors. Its own digest is version 0's commit."""

    commit: bytes
    size: int  # bytes of the file
    tree: bytes  # over the file's 64 KiB leaves
    rows: list[Row]
    schema: bytes

    @classmethod
    def read(cls, data: bytes) -> BaseManifest:
        values = map_of(data, "manifest.cbor")
        if values.get("manifest") != 1:
            fail("manifest.cbor", "it is no manifest of release 1")
        rows = [(str(name), int(kind), tuple(map(int, shape))) for name, kind, shape, _, _ in values["tensors"]]
        table = b"modelwire schema 1\0" + struct.pack("<I", len(rows))
        for name, kind, shape in rows:
            table += struct.pack("<H", len(name.encode())) + name.encode() + struct.pack(f"<BB{len(shape)}I", kind, len(shape), *shape)
        if not rows or not all(kind in WIDTHS and all(shape) for _, kind, shape in rows):
            fail("manifest.cbor", "a tensor has a type or shape that this program does not read")
        return cls(sha(data), int(values["size"]), bytes(values["tree"]), rows, sha(table))

    def node(self, tensor: int, data: bytes) -> bytes:
        """Return the digest of a tensor's stored bytes, bound to its place, type and shape."""
        name, kind, shape = self.rows[tensor]
        if len(data) != WIDTHS[kind] * prod(shape):
            fail(f"tensor {name!r}", f"{len(data)} bytes instead of {WIDTHS[kind] * prod(shape)}")
        front = b"\x02" + struct.pack(f"<IBB{len(shape)}I", tensor, kind, len(shape), *shape)
        return sha(front, tree_root(leaf_digests(data)))


def signer_of(header: SignedHeader, log: ReadLog) -> bytes:
    """Return the device's key that signed an update, while it spoke for the device."""
    seen = log.heads.get(header.commit)
    if seen is None or (seen.model, seen.version, seen.epoch) != (header.model, header.version, header.epoch):
        fail(f"headers, {header.name}", "the centre's log does not enter it")
    if header.device != log.device:
        fail(f"headers, {header.name}", f"it is of another device than {log.device}")
    for key, came in log.admitted.items():
        if is_signed(key, UPDATE + log.fleet[32:] + header.commit, header.signature):
            if not came < seen.entry or 0 < log.revoked.get(key, 0) < seen.entry:
                fail(f"headers, {header.name}", "the key that signed it did not speak for the device when the centre entered it")
            return key
    fail(f"headers, signature of {header.name}", "no key that was let in for the device has made it")


def check_path(path: Sequence[SignedHeader], base: BaseManifest, log: ReadLog) -> list[str]:
    """Follow the updates from the base to the version. Return what that proves, in words."""
    first, head = path[0], path[-1]
    if log.epochs.get((head.model, first.epoch)) != first.parent:
        fail(f"headers, {first.name}", "its parent is not the base on which the centre granted its epoch")
    before, last, on = first.parent, 0, first.parent
    for one in path:
        if one.model != head.model or one.parent != before or one.version <= last:
            fail(f"headers, {one.name}", "it does not follow the update before it")
        key = signer_of(one, log)
        before, last, on = one.commit, one.version, one.base or on
    if on != base.commit or head.schema != base.schema:
        fail("manifest.cbor", f"it is not of the base that {head.name} is on")
    if log.verdicts.get(head.commit) is not True:
        fail(f"log.jsonl, the verdict on {head.name}", "it is not there, or the centre refused this version")
    return [
        f"{head.name} is a {KINDS[head.kind]} of epoch {head.epoch}, signed by the key {short_key(key)} of the device {head.device}.",
        f"Its commit is {head.commit.hex()}; its root, the SHA-256 tree over all of its weights, is {head.root.hex()}.",
        f"Signed updates that lead to it from the base {first.parent.hex()[:16]}, each naming the one before: {len(path)}.",
        f"The key was let in by {log.how[key]}: entry {log.admitted[key]} of the centre's log.",
        *([f"Entry {log.revoked[key]} revoked the key later; what came before that stands."] if key in log.revoked else []),
        f"The centre entered the version as entry {log.heads[head.commit].entry}, and found it equal when it rebuilt it.",
    ]


def facts_of(head: SignedHeader) -> dict[str, Any]:
    """Return what a header says, as JSON holds it."""
    return {
        "name": head.name, "kind": KINDS[head.kind], "epoch": head.epoch, "version": head.version, "commit": head.commit.hex(),
        "parent": head.parent.hex(), "root": head.root.hex(),
    }  # fmt: skip
