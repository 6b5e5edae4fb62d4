"""The compiled kernels. All arrays are 1-D, C-contiguous, aligned, and of one length n; index and value of another.

Errors of the caller's own making (wrong dtype, length, layout) are KernelError. Nothing is written when anything is raised.
"""

from collections.abc import Callable, Iterable, Sequence

from modelwire.tensors import F32, I32, U8, U16, U32, Stored

STATUS_END: int

def choose(name: str) -> None: ...
def kernel_name() -> str: ...
def kernel_names() -> tuple[str, ...]: ...
def check_rounding() -> None:
    """Raise RoundingMode unless float32 additions round to nearest even."""

def crc32c(data: bytes | bytearray | memoryview) -> int:
    """Return CRC-32C (Castagnoli), initial and final value all ones."""

def differences(w: F32, trained: F32, residual: U16, out: F32) -> None:
    """Write (trained - w) + residual. residual: bf16 bits. Raises NonFinite."""

def collect(w: F32, trained: F32, residual: U16, left: U16, index: U32, d: F32, *, least: float) -> tuple[int, bool] | None:
    """Return how many entries have |d| >= least and d != 0, for d = (trained - w) + residual, and whether any is too large for a bf16.

    These entries go to the front of index and d, in order; every d, rounded to bf16, goes to left, which is of no use when one is
    too large. None when more entries stand out than index and d hold. Raises NonFinite, Malformed; the outputs then mean nothing.
    """

def kth_magnitude(d: F32, k: int) -> float:
    """Return the k-th largest |d|, 1 <= k <= len(d)."""

def quantise(q: I32, index: U32, d: F32, *, exponent: int, step: int, threshold: float) -> tuple[U32, I32, int]:
    """Return what `snap` does, from entries collected with least <= threshold.

    Raises IndexOutOfRange, RangeOverflow when q is out of range, NonFinite, Malformed.
    """

def snap(w: F32, trained: F32, residual: U16, q: I32, *, exponent: int, step: int, threshold: float) -> tuple[U32, I32, int]:
    """Return index and value, in steps, of what is worth sending, and how many entries the lattice's range cut.

    Entries with |(trained - w) + residual| >= threshold (float32, in weight units) count. step: units of 2^exponent.
    Raises NonFinite, RangeOverflow when q is out of range, Malformed.
    """

def adopt(
    base: F32, w: F32, trained: F32, residual: U16, q: I32, index: U32, value: I32, *, exponent: int, step: int
) -> None:
    """Move w and q by value * step at index, and keep in residual what w lacks of trained.

    Raises IndexOutOfRange, RangeOverflow, NonFinite, Malformed.
    """

def adopt_sent(
    base: F32, w: F32, trained: F32, residual: U16, q: I32, left: U16, index: U32, value: I32, *, exponent: int, step: int
) -> None:
    """Do what `adopt` does in w and q, and in left instead of residual: it holds what `collect` wrote of these arrays.

    Costs time by the entries sent. Raises as `adopt` does, about these entries alone.
    """

def check_lattice(base: F32, q: I32, index: U32, value: I32, *, exponent: int, step: int) -> None:
    """Raise what apply_lattice would: IndexOutOfRange, RangeOverflow, NonFinite, Malformed."""

def apply_lattice(base: F32, w: F32, q: I32, index: U32, value: I32, *, exponent: int, step: int) -> None:
    """Move w and q by value * step at index."""

def check_verbatim(base: U32, q: I32, index: U32, value: I32) -> None:
    """Raise what apply_verbatim would: IndexOutOfRange, NonFinite, Malformed."""

def apply_verbatim(base: U32, w: U32, q: I32, index: U32, value: I32) -> None:
    """Move the bit patterns w and their difference q to base by value, mod 2^32."""

def weights_from_q(base: F32, q: I32, w: F32, *, exponent: int) -> None:
    """Write base + q * 2^exponent, and base's own bits where q is 0. Raises RangeOverflow, NonFinite, Malformed."""

def q_from_weights(base: F32, w: F32, q: I32, *, exponent: int) -> None:
    """Write the q that gives w. Raises NonFinite, and Malformed when no q gives w to the bit."""

