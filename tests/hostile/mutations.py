"""A good container taken apart into its fields, so that a test can lie in any of them and seal the lie with a valid key."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from modelwire import _core, errors
from modelwire.errors import ModelWireError
from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.tensors import Schema, TensorSpec
from modelwire.update.container import parse
from modelwire.update.header import MAGIC, TRAILER, commit_from
from modelwire.update.sections import Kind
from modelwire.wire import signing
from tests.keys import FLEET_ID
from tests.modelwire.models import KEY, model, sealed


@dataclass(frozen=True)
class Row:
    """One row of the section table, any field may lie."""

    tensor: int
    codec: int
    m: int
    j: int
    exponent: int
    reserved: int
    count: int

    def pack(self) -> bytes:
        return struct.pack("<HBBBbHI", self.tensor, self.codec, self.m, self.j, self.exponent, self.reserved, self.count)


@dataclass(frozen=True)
class Open:
    """All fields of a container; None means: what is right for the rest."""

    kind: int
    epoch: int
    version: int
    schema_id: bytes
    parent: bytes
    root: bytes
    fingerprint: bytes
    base: bytes
    device: bytes
    model: bytes
    extension: bytes
    rows: tuple[Row, ...]
    stream: bytes
    magic: bytes = MAGIC
    wire: int = 1
    digest: int = 1
    header_len: int | None = None
    extension_len: int | None = None
    sections: int | None = None
    total: int | None = None
    crc: int | None = None
    device_len: int | None = None
    model_len: int | None = None
    cut: int = 0  # bytes taken off the end of the body
    extra: bytes = field(default=b"")  # bytes put at its end

    def _head(self) -> bytes:
        device, model = _or(self.device_len, len(self.device)), _or(self.model_len, len(self.model))
        return (
            struct.pack("<BBBBIQ", self.kind, self.digest, device, model, self.epoch, self.version)
            + self.schema_id + self.parent + self.root + self.fingerprint + self.base + self.device + self.model
        )  # fmt: skip

    def body(self) -> bytes:
        """Return all but the commit and the signature."""
        head = self._head()
        rest = head + self.extension + b"".join(r.pack() for r in self.rows) + self.stream
        rest = rest[: len(rest) - self.cut] + self.extra
        front = self.magic + struct.pack(
            "<IIIII", self.wire, _or(self.header_len, len(head)), _or(self.extension_len, len(self.extension)),
            _or(self.sections, len(self.rows)), _or(self.total, 32 + len(rest) + TRAILER),
        )  # fmt: skip
        return front + struct.pack("<I", _or(self.crc, _core.crc32c(front))) + rest

    @property
    def commit(self) -> bytes:
        """The commit that a reader computes who believes the lengths."""
        body = self.body()
        at_extension = 32 + _or(self.header_len, len(self._head()))
        at_table = at_extension + _or(self.extension_len, len(self.extension))
        digests = [hashlib.sha256(part).digest() for part in (body[at_extension:at_table], body[at_table:])]
        return commit_from(body[:at_extension], *digests)

    def resealed(self, key: signing.PrivateKey = KEY, fleet: bytes = FLEET_ID, domain: bytes = signing.UPDATE) -> bytes:
        """Return the container with a valid commit and a valid signature of the device's own key."""
        return self.body() + self.commit + key.sign(domain, fleet, self.commit)


def _or(value: int | None, right: int) -> int:
    return right if value is None else value


def opened(data: bytes) -> Open:
    """Return the fields of a good container."""
    c = parse(data)
    h = c.header
    header_len, extension_len = struct.unpack_from("<II", data, 12)
    at = 32 + header_len
    rows = []
    for i in range(len(c.entries)):
        rows.append(Row(*struct.unpack_from("<HBBBbHI", data, at + extension_len + 12 * i)))
    return Open(
        h.kind, h.epoch, h.version, h.schema_id, h.parent, h.root, struct.pack("<QQ", *h.fingerprint), h.base,
        h.device.encode(), h.model.encode(), data[at : at + extension_len], tuple(rows), bytes(c.stream) + bytes(c.planes),
    )  # fmt: skip


