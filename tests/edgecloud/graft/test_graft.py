"""Grafting, packing and looking, as the author of a model meets them: files in, files out, and errors that say what to do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecloud import cli
from edgecloud.graft.grafting import Wish, graft
from edgecloud.graft.inspecting import look
from edgecloud.graft.layers import layers, select
from edgecloud.graft.packing import pack
from edgecloud.graft.stock import Stock, read
from edgecloud.graft.writing import build, flat, ops, parts
from edgecloud.graft.writing.flat import OldNode
from edgecommon.runtime import interpreter_for
from modelwire.errors import BadArgument, Malformed, ModelWireError, NotTrainable
from modelwire.tensors import F32
from modelwire.tflite import file as tflite_file
from modelwire.tflite.flatbuffer import U32
from modelwire.tflite.graph import parse
from modelwire.tflite.notes import ENTRY
from tests.stock import STOCK, runtime, stock_file

MODELS = Path(__file__).parents[2] / "models"
EVERY = sorted(p.stem for p in STOCK.glob("*.tflite") if not p.stem.startswith("int8"))


def notes(file: bytes) -> dict[str, object]:
    found = read(file)
    (entry,) = [t for t in found.root.tables(6) if t.text(0) == ENTRY]
    start, size = found.buffers[entry.integer(1, U32)]
    return dict(json.loads(file[start : start + size]))


def run(interpreter: Any, x: F32) -> F32:
    """Return the first output of the first subgraph, as a program that knows no signatures gets it."""
    given = interpreter.get_input_details()[0]
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def rewritten(stock: Stock, **changed: object) -> bytes:
    """Return the stock file with another root table in front of it.

    changed: operators or tensors to put in the place of old ones; codes and more tensors; before: operators to stand before others.
    """
    parts = {"tensors": [OldNode(t.byte) for t in stock.tensors], "operators": [OldNode(op.byte) for op in stock.operators]}
    codes = [OldNode(byte) for byte in stock.codes]
    for key, places in changed.items():
        if key == "codes":
            codes += places  # type: ignore[operator]
        elif key == "more":
            parts["tensors"] += places  # type: ignore[operator]
        elif key != "before":
            for index, node in places.items():  # type: ignore[attr-defined]
                parts[key][index] = node
    for index, node in changed.get("before", {}).items():  # type: ignore[attr-defined]
        parts["operators"].insert(index, node)
    graph = flat.TableNode(
        {
            0: flat.TableVector(parts["tensors"]), 1: flat.integers(stock.inputs), 2: flat.integers(stock.outputs),
            3: flat.TableVector(parts["operators"]),
        }
    )  # fmt: skip
    root = {
        0: flat.u32(3), 1: flat.TableVector(codes), 2: flat.TableVector([graph]),
        4: flat.TableVector([OldNode(byte) for byte in stock.buffer_tables]),
    }  # fmt: skip
    return flat.write(flat.TableNode(root), b"TFL3", stock.data)


def with_operator(name: str, index: int, code: int) -> bytes:
    """Return a stock file in which one operator has become another one."""
    stock = read(stock_file(name))
    op = stock.operators[index]
    node = flat.TableNode({0: flat.u32(len(stock.codes)), 1: flat.integers(op.inputs), 2: flat.integers(op.outputs)})
    return rewritten(stock, codes=[flat.TableNode({0: flat.i8(min(code, 127)), 3: flat.i32(code)})], operators={index: node})


@pytest.mark.parametrize("name", EVERY)
def test_a_file_read_and_written_anew_runs_as_before_and_holds_the_old_one_whole(name: str) -> None:
    data = stock_file(name)
    copy = rewritten(read(data))
    assert copy.endswith(data)
    a, b = (interpreter_for(runtime().interpreter, f, delegates=False) for f in (data, copy))
    x = np.random.default_rng(1).standard_normal(a.get_input_details()[0]["shape"]).astype(np.float32)
    assert run(a, x).tobytes() == run(b, x).tobytes()
    assert [(t.name, t.shape, t.type) for t in read(copy).tensors] == [(t.name, t.shape, t.type) for t in read(data).tensors]


@pytest.mark.slow("grafts every stock net at every cut, and runs it")
@pytest.mark.parametrize("name", EVERY)
def test_every_cut_of_every_file_keeps_the_contract_and_runs(name: str) -> None:
    stock = read(stock_file(name))
    kernels = sum(layer.kernel for layer in layers(stock, stock.outputs[0]))
    for cut in dict.fromkeys(("head", f"last:{min(2, kernels)}", "all")):
        if name == "mobilenet" and cut == "all":
            continue  # tests/models/test_gradients.py runs it
        made = graft(stock.data, Wish(train=(cut,), batch=2, model=name))
        tflite_file.check_trainable(made.file)
        model = runtime().open(made.file, model=name)
        assert not model.fallback
        assert model.batch == 2
        before = model.get_weights()
        assert {n: w.tobytes() for n, w in before.items()} == {
            n: stock.value(t).astype(np.float32).tobytes() for layer in made.layers for n, t in layer.weights.items()
        }


def test_the_first_subgraph_infers_with_the_present_weights() -> None:
    """A version is the file with its initial values overwritten: a program that knows no signatures must run that version."""
    made = graft(stock_file("dense"), Wish(train=("head",), batch=2))
    weights = tflite_file.read_weights(made.file)
    changed = tflite_file.write_weights(made.file, {n: -w if n == "head_kernel" else w for n, w in weights.items()})
    x = np.ones((1, 9), np.float32)
    same, other = (run(interpreter_for(runtime().interpreter, f, delegates=False), x) for f in (made.file, changed))
    stock = run(interpreter_for(runtime().interpreter, stock_file("dense"), delegates=False), x)
    assert same.tobytes() == stock.tobytes() != other.tobytes()


def test_features_are_what_the_head_sees() -> None:
    made = graft(stock_file("har"), Wish(train=("head",), batch=2))
    interpreter = interpreter_for(runtime().interpreter, made.file, delegates=False)
    x = np.random.default_rng(2).standard_normal((1, 100, 6)).astype(np.float32)
    seen = interpreter.get_signature_runner("features")(x=x)["features"]
    weights = tflite_file.read_weights(made.file)
    z = seen @ weights["head_kernel"].T + weights["head_bias"]
    expected = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    np.testing.assert_allclose(interpreter.get_signature_runner("infer")(x=x)["output"], expected, rtol=1e-5)


def test_state_comes_out_and_goes_back_in_so_that_training_goes_on_to_the_bit() -> None:
    made = graft(stock_file("dense"), Wish(train=("all",), optimizer="adam", batch=4))
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((4, 9)).astype(np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]

    def opened() -> Any:
        return interpreter_for(runtime().interpreter, made.file, delegates=True)

    def steps(interpreter: Any, n: int) -> None:
        for _ in range(n):
            interpreter.get_signature_runner("train")(x=x, y=y, lr=np.float32(0.01))

    one, two, three = opened(), opened(), opened()
    steps(one, 10)
    steps(two, 5)
    for what in ("weights", "state"):
        three.get_signature_runner(f"set_{what}")(**two.get_signature_runner(f"get_{what}")())
    steps(three, 5)
    a, b = (i.get_signature_runner("get_weights")() for i in (one, three))
    assert {n: v.tobytes() for n, v in a.items()} == {n: v.tobytes() for n, v in b.items()}


def test_grafting_twice_gives_the_same_bytes() -> None:
    assert graft(stock_file("gru"), Wish(train=("all",))).file == graft(stock_file("gru"), Wish(train=("all",))).file


def test_layers_and_weights_are_chosen_by_name() -> None:
    made = graft(stock_file("har"), Wish(train=("hidden", "head_bias"), batch=2))
    assert sorted(tflite_file.read_weights(made.file)) == ["head_bias", "hidden_bias", "hidden_kernel"]
    with pytest.raises(BadArgument, match="no layer or weight is called 'hiden'"):
        graft(stock_file("har"), Wish(train=("hiden",)))
    stock = read(stock_file("har"))
    with pytest.raises(BadArgument, match="last:5"):
        select(stock, layers(stock, stock.outputs[0]), ("last:5",))


def test_an_operator_without_a_gradient_is_named_with_the_deepest_cut_that_works() -> None:
    file = with_operator("dense", 3, 24)  # TANH becomes RNN, behind the third layer
    graft(file, Wish(train=("head",)))
    why = r"RNN \(operator 3, giving '.*Tanh'\), which is run once .*, and something that is trained stands before it.* --train last:1"
    with pytest.raises(NotTrainable, match=why):
        graft(file, Wish(train=("all",)))
    modes = look(file, Wish(), rate=1e9).modes
    assert [(m.name, bool(m.cost)) for m in modes] == [("head", True), ("last:2", False)]
    assert "RNN" in modes[-1].reason


def test_what_no_runtime_trains_is_refused_wherever_it_stands() -> None:
    file = with_operator("dense", 3, ops.CUSTOM)
    with pytest.raises(NotTrainable, match="author's code"):
        graft(file, Wish())
    assert "author's code" in look(file, Wish(), rate=1e9).reason


@pytest.mark.parametrize("code", [ops.ELU, ops.ADD_N])
def test_what_steps_can_not_be_done_again_with_stands_in_infer_alone(code: int) -> None:
    """Its other form is in eval and train, in all cuts; infer keeps the stock file's operator and with it its bits."""
    file = with_operator("dense", 3, code)  # in the place of TANH
    for cut in ("head", "all"):
        parsed = parse(graft(file, Wish(train=(cut,))).file)
        has = {name: code in {op.code for op in parsed.graphs[s.graph].operators} for name, s in parsed.signatures.items()}
        assert has.pop("infer")
        assert has.pop("features", True)
        assert not any(has.values()), has


