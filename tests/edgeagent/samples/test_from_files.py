"""Samples come out of files as they were written, and a broken file is an error by name."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeagent import cli
from edgeagent.state import folder as device
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
    with device.opened(loaded, alone=False) as opened:
        assert opened.spool.count("tiny") == 0