@dataclass(frozen=True)
class Attack:
    """One mutation: what is changed, and the error by which the resealed container must be refused."""

    name: str
    change: Callable[[Open], Open]
    expected: type[ModelWireError]
    snapshot: bool = False


def victim(seed: int = 0) -> tuple[ModelState, bytes, bytes]:
    """Return (state of the parent, a good delta's container, a good snapshot's)."""
    manifest, base = model(seed)
    parent = ModelState.of_base(manifest, base)
    rng = np.random.default_rng(seed)
    trained = [(w + rng.standard_normal(len(w)).astype(np.float32) * np.float32(0.02)).astype(np.float32) for w in parent.weights]
    s = snap(parent.copy(), trained, no_residual(manifest), density=0.05, max_bytes=1 << 20)
    extension = {"loss_after": 0.5, "samples": 64}
    delta = sealed(s.state, s.sections, extension=extension)
    snapshot = sealed(s.state, s.state.snapshot(), kind=Kind.SNAPSHOT, extension=extension)
    return parent, delta, snapshot


def of_row(i: int, **changes: int) -> Callable[[Open], Open]:
    return lambda o: replace(o, rows=tuple(replace(r, **changes) if k == i else r for k, r in enumerate(o.rows)))


def of(**changes: object) -> Callable[[Open], Open]:
    return lambda o: replace(o, **changes)  # type: ignore[arg-type]


def with_dq(tensor: int, values: dict[int, int], step: tuple[int, int] = (1, 0)) -> Callable[[Open], Open]:
    """Return a change to a well-formed delta of one tensor, with these values at these indices."""
    manifest, _ = model(0)

    def change(o: Open) -> Open:
        spec = manifest.schema.tensors[tensor]
        index, value = np.array(sorted(values), np.uint32), np.array([values[i] for i in sorted(values)], np.int32)
        stream = _core.encode_sections([(spec.rows, spec.columns, index, value)])
        row = Row(tensor, 1, *step, manifest.exponents[tensor], 0, len(values))
        return replace(o, rows=(row,), stream=stream)

    return change