def test_a_front_that_a_batch_would_mix_runs_once_a_sample() -> None:
    """A sum along the steps before the UNPACK that takes them apart: which axis it runs along is not known to be safe."""
    stock = read(stock_file("gru"))
    apart = next(op for op in stock.operators if op.code == ops.UNPACK)
    (x,), new = apart.inputs, len(stock.tensors)
    summed = flat.TableNode({0: flat.u32(len(stock.codes)), 1: flat.integers((x, x)), 2: flat.integers((new,))})
    code = list(stock.graph.tables(3))[apart.index].integer(0, U32)
    options = {0: flat.i32(apart.option(0)), 1: flat.i32(apart.option(1))}
    unpack = {
        0: flat.u32(code), 1: flat.integers((new,)), 2: flat.integers(apart.outputs),
        3: flat.u8(ops.OPTIONS[ops.UNPACK]), 4: flat.TableNode(options),
    }  # fmt: skip
    data = rewritten(
        stock, codes=[flat.TableNode({0: flat.i8(127), 3: flat.i32(ops.CUMSUM)})],
        more=[build.tensor_table(stock.tensors[x].shape, ops.FLOAT32, "summed", 0)], before={apart.index: summed},
        operators={apart.index: flat.TableNode(unpack)},
    )  # fmt: skip
    made = graft(data, Wish(batch=3))
    assert "eval" not in made.signatures
    tflite_file.check_trainable(made.file)


