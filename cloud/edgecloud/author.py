"""Makes a trainable .tflite of a Keras model: converted for one sample, its weights frozen, and then grafted. Needs TensorFlow.

The only module that imports TensorFlow: `pip install 'edgeagent[author]'`.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from modelwire.errors import BadArgument, MissingFile, NotTrainable
from modelwire.tflite import file as tflite_file
from modelwire.tflite.flatbuffer import U32

from .graft.grafting import Grafted, Wish, graft
from .graft.stock import read

CLOSE = 1e-5  # of the largest output: what a conversion may change, by another order of additions and by folded scales
ALMOST_ZERO = np.float32(2.0**-100)  # lost in any sum, and no zero
PROBES = 4  # samples on which the two are compared
Call = Callable[[Any], list[Any]]
_PIP = "pip install 'edgeagent[author]'   (tensorflow-cpu; on a server or laptop, never on a board)"


@dataclass(frozen=True, slots=True)
class Authored:
    """A trainable file made of a Keras model."""

    grafted: Grafted
    stock: bytes  # the inference-only .tflite that was grafted
    difference: float  # between the outputs of the Keras model and of the file, as a share of the largest

    @property
    def file(self) -> bytes:
        return self.grafted.file


def author(model: Any, wish: Wish) -> Authored:
    """Return the trainable file of a Keras model: an object, a .keras or .h5 file, or a SavedModel's folder.

    Raises BadArgument where TensorFlow is missing or the model can't be read, and NotTrainable where it can't be converted or grafted,
    or where the file would compute something else than the model.
    """
    if isinstance(model, (str, Path)) and not Path(model).exists():  # said before TensorFlow is asked for, or installed for it
        raise MissingFile(path=model, what="the Keras model")
    tf = _tensorflow()
    source = _loaded(tf, model) if isinstance(model, (str, Path)) else model
    call, shape, variables = _call_of(tf, source, wish)
    with _unrolled(source, wish), _seen(variables):
        function = tf.function(call, input_signature=[tf.TensorSpec((1, *shape), tf.float32)]).get_concrete_function()
        stock = _converted(tf, function, wish)
    with _unrolled(source, wish):
        grafted = graft(stock, replace(wish, output=_first_output(stock)))
        grafted = replace(grafted, file=_zeroed(grafted.file))
        difference = 0.0 if wish.add_classes else _difference(tf, call, grafted, shape)
    if difference > CLOSE:
        reason = f"its outputs differ from the Keras model's by {difference:.2g} of the largest, more than {CLOSE:g}"
        raise NotTrainable(model=wish.model, reason=reason)
    return Authored(grafted, stock, difference)


def _tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # or the command's answer drowns in it
    try:
        tensorflow = import_module("tensorflow")
    except ImportError as error:
        raise BadArgument(reason=f"a Keras model is converted by TensorFlow, which can't be imported here ({error})", fix=_PIP) from None
    return tensorflow


def _loaded(tf: Any, name: str | Path) -> Any:
    """Return what a path holds: a Keras model, or what a SavedModel's folder gives."""
    path = Path(name)
    try:
        # safe_mode: a Lambda layer is code of whoever made the file.
        return tf.saved_model.load(str(path)) if path.is_dir() else tf.keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError) as error:
        reason = f"{path} can't be read as a Keras model or a SavedModel: {_line(error)}"
        raise BadArgument(reason=reason, fix="name a .keras or .h5 file, or the folder of a SavedModel") from None


def _call_of(tf: Any, model: Any, wish: Wish) -> tuple[Call, tuple[int, ...], Sequence[Any]]:
    """Return what gives the outputs of a batch, the trained one first; the shape of one sample; and the variables."""
    served = getattr(model, "signatures", None)
    if served is not None and not hasattr(model, "layers"):
        return _served(model, served, wish)
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise BadArgument(reason=f"{wish.model} was never built, so nothing says what it takes", fix="call it once, or begin with an Input")
    if len(inputs) != 1:
        raise NotTrainable(model=wish.model, reason=f"it takes {len(inputs)} inputs; train(x, y, lr) has one")
    named = isinstance(getattr(model, "output", None), dict)
    order = _trained_first(wish, sorted(model.output) if named else list(getattr(model, "output_names", None) or ["output"]))

    def call(x: Any) -> list[Any]:
        outputs = model(x, training=False)
        listed = [outputs[name] for name in sorted(outputs)] if named else tf.nest.flatten(outputs)
        return [listed[i] for i in order]

    return call, _fixed(tuple(inputs[0].shape)[1:], wish), model.weights


