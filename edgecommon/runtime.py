"""The one seam over the TFLite runtimes: finds one that works, opens a trainable model with it, and calls its signatures safely.

Nothing else imports ai_edge_litert or tflite_runtime. Both know the same calls; their traps are told where they are avoided.
"""

from __future__ import annotations

import base64
import importlib
import platform
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgecommon.memory import give_back
from edgecommon.stderr import without_chatter
from modelwire.errors import NotTrainable, RuntimeUnusable, ShapeMismatch, TrainingDiverged
from modelwire.tensors import F32, Dtype, Weights
from modelwire.tflite import file as tflite_file

THREADS = 1  # on a loaded 2-core board two spinning threads made a step up to 46 x slower
PACKAGES = {"litert": ("ai-edge-litert", "ai_edge_litert"), "tflite": ("tflite-runtime", "tflite_runtime")}
XNNPACK, PLAIN, UNKNOWN = "xnnpack", "plain", "unknown"  # what computed: the default delegate took part, or the builtin kernels alone

_APART = 1e-3  # of the largest output, or of 1: what last bits never come to
# What an interpreter raises when it can't read, prepare or run a model. SystemError: tflite-runtime on numpy 2.
FAILURES = (RuntimeError, ValueError, SystemError, MemoryError)
# A wheel for another C library, processor or numpy adds whatever its loader raises.
_UNUSABLE = (*FAILURES, ImportError, OSError, AttributeError, TypeError, LookupError)


@dataclass(frozen=True)
class Runtime:
    """An installed runtime that has opened a model on this machine."""

    package: str  # its distribution's name
    version: str
    interpreter: Any  # its module `interpreter`
    delegate: str  # what the probe was computed with: XNNPACK, PLAIN or UNKNOWN

    def open(self, file: bytes, *, model: str = "model", delegates: bool = True, signature: str = "train") -> RuntimeModel:
        """Return the model of a trainable `.tflite`, ready to run. model: its name, for errors.

        delegates: False keeps the default delegate out. With True it is tried, and left out when it can't prepare what is used.
        signature: by which it will be trained; "" for a model that is only evaluated, until `Model.use` says otherwise. A signature
        takes memory only from then on.
        Raises NotTrainable when the file breaks the contract or no setting of this runtime runs it.
        """
        tflite_file.check_trainable(file, model=model)
        ready = RuntimeModel(self, file, name=model, delegates=delegates)
        ready.use(signature)
        return ready

    def key(self, delegate: str) -> str:
        """Return what must be equal for the same bits, of a model whose kernels are `delegate`."""
        return f"{self.package} {self.version} {isa()} {delegate} threads={THREADS}"


