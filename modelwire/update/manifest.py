"""The base's manifest: file digest, tensors, classes, units and root. Its SHA-256 is the commit of version 0."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from modelwire import limits
from modelwire.errors import Malformed, ModelError, NonFinite, TooLarge
from modelwire.identity import no_integers, root_parts
from modelwire.merkle import file_tree
from modelwire.tensors import Dtype, Held, Schema, TensorClass, TensorSpec
from modelwire.wire import cbor, more

# What is not trained by a gradient: statistics, and the threshold of anomalies. Sparse lossy coding drove a running variance
# below zero: facts in docs/decisions/0001-why-the-lattice.md.
# Which classes a tensor of each type may have. A 16-bit or 8-bit statistic is exact: its bits do not add mod 2^32.
CLASSES = {
    Dtype.FLOAT32: (TensorClass.LATTICE, TensorClass.VERBATIM, TensorClass.EXACT),
    Dtype.FLOAT16: (TensorClass.LATTICE, TensorClass.EXACT),
    Dtype.BFLOAT16: (TensorClass.LATTICE, TensorClass.EXACT),
    Dtype.INT8: (TensorClass.LATTICE, TensorClass.EXACT),
    Dtype.INT32: (TensorClass.VERBATIM, TensorClass.EXACT),
}
_KEYS = ["file", "manifest", "root", "size", "tensors", "tree"]
CODE_MAX = 127  # of an int8 tensor on the lattice, and -127: narrow range
VERBATIM_NAME = re.compile(r"((moving|running)_(mean|variance|var)(_\d+)?|\Aanomaly_threshold)\Z")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What both sides must hold in common before a device's updates mean anything."""

    file_sha256: bytes
    file_size: int  # bytes
    schema: Schema
    classes: tuple[TensorClass, ...]
    exponents: tuple[int, ...]  # unit 2^e a tensor; 0 where it is not on the lattice, and for int8
    root: bytes  # of the base's weights
    file_tree: bytes  # over the file's 64 KiB leaves
    more: Mapping[str, cbor.Value] = field(default_factory=dict)  # what later releases say of a base
    _commit: bytes = field(default=b"", init=False, repr=False, compare=False)  # once somebody has asked for it

    def __repr__(self) -> str:
        return f"<manifest {self.commit.hex()[:8]}: {self.schema.counted}, a file of {self.file_size} bytes>"

    def __hash__(self) -> int:
        return hash((self.file_sha256, self.root))

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        rows: list[cbor.Value] = [
            [t.name, int(t.dtype), list(t.shape), int(c), e]
            for t, c, e in zip(self.schema.tensors, self.classes, self.exponents, strict=True)
        ]
        values: dict[str, cbor.Value] = {
            "manifest": 1, "file": self.file_sha256, "size": self.file_size, "tensors": rows, "root": self.root, "tree": self.file_tree,
        }  # fmt: skip
        return cbor.encode(values | more.to_be_sent(self.more))

    @property
    def commit(self) -> bytes:
        """The commit of version 0, 32 bytes."""
        if not self._commit:
            object.__setattr__(self, "_commit", hashlib.sha256(self.encode()).digest())
        return self._commit

    def verbatim(self, tensor: int) -> bool:
        return self.classes[tensor] is TensorClass.VERBATIM

    def exact(self, tensor: int) -> bool:
        return self.classes[tensor] is TensorClass.EXACT

    def lattice(self, tensor: int) -> bool:
        return self.classes[tensor] is TensorClass.LATTICE

    def stepped(self, tensor: int) -> bool:
        """Whether the step of an update drives this tensor: those on the lattice, but for int8, where every changed code is sent."""
        return self.lattice(tensor) and self.schema.tensors[tensor].dtype is not Dtype.INT8

    @property
    def kept(self) -> tuple[int, ...]:
        """The tensors whose Q does not follow back from base and weights, because their stored sums have fewer bits."""
        return tuple(_kept(self.schema, self.classes))

    @property
    def some_exact(self) -> bool:
        return TensorClass.EXACT in self.classes

    @property
    def all_exact(self) -> bool:
        """Whether devices of this base send exact updates and adopt nothing."""
        return all(c is TensorClass.EXACT for c in self.classes)


