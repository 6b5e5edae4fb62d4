"""The container: one update as bytes, sealed and signed; and the strict reader for it. docs/format/container.md has the layout.

`parse` checks the envelope: lengths, commit, header, section table. The content is checked when it is decoded, by
`ModelState.apply_container`, which takes back what it wrote when a check fails, or by `Container.sections` and `Container.recipe`,
which write nothing.
Any buffer will do, a mapped file too: the coded stream is never copied.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from mmap import mmap

from modelwire import _core, limits
from modelwire.errors import DigestMismatch, IndexOutOfRange, Malformed, TooLarge, UnsupportedWire, WrongBase
from modelwire.output_head.recipe import Recipe, parse_recipe
from modelwire.tensors import Schema
from modelwire.wire import cbor, signing

from . import planes
from .header import HEADER_BYTES, PREAMBLE_BYTES, TRAILER, Header, commit_from, read_extension, read_header, read_preamble, write_front
from .sections import AnySection, Kind, PlaneSection, Section, Sections, dense, sparse, split_step

CODEC_RANGE, CODEC_PLANES = 1, 2  # 3 was raw planes, which no release wrote: it stays reserved
CODECS: dict[Kind, tuple[int, ...]] = {
    Kind.SNAPSHOT: (CODEC_RANGE, CODEC_PLANES),
    Kind.DELTA: (CODEC_RANGE, CODEC_PLANES),
    Kind.EXACT: (CODEC_PLANES,),
    Kind.RECIPE: (),
}
PIECE = 1 << 20  # bytes that are hashed between two words of progress
ENTRIES_PER_BYTE = 16_000  # the cheapest decision takes a 2000th of a bit (docs/format/coder.md)

_SECTION = struct.Struct("<HBBBbHI")  # tensor, codec, m, j, exponent, reserved, count
_CODEC_AT = 2  # the codec's byte in a row
SMALLEST = PREAMBLE_BYTES + HEADER_BYTES + 2 + TRAILER

Buffer = bytes | bytearray | memoryview | mmap
Progress = Callable[[int], None]  # told how many bytes from the start won't be read again soon


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
    extension: bytes = b""  # as it stands on the wire; `header` has it read
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

    def __repr__(self) -> str:
        return f"<container {self.name}: {self.header.kind.name.lower()}, {self.size} bytes>"

    def __hash__(self) -> int:
        return hash(self.commit)

    def verify(self, public: bytes, fleet: bytes) -> None:
        """Raise BadSignature unless the device that `public` belongs to sealed this, in the fleet with this id."""
        signing.verify(public, signing.UPDATE, fleet, self.commit, self.signature, what=self.name, signer=self.header.device)

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
            spec = schema.tensors[e.tensor]
            out[e.tensor] = PlaneSection(e.tensor, spec.dtype, spec.size, self.planes[start : start + e.count])
            planes.check(out[e.tensor].planes, spec.size, spec.dtype.width)
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
    header: Header, sections: Sequence[AnySection], schema: Schema, key: signing.Signer, fleet: bytes,
    limit: limits.Limits = limits.DEFAULT, *, recipe: bytes = b"",
) -> Sealed:  # fmt: skip
    """Return the signed update. Raises Malformed or TooLarge for what `parse` would refuse: it would be queued and sent for ever.

    fleet: the fleet's id, which the signature binds.
    recipe: what `Recipe.encode` gives; of an update of kind recipe, which has no sections.
    """
    whole = unsigned(header, sections, schema, limit, recipe=recipe)
    commit = whole[-32:]
    return Sealed(whole + key.sign(signing.UPDATE, fleet, commit), header, commit)


def unsigned(
    header: Header, sections: Sequence[AnySection], schema: Schema, limit: limits.Limits = limits.DEFAULT, *, recipe: bytes = b""
) -> bytes:
    """Return a container up to its commit: where a record that is signed carries it. Raises as `seal`."""
    if (header.kind is Kind.RECIPE) is not bool(recipe) or (recipe and sections):
        raise Malformed(what="container", reason="an update carries a recipe and no sections when it is of that kind, and only then")
    extension = cbor.encode(dict(header.extension)) if header.extension else b""
    table = b"".join(_row(s) for s in sections)
    _read_table(table, header.kind)
    read_extension(extension, limit)
    content = table + (recipe or _data(sections, schema))
    front = write_front(header, extension=len(extension), sections=len(sections), content=len(content), limit=limit)
    return front + extension + content + commit_from(front, hashlib.sha256(extension).digest(), hashlib.sha256(content).digest())


def with_extension(
    sealed: Sealed, extension: Mapping[str, cbor.Value], key: signing.Signer, fleet: bytes, limit: limits.Limits = limits.DEFAULT
) -> Sealed:
    """Return the same update with another extension beside it, signed anew; its content is not coded again. Raises as `seal`."""
    view = memoryview(sealed.data)
    said = read_preamble(view, limit, length=len(view))
    header, beside = replace(sealed.header, extension=extension), cbor.encode(dict(extension)) if extension else b""
    read_extension(beside, limit)
    content = view[PREAMBLE_BYTES + said.header + said.extension : -TRAILER]
    front = write_front(header, extension=len(beside), sections=said.sections, content=len(content), limit=limit)
    commit = commit_from(front, hashlib.sha256(beside).digest(), hashlib.sha256(content).digest())
    return Sealed(b"".join([front, beside, content, commit, key.sign(signing.UPDATE, fleet, commit)]), header, commit)


def size_of(sections: Sequence[AnySection], schema: Schema) -> int:
    """Return the bytes of a delta's container without names and extension."""
    return PREAMBLE_BYTES + HEADER_BYTES + _SECTION.size * len(sections) + len(_data(sections, schema)) + TRAILER