def test_a_new_class_never_wins_before_it_is_trained_and_the_others_keep_their_order() -> None:
    stock = stock_file("har")
    made = graft(stock, Wish(train=("head",), add_classes=("limping",), batch=8, optimizer="momentum"))
    assert notes(made.file)["added_classes"] == {"limping": 4}
    assert notes(made.file)["stock_sha256"] == read(stock).sha256
    model, before = runtime().open(made.file), interpreter_for(runtime().interpreter, stock, delegates=False)
    rng = np.random.default_rng(9)
    for x in rng.standard_normal((20, 100, 6)).astype(np.float32):
        old, new = run(before, x[None])[0], model.infer(x)
        assert new.shape == (5,)
        assert (np.argsort(new[:4]) == np.argsort(old)).all()
        assert new.argmax() < 4
    limping = 3 * rng.standard_normal((8, 100, 6)).astype(np.float32)
    for _ in range(40):
        model.train(limping, np.eye(5, dtype=np.float32)[[4] * 8], 0.01)
    assert (model.evaluate(limping).argmax(1) == 4).all()


@pytest.mark.parametrize("name", ["half", "depthwise"])
def test_classes_are_added_to_float16_heads_and_to_heads_over_maps(name: str) -> None:
    made = graft(stock_file(name), Wish(train=("head",), add_classes=("a", "b"), batch=2))
    assert runtime().open(made.file).contract.y_shape[-1] == 6


