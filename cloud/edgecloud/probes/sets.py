"""Probe sets: rows x with labels or targets y and tags a row, on which versions are run at the centre; their bytes, digest and contexts."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgecloud.registry import ProbeRow, Store
from edgecloud.versions.materialise import LoadedBases
from edgecommon.files import open_regular
from modelwire.cards.card import CLASSES_MAX, TAG_LENGTH, TAGS_MAX, VALUES_MAX
from modelwire.errors import BadArgument, Malformed, MissingFile, ModelWireError, NonFinite, RegistryDamaged, ShapeMismatch, TooLarge
from modelwire.limits import MIB
from modelwire.names import check_name
from modelwire.tensors import F32
from modelwire.text import is_plain
from modelwire.tflite.file import TrainableFile, contract
from modelwire.tflite.graph import Tensor
from modelwire.wire import cbor

# All limits of a probe set.
ROWS_MAX = 100_000
BYTES_MAX = 64 * MIB  # of a set as it is kept
FILE_MAX = 512 * MIB  # of a file of arrays once it is unpacked
RANK_MAX = 6  # of x, rows among them
TAG, CONTEXT = "tag.", "context."  # begin the names of arrays of tags; the second is what files of samples call them

FORMAT = 1
EXAMPLE = "numpy.savez('night.npz', x=rows, y=labels, **{'tag.light': words})"
LABELS, TARGETS = "labels", "targets"
_BROKEN = (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error)

Labels: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]
Context: TypeAlias = Mapping[str, str]
_Array = TypeVar("_Array", bound=NDArray[Any])


@dataclass(frozen=True)
class ProbeSet:
    """Rows that models are run on. Arrays are read-only.

    x: float32 [n, ...], finite. y: int64 [n], a class a row; or float32 [n, ...], a target a row; or None. tags: by name a word a row,
    "" where a row has none.
    """

    x: F32
    y: Labels | F32 | None = None
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def __repr__(self) -> str:
        return f"<probe set: {len(self)} rows of {list(self.shape)}, {self.kind or 'no labels'}, tags {', '.join(self.tags) or 'none'}>"

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return self.x.shape[1:]

    @property
    def kind(self) -> str:
        """Return LABELS, TARGETS, or "" for rows that say neither."""
        return "" if self.y is None else LABELS if self.labels is not None else TARGETS

    @property
    def labels(self) -> Labels | None:
        """The class of each row; None where there are none."""
        return self.y if self.y is not None and self.y.dtype == np.int64 else None  # type: ignore[return-value]

    @cached_property
    def encoded(self) -> bytes:
        """The canonical bytes: equal rows, labels and tags have equal ones."""
        return _encode(self)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes: 32 bytes that name the set."""
        return hashlib.sha256(self.encoded).digest()

    def contexts(self) -> list[str]:
        """Return every TAG=VALUE that rows carry, sorted."""
        return sorted({f"{name}={value}" for name, values in self.tags.items() for value in set(values) if value})

    def rows(self, context: Context | str = "") -> Rows:
        """Return the numbers of the rows that carry all tags of a context, rising; of all rows for an empty one.

        Raises BadArgument for a context that no row carries.
        """
        wanted = parse_context(context) if isinstance(context, str) else context
        keep = np.ones(len(self), bool)
        for name, value in wanted.items():
            keep &= np.array([one == value for one in self.tags.get(name, [""] * len(self))], bool)
        if not keep.any():
            known = ", ".join(self.contexts()[:12])
            fix = f"its contexts are {known}" if known else "its rows have no tags: edgecloud probes add takes arrays tag.NAME"
            raise BadArgument(reason=f"no row of the probe set has {context_name(wanted)}", fix=fix)
        return np.flatnonzero(keep).astype(np.int64)

    def part(self, rows: Rows) -> ProbeSet:
        """Return the set of these rows alone."""
        tags = {name: tuple(values[i] for i in rows) for name, values in self.tags.items()}
        return ProbeSet(_still(self.x[rows]), None if self.y is None else _still(self.y[rows]), MappingProxyType(tags))


