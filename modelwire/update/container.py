"""The container: one update as bytes, sealed and signed; and the strict reader for it. docs/wire-format.md has the layout.

`parse` checks the envelope: digest, lengths, header, section table. The content is checked when it is decoded, by
`ModelState.apply_container`, which takes back what it wrote when a check fails, or by `Container.sections` and `Container.recipe`,
which write nothing.
Any buffer will do, a mapped file too: the coded stream is never copied.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from mmap import mmap

from modelwire import _core, limits
from modelwire.errors import DigestMismatch, IndexOutOfRange, Malformed, TooLarge, UnsupportedWire, WrongBase
from modelwire.output_head.recipe import Recipe, parse_recipe
from modelwire.tensors import Schema, check_name
from modelwire.wire import cbor, signing

from . import planes
from .sections import AnySection, Kind, PlaneSection, Section, Sections, dense, sparse, split_step

MAGIC = b"\x89MWU\r\n\x1a\n"  # like PNG's: text-mode transfer, a cleared high bit or a swapped line end damage it
MAJOR, MINOR = 1, 0
SHA256 = 1
CODEC_RANGE, CODEC_PLANES, CODEC_RAW = 1, 2, 3  # raw planes are only read: no release writes them, and the number stays theirs
CODECS: dict[Kind, tuple[int, ...]] = {
    Kind.SNAPSHOT: (CODEC_RANGE, CODEC_PLANES, CODEC_RAW),
    Kind.DELTA: (CODEC_RANGE, CODEC_PLANES),
    Kind.EXACT: (CODEC_PLANES,),
    Kind.RECIPE: (),
}
PIECE = 1 << 20  # bytes that are hashed between two words of progress
ENTRIES_PER_BYTE = 16_000  # the cheapest decision takes a 2000th of a bit (docs/wire-format.md, "Range coder")

_PREAMBLE = struct.Struct("<8sBBHIIIII")  # magic, major, minor, flags, header, extension, sections, total, crc32c
_HEADER = struct.Struct("<BBBBIQ32s32s32s16s")  # kind, hash, name lengths, epoch, version, schema, parent, root, fingerprint
_SECTION = struct.Struct("<HBBBbHI")  # tensor, codec, m, j, exponent, reserved, count
_CODEC_AT = 2  # the codec's byte in a row
TRAILER = 32 + signing.SIGNATURE_BYTES
SMALLEST = _PREAMBLE.size + _HEADER.size + 2 + TRAILER


Buffer = bytes | bytearray | memoryview | mmap
Progress = Callable[[int], None]  # told how many bytes from the start won't be read again soon


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


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the section table, checked against no schema yet."""

    tensor: int
    codec: int
    step: int
    exponent: int
    count: int  # entries in the stream; bytes where they are planes