def test_no_class_is_added_where_there_is_no_classifier() -> None:
    with pytest.raises(BadArgument, match="is no layer of its own that gives one number a class"):
        graft(stock_file("autoencoder"), Wish(add_classes=("a",)))
    with pytest.raises(BadArgument, match="repeat"):
        graft(stock_file("har"), Wish(add_classes=("a", "a")))


def test_pack_gives_shared_initial_values_buffers_of_their_own() -> None:
    shared, alone = (MODELS / f"{n}.tflite" for n in ("tiny_shared", "tiny"))
    with pytest.raises(NotTrainable, match="shares its bytes"):
        tflite_file.check_trainable(shared.read_bytes())
    packed = pack(shared.read_bytes(), name="tiny")
    assert packed.changed and packed.separated
    a, b = (tflite_file.read_weights(f) for f in (packed.file, alone.read_bytes()))
    assert {n: w.tobytes() for n, w in a.items()} == {n: w.tobytes() for n, w in b.items()}
    assert notes(packed.file)["name"] == "tiny"
    model = runtime().open(packed.file)
    x, y = np.ones((16, 4)), np.eye(3)[[0] * 16]
    assert model.train(x, y, 0.5) > model.train(x, y, 0.5)
    again = pack(packed.file)
    assert not again.changed and again.file == packed.file


def test_pack_leaves_a_packed_file_as_it_is_and_refuses_what_it_can_not_mend() -> None:
    for name in ("digits", "motion"):
        data = (MODELS / f"{name}.tflite").read_bytes()
        assert pack(data).file == data
    with pytest.raises(NotTrainable, match="no signature"):
        pack(stock_file("dense"))


def test_damaged_files_are_refused_not_followed() -> None:
    data = stock_file("dense")
    rng = np.random.default_rng(6)
    for _ in range(300):
        bad = bytearray(data)
        for at in rng.integers(0, len(data), 4):
            bad[at] = rng.integers(0, 256)
        for tried in (bytes(bad), data[: rng.integers(0, len(data))]):
            try:
                graft(tried, Wish(train=("all",)))
            except ModelWireError:
                continue
    with pytest.raises(Malformed):
        graft(b"", Wish())