def manifest_of(file: bytes | memoryview, *, exponents: Mapping[str, int] | None = None, exact: bool = False) -> Manifest:
    """Return the manifest of a trainable `.tflite`.

    exponents: units chosen by the model's author, by tensor name, in place of the default. exact: all tensors are exact.
    Raises NotTrainable, NonFinite (a base with NaN is no base) or ModelError for a unit that is too fine or too coarse.
    """
    # Who reads updates alone needs none of it.
    from modelwire.tflite.file import parse_trainable, read_tensors

    parsed = parse_trainable(file)  # type: ignore[arg-type]  # a file that is mapped serves as well: it is read here alone
    schema, flat = read_tensors(parsed)
    verbatim = frozenset(v.name for v in parsed.variables if v.verbatim)
    return manifest_for(
        schema, flat, file_sha256=hashlib.sha256(file).digest(), file_size=len(file), file_tree=file_tree(file),
        exponents=exponents or {}, exact=exact, verbatim=verbatim,
    )  # fmt: skip


def manifest_for(
    schema: Schema, flat: Sequence[Held], *, file_sha256: bytes, file_size: int, file_tree: bytes, exponents: Mapping[str, int],
    exact: bool = False, verbatim: frozenset[str] = frozenset(),
) -> Manifest:  # fmt: skip
    """Return the manifest of weights that are already flat arrays in schema order, held as their types are.

    verbatim: tensors of float32 that are on no lattice whatever their names say.

    Raises NonFinite, ModelError for a unit that does not suit, and Malformed for a weight that its storage type does not have.
    """
    classes, units = [], []
    strange = sorted(set(exponents) - {spec.name for spec in schema.tensors})
    if strange:
        raise ModelError(model=f"tensor {strange[0]}", reason="a unit was chosen for it, and the model does not have it")
    for spec, w in zip(schema.tensors, flat, strict=True):
        bad = np.flatnonzero(~np.isfinite(w))
        if len(bad):
            raise NonFinite(what="the base model", tensor=spec.name, index=int(bad[0]))
        peak = peak_of(w)
        klass = TensorClass.EXACT if exact else TensorClass.VERBATIM if spec.name in verbatim else class_of(spec, peak)
        if klass is not TensorClass.LATTICE and spec.name in exponents:
            raise ModelError(model=f"tensor {spec.name}", reason=f"it is {klass.name.lower()}, so it takes no unit")
        e = exponents.get(spec.name, default_unit(spec.dtype, peak)) if klass is TensorClass.LATTICE else 0
        if klass is TensorClass.LATTICE and not suits(peak, e, spec.dtype):
            raise ModelError(model=f"tensor {spec.name}", reason=f"a unit of 2^{e} does not suit weights of up to {peak:g}")
        classes.append(klass)
        units.append(e)
    root = root_parts(schema, flat, units, no_integers(_kept(schema, classes))).root
    return Manifest(file_sha256, file_size, schema, tuple(classes), tuple(units), root, file_tree)


def class_of(spec: TensorSpec, peak: float) -> TensorClass:
    """Return the class that a tensor gets unless the whole base is exact: a reader takes it from the manifest alone."""
    statistic = VERBATIM_NAME.search(spec.name) is not None
    if spec.dtype is Dtype.INT8:
        return TensorClass.EXACT if statistic or peak > CODE_MAX else TensorClass.LATTICE
    if spec.dtype is not Dtype.INT32 and not statistic and coarsest_safe(peak) <= limits.EXPONENT_MAX:
        return TensorClass.LATTICE
    return TensorClass.VERBATIM if TensorClass.VERBATIM in CLASSES[spec.dtype] else TensorClass.EXACT


def peak_of(held: Held) -> float:
    """Return the largest magnitude of a tensor."""
    return max(float(held.max(initial=0)), -float(held.min(initial=0)))


def default_unit(dtype: Dtype, peak: float) -> int:
    """Return e of the default unit 2^e of a tensor on the lattice."""
    return 0 if dtype is Dtype.INT8 else default_exponent(peak)


def default_exponent(peak: float) -> int:
    """Return e of the unit 2^e for a tensor whose largest |w| is `peak`: 2^-14 of it, range +-256 times it.

    The floor of 2^-4 keeps room for heads that start near zero: one grew 179-fold (measured).
    """
    return min(max(_ceil_log2(max(peak, 2.0**-4)) - 14, limits.EXPONENT_MIN), limits.EXPONENT_MAX)