@dataclass(frozen=True, slots=True)
class Container:
    """A parsed update. Its commit is proven; its signature and its content are not yet."""

    header: Header
    table: bytes  # the section table as it stands on the wire
    stream: memoryview  # of the range coder, or a recipe: into the buffer that was parsed, which must not change while this is in use
    planes: memoryview  # of the other sections, one after the other: likewise
    commit: bytes
    signature: bytes
    size: int  # bytes of the whole container
    progress: Progress | None = None  # told by readers which of the container's bytes they are done with

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The rows of the section table."""
        return _read_table(self.table, self.header.kind)

    @property
    def coded_table(self) -> bytes:
        """The rows of the section table whose entries are in the stream."""
        if not self.planes:
            return self.table
        rows = (self.table[start : start + _SECTION.size] for start in range(0, len(self.table), _SECTION.size))
        return b"".join(row for row in rows if row[_CODEC_AT] == CODEC_RANGE)

    @property
    def stream_progress(self) -> Progress | None:
        """What a reader of the stream tells how many of its bytes it is done with."""
        tell, before = self.progress, self.size - TRAILER - len(self.planes) - len(self.stream)
        return None if tell is None else lambda read: tell(before + read)

    @property
    def name(self) -> str:
        """DEVICE/MODEL@VERSION."""
        return f"{self.header.device}/{self.header.model}@{self.header.version}"

    def verify(self, public: bytes) -> None:
        """Raise BadSignature unless the device that `public` belongs to sealed this."""
        signing.verify(public, signing.UPDATE, self.commit, self.signature, what=self.name, signer=self.header.device)

    def recipe(self, limit: limits.Limits = limits.DEFAULT) -> Recipe:
        """Return the recipe that the update carries. Raises Malformed, when it is of another kind too, or TooLarge."""
        if self.header.kind is not Kind.RECIPE:
            raise Malformed(what=self.name, reason=f"it is of kind {self.header.kind.name.lower()} and carries no recipe")
        return parse_recipe(bytes(self.stream), limit)

    def check_schema(self, schema: Schema) -> None:
        """Raise WrongBase when this is an update of models with other tensors."""
        if self.header.schema_id != schema.id:
            raise WrongBase(
                what="the update", kind="schema", expected=schema.id.hex()[:16], got=self.header.schema_id.hex()[:16]
            )

    def plane_sections(self, schema: Schema) -> dict[int, PlaneSection]:
        """Return what planes carry, by tensor, every length in them checked against `schema`; nothing is unpacked.

        Raises IndexOutOfRange or Malformed.
        """
        out, start = {}, 0
        for e in self.entries if self.planes else ():
            if e.codec == CODEC_RANGE:
                continue
            if e.tensor >= len(schema.tensors):
                raise IndexOutOfRange(tensor=e.tensor, index=0, size=len(schema.tensors))
            spec, raw = schema.tensors[e.tensor], e.codec == CODEC_RAW
            out[e.tensor] = PlaneSection(e.tensor, spec.dtype, spec.size, self.planes[start : start + e.count], raw)
            planes.check(out[e.tensor].planes, spec.size, spec.dtype.width, always=raw)
            start += e.count
        return out

    def sections(self, schema: Schema) -> Sections:
        """Return the content, every count and index checked against `schema`.

        Raises WrongBase, IndexOutOfRange or Malformed: a recipe has none. Work and memory are bounded by the schema's size.
        """
        if self.header.kind is Kind.RECIPE:
            raise Malformed(what=self.name, reason="a recipe has no sections: what it comes to depends on its parent")
        self.check_schema(schema)
        shapes, entries, exact = [], self.entries, self.plane_sections(schema)
        for e in entries:
            if e.tensor in exact:
                continue
            if e.tensor >= len(schema.tensors):
                raise IndexOutOfRange(tensor=e.tensor, index=0, size=len(schema.tensors))
            spec = schema.tensors[e.tensor]
            if e.count > spec.size:
                raise IndexOutOfRange(tensor=spec.name, index=e.count, size=spec.size)
            shapes.append((spec.rows, spec.columns, e.count))
        if sum(count for _, _, count in shapes) > ENTRIES_PER_BYTE * (len(self.stream) + 4):
            raise Malformed(what="section table", reason="it counts more entries than its stream can hold")  # before memory is taken
        decoded = iter(_core.decode_sections(self.stream, shapes))
        return tuple(
            exact[e.tensor] if e.tensor in exact else Section(e.tensor, *next(decoded), e.step, e.exponent) for e in entries
        )


@dataclass(frozen=True, slots=True)
class Sealed:
    """An update as it is sent, beside what it was sealed from: whoever seals one has no need to parse it."""

    data: bytes  # the signed container
    header: Header
    commit: bytes


def seal(
    header: Header, sections: Sequence[AnySection], schema: Schema, key: signing.PrivateKey, limit: limits.Limits = limits.DEFAULT, *,
    recipe: bytes = b"",
) -> Sealed:  # fmt: skip
    """Return the signed update. Raises Malformed or TooLarge for what `parse` would refuse: it would be queued and sent for ever.

    recipe: what `Recipe.encode` gives; of an update of kind recipe, which has no sections.
    """
    whole = unsigned(header, sections, schema, limit, recipe=recipe)
    commit = whole[-32:]
    return Sealed(whole + key.sign(signing.UPDATE, commit), header, commit)


def unsigned(
    header: Header, sections: Sequence[AnySection], schema: Schema, limit: limits.Limits = limits.DEFAULT, *, recipe: bytes = b""
) -> bytes:
    """Return a container up to its commit: where a record that is signed carries it. Raises as `seal`."""
    _check_header(header)
    if (header.kind is Kind.RECIPE) is not bool(recipe) or (recipe and sections):
        raise Malformed(what="container", reason="an update carries a recipe and no sections when it is of that kind, and only then")
    device, model = header.device.encode(), header.model.encode()
    lanes = struct.pack("<QQ", *header.fingerprint)
    fixed = _HEADER.pack(
        header.kind, SHA256, len(device), len(model), header.epoch, header.version,
        header.schema_id, header.parent, header.root, lanes,
    )  # fmt: skip
    head = fixed + header.base + device + model
    extension = cbor.encode(dict(header.extension)) if header.extension else b""
    table = b"".join(_row(s) for s in sections)
    _read_table(table, header.kind)
    if extension:
        cbor.decode(extension, "extension", limit)
    stream = recipe or _data(sections, schema)
    total = _PREAMBLE.size + len(head) + len(extension) + len(table) + len(stream) + TRAILER
    _check_sizes(limit, len(head), len(extension), len(sections))
    if total > limit.container:
        raise TooLarge(what="the container", size=total, limit=limit.container)
    front = _PREAMBLE.pack(MAGIC, MAJOR, MINOR, 0, len(head), len(extension), len(sections), total, 0)[:-4]
    body = front + struct.pack("<I", _core.crc32c(front)) + head + extension + table + stream
    return body + hashlib.sha256(body).digest()


def size_of(sections: Sequence[AnySection], schema: Schema) -> int:
    """Return the bytes of a delta's container without names and extension."""
    return _PREAMBLE.size + _HEADER.size + _SECTION.size * len(sections) + len(_data(sections, schema)) + TRAILER


