"""The head of an int8 classifier: exposed, retrained, put back in place; the layers in front give the same bits as before."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgecloud import cli
from edgecloud.graft.grafting import Wish, graft
from edgecloud.graft.retraining import exposing, fit, int8_head_of, put, trainable
from edgecloud.graft.stock import read
from modelwire import limits
from modelwire.errors import BadArgument, NotTrainable
from modelwire.tflite.file import read_weights
from modelwire.tflite.int8_head import BIAS_SCALE, CODE_MAX, KERNEL, KERNEL_SCALE
from modelwire.tflite.int8_numbers import features_of, layer_of
from tests.int8 import clips_of, outputs
from tests.stock import STOCK, stock_file

BOTH = pytest.mark.parametrize("name", ["int8_softmax", "int8_logistic"])


@BOTH
def test_an_exposed_file_gives_the_rows_that_the_head_computes_from(name: str) -> None:
    stock = read(stock_file(name))
    of = int8_head_of(stock, stock.outputs[0])
    clips, _ = clips_of(stock.tensors[stock.inputs[0]].shape[1:], 2, 6)
    (before,) = outputs(stock.data, clips)
    after, rows = outputs(exposing(stock, of.seen), clips)
    assert before.tobytes() == after.tobytes()
    kernel, bias = layer_of(of, read_weights(trainable(stock.data, of)))
    z = features_of(of, rows) @ kernel.T + bias
    p = 1 / (1 + np.exp(-z)) if of.logistic else np.exp(z) / np.exp(z).sum(1, keepdims=True)
    given = stock.tensors[stock.outputs[0]]
    np.testing.assert_allclose((after.astype(float) - given.zeros[0]) * given.scales[0], p, atol=0.04)  # the logits are rounded too


@BOTH
def test_a_retrained_head_is_learnt_and_nothing_else_moves(name: str) -> None:
    stock = read(stock_file(name))
    of = int8_head_of(stock, stock.outputs[0])
    classes = 2 if of.logistic else of.outputs
    clips, y = clips_of(stock.tensors[stock.inputs[0]].shape[1:], classes, 160)
    _, rows = outputs(exposing(stock, of.seen), clips)
    kernel, bias = fit(of, features_of(of, rows[:100]), y[:100])
    made = put(stock.data, of, kernel, bias, features_of(of, rows[:100]))
    assert len(made.file) == len(stock.data)
    assert made.changed <= 2 * (kernel.size + 8 * classes)
    after, again = outputs(exposing(read(made.file), of.seen), clips[100:])
    assert again.tobytes() == rows[100:].tobytes()
    said = (after[:, 0] > 0).astype(int) if of.logistic else after.argmax(1)
    z = features_of(of, rows[100:]) @ kernel.T + bias
    in_float = (z[:, 0] > 0).astype(int) if of.logistic else z.argmax(1)
    assert (in_float == y[100:]).mean() >= 0.85
    assert (said == in_float).mean() >= 0.97


@BOTH
def test_scales_are_kept_while_the_weights_fit_and_no_weight_is_ever_clipped(name: str) -> None:
    stock = read(stock_file(name))
    of = int8_head_of(stock, stock.outputs[0])
    kernel, bias = layer_of(of, read_weights(trainable(stock.data, of)))
    none = np.zeros((0, kernel.shape[1]))
    same = put(stock.data, of, kernel, bias, none)
    assert same.file == stock.data and not same.rescaled
    for factor in (0.5, 3.7, 1e4):
        made = put(stock.data, of, kernel * factor, bias * factor, none)
        after = read_weights(trainable(made.file, of))
        now = of.with_weights(after)
        assert made.rescaled == (factor > 1)
        assert np.abs(after[KERNEL]).max() <= CODE_MAX
        assert np.abs(layer_of(now, after)[0] - kernel * factor).max() <= 0.51 * max(now.kernel_scales)
        held = after[BIAS_SCALE]
        np.testing.assert_allclose(held, after[KERNEL_SCALE] * now.feature_scale, rtol=1e-6)  # as the runtimes demand
        assert len(outputs(made.file, [np.zeros((1, *stock.tensors[stock.inputs[0]].shape[1:]), np.int8)])) == 1


@pytest.mark.parametrize("name", ["okay_nabu", "hey_jarvis"])
def test_a_wake_word_learns_another_word(name: str) -> None:
    """Streaming models of another project, with their state; synthetic sounds: patterns of noise over 20 frames."""
    stock = read(stock_file(name))
    of = int8_head_of(stock, stock.outputs[0])
    clips, y = clips_of(stock.tensors[stock.inputs[0]].shape[1:], 2, 140, frames=20)
    before = outputs(exposing(stock, of.seen), clips)
    kernel, bias = fit(of, features_of(of, before[1][:100]), y[:100])
    made = put(stock.data, of, kernel, bias, features_of(of, before[1][:100]))
    assert len(made.file) == len(stock.data)
    assert made.changed < 600
    after = outputs(exposing(read(made.file), of.seen), clips[100:])
    assert after[1].tobytes() == before[1][100:].tobytes()
    assert ((after[0][:, 0] > 127) == y[100:]).mean() >= 0.95


def test_the_commands_expose_and_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, rows = STOCK / "int8_softmax.tflite", tmp_path / "rows.npz"
    assert cli.main(["int8-head", "expose", str(source), "-o", str(tmp_path / "seen.tflite"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    clips, y = clips_of((12, 12, 2), 4, 80)
    np.savez(rows, x=outputs((tmp_path / "seen.tflite").read_bytes(), clips)[said["output"]], y=y)
    out = tmp_path / "new.tflite"
    assert cli.main(["int8-head", "fit", str(source), str(rows), "-o", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["rows"], said["held_out"]) == (80, 20)
    assert said["accuracy"] >= 0.9 > said["accuracy_before"]
    assert out.stat().st_size == source.stat().st_size
    for wrong in ({"x": np.zeros((3, 5), np.int8), "y": np.arange(3)}, {"x": np.zeros((3, 8), np.int8)}):
        np.savez(rows, **wrong)
        assert cli.main(["int8-head", "fit", str(source), str(rows), "-o", str(out)]) == BadArgument.code
    np.savez(rows, x=np.zeros((4, 8), np.int8), y=np.array([0, 1, 2, 7]))
    assert cli.main(["int8-head", "fit", str(source), str(rows), "-o", str(out)]) == BadArgument.code


def test_a_head_whose_logits_are_the_output_is_retrained_while_they_stay_in_their_range() -> None:
    stock = read(stock_file("int8_softmax"))
    bare = exposing(stock, int8_head_of(stock, stock.outputs[0]).given)
    of = int8_head_of(read(bare), read(bare).outputs[1])
    kernel, bias = layer_of(of, read_weights(trainable(bare, of)))
    assert of.outputs == 4 and put(bare, of, kernel / 2, bias / 2, np.zeros((1, 8))).changed > 0
    with pytest.raises(BadArgument, match="more than a softmax reads them"):
        put(bare, of, kernel, bias + 1e3, np.zeros((1, 8)))


def test_what_is_no_int8_head_is_refused_and_graft_says_where_to_go() -> None:
    with pytest.raises(NotTrainable, match="float32, not int8"):
        stock = read((STOCK / "dense.tflite").read_bytes())
        int8_head_of(stock, stock.outputs[0])
    with pytest.raises(NotTrainable, match="edgecloud int8-head fit"):
        graft(stock_file("int8_softmax"), Wish())


def test_rows_that_can_not_be_read_are_refused_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copy that broke off, a bit that fell over, an array that claims more than any memory holds, and no rows at all."""
    model, out = str(STOCK / "int8_softmax.tflite"), tmp_path / "new.tflite"
    stock = read(stock_file("int8_softmax"))
    size = int8_head_of(stock, stock.outputs[0]).features
    good = io.BytesIO()
    np.savez(good, x=np.arange(40 * size, dtype=np.int8).reshape(40, size), y=np.arange(40) % 2)
    whole = good.getvalue()
    flipped = bytearray(whole)
    flipped[whole.index(b"NUMPY") + 200] ^= 1
    claim, many = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(claim, {"descr": "|i1", "fortran_order": False, "shape": (10**13, size)})
    with zipfile.ZipFile(many, "w") as packed:
        packed.writestr("x.npy", claim.getvalue())
        packed.writestr("y.npy", b"")
    plain, none = io.BytesIO(), io.BytesIO()
    np.save(plain, np.zeros((40, size)))
    np.savez(none, x=np.zeros((0, size), np.int8), y=np.zeros(0, int))
    for bad in (whole[: len(whole) // 2], bytes(flipped), many.getvalue(), plain.getvalue(), none.getvalue(), b""):
        (tmp_path / "rows.npz").write_bytes(bad)
        assert cli.main(["int8-head", "fit", model, str(tmp_path / "rows.npz"), "-o", str(out)]) == BadArgument.code
        assert "operators" not in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["rows.npz"]


@pytest.mark.parametrize(
    ("x", "label", "said"),
    [(np.nan, 0, "not a finite number"), (1e300, 0, "not a finite number"), (0.0, 9, "labels from 0 to 9 for a head of 4 outputs")],
)
def test_rows_and_labels_that_no_head_learns_from_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], x: float, label: int, said: str
) -> None:
    rows, labels = np.zeros((40, 8)), np.zeros(40, int)
    rows[3, 3], labels[7] = x, label
    np.savez(tmp_path / "rows.npz", x=rows, y=labels)
    assert cli.main(["int8-head", "fit", str(STOCK / "int8_softmax.tflite"), str(tmp_path / "rows.npz"), "-o", str(tmp_path / "o")]) == 15
    assert said in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_rows_that_would_unpack_to_more_than_a_model_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEFAULT", limits.Limits(model_file=100_000))
    np.savez_compressed(tmp_path / "rows.npz", x=np.zeros((100_000, 8), np.int8), y=np.zeros(100_000, int))
    assert cli.main(["int8-head", "fit", str(STOCK / "int8_softmax.tflite"), str(tmp_path / "rows.npz"), "-o", str(tmp_path / "o")]) == 42
    assert not (tmp_path / "o").exists()