@dataclass(frozen=True, slots=True)
class ProbeInput:
    """What the rows of a probe set must be for the models on a base."""

    base: str
    shape: tuple[int, ...]  # of one row
    output: tuple[int, ...]  # of one target

    @property
    def classes(self) -> int:
        return max(2, prod(self.output))  # one output says how likely class 1 is


def parse_context(text: str) -> dict[str, str]:
    """Return the tags of TAG=VALUE[,TAG=VALUE...]; none for "". Raises BadArgument."""
    out: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not name or not value or name in out:
            raise BadArgument(reason=f"{text[:100]!r} is no context", fix="write TAG=VALUE[,TAG=VALUE...], as light=night,region=alps")
        out[name] = value
    return out


def context_name(context: Context) -> str:
    """Return a context as it is written, tags sorted."""
    return ",".join(f"{name}={value}" for name, value in sorted(context.items()))


def probe_set(
    x: NDArray[Any], y: NDArray[Any] | None = None, tags: Mapping[str, Sequence[object]] | None = None, *, what: str = "probes"
) -> ProbeSet:
    """Return the set of these arrays, checked and copied. what: names them in errors.

    Raises TooLarge, ShapeMismatch, NonFinite, BadArgument or Malformed.
    """
    if x.dtype.kind not in "fiub" or not 2 <= x.ndim <= RANK_MAX or not x.size:
        expected = f"numbers of shape [rows, ...], rank 2 to {RANK_MAX}, none of them 0"
        raise ShapeMismatch(tensor=f"{what}: x", expected=expected, got=f"{x.dtype}{list(x.shape)}", fix=EXAMPLE)
    n = len(x)
    _within(f"{what}: its rows", n, ROWS_MAX)
    _within(f"{what}: x as float32", 4 * x.size, BYTES_MAX)
    with np.errstate(over="ignore"):
        rows = np.array(x, np.float32, order="C")
    _finite(what, "x", rows)
    labels = None if y is None else _labels(y, n, what)
    words = {check_name("tag", name): _words(name, values, n, what) for name, values in sorted((tags or {}).items())}
    _within(f"{what}: its tags", len(words), TAGS_MAX, fix="leave out tags that no context asks for")
    made = ProbeSet(_still(rows), labels, MappingProxyType(words))
    _within(what, len(made.encoded), BYTES_MAX)
    return made


def read_npz(path: Path) -> ProbeSet:
    """Return the set of a file of arrays: x, y if it has one, and tag.NAME (or context.NAME), a word a row. Nothing in it is executed.

    Raises MissingFile, TooLarge, BadArgument, and as `probe_set`.
    """
    try:
        with open_regular(path) as file:
            with zipfile.ZipFile(file) as packed:
                _within(str(path), sum(each.file_size for each in packed.infolist()), FILE_MAX)
                _within(f"{path}: its arrays", len(packed.infolist()), TAGS_MAX + 2, fix=f"keep x, y and up to {TAGS_MAX} tags")
                names = Counter(each.filename.removesuffix(".npy") for each in packed.infolist())
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                held = {name: np.asarray(arrays[name]) for name in arrays.files if name in ("x", "y") or name.startswith((TAG, CONTEXT))}
                strange = sorted(set(arrays.files) - set(held))
    except FileNotFoundError:
        raise MissingFile(path=path, what="the file of probes") from None
    except _BROKEN as error:
        raise BadArgument(reason=f"{path} is no .npz file of arrays: {' '.join(str(error).split())[:120]}", fix=EXAMPLE) from None
    twice = next((name for name, times in names.items() if times > 1), None)
    if twice is not None:
        raise BadArgument(reason=f"{path} holds {twice[:60]!r} twice", fix=EXAMPLE)
    if "x" not in held or strange:
        reason = f"it holds {strange[0][:60]!r}, which is none of x, y and tag.NAME" if strange else "it holds no array x"
        raise BadArgument(reason=f"{path}: {reason}", fix=EXAMPLE)
    tags: dict[str, Sequence[object]] = {}
    for key in sorted(set(held) - {"x", "y"}):
        name = key.partition(".")[2]
        if name in tags:
            raise BadArgument(reason=f"{path} holds the tag {name!r} twice", fix=f"call it {TAG}{name} alone")
        if held[key].ndim != 1 or held[key].dtype.kind not in "Uiu":
            got = f"{held[key].dtype}{list(held[key].shape)}"
            raise ShapeMismatch(tensor=f"{path}: {key}", expected="a word a row", got=got, fix=EXAMPLE)
        tags[name] = held[key].tolist()
    return probe_set(held["x"], held.get("y"), tags, what=str(path))


