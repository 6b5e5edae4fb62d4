"""A kill, or a power cut, at any write of a switch: the model is served whole from one place, and the head is before or after it.

The steps are counted in a run that is let through. Then each piece is begun on a fresh copy once for each of them and ended there; what is
left is opened as the next start does, and the piece done again comes to what it comes to undisturbed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import pytest

from edgeagent.deploying import places, switching
from edgeagent.settings import reading
from edgeagent.state.beside.rows import Lies
from edgeagent.state.folder import open_folder
from edgeagent.state.lineage import Lineage
from modelwire.update.manifest import manifest_of
from tests.edgeagent.boards import TINY, Rig, centre, rig
from tests.edgeagent.centre import FakeClock
from tests.edgeagent.deploying.bases import FAR, NEAR, gone_back, know, soaked, staged, train, variant_of, ways
from tests.edgeagent.deploying.whole import check_whole
from tests.simulator.crashes import Crash, Steps
from tests.simulator.vfs import Disk, DiskSteps, power_vfs

Piece = Callable[[Lineage], None]
FETCHED = "fetched"


def fetched(lineage: Lineage) -> Path:
    return lineage.store.folder.parents[1] / FETCHED


def stage(lineage: Lineage) -> None:
    places.stage(lineage, variant_of(FAR), fetched(lineage), number=2, now=10)


def soak(lineage: Lineage) -> None:
    if lineage.beside.soaking() is None:
        best = ways(lineage)[0]
        switching.soak(lineage, best.state, best.residual, best.word, now=11)


def revert(lineage: Lineage) -> None:
    switching.revert(lineage, "worse")


def confirm(lineage: Lineage) -> None:
    if lineage.beside.soaking() is not None:
        switching.confirm(lineage, 12)


def back(lineage: Lineage) -> None:
    if lineage.base_commit != manifest_of(TINY).commit:
        if lineage.beside.soaking() is None:
            gone_back(lineage, TINY)
        switching.confirm(lineage, 13)


def prepared(folder: Path, piece: str) -> None:
    """Make a board that is about to do a piece: trained and, for some, on its way to another base; a way back lies there for most."""
    c = centre(FakeClock())
    know(c, NEAR, FAR)
    with rig(folder, c, store__history="2") as r:
        train(r, 2)
        if piece in ("back", "stage", "confirm"):
            soaked(r.lineage, NEAR)
            switching.confirm(r.lineage, 5)
            train(r, 1)
        if piece == "stage":
            fetched(r.lineage).write_bytes(FAR)
        elif piece in ("soak",):
            staged(r.lineage, FAR, 2)
        elif piece in ("revert", "confirm"):
            soaked(r.lineage, FAR, 2)


PIECES: dict[str, Piece] = {"stage": stage, "soak": soak, "revert": revert, "confirm": confirm, "back": back}


@contextmanager
def opened(folder: Path) -> Iterator[Lineage]:
    loaded = reading.load(folder / reading.FILE, environment={}, flags={})
    with open_folder(loaded, alone=True) as device:
        yield device.lineages["tiny"]


def looked_at(folder: Path) -> tuple[object, ...]:
    """Open what was left, see that it is whole, and return what there is: of the head, of what is served, and of what lies beside."""
    with rig(folder, centre(FakeClock())) as r:
        check_whole(r, fresh=True)
        return said(r)


def said(r: Rig) -> tuple[object, ...]:
    lineage, head = r.lineage, r.lineage.head()
    beside = [(p.lies, p.commit, p.place, p.learned, p.file_sha256, p.private_sha256) for p in lineage.beside.all()]
    served = hashlib.sha256(lineage.store.served.read_bytes()).hexdigest()
    waiting = [(w.version, w.kind, w.commit, w.parent) for w in lineage.outbox.waiting()]
    return (head.version, head.commit, head.file_sha256, head.private_sha256, lineage.base_commit, served, waiting, beside)


def head_of(look: tuple[object, ...]) -> tuple[object, ...]:
    return look[:5]


def copied(source: Path, target: Path) -> Path:
    """Copy a board's files as they lie there; the shared memory of SQLite is nobody's after a kill."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("*-shm"))
    return target


