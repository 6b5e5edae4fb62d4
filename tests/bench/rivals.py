"""What one would use in our place, each behind one small adapter. A rival that is not installed says so and is left out.

Sizes are of one new file given the old one. Seconds are CPU time, of all threads where a library starts its own, and of a
command with its start.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from modelwire.update.sections import Sections
from tests.bench import timing
from tests.bench.material import Case


class Rival(ABC):
    """A rival's name, and what it needs."""

    name: ClassVar[str]
    needs: ClassVar[str]  # a module, or a command when `command`
    command: ClassVar[bool] = False

    def available(self) -> bool:
        """Return whether it can run here."""
        return shutil.which(self.needs) is not None if self.command else find_spec(self.needs) is not None


class Lossless(Rival):
    """Makes the new file from the old one, to the bit."""

    most: ClassVar[int] = 1 << 40  # bytes of file above which it takes minutes

    @abstractmethod
    def encode(self, old: bytes, new: bytes, width: int) -> tuple[int, float]:
        """Return (bytes of the difference, CPU seconds). width: bytes of one weight."""


class _ByFiles(Lossless):
    command = True

    @abstractmethod
    def line(self, old: str, new: str, out: str) -> list[str]:
        ...

    def encode(self, old: bytes, new: bytes, width: int) -> tuple[int, float]:
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder, name) for name in ("old", "new", "out")]
            paths[0].write_bytes(old)
            paths[1].write_bytes(new)
            seconds = timing.of_command(self.line(*map(str, paths)))
            return paths[2].stat().st_size, seconds


class ZstdPatch3(_ByFiles):
    name, needs, level = "zstd -3 --patch-from", "zstd", "-3"

    def line(self, old: str, new: str, out: str) -> list[str]:
        return ["zstd", "-q", "-f", self.level, "--single-thread", f"--patch-from={old}", new, "-o", out]


class ZstdPatch19(ZstdPatch3):
    name, level = "zstd -19 --patch-from", "-19"


class Xdelta3(_ByFiles):
    name, needs = "xdelta3 -9", "xdelta3"

    def line(self, old: str, new: str, out: str) -> list[str]:
        return ["xdelta3", "-q", "-f", "-e", "-9", "-S", "djw", "-B", str(64 << 20), "-s", old, new, out]


class _InProcess(Lossless):
    clock: ClassVar[Callable[[], float]] = time.process_time  # some of them start threads

    @abstractmethod
    def compress(self, old: bytes, new: bytes, width: int) -> int:
        ...

    def encode(self, old: bytes, new: bytes, width: int) -> tuple[int, float]:
        least, size = float("inf"), 0
        for _ in range(3):
            start = time.process_time()
            size = self.compress(old, new, width)
            least = min(least, time.process_time() - start)
            if least > 0.2:
                break
        return size, least


class Bsdiff4(_InProcess):
    name, needs, most = "bsdiff4", "bsdiff4", 3 << 20

    def compress(self, old: bytes, new: bytes, width: int) -> int:
        return len(import_module("bsdiff4").diff(old, new))


class ZipNN(_InProcess):
    """Of the XOR with the old file: twice as good as of the new file alone."""

    name, needs = "zipnn of XOR", "zipnn"
    types: ClassVar[dict[int, str]] = {2: "float16", 4: "float32"}

    def compress(self, old: bytes, new: bytes, width: int) -> int:
        if width not in self.types:
            raise ValueError("zipnn reads floats alone")
        packer = import_module("zipnn").ZipNN(input_format="byte", bytearray_dtype=self.types[width], threads=1)
        return len(packer.compress(bytearray(_xor(old, new))))


class Blosc2Shuffle(_InProcess):
    name, needs, bits = "blosc2 XOR+shuffle+zstd", "blosc2", False

    def compress(self, old: bytes, new: bytes, width: int) -> int:
        blosc2 = import_module("blosc2")
        blosc2.set_nthreads(1)
        how = blosc2.Filter.BITSHUFFLE if self.bits else blosc2.Filter.SHUFFLE
        return len(blosc2.compress(_xor(old, new), typesize=width, clevel=1, filter=how, codec=blosc2.Codec.ZSTD))


class Blosc2Bitshuffle(Blosc2Shuffle):
    name, bits = "blosc2 XOR+bitshuffle+zstd", True


class Blosc2Zigzag(_InProcess):
    """For int8: the differences of codes, their signs in the lowest bit, which suits bitshuffle better than XOR does."""

    name, needs = "blosc2 zigzag+bitshuffle+zstd", "blosc2"

    def compress(self, old: bytes, new: bytes, width: int) -> int:
        blosc2 = import_module("blosc2")
        blosc2.set_nthreads(1)
        d = np.frombuffer(new, np.int8) - np.frombuffer(old, np.int8)  # mod 256, as whoever undoes it adds
        zigzag = ((d << 1) ^ (d >> 7)).astype(np.int8)
        return len(blosc2.compress(zigzag.tobytes(), typesize=1, clevel=1, filter=blosc2.Filter.BITSHUFFLE, codec=blosc2.Codec.ZSTD))


