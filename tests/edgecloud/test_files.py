"""A file that a command writes is whole or not there, and never stands where something else was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgecloud.files import write_whole
from modelwire.errors import BadArgument


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.tflite"
    write_whole(path, b"one")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadArgument, match="No space left"):
        write_whole(path, b"two")
    monkeypatch.undo()
    assert path.read_bytes() == b"one" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(BadArgument, match="there already"):
        write_whole(path, b"two", replace=False)
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"


def test_what_is_no_file_is_never_replaced_by_one(tmp_path: Path) -> None:
    """A rename puts a file where a device such as /dev/null stands, for whoever may write there."""
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, Path(), Path("/")):
        with pytest.raises(BadArgument, match="is no file that could be written"):
            write_whole(place, b"bytes")
    assert (tmp_path / "pipe").is_fifo() and [p.name for p in tmp_path.iterdir()] == ["pipe"]