class RuntimeModel:
    """One opened model. Its weights live in the interpreter and start as the file's; not safe for use from two threads."""

    def __init__(self, runtime: Runtime, file: bytes, *, name: str, delegates: bool) -> None:
        self.name, self.runtime = name, runtime
        self.contract = tflite_file.contract(file, model=name)
        self.steps = 0  # of training since the weights were last set
        self.delegate = UNKNOWN
        self.fallback = ""  # why the default delegate was left out; empty when it was not
        self._file, self._delegates = file, delegates
        self._trains_by: str | None = None  # the signature that `train` calls; None before the first `use`
        self._interpreter: Any = None  # the signature runners refer into it
        self._variables = {v.name: v for v in tflite_file.read_variables(file, model=name)}
        self._runners: dict[str, Callable[..., Mapping[str, Any]]] = {}
        self._slots: frozenset[str] = frozenset()  # that the signature moves
        self._keeps_state = {"get_state", "set_state"} <= set(tflite_file.signature_names(file))

    def use(self, signature: str) -> None:
        """Let `train` go by this signature of the file, "" for none. The weights stay; memory and slots of the one before are given back.

        Raises NotTrainable when no setting of this runtime runs it.
        """
        if signature == self._trains_by:
            return
        if signature and not (tflite_file.trains(signature) and signature in tflite_file.signature_names(self._file)):
            raise NotTrainable(model=self.name, reason=f"it has no signature {signature!r} that trains")
        weights = self.get_weights() if self._interpreter is not None else None
        failed: list[str] = []
        for with_delegates in (True, False) if self._delegates else (False,):
            self._runners, self._interpreter = {}, None  # two interpreters at once would take twice the memory
            try:
                again = weights is not None and with_delegates == self._delegates  # what evaluates was rehearsed before
                if signature or not again:
                    give_back()
                    rehearse(
                        interpreter_for(self.runtime.interpreter, self._file, delegates=with_delegates), self._file, signature,
                        evaluates=not again,
                    )  # fmt: skip
                give_back()
                self._interpreter = interpreter_for(self.runtime.interpreter, self._file, delegates=with_delegates)
            except FAILURES as e:
                failed.append(" ".join(str(e).split()))
                continue
            self.delegate = delegate_of(self._interpreter)
            self._delegates, self._trains_by = with_delegates, signature
            self._slots = tflite_file.moved_slots(self._file, signature, model=self.name) if signature else frozenset()
            self.fallback = self.fallback or "; ".join(failed)
            if weights is not None:
                self.set_weights(weights)
            return
        raise NotTrainable(model=self.name, reason=f"{self.runtime.package} {self.runtime.version} can't run it: {failed[-1][:300]}")

    def close(self) -> None:
        """Give back all memory. Nothing can be called any more."""
        self._runners, self._interpreter = {}, None
        give_back()

    def _call(self, signature: str, **inputs: Any) -> Mapping[str, Any]:
        """Call a signature. Its runner, and the memory of its subgraph, come with the first call."""
        runner = self._runners.get(signature)
        if runner is None:
            runner = self._runners[signature] = self._interpreter.get_signature_runner(signature)
        return runner(**inputs)

    @property
    def batch(self) -> int:
        """Samples of one `train` call."""
        return self.contract.batch

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample, without the batch."""
        return self.contract.x_shape

    @property
    def classes(self) -> int:
        return self.contract.classes

    @property
    def runtime_key(self) -> str:
        """What must be equal for the same weights and inputs to give the same bits: package, version, ISA, kernels, threads."""
        return self.runtime.key(self.delegate)

    def infer(self, x: ArrayLike) -> F32:
        """Return the output for one sample. x: of `input_shape`, with or without a leading axis of 1; the result has it likewise."""
        value = np.asarray(x)
        single = value.shape == self.input_shape
        output = self._output("infer", self._input("x", value[None] if single else value, (1, *self.input_shape)))
        return output[0] if single else output

    def evaluate(self, x: ArrayLike) -> F32:
        """Return the outputs for any number of samples, shape [n, ...]; by `eval` where the file has it, else one by one."""
        value = np.asarray(x)
        samples = self._input("x", value, (len(value) if value.ndim else 0, *self.input_shape))
        width = self.batch if self.contract.evaluates else 1
        outputs = [np.zeros((0, *self.contract.y_shape), np.float32)]
        for start in range(0, len(samples), width):
            part = samples[start : start + width]
            # The batch is fixed: the last one is filled up with its first sample.
            full = np.concatenate([part, np.repeat(part[:1], width - len(part), 0)])
            outputs.append(self._output("eval" if self.contract.evaluates else "infer", full)[: len(part)])
        return np.concatenate(outputs)

    def train(self, x: ArrayLike, y: ArrayLike, lr: float) -> float:
        """Return the loss of one step on exactly `batch` samples; y: one-hot or target, [batch, classes].

        Raises TrainingDiverged when the loss is not finite; the weights are then worthless, and the caller puts the old ones back.
        """
        samples = self._input("x", np.asarray(x), (self.batch, *self.input_shape))
        targets = self._input("y", np.asarray(y), (self.batch, *self.contract.y_shape))
        if not self._trains_by:
            raise NotTrainable(model=self.name, reason="it was opened without a signature to train by")
        loss = float(np.asarray(self._call(self._trains_by, x=samples, y=targets, lr=np.float32(lr))["loss"]).reshape(()))
        if not np.isfinite(loss):
            raise TrainingDiverged(model=self.name, what=f"a loss of {loss}", steps=self.steps)
        self.steps += 1
        return loss

    def get_weights(self) -> Weights:
        """Return the present weights by name, in sorted order, held as their types are; copies."""
        out = self._call("get_weights")  # the runner's arrays are copies already
        return {name: np.asarray(out[name], v.dtype.held).reshape(v.shape) for name, v in self._variables.items()}

    def set_weights(self, weights: Mapping[str, NDArray[np.generic]]) -> None:
        """Put `weights` in place, to the bit; what a float16 or int8 variable does not have is rounded to what it has.

        Raises ShapeMismatch unless they are exactly the file's tensors, held as their types are.
        """
        odd = sorted(set(weights) ^ set(self._variables))
        if odd:
            known = odd[0] in self._variables
            raise ShapeMismatch(tensor=odd[0], expected="a tensor" if known else "no such tensor", got="nothing" if known else "a tensor")
        for name, v in self._variables.items():
            if weights[name].dtype != v.dtype.held or weights[name].shape != v.shape:
                got = f"{weights[name].dtype}{list(weights[name].shape)}"
                raise ShapeMismatch(tensor=name, expected=f"{np.dtype(v.dtype.held)}{list(v.shape)}", got=got)
        self._call("set_weights", **{name: native(v.dtype, weights[name]).reshape(v.shape) for name, v in self._variables.items()})
        self.steps = 0

    @property
    def state_is_whole(self) -> bool:
        """Whether `get_state` gives all that training goes by beside the weights; a file without slots has nothing to give."""
        return not (self._trains_by and tflite_file.hides_state(self._file, self._trains_by, model=self.name))

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Return the slots that the present training moves by name, copies; none where the file does not give them away."""
        return {name: value for name, value in self._state().items() if name in self._slots}

    def _state(self) -> dict[str, NDArray[Any]]:
        """Return all slots: set_state wants all of them."""
        return {name: np.asarray(value) for name, value in sorted(self._call("get_state").items())} if self._keeps_state else {}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put the optimizer's slots in place, to the bit: exactly those that `get_state` gives. Raises ShapeMismatch."""
        every = self._state()
        known = {name: value for name, value in every.items() if name in self._slots}
        for name in sorted(set(known) | set(state)):
            here, there = (None if name not in of else (of[name].dtype, of[name].shape) for of in (known, state))
            if here != there:
                raise ShapeMismatch(tensor=name, expected=here or "no such slot", got=there or "nothing")
        if known:
            self._call("set_state", **{name: np.array(value, order="C") for name, value in {**every, **state}.items()})

    def _input(self, what: str, value: NDArray[Any], shape: tuple[int, ...]) -> F32:
        """Return `value` as the runtimes want it: exactly float32, and of exactly this shape (a smaller batch fails inside them)."""
        if value.shape != shape or value.dtype.kind not in "fiub":
            expected = f"numbers of shape {list(shape)}"
            raise ShapeMismatch(tensor=f"{self.name}: {what}", expected=expected, got=f"{value.dtype}{list(value.shape)}")
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(value, np.float32)

    def _output(self, signature: str, x: F32) -> F32:
        return np.array(self._call(signature, x=x)["output"], np.float32)