def fingerprint(q: I32, *, start: int, verbatim: bool) -> tuple[int, int]:
    """Return the two lanes of a whole tensor whose first entry has the global index start."""

def fingerprint_sparse(index: U32, value: I32, *, step: int, start: int, verbatim: bool) -> tuple[int, int]:
    """Return what value * step at index adds to the two lanes. Raises Malformed."""

def encode_sections(sections: Iterable[tuple[int, int, U32, I32]]) -> bytes:
    """Return the sections (rows, columns, index, value) as one stream. Raises IndexOutOfRange and Malformed."""

def decode_sections(data: bytes | bytearray | memoryview, shapes: Iterable[tuple[int, int, int]]) -> list[tuple[U32, I32]]:
    """Return index and value of each section; shapes: rows, columns, count. Raises Malformed unless the stream is exactly these."""

def to_storage(held: F32, stored: Stored, *, dtype: int) -> None:
    """Write held as it is stored; dtype: 2 float16, 3 bfloat16, 4 int8 (as uint16, uint16, uint8).

    Raises NonFinite, and Malformed when the type does not have a value; stored then means nothing.
    """

def from_storage(stored: Stored, held: F32, *, dtype: int) -> None:
    """Write the numbers that stored bits mean. Raises NonFinite; held then means nothing."""

def round_stored(sums: F32, held: F32, *, dtype: int) -> None:
    """Write sums rounded to what dtype stores, half to even. Raises NonFinite, and RangeOverflow for a code beyond +-127."""

def ordered_differences(fresh: Stored, parent: Stored, d: I32, *, infinity: int) -> None:
    """Write ordered(fresh) - ordered(parent), shifted left until its first bit is that of an int32."""

def split_planes(fresh: Stored, parent: Stored | None, changed: U8, planes: U8, *, infinity: int) -> int:
    """Return how many entries differ from parent (None: zeros), and write which, and the byte planes of their zigzag differences.

    changed: a bit an entry, lowest first; planes: the width of an entry times n, plane p from p * n on. infinity: the bits of the
    type's infinity, 0 for integers. Raises NonFinite for an entry of fresh; the outputs then mean nothing.
    """

def join_planes(changed: U8, planes: U8, parent: Stored | None, fresh: Stored, *, count: int, infinity: int) -> None:
    """Write what `split_planes` was given, from parent and the planes, each a width-th of `planes`; fresh may be parent.

    Raises Malformed and NonFinite; fresh then means nothing.
    """

class Model:
    """The arrays of one model, checked once and held; model-wide kernels read and write them without asking again."""

    def __init__(
        self, base: Sequence[F32], w: Sequence[F32], q: Sequence[I32], *, dtypes: bytes, kinds: bytes,
        shapes: Sequence[tuple[int, int]],
    ) -> None:
        """dtypes, kinds: wire numbers, one a tensor; shapes: rows and columns as the coder sees them."""

    def holds(self, base: Sequence[F32], w: Sequence[F32], q: Sequence[I32]) -> bool:
        """Return whether these lists still have the very arrays that were taken."""

def check_table(table: bytes | bytearray | memoryview, *, snapshot: bool) -> bool:
    """Return whether every row is a range-coded section in its one form and the tensors rise."""

def apply_stream(
    model: Model, exponents: Sequence[int], table: bytes | bytearray | memoryview, stream: bytes | bytearray | memoryview, *,
    snapshot: bool, lanes: tuple[int, int], expect: tuple[int, int] | None = None, progress: Callable[[int], None] | None = None,
) -> tuple[int, int]:
    """Apply an update as its stream is read, and return the fingerprint after it. On any error every bit is as it was.

    exponents: of the units after the update. lanes: the fingerprint before it; expect: what it then has to be.
    progress: told now and then how many bytes of the stream are done with; it may be told the same ones twice.
    Raises IndexOutOfRange, RangeOverflow, NonFinite, Malformed, RootMismatch, RoundingMode; KernelError when the stream changed
    while it was read: the model is of no use then.
    """
