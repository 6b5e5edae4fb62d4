"""Int8 files as converters write them learn on a board, and a runtime then computes what the board judged them by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeagent.service.goal import Goal
from edgeagent.service.opener import opener
from edgeagent.training.int8_head import Int8Model
from edgecloud import cli
from edgecloud.graft import retraining
from edgecloud.graft.stock import read
from edgecommon.runtime import interpreter_for
from modelwire.errors import ModelError, NotTrainable
from modelwire.tensors import Codes
from modelwire.tflite.file import contract, read_head, read_weights, write_weights
from modelwire.tflite.flatbuffer import U32
from modelwire.tflite.int8_finder import ENTRY, note
from modelwire.tflite.int8_head import BIAS, KERNEL_SCALE, Int8Head
from modelwire.tflite.int8_numbers import logits_of
from tests.edgeagent import boards
from tests.edgeagent.centre import FakeClock
from tests.modelwire.tflite.test_int8_head import SOFTMAX, Surgeon
from tests.stock import STOCK, runtime, stock_file

KINDS = {  # what is found of each: features, outputs, loss, whether the biases are trained
    "int8_keras": (24, 4, "softmax", False),  # float ends, the batch left open, fresh biases left out
    "int8_one_logistic_u8": (24, 1, "logistic", False),  # uint8 ends
    "int8_logits": (24, 4, "mse", True),  # a DEQUANTIZE behind the logits
    "int8_wide_conv": (16, 5, "softmax", True),  # activations of int16, biases of int64, a convolution and a RESHAPE
    "int8_autoencoder_out": (16, 32, "mse", True),
    "int8_two_outputs": (24, 2, "mse", True),
}


def head_of(file: bytes) -> Int8Head:
    head = read_head(file)
    assert head is not None
    return head


def inputs_of(file: bytes, classes: int, count: int) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
    """Return noisy copies of one input for each class, in the file's own type, and which class each is."""
    detail = interpreter_for(runtime().interpreter, file, delegates=True).get_input_details()[0]
    rng, y = np.random.default_rng(4), np.arange(count) % classes
    x = rng.normal(0, 1, (classes, *detail["shape"]))[y] + rng.normal(0, 0.3, (count, *detail["shape"]))
    if detail["dtype"] != np.float32:
        ends = np.iinfo(detail["dtype"])
        x = np.clip(np.rint((x / 7 + 0.5) * (ends.max - ends.min) + ends.min), ends.min, ends.max)
    return list(x.astype(detail["dtype"])), y