def load(prefer: Sequence[str] = ("litert", "tflite")) -> Runtime:
    """Return the first of the named runtimes that opens and runs a model here.

    Importing proves nothing: tflite-runtime imports beside numpy 2 and fails at the first model.
    Raises RuntimeUnusable, with each one's reason, when none does.
    """
    reasons = []
    for name in prefer:
        probed = _probe(name)
        if isinstance(probed, Runtime):
            return probed
        reasons.append(f"{PACKAGES[name][0]}: {probed}")
    raise RuntimeUnusable(reason="; ".join(reasons))


def describe() -> dict[str, str]:
    """Return facts for `doctor`: each runtime's state, and the versions that decide whether it can work."""
    facts = {"python": platform.python_version(), "numpy": np.__version__, "isa": isa(), "threads": str(THREADS)}
    for name, (package, _) in PACKAGES.items():
        probed = _probe(name)
        facts[package] = f"{probed.version}, works, {probed.delegate}" if isinstance(probed, Runtime) else probed
    return facts


def isa() -> str:
    """Return the processor's architecture and the width of this process: a 64-bit kernel may run 32-bit programs."""
    return f"{platform.machine()}/{8 * struct.calcsize('P')}"


def interpreter_for(module: Any, file: bytes | Path, *, delegates: bool, keeps: bool = False) -> Any:
    """Return an interpreter of the file with its tensors allocated; one that is named is mapped, not read.

    keeps: what each operator gave can be read after a call; a delegate gives what its last one gave, so there should be none.

    Allocation comes before any get_signature_runner: tflite-runtime otherwise never applies XNNPACK to a signature's subgraph.
    """
    kinds = module.OpResolverType
    kind = kinds.AUTO if delegates else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    more = {"experimental_preserve_all_tensors": True} if keeps else {}
    source: dict[str, Any] = {"model_path": str(file)} if isinstance(file, Path) else {"model_content": file}
    with without_chatter():
        interpreter = module.Interpreter(**source, num_threads=THREADS, experimental_op_resolver_type=kind, **more)
        interpreter.allocate_tensors()
    return interpreter