def _served(loaded: Any, signatures: Any, wish: Wish) -> tuple[Call, tuple[int, ...], Sequence[Any]]:
    """Return what `_call_of` does, of a SavedModel."""
    function = next((signatures[key] for key in ("serving_default", "serve") if key in signatures), None)
    if function is None:
        raise BadArgument(reason=f"{wish.model} has no signature 'serving_default'", fix="save it by model.export(FOLDER)")
    given = function.structured_input_signature[1]
    if len(given) != 1:
        raise NotTrainable(model=wish.model, reason=f"it takes {len(given)} inputs; train(x, y, lr) has one")
    ((name, spec),) = given.items()
    names = sorted(function.structured_outputs)
    order = _trained_first(wish, names)

    def call(x: Any) -> list[Any]:
        assert loaded is not None  # held for as long as the function: its variables would go with it
        outputs = function(**{name: x})
        return [outputs[names[i]] for i in order]

    return call, _fixed(tuple(spec.shape)[1:], wish), function.variables


def _trained_first(wish: Wish, names: list[str]) -> list[int]:
    """Return the places of the outputs, the one that is trained first. Raises BadArgument when there is none of that name."""
    if wish.output and wish.output not in names:
        raise BadArgument(reason=f"no output is called {wish.output!r}", fix=f"name one of: {', '.join(names)}")
    chosen = names.index(wish.output) if wish.output else 0
    return [chosen, *(i for i in range(len(names)) if i != chosen)]


def _fixed(shape: tuple[Any, ...], wish: Wish) -> tuple[int, ...]:
    sizes = tuple(n for n in shape if isinstance(n, int) and n > 0)
    if len(sizes) < len(shape) or not sizes:
        reason = f"one sample of it has the shape {list(shape)}; every axis must have a size, since a board plans its memory once"
        raise BadArgument(reason=reason, fix="build the model with keras.Input of the sizes that the board will see")
    return sizes


@contextlib.contextmanager
def _unrolled(model: Any, wish: Wish) -> Iterator[None]:
    """Have recurrent layers laid out step by step while the model is traced: loops have no gradient in a small runtime."""
    before: list[tuple[Any, bool]] = []
    layers = model._flatten_layers() if hasattr(model, "_flatten_layers") else ()
    try:
        for layer in layers:
            if not hasattr(layer, "unroll"):
                continue
            if getattr(layer, "stateful", False):
                reason = f"its layer {layer.name!r} keeps state from call to call (stateful=True), which a step on a batch can't"
                raise NotTrainable(model=wish.model, reason=reason)
            before.append((layer, layer.unroll))
            layer.unroll = True
        yield
    finally:
        for layer, unroll in before:
            layer.unroll = unroll


@contextlib.contextmanager
def _seen(variables: Sequence[Any]) -> Iterator[None]:
    """Have the converter keep biases that are zero, as those of a fresh model: it drops them, and what is not there can't be trained."""
    zero = [v for v in variables if len(v.shape) == 1 and v.shape[0] and not np.any(np.asarray(v))]
    try:
        for v in zero:
            v.assign(np.full(v.shape, ALMOST_ZERO, np.float32))
        yield
    finally:
        for v in zero:
            v.assign(np.zeros(v.shape, np.float32))


def _zeroed(file: bytes) -> bytes:
    """Return the file with zeros where they stood before `_seen`."""
    parsed = tflite_file.parse_trainable(file)
    weights = tflite_file.read_weights(parsed)
    for value in weights.values():
        if value.dtype == np.float32 and (value == ALMOST_ZERO).all():
            value[...] = 0
    return tflite_file.write_weights(parsed, weights)


def _converted(tf: Any, function: Any, wish: Wish) -> bytes:
    """Return the inference-only file, its variables frozen so that scales and statistics fold into the kernels before them."""
    freeze = import_module("tensorflow.python.framework.convert_to_constants").convert_variables_to_constants_v2
    refused: type[Exception] = import_module("tensorflow.lite.python.convert").ConverterError
    frozen = freeze(function)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen], tf.Module())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return bytes(converter.convert())
    except (refused, ValueError) as error:
        reason = f"TensorFlow's converter can't write it with builtin operators: {_line(error)}"
        raise NotTrainable(model=wish.model, reason=reason) from None


def _first_output(stock: bytes) -> str:
    """Return the name of the tensor that the function gave first: the converter lists the outputs in an order of its own."""
    file = read(stock)
    signature = next(file.root.tables(7))
    places = {t.text(0): t.integer(1, U32) for t in signature.tables(1)}
    return file.tensors[places["output_0"]].name


def _difference(tf: Any, call: Call, grafted: Grafted, shape: tuple[int, ...]) -> float:
    """Return how far the file's `infer` is from the Keras model on random samples, as a share of the largest output."""
    infer = tf.lite.Interpreter(model_content=grafted.file).get_signature_runner("infer")
    worst = largest = 0.0
    rng = np.random.default_rng(0)
    for _ in range(PROBES):
        x = rng.standard_normal((1, *shape)).astype(np.float32)
        ours, theirs = (np.asarray(t, np.float64) for t in (infer(x=x)["output"], call(tf.constant(x))[0]))
        if ours.shape != theirs.shape:
            return float("inf")
        worst, largest = max(worst, float(np.abs(ours - theirs).max())), max(largest, float(np.abs(theirs).max()))
    return worst / largest if largest else worst


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
