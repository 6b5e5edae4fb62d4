"""Files and locks on disks that are full."""

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