def input_of(base: TrainableFile, name: str) -> ProbeInput:
    """Return what rows a base's `infer` takes; of a stock file without signatures, what its only input does. Raises NotTrainable."""
    parsed = base.parsed
    if "infer" in parsed.signatures:
        takes = contract(parsed, model=name)
        return ProbeInput(name, takes.x_shape, takes.y_shape)
    graph = parsed.graphs[0]
    if len(graph.inputs) != 1 or base.head is None:
        reason = f"the base {name!r} takes {len(graph.inputs)} inputs, and a probe set holds one"
        raise BadArgument(reason=reason, fix="edgecloud bases list")
    given: Tensor = graph.tensors[graph.inputs[0]]
    return ProbeInput(name, given.shape[1:], base.head.contract.y_shape)


def inputs_of(store: Store, model: str = "", bases: LoadedBases | None = None) -> list[ProbeInput]:
    """Return what the bases take that devices' models of this name are on; "" for all bases. Raises BadArgument where there is none."""
    wanted = {base.commit: base.name for base in store.bases.all()}
    if model:
        mine = [store.lineages.current(one.id) for one in store.lineages.all() if one.model == model]
        wanted = {epoch.base: wanted[epoch.base] for epoch in mine if epoch is not None and epoch.base in wanted}
    if not wanted:
        reason = f"no device has a model {model!r}" if model else "the registry has no base yet"
        raise BadArgument(reason=reason, fix="edgecloud devices lists models, edgecloud bases those that they start from")
    loaded = LoadedBases(store) if bases is None else bases
    return [input_of(loaded[commit].file, name) for commit, name in sorted(wanted.items(), key=lambda one: one[1])]


def check_fits(probes: ProbeSet, takes: Sequence[ProbeInput], what: str) -> list[ProbeInput]:
    """Return those bases whose models the rows fit. Raises ShapeMismatch or BadArgument where there is none."""
    shaped = [one for one in takes if one.shape == probes.shape]
    if not shaped:
        known = "; ".join(f"{list(one.shape)} of {one.base}" for one in takes[:4])
        fix = "edgecloud bases list; rows are as the model's infer takes them"
        raise ShapeMismatch(tensor=f"{what}: a row of x", expected=known, got=f"{list(probes.shape)}", fix=fix)
    labels = probes.labels
    if labels is not None:
        fits = [one for one in shaped if int(labels.max()) < one.classes]
        if not fits:
            most = max(one.classes for one in shaped)
            reason = f"{what}: the label {int(labels.max())} is outside the {most} classes of {shaped[0].base}"
            raise BadArgument(reason=reason, fix=f"labels are whole numbers from 0 to {most - 1}")
        return fits
    if probes.y is not None:
        fits = [one for one in shaped if one.output == probes.y.shape[1:]]
        if not fits:
            fix = "floats are targets of the output's shape; classes are whole numbers: y.astype(int)"
            raise ShapeMismatch(tensor=f"{what}: a row of y", expected=list(shaped[0].output), got=list(probes.y.shape[1:]), fix=fix)
        return fits
    return shaped


