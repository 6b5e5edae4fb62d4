"""The compiled kernels. All arrays are 1-D, C-contiguous, aligned, and of one length n; index and value of another.

Errors of the caller's own making (wrong dtype, length, layout) are KernelError. Nothing is written when anything is raised.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from numpy.typing import NDArray
from typing_extensions import Self, disjoint_base

from modelwire.output_head_settings import OutputHeadSettings
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

@disjoint_base
class Round:
    """The arrays of one round, whole lists of them, taken once. kinds: 0 lattice, 1 verbatim; tensors of others are not looked at.

    dtypes: as on the wire. starts: of the fingerprint. Residuals and what is left are bf16 bits, of lattice tensors alone.
    d, everywhere: (trained - w) + residual, as the bits of a float32. ends: where a tensor's part ends, all tensors.
    Errors name tensors by their numbers.
    """

    def __new__(
        cls,
        base: Sequence[F32],
        w: Sequence[F32],
        q: Sequence[I32],
        trained: Sequence[F32],
        residual: Sequence[U16],
        left: Sequence[U16],
        *,
        exponents: Sequence[int],
        kinds: Sequence[int],
        dtypes: Sequence[int],
        starts: Sequence[int],
    ) -> Self: ...
    def collect(self, k: int) -> tuple[U32, I32, list[int], float, float]:
        """Return index, d, ends, the k-th largest |d| (0 when fewer differ from 0) and the bar: every |d| >= it is there.

        Writes d, rounded to bf16, to left. Raises NonFinite; what left holds then means nothing.
        """

    def adopt(
        self, index: U32, d: I32, ends: Sequence[int], *, steps: Sequence[int], thresholds: Sequence[float]
    ) -> tuple[U32, I32, list[int], list[int], tuple[int, int]]:
        """Take over what was collected and is worth sending; return index, whole steps, ends, cut entries a tensor, and lanes.

        Entries with |d| >= threshold (float32, in weights) count; steps: in units, 0 leaves a tensor out. index and d are used up.
        Raises NonFinite, RangeOverflow, IndexOutOfRange, Malformed; w and q are then as before.
        """

    def adopt_known(
        self, *, steps: Sequence[int], thresholds: Sequence[float], room: int = 0
    ) -> tuple[U32, I32, list[int], list[int], tuple[int, int]]:
        """Do both in one pass, for steps that are known beforehand. room: about how many entries will be sent."""

    def adopt_verbatim(self) -> tuple[U32, I32, list[int], tuple[int, int]]:
        """Take over the verbatim tensors; return index, differences of bits mod 2^32, ends and lanes. Raises NonFinite."""

    def retract(self, index: U32, value: I32, ends: Sequence[int], *, steps: Sequence[int]) -> None:
        """Take back what was adopted: w, q and left get their bits again, and value of lattice tensors those of d."""

def kth_magnitude(d: I32, k: int) -> float:
    """Return the k-th largest |d|, 1 <= k <= len(d); d as the bits of float32."""

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

def check_lz4(block: U8) -> None:
    """Raise Malformed unless a packed plane is whole sequences of LZ4, none with a match at offset 0, of which liblz4 makes zeros."""

@disjoint_base
class Model:
    """The arrays of one model, checked once and held; model-wide kernels read and write them without asking again."""

    def __new__(
        cls, base: Sequence[F32], w: Sequence[F32], q: Sequence[I32], *, dtypes: bytes, kinds: bytes,
        shapes: Sequence[tuple[int, int]],
    ) -> Model:
        """dtypes, kinds: wire numbers, one a tensor; shapes: rows and columns as the coder sees them."""

    def holds(self, base: Sequence[F32], w: Sequence[F32], q: Sequence[I32]) -> bool:
        """Return whether these lists still have the very arrays that were taken."""

def check_table(table: bytes | bytearray | memoryview, *, snapshot: bool) -> bool:
    """Return whether every row is a range-coded section in its one form and the tensors rise."""

def apply_stream(
    model: Model, exponents: Sequence[int], table: bytes | bytearray | memoryview, stream: bytes | bytearray | memoryview, *,
    snapshot: bool, lanes: tuple[int, int], expect: tuple[int, int] | None = None, progress: Callable[[int], None] | None = None,
    counted: tuple[U16, U32, U32] | None = None,
) -> tuple[int, int]:
    """Apply an update as its stream is read, and return the fingerprint after it. On any error every bit is as it was.

    exponents: of the units after the update. lanes: the fingerprint before it; expect: what it then has to be.
    progress: told now and then how many bytes of the stream are done with; it may be told the same ones twice.
    counted: a code for each entry of the model, which is one of 256 buckets, and 256 more for minus; a factor for each tensor; and 256
    sums, of which that of its bucket grows by +-factor * dQ, mod 2^32, with each entry. After an error the sums mean nothing.
    Raises IndexOutOfRange, RangeOverflow, NonFinite, Malformed, RootMismatch, RoundingMode; KernelError when the stream changed
    while it was read: the model is of no use then.
    """

def check_arithmetic() -> None:
    """Raise RoundingMode, SubnormalsFlushed or KernelError unless training gives the same bits here as anywhere."""

def head_train(
    recipe: OutputHeadSettings, features: NDArray[Any], wanted: NDArray[Any], weights: F32, slots: F32, *,
    scale: float, step: int, count: int,
) -> F32:
    """Return the loss of each of `count` steps from step `step` on; weights and slots move.

    features: rows of float32, float16, or int8 that count times scale. wanted: labels (uint32) or targets (float32), by the loss.
    Raises NonFinite, Malformed for settings and labels, TrainingDiverged; nothing has moved then.
    """

def head_infer(recipe: OutputHeadSettings, features: NDArray[Any], weights: F32, *, scale: float) -> F32:
    """Return the outputs of the last layer for each row, before softmax or logistic."""

def permutation(seed: int, epoch: int, n: int) -> U32:
    """Return the order of n rows in an epoch."""