def commit_of(data: Buffer) -> bytes:
    """Return the commit that a container carries, unproven. Raises Malformed when it is too short to be one."""
    if len(data) < SMALLEST:
        raise Malformed(what="container", reason=f"{len(data)} bytes are fewer than the smallest has")
    return bytes(data[-TRAILER : -signing.SIGNATURE_BYTES])


def parse(data: Buffer, limit: limits.Limits = limits.DEFAULT, *, progress: Progress | None = None) -> Container:
    """Return the container that `data` holds, exactly. Its stream stays where it is, in `data`; all else is copied.

    progress: told which bytes are done with, here and when the content is read: a mapped file can let go of them.
    Raises TooLarge, Malformed, DigestMismatch or UnsupportedWire. The digest comes first: damage is told from malice.
    """
    if len(data) > limit.container:
        raise TooLarge(what="the container", size=len(data), limit=limit.container)
    commit = commit_of(data)
    view = memoryview(data).toreadonly()
    if _digest(view[:-TRAILER], progress) != commit:
        raise DigestMismatch(what="the container")
    magic, major, minor, flags, head_len, ext_len, count, total, crc = _PREAMBLE.unpack_from(view)
    if magic != MAGIC:
        raise Malformed(what="container", reason="it does not start as one")
    if crc != _core.crc32c(view[: _PREAMBLE.size - 4]):
        raise Malformed(what="container", reason="the preamble's crc32c does not match")
    if major != MAJOR:
        raise UnsupportedWire(what="wire version", got=f"{major}.{minor}", reads=MAJOR)
    if flags:
        raise UnsupportedWire(what="wire flags", got=f"{flags:#06x}", reads="0x0000")
    if total != len(view):
        raise Malformed(what="container", reason=f"it says {total} bytes and has {len(view)}")
    _check_sizes(limit, head_len, ext_len, count)
    at_ext = _PREAMBLE.size + head_len
    at_table = at_ext + ext_len
    at_stream = at_table + _SECTION.size * count
    end = len(view) - TRAILER
    if at_stream > end or head_len < _HEADER.size + 2:
        raise Malformed(what="container", reason="its parts do not fit in its length")
    front = bytes(view[:at_stream])
    extension = cbor.decode(front[at_ext:at_table], "extension", limit) if ext_len else {}
    if not isinstance(extension, dict) or (ext_len and not extension):
        raise Malformed(what="container", reason="the extension is not a map with content")
    header, table = _read_header(front[_PREAMBLE.size : at_ext], extension), front[at_table:]
    at_planes = end
    if header.kind is Kind.RECIPE:
        if count or at_stream == end:
            raise Malformed(what="container", reason="a recipe has a section, or is empty")
    elif header.kind is Kind.EXACT or not _core.check_table(table, snapshot=header.kind is Kind.SNAPSHOT):
        # Slowly: it says what is wrong, unless there are planes in it.
        at_planes -= sum(e.count for e in _read_table(table, header.kind) if e.codec != CODEC_RANGE)
    if at_planes < at_stream:
        raise Malformed(what="container", reason="its planes do not fit in its length")
    return Container(
        header, table, view[at_stream:at_planes], view[at_planes:end], commit, bytes(view[end + 32 :]), len(view), progress
    )