def add(store: Store, name: str, probes: ProbeSet, *, model: str = "", now: int, bases: LoadedBases | None = None) -> ProbeRow:
    """Keep a probe set, write-once, and return its row. model: of whose devices it is; "": of all that take such rows.

    Raises as `check_fits`, Malformed for a name that can't be one, BadArgument for one that is taken.
    """
    check_name("name of a probe set", name)
    check_fits(probes, inputs_of(store, model, bases), name)
    held = store.probes.named(name)
    if held is not None:
        if (held.digest, held.model) == (probes.digest, model):
            return held
        raise BadArgument(reason=f"there is a probe set {name!r} already", fix=f"edgecloud probes remove {name}, or another name")
    row = ProbeRow(name, probes.digest, model, probes.shape, len(probes), len(probes.encoded), now)
    return store.probes.add(row, probes.encoded)


def find(store: Store, name: str) -> ProbeRow:
    """Return the row of a set. Raises BadArgument, naming those that there are."""
    row = store.probes.named(name)
    if row is None:
        known = ", ".join(one.name for one in store.probes.all()[:12])
        fix = f"there are {known}" if known else "edgecloud probes add NAME FILE.npz"
        raise BadArgument(reason=f"there is no probe set {name[:80]!r}", fix=fix)
    return row


def load(store: Store, row: ProbeRow | str) -> ProbeSet:
    """Return a set that the registry keeps, by its name or row. Raises BadArgument, RegistryDamaged."""
    row = find(store, row) if isinstance(row, str) else row
    data = store.probes.data(row.digest)
    if data is None:
        raise RegistryDamaged(path="the registry", reason=f"the bytes of the probe set {row.name!r} are gone")
    try:
        return decode(data)
    except ModelWireError as error:
        raise RegistryDamaged(path="the registry", reason=f"the probe set {row.name!r}: {error.message}") from None


def of_model(store: Store, model: str, shape: tuple[int, ...]) -> list[ProbeRow]:
    """Return the sets for a model whose rows have this shape: those of its name, and those of none."""
    return [row for row in store.probes.all() if row.model in ("", model) and row.shape == shape]


def decode(data: bytes) -> ProbeSet:
    """Return the set of canonical bytes. Raises Malformed, TooLarge, or as `probe_set`."""
    _within("the probe set", len(data), BYTES_MAX)
    size = int.from_bytes(data[:4], "little")
    if len(data) < 4 or size > len(data) - 4:
        raise Malformed(what="probe set", reason="it ends within its header")
    said = cbor.decode(data[4 : 4 + size], "probe set")
    if not (isinstance(said, list) and len(said) == 4 and said[0] == FORMAT):
        raise Malformed(what="probe set", reason=f"it is not of format {FORMAT}")
    x_shape, y_said, tables = _dimensions(said[1]), said[2], said[3]
    parts = _Parts(memoryview(data)[4 + size :])
    x = parts.take(np.dtype("<f4"), x_shape)
    y: NDArray[Any] | None = None
    if y_said is not None:
        y_shape = _dimensions(y_said)
        y = parts.take(np.dtype("<i8"), y_shape) if len(y_shape) == 1 else parts.take(np.dtype("<f4"), y_shape)
    if not isinstance(tables, dict) or len(tables) > TAGS_MAX:
        raise Malformed(what="probe set", reason="its tags have no names")
    tags: dict[str, list[object]] = {}
    for name, values in sorted(tables.items()):
        codes = parts.take(np.dtype("u1"), (x_shape[0],))
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values) or int(codes.max(initial=0)) > len(values):
            raise Malformed(what="probe set", reason=f"the tag {name[:60]!r} has values without words")
        tags[name] = [("", *values)[code] for code in codes]
    parts.end()
    made = probe_set(x, y, tags, what="the probe set")
    if made.encoded != data:
        raise Malformed(what="probe set", reason="no encoder writes these bytes")
    return made