def seen_by(file: bytes, xs: list[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the rows that the head takes and the codes of the logits that it gives, as the runtime has them."""
    head, stock = head_of(file), read(file)
    interpreter = interpreter_for(
        runtime().interpreter, retraining.exposing(read(retraining.exposing(stock, head.seen)), head.given), delegates=True
    )
    out: list[list[NDArray[Any]]] = []
    for x in xs:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        out.append([interpreter.get_tensor(d["index"]).copy() for d in interpreter.get_output_details()[-2:]])
    rows, given = (np.array(each) for each in zip(*out, strict=True))
    return rows.reshape(-1, head.features), given.reshape(-1, head.outputs)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_found_of_a_file_is_what_it_ends_in(name: str) -> None:
    head = head_of(stock_file(name))
    assert (head.features, head.outputs, head.loss, head.kept is None) == KINDS[name]
    assert head.wide == head.long == (name == "int8_wide_conv")
    assert write_weights(stock_file(name), read_weights(stock_file(name))) == stock_file(name)


@pytest.mark.parametrize("name", KINDS)
def test_four_rounds_teach_it_and_the_runtime_computes_what_they_came_to(name: str) -> None:
    file = stock_file(name)
    head = head_of(file)
    classes = 4 if head.loss == "mse" else head.contract.classes
    xs, y = inputs_of(file, classes, 320)
    rows, _ = seen_by(file, xs)
    low, high = head.reach
    answers = np.random.default_rng(5).uniform(low / 2, high / 2, (classes, head.outputs)) if head.loss == "mse" else np.eye(classes)
    wanted = answers[y].astype(np.float32)
    taught, errors = file, []
    for _ in range(4):
        model = Int8Model(taught)
        errors.append(float(((model.evaluate(rows) - wanted) ** 2).mean()))
        for _ in range(5):
            for at in range(0, 320, 32):
                model.train(rows[at : at + 32].astype(np.float32), wanted[at : at + 32], 0.05)
        taught = write_weights(taught, model.get_weights())
    said = Int8Model(taught).evaluate(rows)
    assert ((said - wanted) ** 2).mean() < 0.8 * errors[0] and len(taught) == len(file)
    if head.loss != "mse":
        assert (said.argmax(1) == y).mean() > 0.8
    again, given = seen_by(taught, xs)
    codes = logits_of(head_of(taught), read_weights(taught), again.astype(np.int64))
    assert again.tobytes() == rows.tobytes()  # in front of the head nothing moved
    if runtime().package == "ai-edge-litert":
        assert codes.tolist() == given.tolist()
    assert np.abs(codes - given).max() <= 1 and (codes != given).mean() <= 0.02  # kernels that round twice


def test_a_device_that_has_a_fresh_keras_file_sends_at_most_a_kibibyte_a_round(tmp_path: Path) -> None:
    file = stock_file("int8_keras")
    xs, y = inputs_of(file, 4, 320)
    rows, _ = seen_by(file, xs)
    centre = boards.centre(FakeClock(), file=file)
    boards.make(tmp_path, {"tiny": file}, train__epochs="8", train__margin="0.02", train__learning_rate="0.05")
    with boards.rig(tmp_path, centre) as rig:
        rig.agent.open_model = opener(rig.device, eager=True)
        for round_ in range(4):
            part = slice(round_ * 80, (round_ + 1) * 80)
            rig.device.spool.extend("tiny", rows[part], y[part])
            rig.run(Goal(rounds=round_ + 1))
        assert rig.states() == dict.fromkeys(range(1, 5), "verified")
        assert max(report.bytes for report in rig.agent.reports) <= 1024
        last = rig.agent.reports[-1].outcome.after
        assert last is not None and last.accuracy is not None and last.accuracy >= 0.9


def test_a_regressor_takes_targets_and_a_classifier_does_not(tmp_path: Path) -> None:
    assert contract(stock_file("int8_autoencoder_out")).codes == Codes.CODES | Codes.TARGETS
    assert contract(stock_file("int8_wide_conv")).codes == Codes.CODES | Codes.WIDE
    for name, target, label in (("int8_two_outputs", [0.25, -3.0], None), ("int8_wide_conv", None, 4)):
        file, folder = stock_file(name), tmp_path / name
        folder.mkdir()
        boards.make(folder, {"tiny": file})
        with boards.rig(folder, boards.centre(FakeClock(), file=file)) as rig:
            spool, x = rig.device.spool, np.zeros(head_of(file).features)
            spool.append("tiny", x, label, target=target)
            with pytest.raises(ModelError, match="label"):
                spool.append("tiny", x, target=[0.0] * 5 if target is None else None)
            with pytest.raises(ModelError, match="int16 codes" if target is None else "int8 codes"):
                spool.append("tiny", x + (32768 if target is None else 128), label, target=target)
            assert spool.count("tiny") == 1 and spool.shape("tiny").codes == contract(file).codes


def test_an_author_says_what_logits_learn_by_and_which_output_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "seen.tflite"
    assert cli.main(["int8-head", "expose", str(STOCK / "int8_logits.tflite"), "--loss", "softmax", "-o", str(out)]) == 0
    head = head_of(out.read_bytes())
    assert head.loss == "softmax" and head.exposed == 1
    again = tmp_path / "again.tflite"
    assert cli.main(["int8-head", "expose", str(out), "--loss", "logistic", "-o", str(again)]) == 0
    assert head_of(again.read_bytes()).loss == "logistic"
    two = read(stock_file("int8_two_outputs"))
    name = two.tensors[two.outputs[1]].name
    assert cli.main(["int8-head", "expose", str(STOCK / "int8_two_outputs.tflite"), "--target", name, "-o", str(out)]) == 0
    assert (head_of(out.read_bytes()).output, head_of(out.read_bytes()).outputs) == (1, 4)
    capsys.readouterr()
    out.unlink()
    assert cli.main(["int8-head", "expose", str(STOCK / "int8_keras.tflite"), "--loss", "mse", "-o", str(out)]) == NotTrainable.code
    assert "say mse, and its output comes through a softmax" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    "said", [b"", b"{", b"[]", b'{"loss": "cubic"}', b'{"output": 9}', b'{"output": true}', b'{"output": -1}', b" " * 300]
)
def test_metadata_that_say_nothing_sensible_are_refused(said: bytes) -> None:
    stock = read(stock_file("int8_logits"))
    with pytest.raises(NotTrainable, match=ENTRY):
        read_head(retraining.exposing(stock, stock.outputs[0], said or b"null"))
    assert json.loads(note("mse", 1)) == {"loss": "mse", "output": 1}


def test_biases_that_another_layer_shares_stay_and_with_them_the_scales() -> None:
    surgeon = Surgeon()
    surgeon.put(surgeon.tensor(9).field(2, 4), "I", surgeon.tensor(2).integer(2, U32))
    file = bytes(surgeon.file)
    head = head_of(file)
    assert head.kept is not None and any(head.kept) and not {BIAS, KERNEL_SCALE} & head.names
    model = Int8Model(file)
    rng = np.random.default_rng(0)
    for _ in range(20):
        model.train(rng.integers(-128, 128, (32, 8)), np.eye(4, dtype=np.float32)[np.arange(32) % 4], 0.05)
    assert head_of(write_weights(file, model.get_weights())).kept == head.kept


def test_what_a_softmax_does_not_go_over_is_refused() -> None:
    surgeon = Surgeon()
    shape = surgeon.tensor(11).vector(0, 4).start
    for place, size in enumerate((2, 2)):
        surgeon.put(shape + 4 * place, "i", size)
    with pytest.raises(NotTrainable, match="gives"):
        read_head(bytes(surgeon.file))
    assert read_head(SOFTMAX) is not None