@pytest.mark.slow("grafts stock nets")
def test_the_commands_write_files_and_answer_in_text_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.tflite"
    wanted = ["--train", "last:2", "--batch", "8", "--optimizer", "momentum", "-o", str(out), "--json"]
    assert cli.main(["graft", str(STOCK / "har.tflite"), *wanted]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["bytes"] == out.stat().st_size
    assert (said["batch"], said["loss"], said["layers"]) == (8, "ce", ["hidden", "head"])
    assert "get_state" in said["signatures"]
    assert tflite_file.contract(out.read_bytes()).batch == 8
    assert cli.main(["inspect", str(STOCK / "har.tflite"), "--gmacs", "2", "--json"]) == 0
    looked = json.loads(capsys.readouterr().out)
    assert [m["mode"] for m in looked["modes"]] == ["head", "last:2", "last:3", "all"]
    assert all(m["peak_bytes"] > 0 and m["milliseconds"] > 0 for m in looked["modes"])
    assert cli.main(["inspect", str(STOCK / "har.tflite")]) == 0
    assert "head_kernel[4, 64]" in capsys.readouterr().out
    modes = ["--train", "all", "--modes", "head", "last:2", "--optimizer", "adam"]
    assert cli.main(["graft", str(STOCK / "har.tflite"), *modes, "-o", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(m["mode"], m["signature"]) for m in said["modes"]] == [("head", "train_head"), ("last:2", "train_last_2"), ("all", "train")]
    assert [m["peak_bytes"] for m in said["modes"]] == sorted(m["peak_bytes"] for m in said["modes"])
    assert cli.main(["inspect", str(out), "--gmacs", "2", "--json"]) == 0
    looked = json.loads(capsys.readouterr().out)
    assert looked["reason"] == "" and looked["batch"] == 16 and looked["head"]["features"] == 64
    costs = [{k: m[k] for k in ("mode", "operators", "multiplications", "peak_bytes", "constant_bytes")} for m in looked["modes"]]
    assert costs == [{k: m[k] for k in costs[0]} for m in said["modes"]]
    assert cli.main(["graft", str(STOCK / "autoencoder.tflite"), "--train", "all", "--score", "-o", str(out)]) == 0
    assert "anomaly_threshold" in capsys.readouterr().out
    assert cli.main(["inspect", str(out)]) == 0
    assert "against anomaly_threshold" in capsys.readouterr().out
    assert cli.main(["pack", str(out), "--name", "walks", "-o", str(tmp_path / "packed.tflite")]) == 0
    assert "walks" in str(notes((tmp_path / "packed.tflite").read_bytes()))
    assert cli.main(["graft", str(STOCK / "har.tflite"), "--train", "nothing", "-o", str(out)]) == BadArgument.code
    assert cli.main(["graft", str(tmp_path / "absent.tflite"), "-o", str(out)]) == 12


def test_the_page_for_authors_shows_code_that_runs_and_prints_what_it_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (MODELS.parents[1] / "docs" / "trainable-models.md").read_text()
    monkeypatch.chdir(MODELS.parents[1])
    runtime()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block, "docs/trainable-models.md", "exec"), {})
        said = capsys.readouterr().out.splitlines()
        promised = re.findall(r"^print\(.*\)  # (.*)$", block, re.M)
        assert len(said) == len(promised) > 0
        for got, wanted in zip(said, promised, strict=True):
            assert got == wanted or "runtime" in wanted or "litert" in wanted  # the last differs from machine to machine


def with_inputs(name: str, index: int, inputs: tuple[int, ...]) -> bytes:
    """Return a stock file in which one operator takes other tensors."""
    stock = read(stock_file(name))
    op = stock.operators[index]
    (table,) = (t for t in stock.graph.tables(3) if t.at == op.byte)
    node = flat.TableNode({0: flat.u32(table.integer(0, U32)), 1: flat.integers(inputs), 2: flat.integers(op.outputs)})
    return rewritten(stock, operators={index: node})


@pytest.mark.parametrize("name", ["dense", "int8_softmax"])
def test_a_file_whose_tensors_go_in_circles_is_refused_at_once(name: str) -> None:
    """The walk from the output to the layer that gives it would never end."""
    sound = read(stock_file(name))
    last = sound.operators[-1]
    for index, taken in ((last.index, last.outputs[0]), (0, last.outputs[0])):
        bad = with_inputs(name, index, (taken, *sound.operators[index].inputs[1:]))
        for wish in (Wish(), Wish(add_classes=("a",))):
            with pytest.raises(Malformed, match="before it is computed"):
                graft(bad, wish)


def test_a_step_that_no_device_could_read_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "TENSORS", 200)
    with pytest.raises(NotTrainable, match=r"^har can't be trained.* more than 200 tensors .*; train fewer layers"):
        graft(stock_file("har"), Wish(train=("all",), model="har"))
    monkeypatch.setattr(build, "TENSORS", 100)
    modes = look(stock_file("har"), Wish(), rate=1e9).modes
    assert modes[0].cost is not None and "train fewer layers" in modes[-1].reason