@pytest.mark.slow("is killed at each of its writes", seconds=30)
@pytest.mark.one_environment("what a kill leaves in files and SQLite; the model is a scripted one, and others train it in both")
@pytest.mark.parametrize("name", PIECES)
def test_a_kill_at_any_write_leaves_one_of_two_states(tmp_path: Path, name: str) -> None:
    piece, start, living, left = PIECES[name], tmp_path / "start", tmp_path / "living", tmp_path / "left"
    prepared(start, name)
    before = looked_at(start)
    steps = Steps()
    with steps.installed():
        copied(start, living)
        with opened(living) as lineage, steps.counted():
            piece(lineage)
        names = list(steps.names)
        after = looked_at(living)
        assert len(names) > 5 and "COMMIT" in names and (head_of(before) != head_of(after)) is (name in ("confirm", "back"))
        for step in range(1, len(names) + 1):
            for torn in (False, True) if names[step - 1] == "os.write" else (False,):
                copied(start, living)
                with pytest.raises(Crash), opened(living) as lineage, steps.crash_at(step, lambda: copied(living, left), torn=torn):
                    piece(lineage)
                which = f"step {step} of {len(names)}, {names[step - 1]}"
                assert (left / "state/models/tiny/served.tflite").is_file(), f"{which}: killed there, the application finds nothing"
                found = looked_at(left)
                assert head_of(found) in (head_of(before), head_of(after)), which
                assert found in (before, after) or name in ("stage", "back"), which
                with opened(left) as lineage:
                    piece(lineage)
                assert looked_at(left) == after, f"{which}, then done"


@pytest.mark.slow("the power is cut at each of its writes", seconds=30)
@pytest.mark.one_environment("what a power cut leaves in files and SQLite; the model is a scripted one, and others train it in both")
@pytest.mark.parametrize("name", PIECES)
def test_a_power_cut_at_any_write_leaves_one_of_two_states(tmp_path: Path, name: str) -> None:
    piece, start = PIECES[name], tmp_path / "start"
    prepared(start, name)
    before, after, step, rng = looked_at(start), None, 0, Random(7)
    while after is None:
        step += 1
        living = copied(start, tmp_path / str(step))
        ended = False
        steps = DiskSteps(power_vfs(), Disk(living))
        with power_vfs().watching(living, step), steps.installed(), ExitStack() as held:
            lineage = held.enter_context(opened(living))
            try:
                with steps.crash_at(step, power=True):
                    piece(lineage)
            except Crash:
                ended = True
            try:
                held.close()
            except Exception:  # noqa: BLE001 - whoever is without power closes nothing in peace
                assert ended
            steps.ended(living, rng)
        if not ended:
            after = looked_at(living)
            break
        found = looked_at(living)
        with opened(living) as lineage:
            if name == "stage" and not fetched(lineage).exists() and lineage.beside.under_way() is None:
                fetched(lineage).write_bytes(FAR)  # it was never flushed there: whoever fetched it does it again
            piece(lineage)
        done = looked_at(living)
        shutil.rmtree(living)
        if step == 1:
            first = done
        assert done == first, f"cut at step {step}, then done"
        assert head_of(found) in (head_of(before), head_of(first)), f"cut at step {step}"
    assert step > 10 and after == first


def test_a_base_that_was_swept_of_what_nothing_names(tmp_path: Path) -> None:
    """What lies under the model's folder and is in no row goes at the next start, and what rows name stays."""
    prepared(tmp_path / "d", "confirm")
    model = tmp_path / "d" / "state" / "models" / "tiny"
    (model / "bases" / "0123456789ab" / "a").mkdir(parents=True)
    (model / "bases" / "0123456789ab" / "a" / "model.tflite").write_bytes(b"x")
    (model / "bases" / "0123456789ab" / "base.tflite").symlink_to("nowhere")
    with rig(tmp_path / "d", centre(FakeClock())) as r:
        check_whole(r, fresh=True)
        assert {"tiny/bases/0123456789ab/a/model.tflite", "tiny/bases/0123456789ab/base.tflite"} <= set(r.device.swept)
        assert [p.lies for p in r.lineage.beside.all()] == [Lies.SOAKING, Lies.PASSIVE]