def parse_unsigned(data: bytes, limit: limits.Limits = limits.DEFAULT) -> Container:
    """Return the container that `unsigned` wrote; who said it is to be known from elsewhere. Raises as `parse`."""
    return parse(data + bytes(signing.SIGNATURE_BYTES), limit)


def _digest(view: memoryview, progress: Progress | None) -> bytes:
    if progress is None:
        return hashlib.sha256(view).digest()
    h = hashlib.sha256()
    for start in range(0, len(view), PIECE):
        h.update(view[start : start + PIECE])
        progress(start)
    return h.digest()


def _row(s: AnySection) -> bytes:
    if isinstance(s, PlaneSection):
        return _SECTION.pack(s.tensor, CODEC_RAW if s.raw else CODEC_PLANES, 1, 0, 0, 0, len(s.planes))
    return _SECTION.pack(s.tensor, CODEC_RANGE, *split_step(s.step), s.exponent, 0, len(s.index))


def _data(sections: Sequence[AnySection], schema: Schema) -> bytes:
    """Return the coded stream and the planes behind it."""
    coded = [(schema.tensors[s.tensor], s) for s in sparse(sections)]
    stream = _core.encode_sections([(spec.rows, spec.columns, s.index, s.value) for spec, s in coded])
    return b"".join([stream, *(s.planes for s in dense(sections))])


def _check_sizes(limit: limits.Limits, header: int, extension: int, sections: int) -> None:
    for what, size, bound in (
        ("the header", header, limit.header),
        ("the extension", extension, limit.extension),
        ("the section table", sections, limit.tensors),
    ):
        if size > bound:
            raise TooLarge(what=what, size=size, limit=bound)


def _check_header(h: Header) -> None:
    check_name("device name", h.device)
    check_name("model name", h.model)
    if not 0 < h.epoch < 1 << 32:
        raise Malformed(what="container", reason=f"epoch {h.epoch} is out of range")
    if not 0 < h.version < 1 << 63:
        raise Malformed(what="container", reason=f"version {h.version} is out of range")
    if len(h.base) != (32 if h.kind is Kind.SNAPSHOT else 0):
        raise Malformed(what="container", reason="a snapshot names its base, other updates do not")
    if any(len(d) != 32 for d in (h.parent, h.schema_id, h.root)):
        raise Malformed(what="container", reason="a digest is not 32 bytes")


def _read_header(data: bytes, extension: dict[str, cbor.Value]) -> Header:
    kind, digest, n_device, n_model, epoch, version, schema_id, parent, root, lanes = _HEADER.unpack_from(data)
    if digest != SHA256:
        raise UnsupportedWire(what="digest algorithm", got=digest, reads=SHA256)
    if kind not in CODECS:
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


def _read_table(data: bytes, kind: Kind) -> tuple[Entry, ...]:
    out: list[Entry] = []
    for tensor, codec, m, j, exponent, reserved, count in _SECTION.iter_unpack(data):
        if codec not in (CODEC_RANGE, CODEC_PLANES, CODEC_RAW):
            raise UnsupportedWire(what="section codec", got=codec, reads="1 (range coder), 2 (planes), 3 (raw planes)")
        if codec not in CODECS[kind]:
            raise Malformed(what="section table", reason=f"tensor {tensor}: codec {codec} is none of {kind.name.lower()} updates")
        if out and tensor <= out[-1].tensor:
            raise Malformed(what="section table", reason=f"tensor {tensor} does not follow tensor {out[-1].tensor}")
        if m % 2 == 0 or j > limits.STEP_SHIFT_MAX:
            raise Malformed(what="section table", reason=f"tensor {tensor}: step {m} * 2^{j} is not in its one form")
        if not limits.EXPONENT_MIN <= exponent <= limits.EXPONENT_MAX:
            raise Malformed(what="section table", reason=f"tensor {tensor}: unit 2^{exponent} is out of range")
        if reserved:
            raise UnsupportedWire(what="section flags", got=f"{reserved:#06x}", reads="0x0000")
        if codec != CODEC_RANGE and (m, j, exponent) != (1, 0, 0):
            raise Malformed(what="section table", reason=f"tensor {tensor}: planes have a step or unit")
        # An empty section says one thing alone: a snapshot's tensor is at its base, with a unit that is not the manifest's.
        if count == 0 and (kind is not Kind.SNAPSHOT or (m, j) != (1, 0) or codec != CODEC_RANGE):
            raise Malformed(what="section table", reason=f"tensor {tensor} has a section without content")
        out.append(Entry(tensor, codec, m << j, exponent, count))
    return tuple(out)
