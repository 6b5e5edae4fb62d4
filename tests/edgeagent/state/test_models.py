"""Models that come and go on a board that is set up: all or nothing of each, whenever it is killed, and nothing else moves."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeagent.samples import given
from edgeagent.samples.spool import Spool
from edgeagent.service.goal import Goal
from edgeagent.settings import editing, reading
from edgeagent.settings.reading import Loaded
from edgeagent.state.folder import LOCK, open_folder
from edgeagent.state.models import Edit, add_model, known_models, remove_model
from edgecommon import files
from edgecommon.sqlite import Database
from modelwire.errors import BadArgument, ConfigError, NotTrainable, StateBusy, WouldBeLost
from modelwire.tflite.file import read_weights
from modelwire.update.manifest import manifest_of
from modelwire.wire.records import Hello, Level
from tests.edgeagent.boards import TINY, centre, fill, make, rig
from tests.edgeagent.centre import Centre, FakeClock
from tests.worlds import MODELS

MIXED = (MODELS / "mixed.tflite").read_bytes()
KILLED = -signal.SIGKILL


def settings(folder: Path) -> Loaded:
    return reading.load(folder / reading.FILE, environment={}, flags={})


def added(folder: Path, name: str = "b", base: bytes = TINY) -> int:
    loaded = settings(folder)
    text = before = loaded.path.read_text()
    if name not in [m.name for m in loaded.settings.models]:
        text = editing.with_model(text, name, None)
    return add_model(loaded, Edit(before, text), name, base, exact=False, resume=False)


def removed(folder: Path, name: str = "b", *, drop_unsent: bool = False, drop_samples: bool = False) -> None:
    loaded = settings(folder)
    named = name in [m.name for m in loaded.settings.models]
    before = loaded.path.read_text()
    text = editing.without_model(before, name) if named else before
    remove_model(loaded, Edit(before, text), name, drop_unsent=drop_unsent, drop_samples=drop_samples)


def names(folder: Path) -> list[str]:
    with open_folder(settings(folder), alone=True) as device:
        return list(device.lineages)


def of_both() -> Centre:
    made = centre(FakeClock())
    manifest = manifest_of(MIXED)
    made.bases[manifest.commit] = (manifest, manifest.schema.flat(read_weights(MIXED)))
    return made


def test_a_second_model_is_welcomed_and_trains_beside_the_first(tmp_path: Path) -> None:
    held = of_both()
    with rig(tmp_path / "d", held) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=600))
        before = r.device.lineages["tiny"].head()
    assert added(tmp_path / "d") == 0
    with rig(tmp_path / "d", held) as r:
        assert list(r.device.lineages) == ["tiny", "b"] and r.device.lineages["tiny"].head() == before
        fill(r.device, model="b")
        r.run(Goal(rounds=2, timeout=600))
        assert [held.held("pi-7", m)[2].level for m in ("tiny", "b")] == [Level.VERIFIED] * 2


def test_a_removed_model_that_comes_again_gets_an_epoch_of_its_own_and_numbers_that_were_never_used(tmp_path: Path) -> None:
    held = of_both()
    with rig(tmp_path / "d", held):
        pass
    added(tmp_path / "d")
    with rig(tmp_path / "d", held) as r:
        fill(r.device)
        fill(r.device, model="b")
        r.run(Goal(rounds=2, timeout=600))
        tiny = r.device.lineages["tiny"].head()
    removed(tmp_path / "d", drop_samples=True)
    with rig(tmp_path / "d", held) as r:
        assert list(r.device.lineages) == ["tiny"] and r.device.lineages["tiny"].head() == tiny
        assert r.device.spool.database.one("SELECT count(*) FROM sample WHERE model='b'")[0] == 0
        r.run(Goal(publish=True, timeout=60))
    assert added(tmp_path / "d") == 0
    with rig(tmp_path / "d", held) as r:
        fill(r.device, model="b", seed=3)
        r.run(Goal(rounds=3, timeout=600))
        head = r.device.lineages["b"].head()
        assert (head.epoch, head.version, head.rounds) == (2, 5, 3)
        assert r.device.lineages["tiny"].head().epoch == 1
        assert {n: v.level for n, v in held.held("pi-7", "b").items()} == dict.fromkeys([3, 4, 5], Level.VERIFIED), "of this epoch"
        states = {said.model: said.state for _, said in held.up if isinstance(said, Hello)}
        assert states["tiny"] == r.device.state != states["b"]


def test_nothing_that_is_nowhere_else_goes_unasked(tmp_path: Path) -> None:
    with rig(tmp_path / "d", of_both()):
        pass
    with pytest.raises(BadArgument, match="only model"):
        removed(tmp_path / "d", "tiny", drop_unsent=True, drop_samples=True)
    added(tmp_path / "d")
    with rig(tmp_path / "d", of_both()) as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device, model="b")
        r.device.lineages["b"].snapshot(0, note="kept")
    text = (tmp_path / "d" / reading.FILE).read_bytes()
    with pytest.raises(WouldBeLost, match="@1 of b, which the centre has not verified"):
        removed(tmp_path / "d")
    with pytest.raises(WouldBeLost, match="the 40 samples of b"):
        removed(tmp_path / "d", drop_unsent=True)
    assert names(tmp_path / "d") == ["tiny", "b"] and (tmp_path / "d" / reading.FILE).read_bytes() == text
    removed(tmp_path / "d", drop_unsent=True, drop_samples=True)
    assert names(tmp_path / "d") == ["tiny"] and not (tmp_path / "d" / "state" / "models" / "b").exists()
    with pytest.raises(BadArgument, match="there is no model 'b'"):
        removed(tmp_path / "d")


def test_what_can_t_be_added_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path / "d")
    before = (tmp_path / "d" / reading.FILE).read_bytes()
    with pytest.raises(BadArgument, match="tiny is a model of this device already"):
        added(tmp_path / "d", "tiny")
    with pytest.raises(NotTrainable):
        added(tmp_path / "d", "b", (MODELS / "tiny_shared.tflite").read_bytes())
    with files.locked(tmp_path / "d" / "state" / LOCK), pytest.raises(StateBusy):
        added(tmp_path / "d")
    assert (tmp_path / "d" / reading.FILE).read_bytes() == before and names(tmp_path / "d") == ["tiny"]
    assert [p.name for p in (tmp_path / "d" / "state" / "models").iterdir()] == ["tiny"]


def test_a_model_that_only_one_side_knows_is_brought_in_line(tmp_path: Path) -> None:
    """Its owner took the lines out, or wrote them, by hand."""
    make(tmp_path / "d")
    path = tmp_path / "d" / reading.FILE
    alone = path.read_text()
    both = editing.with_model(alone, "b", None)
    path.write_text(both)
    with pytest.raises(ConfigError, match="there is no model 'b'") as caught:
        names(tmp_path / "d")
    assert "edgeagent model add b=FILE" in caught.value.hint
    added(tmp_path / "d")
    assert path.read_text() == both and names(tmp_path / "d") == ["tiny", "b"]
    with Spool(tmp_path / "d") as spool:
        spool.extend("b", [[0.0] * 4], [0])
    path.write_text(alone)
    assert [(m.name, m.in_settings, m.samples) for m in known_models(settings(tmp_path / "d"))] == [("tiny", True, 0), ("b", False, 1)]
    with pytest.raises(BadArgument, match="on another base"):
        added(tmp_path / "d", "b", MIXED)
    added(tmp_path / "d")
    with Spool(tmp_path / "d") as spool:
        assert spool.count("b") == 1, "the same model, with what it had"
    path.write_text(alone)
    removed(tmp_path / "d", drop_samples=True)
    assert [m.name for m in known_models(settings(tmp_path / "d"))] == ["tiny"] and path.read_text() == alone


def test_the_settings_keep_their_mode_and_the_link_that_leads_to_them(tmp_path: Path) -> None:
    make(tmp_path / "d")
    path, real = tmp_path / "d" / reading.FILE, tmp_path / "elsewhere.toml"
    path.rename(real)
    real.chmod(0o640)
    path.symlink_to(real)
    added(tmp_path / "d")
    assert path.is_symlink() and real.stat().st_mode & 0o777 == 0o640 and '"b"' in real.read_text()
    assert names(tmp_path / "d") == ["tiny", "b"]


def test_settings_that_change_in_between_keep_what_was_written(tmp_path: Path) -> None:
    make(tmp_path / "d")
    loaded = settings(tmp_path / "d")
    before = loaded.path.read_text()
    edit = Edit(before, editing.with_model(before, "b", None))
    loaded.path.write_text(before + "# somebody was here\n")
    with pytest.raises(BadArgument, match="changed by somebody else meanwhile"):
        add_model(loaded, edit, "b", TINY, exact=False, resume=False)
    assert loaded.path.read_text().endswith("# somebody was here\n") and names(tmp_path / "d") == ["tiny"]
    assert [m.name for m in known_models(loaded)] == ["tiny"]


def test_who_appends_while_a_model_is_removed_is_told_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "d")
    added(tmp_path / "d")
    looked = given.floats_of

    def removed_meanwhile(*args: Any) -> Any:
        monkeypatch.setattr(given, "floats_of", looked)
        removed(tmp_path / "d")
        return looked(*args)

    monkeypatch.setattr(given, "floats_of", removed_meanwhile)
    with Spool(tmp_path / "d") as spool:
        with pytest.raises(ConfigError, match="there is no model 'b'"):
            spool.append("b", [0.0] * 4, 1)
        assert spool.append("tiny", [0.0] * 4, 1) == 1


def killed_at(step: int, work: Callable[[], object]) -> int:
    """Do the work in a process that kills itself at its Nth look at a file or statement; return how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    taken = 0

    def one(event: str = "open", *_: object) -> None:
        nonlocal taken
        if event == "open" or event.startswith(("os.", "shutil.")):
            taken += 1
            if taken == step:
                os.kill(os.getpid(), signal.SIGKILL)

    run = Database.run

    def counted(self: Database, sql: str, *values: object) -> int:
        one()
        changed = run(self, sql, *values)
        one()
        return changed

    Database.run = counted  # type: ignore[method-assign]
    sys.addaudithook(one)
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