LOSSLESS: tuple[Lossless, ...] = (
    ZstdPatch3(), ZstdPatch19(), Xdelta3(), Bsdiff4(), ZipNN(), Blosc2Shuffle(), Blosc2Bitshuffle()
)  # fmt: skip


INT8: tuple[Lossless, ...] = (Bsdiff4(), Blosc2Bitshuffle(), Blosc2Zigzag())


class Memcpy(Rival):
    """The yardstick of speed: one copy of one array as large as the model."""

    name, needs = "memcpy of the model", "numpy"

    def prepare(self, case: Case) -> Callable[[], object]:
        source = np.concatenate(case.trained)
        target = np.empty_like(source)
        return lambda: np.copyto(target, source)


class NumpyPipeline(Rival):
    """What one writes first: the difference, argpartition, quantised values and gaps between indices. Without any coder."""

    name, needs = "numpy argpartition + quantise + gaps", "numpy"

    def prepare(self, case: Case) -> Callable[[], object]:
        old, new = np.concatenate(case.state.weights), np.concatenate(case.trained)
        count = max(1, int(case.density * len(old)))

        def run() -> object:
            d = new - old
            kept = np.sort(np.argpartition(np.abs(d), len(d) - count)[len(d) - count :])
            values = d[kept]
            scale = np.abs(values).max() / 127 or np.float32(1)
            return np.rint(values / scale).astype(np.int8), np.diff(kept, prepend=-1).astype(np.uint32)

        return run


class TorchTopk(Rival):
    """The selection alone, on one thread."""

    name, needs = "torch.topk", "torch"

    def prepare(self, case: Case) -> Callable[[], object]:
        torch = import_module("torch")
        torch.set_num_threads(1)
        d = torch.from_numpy(np.concatenate(case.trained) - np.concatenate(case.state.weights)).abs()
        count = max(1, int(case.density * len(d)))
        return lambda: torch.topk(d, count)


class DeepCabac(Rival):
    """ISO/IEC 15938-17's coder on the integers that we send, in the best of its settings, without any of its headers."""

    name, needs = "DeepCABAC (nncodec)", "nncodec"

    def encode(self, case: Case, sections: Sections) -> tuple[int, float]:
        """Return (bytes, CPU seconds of the setting that won)."""
        coder = import_module("nncodec.extensions.deepCABAC")
        layers = []
        for s in sections:
            spec = case.manifest.schema.tensors[s.tensor]
            dense = np.zeros(spec.size, np.int32)
            dense[s.index] = s.value
            layers.append(dense.reshape(spec.rows, spec.columns))
        best = (1 << 62, 0.0)
        for turned in (False, True):  # the standard wants [out, in]; some nets code better the other way round
            laid = [np.ascontiguousarray(a.T) if turned else a for a in layers]
            for unary in (1, 10):
                for tuned in (0, 1):  # the encoder's own search for the contexts' parameters
                    for keep in (False, True):  # contexts begun anew a tensor, or kept
                        for skip in (False, True):  # a flag a row without content
                            start = time.thread_time()
                            size = len(self.code(coder, laid, unary, tuned, keep, skip))
                            best = min(best, (size, time.thread_time() - start))
        return best

    def code(self, coder: Any, layers: list[NDArray[np.int32]], unary: int, tuned: int, keep: bool, skip: bool) -> NDArray[np.uint8]:
        """Return the stream of one encoder over all layers."""
        encoder = coder.Encoder()
        for number, a in enumerate(layers):
            if number == 0 or not keep:
                encoder.initCtxModels(unary, tuned)
            empty = (~a.any(1)).astype(np.int32)
            off = coder.HdspMode.AlwaysOff
            encoder.encodeLayer(a, 0, 0, 1, 0, int(skip and bool(empty.any())), empty, off, np.zeros(2, np.int8), 0, 0)
        return encoder.finish()


def missing() -> list[str]:
    """Return a line for each rival that is not here."""
    known: tuple[Rival, ...] = (*LOSSLESS, TorchTopk(), DeepCabac())  # those of INT8 need what these need
    return [f"{r.name}: not installed ({'command' if r.command else 'module'} {r.needs})" for r in known if not r.available()]


def _xor(old: bytes, new: bytes) -> bytes:
    return (np.frombuffer(old, np.uint8) ^ np.frombuffer(new, np.uint8)).tobytes()
