"""Files are replaced whole, and a lock holds on a full disk too."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from edgecommon import files
from edgecommon.files import write_named
from modelwire.errors import BadArgument, DiskUnwritable
from modelwire.limits import DEFAULT


def test_a_lock_is_held_on_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with files.locked(tmp_path / "lock"):  # a start sweeps files away, and so makes room
        assert not (tmp_path / "lock").read_bytes()
        assert files.holder(tmp_path / "lock") in (os.getpid(), None), "the kernel knows it, where it tells"


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


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.tflite"
    write_named(path, b"one")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskUnwritable, match="No space left"):
        write_named(path, b"two")
    with pytest.raises(DiskUnwritable, match="No space left"), files.streamed(path) as beside:
        beside.write_bytes(b"two")
    monkeypatch.undo()
    assert path.read_bytes() == b"one" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(BadArgument, match="there already"):
        write_named(path, b"two", replace=False)
    write_named(path, b"two")
    assert path.read_bytes() == b"two"


def test_what_is_no_file_is_never_replaced_by_one(tmp_path: Path) -> None:
    """A rename puts a file where a device such as /dev/null stands, for whoever may write there."""
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, Path(), Path("/")):
        with pytest.raises(BadArgument, match="is no file that could be written"):
            write_named(place, b"bytes")
    assert (tmp_path / "pipe").is_fifo() and [p.name for p in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize(
    ("mode", "owner", "group", "who", "taken"),
    [
        (0o440, 0, 700, 1000, True), (0o640, 0, 700, 1000, True), (0o400, 0, 0, 1000, True),
        (0o444, 0, 700, 1000, False), (0o460, 0, 700, 1000, False), (0o604, 0, 700, 1000, False),
        (0o440, 0, 701, 1000, False), (0o440, 1000, 700, 1000, False), (0o440, 1001, 700, 1000, False),
        (0o440, 0, 700, 0, False),
    ],
)  # fmt: skip
def test_a_secret_that_root_hands_to_a_service_by_its_group_is_read_and_none_that_others_may_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, owner: int, group: int, who: int, taken: bool
) -> None:
    path = tmp_path / "word"
    path.write_text("hush")
    given = os.fstat

    def told(handle: int) -> os.stat_result:
        found = given(handle)
        return os.stat_result((0o100000 | mode, *found[1:4], owner, group, *found[6:10]))

    monkeypatch.setattr(os, "fstat", told)
    monkeypatch.setattr(os, "geteuid", lambda: who)
    monkeypatch.setattr(os, "getegid", lambda: 699)
    monkeypatch.setattr(os, "getgroups", lambda: [700])
    if taken:
        assert files.read_private(path, 100, group=True) == b"hush"
    else:
        with pytest.raises(files.NotPrivateError, match="others than its owner"):
            files.read_private(path, 100, group=True)
    if mode & 0o077:
        with pytest.raises(files.NotPrivateError):
            files.read_private(path, 100)  # a private key is handed to nobody


def test_a_small_model_file_is_read_where_the_limit_is_more_than_there_is_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "DEFAULT", replace(DEFAULT, model_file=1 << 60))
    (tmp_path / "m.tflite").write_bytes(b"small")
    assert files.read_model_file(tmp_path / "m.tflite", "the base model") == b"small"