def attacks() -> list[Attack]:
    """Return every attack, each by a name of its own."""
    e = errors
    out: list[Attack] = []

    def add(name: str, change: Callable[[Open], Open], expected: type[ModelWireError], snapshot: bool = False) -> None:
        out.append(Attack(name, change, expected, snapshot))

    # Preamble
    for i in range(8):
        add(f"magic byte {i} changed", of(magic=MAGIC[:i] + bytes([MAGIC[i] ^ 0x80]) + MAGIC[i + 1 :]), e.Malformed)
    add("magic after text-mode transfer", of(magic=b"\x89MWU\n\x1a\n\0"), e.Malformed)
    for wire in (0, 2, 3, 255, 0x101, 0x10001, 0x80000001):
        add(f"wire version {wire}", of(wire=wire), e.UnsupportedWire)
    for crc in (0, 0xFFFFFFFF):
        add(f"crc32c is {crc:#x}", of(crc=crc), e.DigestMismatch)
    # Lying lengths
    for n in (0, 1, 128, 129, 2047):
        add(f"header length {n}", of(header_len=n), e.Malformed)
    for n in (2049, 1 << 16, 0xFFFFFFFF):
        add(f"header length {n}", of(header_len=n), e.TooLarge)
    for n in (1, 10, 16 * 1024):
        add(f"extension length {n}", of(extension_len=n), e.Malformed)
    for n in (16 * 1024 + 1, 1 << 31, 0xFFFFFFFF):
        add(f"extension length {n}", of(extension_len=n), e.TooLarge)
    for n in (4097, 1 << 20, 0xFFFFFFFF):
        add(f"{n} sections", of(sections=n), e.TooLarge)
    add("4096 sections that are not there", of(sections=4096), e.Malformed)
    for n in (0, 1, 300, 64 << 20, 0xFFFFFFFF):
        add(f"total length {n}", of(total=n), e.Malformed)
    for n in (0, 1, 5, 7, 64, 255):
        add(f"device name of {n} bytes said", of(device_len=n), e.Malformed)
    for n in (0, 1, 5, 7, 64, 255):
        add(f"model name of {n} bytes said", of(model_len=n), e.Malformed)
    # Truncations, and more than there should be, with the lengths put right
    for n in (1, 2, 3, 7):  # the coder reads zeros past the end of its stream: a short cut may decode, to other numbers
        add(f"stream cut by {n}", of(cut=n), e.WireError if n < 4 else e.Malformed)
    for n in (10, 20, 40, 60):
        add(f"stream cut by {n}", of(cut=n), e.Malformed)
    for at in range(0, 48, 3):
        add(f"stream byte {at} changed", lambda o, at=at: replace(o, stream=flip(o.stream, at)), e.WireError)  # type: ignore[misc]
    for at in range(4):
        add(f"stream without byte {at}", lambda o, at=at: replace(o, stream=o.stream[:at] + o.stream[at + 1 :]), e.WireError)  # type: ignore[misc]
    add("stream gone", of(stream=b""), e.Malformed)
    for extra in (b"\0", b"\1", b"\xff" * 4, bytes(100), b"\x55" * 3000):
        add(f"stream longer by {len(extra)} of {extra[:1].hex()}", of(extra=extra), e.Malformed)
    add("stream of zeros", lambda o: replace(o, stream=bytes(len(o.stream))), e.WireError)
    add("stream of ones", lambda o: replace(o, stream=b"\xff" * len(o.stream)), e.WireError)
    add("stream reversed", lambda o: replace(o, stream=o.stream[::-1]), e.WireError)
    # Header fields
    add("kind 2", of(kind=2), e.Malformed)  # exact updates have no coded sections
    add("kind 3", of(kind=3), e.Malformed)  # a recipe has no sections
    for kind in (4, 5, 255):
        add(f"kind {kind}", of(kind=kind), e.UnsupportedWire)
    add("a delta that says it is a snapshot", of(kind=0), e.Malformed)
    add("a snapshot that says it is a delta", of(kind=1), e.Malformed, True)
    add("a device called all", of(device=b"all"), e.Malformed)
    add("a model called all", of(model=b"all"), e.Malformed)
    for digest in (0, 2, 255):
        add(f"digest algorithm {digest}", of(digest=digest), e.UnsupportedWire)
    add("epoch 0", of(epoch=0), e.Malformed)
    for version in (0, 1 << 63, (1 << 64) - 1):
        add(f"version {version}", of(version=version), e.Malformed)
    for name in (b"Pi-7", b"pi 7", b"../a", b"pi\n7", b"\xff\xfe\xfd\xfc", b"-pi7", b"", b"a" * 65, b"pi/7", b"#", b"+", b"$sys"):
        add(f"device name {name!r}", of(device=name), e.Malformed)
        add(f"model name {name!r}", of(model=name), e.Malformed)
    add("another schema", of(schema_id=bytes(32)), e.WrongBase)
    add("another schema by one bit", lambda o: replace(o, schema_id=bytes([o.schema_id[0] ^ 1]) + o.schema_id[1:]), e.WrongBase)
    for base in (bytes(32), b"\xff" * 32):
        add(f"snapshot on base {base[:1].hex()}", of(base=base), e.WrongBase, True)
    for root in (bytes(32), b"\xff" * 32):
        add(f"root {root[:1].hex()}", of(root=root), e.RootMismatch)
    for i in (0, 7, 8, 15):
        add(f"fingerprint byte {i}", lambda o, i=i: replace(o, fingerprint=flip(o.fingerprint, i)), e.RootMismatch)  # type: ignore[misc]
        add(f"snapshot's fingerprint byte {i}", lambda o, i=i: replace(o, fingerprint=flip(o.fingerprint, i)), e.RootMismatch, True)  # type: ignore[misc]
    # Extension
    for n, bad in enumerate(
        (b"\xa0", b"\x80", b"\xf6", b"\xbf\xff", b"\xa1\x61a", b"\xa2\x61b\x00\x61a\x00", b"\xa1\x61a\xfb\x7f\xf8" + bytes(6),
         b"\xa1\x00\x00", b"\x81" * 2000, b"\xa1\x61a\x9b" + b"\xff" * 8, b"\xa1\x61a\x7b" + b"\xff" * 8, b"\xc0\x00")
    ):  # fmt: skip
        add(f"extension {n}: {bad[:6].hex()}", of(extension=bad), e.Malformed)
    for key in (b"!", b"!later"):
        critical = bytes([0xA1, 0x60 + len(key)]) + key + b"\x00"
        add(f"a critical key {key!r} in the extension", of(extension=critical), e.NotUnderstood)
    add("extension of 10,000 items", of(extension=b"\xa1\x61a\x99\x27\x10" + b"\x00" * 10000), e.TooLarge)
    # Section table
    for codec in (0, 3, 4, 255):
        add(f"codec {codec}", of_row(0, codec=codec), e.UnsupportedWire)
    add("codec 2", of_row(0, codec=2), e.Malformed)  # planes.py has what becomes of it where it belongs
    for m in (0, 2, 128, 254):
        add(f"step mantissa {m}", of_row(1, m=m), e.Malformed)
    for j in (23, 24, 31, 64, 255):
        add(f"step shift {j}", of_row(1, j=j), e.Malformed)
    for exponent in (-128, -97, 101, 127):
        add(f"unit 2^{exponent}", of_row(1, exponent=exponent), e.Malformed)
    for exponent in (-96, -15, 0, 100):
        add(f"delta in unit 2^{exponent}", of_row(1, exponent=exponent), e.Malformed)
    add("snapshot in a unit too fine for its base", of_row(1, exponent=-40), e.Malformed, True)
    add("verbatim tensor with a step", of_row(0, m=3), e.Malformed)
    add("verbatim tensor with a unit", of_row(0, exponent=4), e.Malformed)
    for reserved in (1, 0x8000):
        add(f"reserved {reserved:#x}", of_row(0, reserved=reserved), e.UnsupportedWire)
    add("tensor out of range", of_row(-1 % 3, tensor=4000), e.IndexOutOfRange)
    add("tensor 65535", of_row(2, tensor=65535), e.IndexOutOfRange)
    add("unsorted sections", lambda o: replace(o, rows=(o.rows[1], o.rows[0], *o.rows[2:])), e.Malformed)
    add("the same tensor twice", lambda o: replace(o, rows=(o.rows[0], o.rows[0], *o.rows[1:])), e.Malformed)
    add("a section without content", of_row(1, count=0), e.Malformed)
    for more in (1, 2, -1, -2):
        add(f"count off by {more}", last_count(more), e.WireError)
    add("count above the tensor's size", of_row(1, count=41), e.IndexOutOfRange)
    for count in (1 << 16, 1 << 24, 0xFFFFFFFF):
        add(f"bomb: {count} entries in a short stream", of_row(1, count=count), e.IndexOutOfRange)
    # Content
    add("one step out of the range, up", with_dq(2, {7: (1 << 22) + 1}), e.RangeOverflow)
    add("one step out of the range, down", with_dq(2, {7: -(1 << 22) - 1}), e.RangeOverflow)
    add("far out of the range by the step", with_dq(2, {7: 1 << 15}, (255, 8)), e.RangeOverflow)
    add("the largest values there are", with_dq(2, {0: -(1 << 31), 1479: (1 << 31) - 1}, (255, 22)), e.RangeOverflow)
    _manifest, base = model(0)
    variance = int(base[0].view(np.uint32)[0])
    for name, bits in (("NaN", 0x7FC00000), ("infinity", 0x7F800000), ("-infinity", 0xFF800000), ("signalling NaN", 0x7F800001)):
        difference = (bits - variance + (1 << 31)) % (1 << 32) - (1 << 31)
        add(f"{name} in a verbatim tensor", with_dq(0, {0: difference}), e.NonFinite)
    return out


def last_count(more: int) -> Callable[[Open], Open]:
    return lambda o: replace(o, rows=(*o.rows[:-1], replace(o.rows[-1], count=o.rows[-1].count + more)))


def flip(data: bytes, i: int) -> bytes:
    return data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]


def big_schema(n: int) -> Schema:
    return Schema((TensorSpec("w", (n // 1024, 1024)),))
