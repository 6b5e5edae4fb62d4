"""A new device's folder: made whole or made again, never over what is there already, and flushed to the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeagent.state.folder import open_folder
from edgeagent.state.new_folder import create_folder
from edgecloud.graft.writing.noted import with_notes
from modelwire.errors import ConfigError, MissingFile, NotTrainable
from tests import keys
from tests.edgeagent.boards import DEVICE_SEED, TINY, TOKEN, centre, make, rig
from tests.edgeagent.centre import FakeClock


class Killed(BaseException):
    pass


def test_an_init_that_was_killed_between_two_renames_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.rename
    for moves in range(4):
        folder = tmp_path / str(moves)
        left = [moves]

        def rename(a: Path, b: Path, left: list[int] = left) -> None:
            if not left[0]:
                raise Killed
            left[0] -= 1
            plain(a, b)

        monkeypatch.setattr(os, "rename", rename)
        with pytest.raises(Killed):
            make(folder)
        monkeypatch.undo()
        make(folder)
        assert sorted(p.name for p in folder.iterdir()) == ["device.key", "edgeagent.toml", "fleet.pub", "state"]
        with rig(folder, centre(FakeClock())) as r:
            assert r.lineage.head().version == 0


def test_an_init_with_a_token_that_was_killed_is_done_again_and_leaves_it_to_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, loaded = os.rename, make(tmp_path / "plain")
    text = (tmp_path / "plain" / "edgeagent.toml").read_text()

    def again(folder: Path) -> None:
        create_folder(folder, loaded, text, models={"tiny": TINY}, seed=DEVICE_SEED, fleet=keys.FLEET, token=TOKEN)

    for moves in range(5):
        left = [moves]

        def rename(a: Path, b: Path, left: list[int] = left) -> None:
            if not left[0]:
                raise Killed
            left[0] -= 1
            plain(a, b)

        folder = tmp_path / str(moves)
        monkeypatch.setattr(os, "rename", rename)
        with pytest.raises(Killed):
            again(folder)
        monkeypatch.setattr(os, "rename", plain)
        again(folder)
        assert sorted(p.name for p in folder.iterdir()) == ["device.claim", "device.key", "edgeagent.toml", "fleet.pub", "state"]
        made = folder / "device.claim"
        assert made.read_text() == f"{TOKEN}\n" and made.stat().st_mode & 0o777 == 0o600
        with pytest.raises(ConfigError, match="is there already"):
            again(folder)


def test_what_somebody_put_beside_a_killed_init_is_never_taken_for_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    (folder / ".edgeagent-init").mkdir(parents=True)
    (folder / ".edgeagent-init" / "device.key").write_text("half")
    (folder / "state").mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        make(folder)
    assert (folder / "state").is_dir()


def test_init_flushes_every_folder_that_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: set[int] = set()
    plain = os.fsync

    def fsync(handle: int) -> None:
        flushed.add(os.fstat(handle).st_ino)
        plain(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    make(tmp_path / "d")
    folders = [tmp_path / "d", *(p for p in (tmp_path / "d").rglob("*") if p.is_dir())]
    assert [p for p in folders if p.stat().st_ino not in flushed and any(p.iterdir())] == []


def test_a_new_folder_is_never_made_over_an_old_one(tmp_path: Path) -> None:
    make(tmp_path / "d")
    key = (tmp_path / "d" / "device.key").read_text()
    for left in ("edgeagent.toml", "state", "device.key", "fleet.pub"):
        with pytest.raises(ConfigError, match=r"is there already; init never overwrites"):
            make(tmp_path / "d")
        os.rename(tmp_path / "d" / left, tmp_path / f"{left}.away")
        if left != "fleet.pub":
            with pytest.raises(ConfigError, match="is there already"):
                make(tmp_path / "d")
    assert (tmp_path / "device.key.away").read_text() == key
    assert (tmp_path / "device.key.away").stat().st_mode & 0o777 == 0o600


def test_a_base_that_cannot_be_trained_makes_no_folder(tmp_path: Path) -> None:
    shared = (Path(__file__).parents[2] / "models" / "tiny_shared.tflite").read_bytes()
    with pytest.raises(NotTrainable):
        make(tmp_path / "d", models={"tiny": shared})
    assert not (tmp_path / "d").exists()


def test_an_init_that_was_killed_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "d" / ".edgeagent-init" / "state").mkdir(parents=True)
    make(tmp_path / "d")
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["device.key", "edgeagent.toml", "fleet.pub", "state"]


def test_without_a_folder_the_state_is_said_to_be_missing(tmp_path: Path) -> None:
    loaded = make(tmp_path / "d")
    os.rename(loaded.state, tmp_path / "away")
    with pytest.raises(MissingFile, match="state folder"), open_folder(loaded, alone=False):
        pass


def test_a_base_whose_notes_are_none_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    loaded, other = make(tmp_path / "plain"), tmp_path / "other"
    text = (tmp_path / "plain" / "edgeagent.toml").read_text()
    base = with_notes(TINY, b"[" * 10_000)
    with pytest.raises(NotTrainable, match="its notes are no JSON object"):
        create_folder(other, loaded, text, models={"tiny": base}, seed=DEVICE_SEED, fleet=keys.FLEET)
    assert not other.exists()