def rehearse(interpreter: Any, file: bytes, signature: str = "train", *, evaluates: bool = True) -> None:
    """Call every signature that will be used once, on zeros; the interpreter is spent afterwards.

    signature: the one that trains, or ""; evaluates: whether the others are called too.

    A delegate that claims what it can't prepare (XNNPACK and a SUM of rank 7) fails at the first call, not at opening: a board
    would find out in the middle of a round. One that computes a batch wrongly is found as well: tflite-runtime 2.14 gives NaN for some
    attention layers. The other training signatures are left alone: each takes its memory when it is called.
    """
    shapes = tflite_file.contract(file)
    x, y = np.zeros((shapes.batch, *shapes.x_shape), np.float32), np.zeros((shapes.batch, *shapes.y_shape), np.float32)
    if evaluates:
        interpreter.get_signature_runner("infer")(x=x[:1])
        weights = interpreter.get_signature_runner("get_weights")()
        interpreter.get_signature_runner("set_weights")(**weights)
    if evaluates and shapes.evaluates:
        _compare(interpreter, x)
    if signature:
        interpreter.get_signature_runner(signature)(x=x, y=y, lr=np.float32(0))


def _compare(interpreter: Any, zeros: NDArray[np.float32]) -> None:
    """Raise RuntimeError unless a batch comes out as its first sample does alone: of zeros, or of a ramp where zeros give no numbers."""
    infer, evaluate = interpreter.get_signature_runner("infer"), interpreter.get_signature_runner("eval")
    ramp = np.linspace(0, 1, zeros.size, dtype=np.float32).reshape(zeros.shape)
    for x in (zeros, ramp):
        one, many = infer(x=x[:1])["output"], evaluate(x=x)["output"][:1]
        if np.isfinite(one).all():
            if not np.abs(many - one).max(initial=0) <= _APART * max(1.0, float(np.abs(one).max(initial=0))):
                raise RuntimeError("its eval gives another output than its infer for the same sample")
            return


def _probe(name: str) -> Runtime | str:
    """Return the runtime, or why it can't be used."""
    package, folder = PACKAGES[name]
    try:
        module = importlib.import_module(f"{folder}.interpreter")
    except ModuleNotFoundError as e:
        return "not installed" if e.name in (folder, f"{folder}.interpreter") else f"needs {e.name}"
    except _UNUSABLE as e:
        return f"can't be imported: {_line(e)}"
    try:
        probe = interpreter_for(module, _PROBE, delegates=True)
        probe.set_tensor(probe.get_input_details()[0]["index"], np.array([1, -2, 0.5, 3], np.float32))
        probe.invoke()
        if probe.get_tensor(probe.get_output_details()[0]["index"]).tolist() != [2, -4, 1, 6]:
            return "computes 1 + 1 wrongly"
        return Runtime(package, _version(package, folder), module, delegate_of(probe))
    except _UNUSABLE as e:
        return f"can't open a model{_numpy_hint(name)}: {_line(e)}"


def _version(package: str, folder: str) -> str:
    """Return the release of a runtime that is imported; its own word first, since reading it from the installation takes 4 MiB."""
    said = getattr(importlib.import_module(folder), "__version__", "")
    if isinstance(said, str) and said:
        return said
    from importlib import metadata

    return metadata.version(package)


def _numpy_hint(name: str) -> str:
    too_new = name == "tflite" and int(np.__version__.split(".")[0]) >= 2
    return f" (it needs numpy<2, numpy {np.__version__} is installed)" if too_new else ""


def native(dtype: Dtype, held: NDArray[Any]) -> NDArray[Any]:
    """Return an array as the runtimes want it for a variable of this type."""
    if dtype is Dtype.FLOAT16:
        return np.ascontiguousarray(held, np.float16)
    if dtype is Dtype.INT8:
        codes: NDArray[np.int8] = np.clip(np.rint(held), -128, 127).astype(np.int8)
        return codes
    return np.ascontiguousarray(held)


def _line(e: BaseException) -> str:
    return f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"


def delegate_of(interpreter: Any) -> str:
    """Return what computes, by looking: a sandbox that hides /sys makes XNNPACK stay away without a word, and the bits change."""
    look = getattr(interpreter, "_get_ops_details", None)  # in both packages, but in neither one's public part
    if look is None:
        return UNKNOWN
    return XNNPACK if any(d["op_name"] == "DELEGATE" for d in look()) else PLAIN


# y = x + x over float32 [4]; made by tests/models/probe.py.
_PROBE = zlib.decompress(
    base64.b85decode(
        "c-l>lF%H5o3`JicL#0Mlh7KJVI091dz{J47z)@i1ungQHe7i;@(Nkpmf9Eg2?R;5bVqvCI7|5zn1qX2yAF&rnWb3uoh-1AfO6M=pyV`zn58dpJ$zRis@mJke"
        "jX&Q@`%`#!{7>p2W~a#XmS^xB+x*$(EuIUnY~Jf0oi4>J`-LyNED;<"
    )
)