def test_pack_takes_no_notice_of_notes_that_are_not_its_own() -> None:
    data = (MODELS / "tiny.tflite").read_bytes()
    for said in (b"not JSON", b"[1]", b"[" * 100_000, b"\xff"):
        noted = pack(data, name="x").file
        place = noted.index(b'{"contract"')
        size = len(noted) - len(data) - place
        end = noted.index(b"}", noted.index(b'"name":"x"')) + 1
        bad = noted[:place] + said[: end - place].ljust(end - place) + noted[end:]
        assert size > 0 and notes(pack(bad, name="tiny").file)["name"] == "tiny"


@pytest.mark.slow("measures for two seconds")
def test_the_speed_of_this_machine_is_that_of_one_core() -> None:
    """Threads of numpy would make it the speed of all cores, or of one that waits for another."""
    measure = "from edgecloud.graft.costs import machine_rate; print(machine_rate(1.0))"
    rates = []
    for threads in ("1", "2"):
        env = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        said = subprocess.run([sys.executable, "-c", measure], env=env, capture_output=True, text=True, check=True, cwd=MODELS.parents[1])
        rates.append(float(said.stdout))
    assert max(rates) < 1.5 * min(rates)


def test_commands_refuse_what_is_no_model_and_what_is_no_name_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.tflite").write_bytes(b"nothing of the kind")
    (tmp_path / "cut.tflite").write_bytes(stock_file("dense")[:3000])
    os.mkfifo(tmp_path / "pipe")
    out = ["-o", "out.tflite"]
    for command in (["inspect"], ["graft", *out], ["pack", *out], ["int8-head", "expose", *out]):
        assert cli.main([*command, "wrong.tflite"]) == BadArgument.code
        assert "wrong.tflite is no .tflite" in capsys.readouterr().err
        assert cli.main([*command, "cut.tflite"]) == Malformed.code
        assert cli.main([*command, "."]) == BadArgument.code
    for place in ("", ".", "/", "..", "pipe", "absent/out.tflite"):
        assert cli.main(["graft", str(STOCK / "dense.tflite"), "-o", place]) == BadArgument.code, place
    capsys.readouterr()
    assert cli.main(["graft", str(STOCK / "dense.tflite"), *out, "--train", "last:²"]) == BadArgument.code
    assert "last:1 to last:" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.tflite", "pipe", "wrong.tflite"]
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["functions", "gelus"])
def test_what_no_board_should_train_with_is_replaced_part_by_part_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ADD_N and ELU, in a file whose maps are taken part by part: it was refused."""
    whole = graft(stock_file(name), Wish(train=("all",), batch=16))
    monkeypatch.setattr(parts, "LARGEST", 64)
    made = graft(stock_file(name), Wish(train=("all",), batch=16))
    assert len(made.graphs["all"].made) > len(whole.graphs["all"].made)


@pytest.mark.parametrize("name", ["conv", "conv_even", "har", "pools", "residual"])
def test_windows_of_few_channels_are_gathered_and_evaluate_as_infer_does(name: str) -> None:
    made = graft(stock_file(name), Wish(train=("all",), batch=4))
    step = made.graphs["all"]
    fixed = [op for op in step.made if op.code == ops.DEPTHWISE_CONV_2D and op.inputs[1] in step.constant]
    assert any(step.shape(op.outputs[0])[3] > step.shape(op.inputs[0])[3] for op in fixed)
    model = interpreter_for(runtime().interpreter, made.file, delegates=True)
    infer, evaluate = (model.get_signature_runner(key) for key in ("infer", "eval"))
    shape = tuple(int(n) for n in evaluate.get_input_details()["x"]["shape"])
    x = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    rows = np.concatenate([np.asarray(infer(x=x[i : i + 1])["output"]) for i in range(len(x))])
    np.testing.assert_allclose(evaluate(x=x)["output"], rows, rtol=1e-5, atol=1e-6 * float(np.abs(rows).max()))