@pytest.mark.slow("is killed at each of its steps", seconds=8)
@pytest.mark.one_environment("what a kill leaves in folders and SQLite; the tests beside it add and remove models in both")
@pytest.mark.parametrize("verb", ["add", "remove"])
def test_a_kill_at_any_step_leaves_a_folder_that_opens_and_the_command_goes_on(tmp_path: Path, verb: str) -> None:
    step, ended = 0, KILLED
    while ended == KILLED:
        step += 1
        folder = tmp_path / str(step)
        make(folder)
        if verb == "remove":
            added(folder)
            with Spool(folder) as spool:
                spool.extend("b", [[0.0] * 4] * 9, [0] * 9)
        ended = killed_at(step, lambda folder=folder: added(folder) if verb == "add" else removed(folder, drop_samples=True))
        assert ended in (KILLED, 0), step
        there = names(folder)  # it opens
        assert there in (["tiny"], ["tiny", "b"])
        if verb == "add" and "b" not in there:
            added(folder)
        if verb == "remove" and "b" in [m.name for m in known_models(settings(folder))]:
            removed(folder, drop_samples=True)
        assert names(folder) == (["tiny", "b"] if verb == "add" else ["tiny"])
        assert [m.name for m in known_models(settings(folder))] == names(folder)
        with Spool(folder) as spool:
            assert len(spool.database.all("SELECT name FROM model")) == len(names(folder))
            assert spool.database.one("SELECT count(*) FROM sample")[0] == 0
    assert step > 20, "it was killed in its work, and not before it"