def coarsest_safe(peak: float) -> int:
    """Return the least e for which Q always follows back from base and w: |w| < 2^(e+23) has ulp <= u/2."""
    return _ceil_log2(peak) - 22 if peak > 0 else limits.EXPONENT_MIN


def suits(peak: float, e: int, dtype: Dtype = Dtype.FLOAT32) -> bool:
    """Return whether a tensor whose largest |w| in the base is `peak` may have the unit 2^e. int8 has codes for a unit."""
    if dtype is Dtype.INT8:
        return e == 0 and peak <= CODE_MAX
    return max(limits.EXPONENT_MIN, coarsest_safe(peak)) <= e <= limits.EXPONENT_MAX


def parse_manifest(data: bytes, limit: limits.Limits = limits.DEFAULT) -> Manifest:
    """Return the manifest that `data` holds. Raises Malformed or TooLarge; the canonical form is the only one read."""
    if len(data) > limit.manifest:
        raise TooLarge(what="the manifest", size=len(data), limit=limit.manifest)
    wide = limits.Limits(cbor_items=limit.tensors * 16)
    top = cbor.decode(data, "manifest", wide)
    further = more.taken(top, "manifest") if isinstance(top, dict) else {}
    if not isinstance(top, dict) or sorted(top) != _KEYS or not _same(top["manifest"], 1):
        raise Malformed(what="manifest", reason="it has not the keys of a manifest of release 1")
    file, size, root, tree, rows = top["file"], top["size"], top["root"], top["tree"], top["tensors"]
    if not _digest(file) or not _digest(root) or not _digest(tree) or type(size) is not int or not 0 < size <= limit.model_file:
        raise Malformed(what="manifest", reason="a digest or the size is out of range")
    if not isinstance(rows, list):
        raise Malformed(what="manifest", reason="no table of tensors")
    specs, classes, units = [], [], []
    for row in rows:
        if not isinstance(row, list) or len(row) != 5:
            raise Malformed(what="manifest", reason="a row of tensors has not five entries")
        name, dtype, shape, klass, e = row
        tensor = f"tensor {str(name)[:40]!r}"
        kind = next((d for d in Dtype if _same(dtype, d)), None)
        if not isinstance(name, str) or kind is None or not isinstance(shape, list):
            raise Malformed(what="manifest", reason=f"{tensor} has a name, dtype or shape that this release does not read")
        moves = next((c for c in CLASSES[kind] if _same(klass, c)), None)
        if moves is None:
            raise Malformed(what="manifest", reason=f"{tensor} has a class that this release does not read for {kind.name.lower()}")
        dims = tuple(d for d in shape if type(d) is int)
        if len(dims) != len(shape) or type(e) is not int or not limits.EXPONENT_MIN <= e <= limits.EXPONENT_MAX:
            raise Malformed(what="manifest", reason=f"{tensor} has a shape or unit out of range")
        if e != 0 and (moves is not TensorClass.LATTICE or kind is Dtype.INT8):
            what = kind if moves is TensorClass.LATTICE else moves
            raise Malformed(what="manifest", reason=f"{tensor} is {what.name.lower()} and has a unit")
        specs.append(TensorSpec(name, dims, kind))
        classes.append(moves)
        units.append(e)
    assert isinstance(file, bytes) and isinstance(root, bytes) and isinstance(tree, bytes)
    return Manifest(file, size, Schema(tuple(specs)), tuple(classes), tuple(units), root, tree, further)


def _kept(schema: Schema, classes: Sequence[TensorClass]) -> dict[int, int]:
    """Return the entries of each tensor whose Q does not follow from its weights, by its place."""
    short = (Dtype.FLOAT16, Dtype.BFLOAT16)
    return {t: spec.size for t, spec in enumerate(schema.tensors) if classes[t] is TensorClass.LATTICE and spec.dtype in short}


def _same(value: cbor.Value, number: int) -> bool:
    # In Python true and 1.0 equal 1; in CBOR they are other bytes, and so another commit.
    return type(value) is int and value == number


def _digest(value: cbor.Value) -> bool:
    return isinstance(value, bytes) and len(value) == 32


def _ceil_log2(x: float) -> int:
    m, e = math.frexp(x)  # x = m * 2^e, 0.5 <= m < 1: exact, unlike log2
    return e - 1 if m == 0.5 else e
