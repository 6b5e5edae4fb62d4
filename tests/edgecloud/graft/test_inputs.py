"""Files with several inputs, other types, signatures, a fixed batch, labels behind them: what x is of each, and that the bits stay."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from typing import Any

import numpy as np
import pytest

from edgecloud import cli
from edgecloud.graft.grafting import Grafted, Wish, graft
from edgecloud.graft.inputs import labels_of, without_zip
from edgecloud.graft.inspecting import look
from edgecloud.graft.stock import read
from edgecommon.runtime import interpreter_for
from modelwire.errors import BadArgument, NotTrainable
from modelwire.tensors import F32
from modelwire.tflite.flatbuffer import U32
from modelwire.tflite.notes import ENTRY
from tests.stock import ROOT, runtime, stock_file

OPEN = ROOT / "tests" / "models" / "open"
TYPES: dict[str, Any] = {
    "float32": np.float32, "int32": np.int32, "int64": np.int64, "uint8": np.uint8, "int8": np.int8, "bool": np.bool_,
}  # fmt: skip


def opened(file: bytes) -> Any:
    return interpreter_for(runtime().interpreter, file, delegates=False)


def sample(made: Grafted, rng: np.random.Generator) -> F32:
    """Return one x: numbers of the kind that each part takes, one part behind the other."""
    most = {"bool": 2, "int32": 20}  # of these the words that are known
    parts = [rng.standard_normal(p.shape) if p.type == "float32" else rng.integers(0, most.get(p.type, 100), p.shape) for p in made.parts]
    return np.concatenate([part.reshape(1, -1) for part in parts], 1).astype(np.float32)


def parts_of(made: Grafted, x: F32) -> list[Any]:
    """Return what the stock file takes, cut out of x by what the graft says of it."""
    flat, out, begin = x.ravel(), [], 0
    for part in made.parts:
        size = int(np.prod(part.shape))
        out.append(flat[begin : begin + size].reshape(part.shape).astype(TYPES[part.type]))
        begin += size
    return out


@pytest.mark.parametrize("cut", ["head", "all"])
@pytest.mark.parametrize("name", ["two_inputs", "four_kinds", "tokens"])
def test_several_inputs_are_pieces_of_x_and_give_the_same_bits(name: str, cut: str) -> None:
    data = (OPEN / f"{name}.tflite").read_bytes()
    made = graft(data, Wish(train=(cut,), batch=3))
    stock, model, rng = opened(data), opened(made.file), np.random.default_rng(1)
    infer, evaluate, train = (model.get_signature_runner(key) for key in ("infer", "eval", "train"))
    stock.allocate_tensors()
    rows, outputs = [], []
    for _ in range(3):
        rows.append(sample(made, rng))
        for given, part in zip(stock.get_input_details(), parts_of(made, rows[-1]), strict=True):
            stock.set_tensor(given["index"], part)
        stock.invoke()
        outputs.append(infer(x=rows[-1])["output"])
        assert outputs[-1].tobytes() == stock.get_tensor(stock.get_output_details()[0]["index"]).tobytes()
    x, y = np.concatenate(rows), np.eye(4, dtype=np.float32)[[0, 1, 0]]
    np.testing.assert_allclose(evaluate(x=x)["output"], np.concatenate(outputs), rtol=1e-4, atol=1e-6)
    before, *_, after = [float(train(x=x, y=y, lr=np.array(1e-3, np.float32))["loss"]) for _ in range(8)]
    assert after < before


def test_the_notes_say_what_x_holds() -> None:
    made = graft((OPEN / "four_kinds.tflite").read_bytes(), Wish(batch=2))
    found = read(made.file)
    (entry,) = [t for t in found.root.tables(6) if t.text(0) == ENTRY]
    start, size = found.buffers[entry.integer(1, U32)]
    said = json.loads(made.file[start : start + size])["inputs"]
    assert sorted((part["type"], part["shape"]) for part in said) == [
        ("bool", [1, 2, 2]), ("float32", [1]), ("int64", [1, 3]), ("uint8", [1, 5]),
    ]  # fmt: skip
    assert [part["name"] for part in said] == [part.name for part in made.parts]
    assert not graft(stock_file("dense"), Wish(batch=2)).parts


def test_a_signature_is_chosen_by_its_name() -> None:
    data = (OPEN / "two_signatures.tflite").read_bytes()
    first, second = graft(data, Wish(batch=2)), graft(data, Wish(batch=2, signature="second"))
    assert not first.parts
    assert [(p.name, p.type) for p in second.parts] == [("left", "float32"), ("right", "int32")]
    x = np.array([[1, -2, 3, 0.5, 2, 3, -1, 4]], np.float32)
    runner = opened(data).get_signature_runner("second")
    expected = runner(left=x[:, :4], right=x[:, 4:].astype(np.int32))["z"]
    assert opened(second.file).get_signature_runner("infer")(x=x)["output"].tobytes() == expected.tobytes()
    assert [p.name for p in look(data, Wish(signature="second"), rate=1e9).parts] == ["left", "right"]
    with pytest.raises(BadArgument) as refused:
        graft(data, Wish(signature="third"))
    assert "first, second" in str(refused.value.facts["fix"])


def test_a_file_of_eight_samples_at_once_becomes_one_of_one() -> None:
    """The rows of a batch of eight and a single one go through other kernels: they agree as two kernels do."""
    data = (OPEN / "eight_at_once.tflite").read_bytes()
    made = graft(data, Wish(train=("all",), batch=5))
    stock, model = opened(data), opened(made.file)
    stock.allocate_tensors()
    x = np.random.default_rng(2).standard_normal((8, 9, 8, 2)).astype(np.float32)
    stock.set_tensor(stock.get_input_details()[0]["index"], x)
    stock.invoke()
    infer = model.get_signature_runner("infer")
    got = np.concatenate([infer(x=x[i : i + 1])["output"] for i in range(8)])
    np.testing.assert_allclose(got, stock.get_tensor(stock.get_output_details()[0]["index"]), rtol=1e-5, atol=1e-7)
    assert model.get_signature_runner("train").get_input_details()["x"]["shape"].tolist() == [5, 9, 8, 2]


def test_samples_that_see_each_other_are_refused_with_the_operator() -> None:
    with pytest.raises(NotTrainable, match=r"fixed at 4 samples at once, and MEAN \(operator \d+, giving .*convert it for one"):
        graft((OPEN / "mixing.tflite").read_bytes(), Wish())


def test_a_size_that_is_open_is_said_with_the_input() -> None:
    with pytest.raises(NotTrainable, match=r"float32\[1, any, any, 3\]: a sample needs a fixed size"):
        graft((OPEN / "any_size.tflite").read_bytes(), Wish())


def test_an_open_size_may_be_said() -> None:
    data = (OPEN / "any_size.tflite").read_bytes()
    made = graft(data, Wish(train=("all",), batch=3, size=(7, 9, 3)))
    module = runtime().interpreter
    plain = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    stock, model = module.Interpreter(model_content=data, experimental_op_resolver_type=plain), opened(made.file)
    (given,), (gives,) = stock.get_input_details(), stock.get_output_details()
    stock.resize_tensor_input(given["index"], (1, 7, 9, 3))
    stock.allocate_tensors()
    x = np.random.default_rng(4).standard_normal((3, 7, 9, 3)).astype(np.float32)
    for one in x[:, None]:
        stock.set_tensor(given["index"], one)
        stock.invoke()
        assert model.get_signature_runner("infer")(x=one)["output"].tobytes() == stock.get_tensor(gives["index"]).tobytes()
    train, y = model.get_signature_runner("train"), np.eye(4, dtype=np.float32)[[0, 1, 0]]
    before, *_, after = [float(train(x=x, y=y, lr=np.array(0.05, np.float32))["loss"]) for _ in range(6)]
    assert after < before


@pytest.mark.parametrize("size", [(7, 9), (7, 9, 4), (1 << 20, 1 << 20, 3), (2, 2, 3)])
def test_a_size_that_does_not_fit_is_refused(size: tuple[int, ...]) -> None:
    with pytest.raises((BadArgument, NotTrainable)):
        graft((OPEN / "any_size.tflite").read_bytes(), Wish(size=size))
    with pytest.raises(BadArgument, match="none of the sizes that the file leaves open"):
        graft(stock_file("har"), Wish(size=(50, 6)))


def test_what_has_no_axis_of_samples_gets_one() -> None:
    data = (OPEN / "bare.tflite").read_bytes()
    made = graft(data, Wish(batch=3))
    stock, model = opened(data), opened(made.file)
    stock.allocate_tensors()
    x = np.random.default_rng(4).standard_normal((3, 10, 6)).astype(np.float32)
    rows = []
    for one in x:
        stock.set_tensor(stock.get_input_details()[0]["index"], one)
        stock.invoke()
        rows.append(stock.get_tensor(stock.get_output_details()[0]["index"]))
        assert model.get_signature_runner("infer")(x=one[None])["output"].tobytes() == rows[-1].tobytes()
    np.testing.assert_allclose(model.get_signature_runner("eval")(x=x)["output"], rows, rtol=1e-4, atol=1e-6)


def test_a_loop_is_not_said_of_two_signatures_but_of_the_operator_that_is_one() -> None:
    assert not look((OPEN / "two_signatures.tflite").read_bytes(), Wish(), rate=1e9).reason


# Labels.


def zipped(files: dict[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_labels_behind_a_file_are_named_and_not_carried_along(method: int) -> None:
    stock = stock_file("dense")
    data = stock + zipped({"labels.txt": b"cat\ndog\nno one\n", "data.bin": bytes(500)}, method=method)
    assert without_zip(data) == stock
    assert labels_of(data) == {"labels.txt": ("cat", "dog", "no one")}
    made = graft(data, Wish(batch=2))
    assert made.labels == {"labels.txt": ("cat", "dog", "no one")}
    assert made.file.endswith(stock)
    assert look(data, Wish(), rate=1e9).labels == made.labels


@pytest.mark.parametrize(
    "tail",
    [
        b"PK\x05\x06", b"PK\x05\x06" + bytes(18), b"PK\x05\x06" + b"\xff" * 18, bytes(100), zipped({})[:10],
        zipped({"labels.txt": b"\xff\xfe"}), zipped({"labels.txt": bytes(3 << 20)}, method=zipfile.ZIP_DEFLATED),
        zipped({f"{i}.txt": b"x" for i in range(100)}), zipped({"labels.txt": b"cat\n"}, method=zipfile.ZIP_LZMA),
        struct.pack("<4sQ4x", b"PK\x06\x06", 44) + bytes(40) + struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1) + zipped({}),
    ],
)  # fmt: skip
def test_what_is_no_zip_of_labels_gives_none_and_does_no_harm(tail: bytes) -> None:
    data = stock_file("dense") + tail
    assert labels_of(data) == {}
    assert graft(data, Wish(batch=2)).labels == {}


def test_any_byte_of_a_zip_may_be_wrong() -> None:
    stock = stock_file("dense")
    tail = zipped({"labels.txt": b"cat\ndog\n"}, method=zipfile.ZIP_DEFLATED)
    for i in range(len(tail)):
        for wrong in (0, 0xFF, tail[i] ^ 1):
            data = stock + tail[:i] + bytes([wrong]) + tail[i + 1 :]
            labels_of(data)
            assert without_zip(data)[:8] == stock[:8]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_packed_as_no_tool_packs_labels_is_never_unpacked(method: int) -> None:
    tail = bytearray(zipped({"labels.txt": b"cat\ndog\n" * 20}, method=method))
    assert labels_of(stock_file("dense") + tail) == {}
    tail[45:60] = bytes(15)
    assert labels_of(stock_file("dense") + tail) == {}


def test_all_labels_together_are_no_more_than_one_file_may_be() -> None:
    found = labels_of(stock_file("dense") + zipped({f"{i}.txt": b"a\n" * 60_000 for i in range(64)}, method=zipfile.ZIP_DEFLATED))
    assert 1 <= len(found) < 10


def test_the_command_line_takes_a_signature_and_says_what_x_holds(tmp_path: Any, capsys: Any) -> None:
    out = tmp_path / "out.tflite"
    assert cli.main(["graft", str(OPEN / "two_signatures.tflite"), "--signature", "second", "-o", str(out), "--batch", "2"]) == 0
    assert "left float32[1, 4] | right int32[1, 4]" in capsys.readouterr().out
    assert cli.main(["inspect", str(OPEN / "four_kinds.tflite"), "--gmacs", "1", "--json"]) == 0
    assert {part["type"] for part in json.loads(capsys.readouterr().out)["x"]} == {"bool", "float32", "int64", "uint8"}
