"""Samples come out of files as they were written, and a broken file is an error by name."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeagent import cli
from edgeagent.samples.from_files import read, read_all
from edgeagent.state.folder import open_folder
from modelwire.errors import ConfigError, ModelWireError
from tests.edgeagent.boards import make


def _lying(path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (1 << 44,)})  # type: ignore[no-untyped-call]
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("x.npy", head.getvalue())
        z.writestr("y.npy", head.getvalue())


def _corrupt(path: Path) -> None:
    np.savez_compressed(path, x=np.random.default_rng(1).random((50, 4)), y=np.zeros(50, int))
    data = bytearray(path.read_bytes())
    for i in range(60, 200):
        data[i] ^= 0x5A
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("lying.npz", _lying),
        ("corrupt.npz", _corrupt),
        ("single.npz", lambda p: np.savez(p, x=np.float32(3), y=np.zeros(0))),
        ("single.npy", lambda p: np.save(p, np.float32(3))),
        ("empty.npz", lambda p: np.savez(p, x=np.zeros((0, 5)), y=np.zeros(0))),
        ("long.csv", lambda p: p.write_text("1,2,3," + "4" * 200000 + "\n")),
    ],
)
def test_a_broken_file_of_samples_is_a_named_error(tmp_path: Path, name: str, write: Callable[[Path], object]) -> None:
    loaded = make(tmp_path / "d")
    write(tmp_path / name)
    code = cli.main(["samples", "add", "tiny", str(tmp_path / name), "--label", "1", "--dir", str(tmp_path / "d")])
    assert code in {cls.code for cls in (ConfigError, *ModelWireError.__subclasses__())} | {23}
    with open_folder(loaded, alone=False) as opened:
        assert opened.spool.count("tiny") == 0


def test_sample_files_are_read_as_written(tmp_path: Path) -> None:
    x, y = np.arange(12, dtype=np.float32).reshape(3, 4), np.array([0, 1, 2])
    np.savez(tmp_path / "a.npz", x=x, y=y)
    np.save(tmp_path / "b.npy", np.column_stack([x, y]))
    (tmp_path / "c.csv").write_text("p,q,r,s,class\n" + "\n".join(",".join(map(str, [*r, c])) for r, c in zip(x, y, strict=True)) + "\n")
    for name in ("a.npz", "b.npy", "c.csv"):
        gx, gy, targets = read(tmp_path / name, label=None, model="m")
        assert np.array_equal(gx, x) and gy is not None and np.array_equal(gy, y) and targets is None
    np.save(tmp_path / "d.npy", x)
    _, ones, _ = read(tmp_path / "d.npy", label=1, model="m")
    assert ones is not None and ones.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.npz", b"PK\x03\x04rubbish"),
        ("b.npy", b"\x93NUMPY rubbish"),
        ("c.csv", b"1,2\n3\n"),
        ("d.csv", b"1,2\n3,x\n"),
        ("e.txt", b"1"),
        ("f.csv", b""),
    ],
)
def test_a_file_that_holds_no_samples_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError):
        read(tmp_path / name, label=None, model="m")


def test_a_pickle_in_a_file_of_samples_is_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "evil.npz", x=np.array([{"a": 1}], dtype=object), y=np.zeros(1))
    for name in ("evil.npy", "evil.npz"):
        with pytest.raises(ConfigError, match=r"pickle|[Oo]bject"):
            read(tmp_path / name, label=None, model="m")


def test_sample_files_carry_contexts(tmp_path: Path) -> None:
    x, y = np.arange(12, dtype=np.float32).reshape(3, 4), np.array([0, 1, 2])
    np.savez(tmp_path / "a.npz", **{"x": x, "y": y, "context.weather": np.array(["sun", "rain", ""]), "context.floor": np.array([1, 2, 3])})
    found = read_all(tmp_path / "a.npz", label=None, model="m")
    assert found.contexts == ({"weather": "sun", "floor": "1"}, {"weather": "rain", "floor": "2"}, {"floor": "3"})
    rows = [f"{','.join(map(str, r))},{w},{c}" for r, w, c in zip(x, ["sun", "", "fog"], y, strict=True)]
    (tmp_path / "c.csv").write_text("\n".join(["p,q,r,s,context.weather,class", *rows]))
    found = read_all(tmp_path / "c.csv", label=None, model="m")
    assert np.array_equal(found.x, x) and found.contexts == ({"weather": "sun"}, {}, {"weather": "fog"})
    assert found.labels is not None and found.labels.tolist() == [0, 1, 2]
    np.savez(tmp_path / "u.npz", x=x)
    found = read_all(tmp_path / "u.npz", label=None, model="m", unlabelled=True)
    assert found.labels is None and found.targets is None and np.array_equal(found.x, x)
    np.savez(tmp_path / "bad.npz", **{"x": x, "y": y, "context.weather": np.array([0.5, 1, 2])})
    with pytest.raises(ConfigError, match="words or whole numbers"):
        read_all(tmp_path / "bad.npz", label=None, model="m")


def test_one_label_for_all_overrules_no_classes_that_a_file_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 4), np.float32), y=np.array([0, 1, 2]))
    with pytest.raises(ConfigError, match="have classes of their own, y") as raised:
        read_all(tmp_path / "a.npz", label=7, model="m")
    assert raised.value.next_step == "leave --label out"