def _encode(s: ProbeSet) -> bytes:
    words = {name: sorted(set(values) - {""}) for name, values in s.tags.items()}
    shape: list[cbor.Value] = [*map(int, s.x.shape)]
    y: list[cbor.Value] | None = None if s.y is None else [*map(int, s.y.shape)]
    head = cbor.encode([FORMAT, shape, y, {name: [*values] for name, values in words.items()}])
    pieces = [len(head).to_bytes(4, "little"), head, s.x.astype("<f4").tobytes()]
    if s.y is not None:
        pieces.append(s.y.astype("<i8" if s.y.dtype == np.int64 else "<f4").tobytes())
    for name in sorted(s.tags):
        code = {"": 0, **{value: i for i, value in enumerate(words[name], 1)}}
        pieces.append(bytes(code[value] for value in s.tags[name]))
    return b"".join(pieces)


class _Parts:
    """Arrays that stand one behind the other."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def take(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        size = prod(shape) * dtype.itemsize
        if size > len(self._data):
            raise Malformed(what="probe set", reason="it ends within an array")
        taken, self._data = self._data[:size], self._data[size:]
        return np.frombuffer(taken, dtype).reshape(shape)

    def end(self) -> None:
        if len(self._data):
            raise Malformed(what="probe set", reason=f"{len(self._data)} bytes too many")


def _dimensions(value: cbor.Value) -> tuple[int, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= RANK_MAX or any(type(n) is not int or not 0 < n <= BYTES_MAX for n in value):
        raise Malformed(what="probe set", reason="a shape is none")
    return tuple(n for n in value if isinstance(n, int))


def _labels(y: NDArray[Any], n: int, what: str) -> Labels | F32:
    if y.ndim < 1 or len(y) != n or y.dtype.kind not in "iuf" or not 1 <= y.ndim <= RANK_MAX or not y.size:
        expected = f"{n} classes, or targets of shape [{n}, ...]"
        raise ShapeMismatch(tensor=f"{what}: y", expected=expected, got=f"{y.dtype}{list(y.shape)}", fix=EXAMPLE)
    if y.dtype.kind == "f" or y.ndim > 1:
        _within(f"{what}: y as float32", 4 * y.size, BYTES_MAX)
        with np.errstate(over="ignore"):
            targets = np.array(y, np.float32, order="C")
        _finite(what, "y", targets)
        return _still(targets[:, None] if targets.ndim == 1 else targets)
    if int(y.min()) < 0 or int(y.max()) >= CLASSES_MAX:
        odd = int(y.min()) if int(y.min()) < 0 else int(y.max())
        raise BadArgument(reason=f"{what}: the label {odd} is no class", fix=f"labels are whole numbers from 0 to {CLASSES_MAX - 1}")
    return _still(np.array(y, np.int64))


def _words(name: str, values: Sequence[object], n: int, what: str) -> tuple[str, ...]:
    if len(values) != n:
        raise ShapeMismatch(tensor=f"{what}: {TAG}{name}", expected=f"{n} words", got=len(values), fix=EXAMPLE)
    words = tuple(map(str, values))
    for word in set(words):
        if len(word) > TAG_LENGTH or not is_plain(word) or not set(word).isdisjoint(",="):
            reason = f"{word[:60]!r} is not up to {TAG_LENGTH} printable characters without , and ="
            raise Malformed(what=f"{what}: {TAG}{name}", reason=reason, fix="write plain words, as night or alps")
    fix = "a tag is for a few contexts: put neighbouring values under one word"
    _within(f"{what}: the values of {TAG}{name}", len(set(words) - {""}), VALUES_MAX, fix=fix)
    return words


def _finite(what: str, tensor: str, values: F32) -> None:
    odd = np.flatnonzero(~np.isfinite(values.reshape(-1)))
    if len(odd):
        fix = "leave such rows out, or say what they stand for"
        raise NonFinite(what=what, tensor=tensor, index=int(odd[0]), fix=fix)


def _within(what: str, size: int, limit: int, *, fix: str = "take fewer rows: a thousand tell an accuracy to within 3 %") -> None:
    if size > limit:
        raise TooLarge(what=what, size=size, limit=limit, fix=fix)


def _still(values: _Array) -> _Array:
    values.flags.writeable = False
    return values