def commit_of(data: Buffer) -> bytes:
    """Return the commit that a container carries, unproven. Raises Malformed when it is too short to be one."""
    if len(data) < SMALLEST:
        raise Malformed(what="container", reason=f"{len(data)} bytes are fewer than the smallest has")
    return bytes(data[-TRAILER : -signing.SIGNATURE_BYTES])


def parse(data: Buffer, limit: limits.Limits = limits.DEFAULT, *, progress: Progress | None = None) -> Container:
    """Return the container that `data` holds, exactly. Its stream stays where it is, in `data`; all else is copied.

    progress: told which bytes are done with, here and when the content is read: a mapped file can let go of them.
    Raises TooLarge, Malformed, DigestMismatch, UnsupportedWire or NotUnderstood. Digests come first: damage is told from malice.
    """
    if len(data) > limit.container:
        raise TooLarge(what="the container", size=len(data), limit=limit.container)
    commit = commit_of(data)
    view = memoryview(data).toreadonly()
    said = read_preamble(view, limit, length=len(view))
    at_ext = PREAMBLE_BYTES + said.header
    at_table = at_ext + said.extension
    at_stream = at_table + _SECTION.size * said.sections
    end = len(view) - TRAILER
    front, extension_bytes, table = bytes(view[:at_ext]), bytes(view[at_ext:at_table]), bytes(view[at_table:at_stream])
    if commit_from(front, hashlib.sha256(extension_bytes).digest(), _digest(view[at_table:end], at_table, progress)) != commit:
        raise DigestMismatch(what="the container")
    header = read_header(front[PREAMBLE_BYTES :], read_extension(extension_bytes, limit))
    at_planes = end
    if header.kind is Kind.RECIPE:
        if said.sections or at_stream == end:
            raise Malformed(what="container", reason="a recipe has a section, or is empty")
    elif header.kind is Kind.EXACT or not _core.check_table(table, snapshot=header.kind is Kind.SNAPSHOT):
        # Slowly: it says what is wrong, unless there are planes in it.
        at_planes -= sum(e.count for e in _read_table(table, header.kind) if e.codec != CODEC_RANGE)
    if at_planes < at_stream:
        raise Malformed(what="container", reason="its planes do not fit in its length")
    return Container(
        header, table, view[at_stream:at_planes], view[at_planes:end], commit, bytes(view[end + 32 :]), len(view), extension_bytes, progress
    )


def parse_unsigned(data: bytes, limit: limits.Limits = limits.DEFAULT) -> Container:
    """Return the container that `unsigned` wrote; who said it is to be known from elsewhere. Raises as `parse`."""
    return parse(data + bytes(signing.SIGNATURE_BYTES), limit)


def _digest(view: memoryview, start: int, progress: Progress | None) -> bytes:
    """Return the digest of what lies at `start` of the container."""
    if progress is None:
        return hashlib.sha256(view).digest()
    h = hashlib.sha256()
    for place in range(0, len(view), PIECE):
        h.update(view[place : place + PIECE])
        progress(start + place)
    return h.digest()


def _row(s: AnySection) -> bytes:
    if isinstance(s, PlaneSection):
        return _SECTION.pack(s.tensor, CODEC_PLANES, 1, 0, 0, 0, len(s.planes))
    return _SECTION.pack(s.tensor, CODEC_RANGE, *split_step(s.step), s.exponent, 0, len(s.index))


def _data(sections: Sequence[AnySection], schema: Schema) -> bytes:
    """Return the coded stream and the planes behind it."""
    coded = [(schema.tensors[s.tensor], s) for s in sparse(sections)]
    stream = _core.encode_sections([(spec.rows, spec.columns, s.index, s.value) for spec, s in coded])
    return b"".join([stream, *(s.planes for s in dense(sections))])


def _read_table(data: bytes, kind: Kind) -> tuple[Entry, ...]:
    out: list[Entry] = []
    for tensor, codec, m, j, exponent, reserved, count in _SECTION.iter_unpack(data):
        if codec not in (CODEC_RANGE, CODEC_PLANES):
            got = f"{codec} (raw planes, reserved)" if codec == 3 else codec
            raise UnsupportedWire(what="section codec", got=got, reads="1 (range coder), 2 (planes)")
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
