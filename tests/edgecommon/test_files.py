"""Files are replaced whole, and a lock holds on a full disk too."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edgecommon import files


def test_a_lock_is_held_on_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with files.locked(tmp_path / "lock"):  # a start sweeps files away, and so makes room
        assert files.holder(tmp_path / "lock") is None


def test_files_are_replaced_whole_and_share_survives_the_source(tmp_path: Path) -> None:
    path = tmp_path / "f"
    files.write(path, b"old")
    files.share(path, tmp_path / "g")
    files.write(path, b"new", mode=0o600)
    assert (path.read_bytes(), (tmp_path / "g").read_bytes()) == (b"new", b"old")
    assert path.stat().st_mode & 0o777 == 0o600
    files.share(path, tmp_path / "g")
    files.share(path, tmp_path / "g")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f", "g"]