def test_inspect_and_bases_add_say_that_a_head_trains_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db, source = str(tmp_path / "fleet.db"), STOCK / "int8_softmax.tflite"
    assert cli.main(["init", "--db", db, "--fleet", "home"]) == 0
    seen = tmp_path / "seen.tflite"
    assert cli.main(["int8-head", "expose", str(source), "-o", str(seen)]) == 0
    capsys.readouterr()
    for file, exposed in ((source, None), (seen, 1)):
        wanted = {"features": 8, "outputs": 4, "probability": "softmax", "scales": 4, "scales_kept": False, "exposed": exposed}
        wanted |= {"loss": "softmax", "bits": 8, "bias": "trained", "output": 0, "rows": 1}
        assert cli.main(["inspect", str(file), "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["int8_head"] == wanted and said["int8_head_reason"] == ""
        assert cli.main(["bases", "add", str(file), "--db", db, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["int8_head"] == wanted
    assert cli.main(["inspect", str(seen)]) == 0
    assert "output 1 gives its rows" in capsys.readouterr().out
    assert cli.main(["inspect", str(STOCK / "dense.tflite"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["int8_head"] is None


def test_inspect_and_bases_add_say_why_an_int8_head_does_not_train_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stock = read(stock_file("int8_softmax"))
    file = bytearray(stock.data)
    (soft,) = (op for op in stock.operators if op.name == "SOFTMAX")
    at = soft.options.field(0, 4)
    file[at : at + 4] = np.float32(2).tobytes()
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(file)
    assert cli.main(["inspect", str(bad), "--json"]) == 0
    assert "another beta" in json.loads(capsys.readouterr().out)["int8_head_reason"]
    db = str(tmp_path / "fleet.db")
    assert cli.main(["init", "--db", db, "--fleet", "home"]) == 0
    assert cli.main(["bases", "add", str(bad), "--db", db]) == NotTrainable.code
    assert "another beta" in capsys.readouterr().err
