"""Files and database together: what is served is what the head says, after any damage that a kill can do."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from edgeagent.commands.train import finish
from edgeagent.rounds import round as rounds
from edgeagent.service.goal import Goal
from edgeagent.settings import reading
from edgeagent.state.folder import LOCK, open_folder
from edgeagent.state.slots import ModelStore, pack, unpack
from edgecommon import files
from modelwire.errors import Malformed, StateBusy, StateDamaged
from modelwire.lattice.snap import no_residual
from modelwire.tflite.file import read_weights
from modelwire.update.manifest import manifest_of
from tests.edgeagent.boards import TINY, centre, fill, rig, standing
from tests.edgeagent.centre import FakeClock
from tests.edgeagent.invariants import check_invariants


def trained(folder: Path, count: int) -> None:
    with rig(folder, centre(FakeClock())) as r:
        fill(r.device)
        r.run(Goal(rounds=count, timeout=60))


def digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def test_the_served_file_is_the_heads_and_its_weights_have_the_heads_root(tmp_path: Path) -> None:
    with rig(tmp_path / "d", centre(FakeClock())) as r:
        fill(r.device)
        for n in range(1, 4):
            r.run(Goal(rounds=n, timeout=60))
            head = r.lineage.head()
            assert digest(r.lineage.store.served) == head.file_sha256
            assert os.readlink(r.lineage.store.served) == f"{head.slot}/model.tflite"
            assert head.slot == "ab"[n % 2], "slots take turns"
            schema = r.lineage.manifest.schema
            flat = schema.flat(read_weights(r.lineage.store.served.read_bytes()))
            assert [a.tobytes() for a in flat] == [a.tobytes() for a in r.lineage.load().state.weights]


def test_history_keeps_the_last_files_under_their_versions(tmp_path: Path) -> None:
    with rig(tmp_path / "d", centre(FakeClock()), store__history="3") as r:
        fill(r.device)
        r.run(Goal(rounds=5, timeout=60))
        past = r.lineage.store.folder / "history"
        assert sorted(p.name for p in past.iterdir()) == ["3.tflite", "4.tflite", "5.tflite"]
        for row in r.lineage.versions(3):
            assert digest(past / f"{row['version']}.tflite") == row["file_sha256"]


def test_a_reader_of_the_served_file_never_sees_a_mixture(tmp_path: Path) -> None:
    with rig(tmp_path / "d", centre(FakeClock())) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        reader = r.lineage.store.served.open("rb")
        first = r.lineage.head().file_sha256
        r.run(Goal(rounds=4, timeout=60))
        assert hashlib.sha256(reader.read()).digest() == first, "an open file stays what it was, though its slot was written again"
        reader.close()


def test_what_a_kill_left_is_swept_away_at_the_next_start(tmp_path: Path) -> None:
    trained(tmp_path / "d", 2)
    model = tmp_path / "d" / "state" / "models" / "tiny"
    idle = "b" if os.readlink(model / "served.tflite").startswith("a") else "a"
    (model / idle / "model.tflite").write_bytes(b"half of a new")
    (model / idle / "private.part").write_bytes(b"h")
    (model / "served.tflite.part").symlink_to("nowhere")
    (model / "history" / "9.tflite.part").write_bytes(b"h")
    os.unlink(model / "served.tflite")
    os.unlink(model / "history" / "2.tflite")
    with rig(tmp_path / "d", centre(FakeClock())) as r:
        expected = ("history/9.tflite.part", f"{idle}/model.tflite", f"{idle}/private", f"{idle}/private.part")
        assert sorted(r.device.swept) == sorted(f"tiny/{name}" for name in expected)
        assert not os.path.lexists(model / "served.tflite.part")
        assert digest(r.lineage.store.served) == r.lineage.head().file_sha256
        assert digest(model / "history" / "2.tflite") == r.lineage.head().file_sha256
        assert r.lineage.load().state.root == r.lineage.versions(1)[0]["root"]


def test_a_round_that_was_killed_before_its_commit_never_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    c = centre(FakeClock())
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        before = r.lineage.head()

        def die(*_: object, **__: object) -> int:
            raise Killed

        monkeypatch.setattr(type(r.lineage), "adopt", die)
        with pytest.raises(Killed):
            finish(rounds.run(standing(r.device)))
        monkeypatch.undo()
        assert r.lineage.head() == before
    with rig(tmp_path / "d", c) as r:
        assert r.lineage.head() == before and len(r.device.swept) == 2
        r.run(Goal(rounds=2, timeout=60))
        assert r.lineage.head().version == 2


@pytest.mark.parametrize("part", ["model.tflite", "private"])
def test_a_damaged_slot_is_named_and_nothing_is_served_from_it_again(tmp_path: Path, part: str) -> None:
    trained(tmp_path / "d", 1)
    model = tmp_path / "d" / "state" / "models" / "tiny"
    path = model / "b" / part
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StateDamaged, match=part), rig(tmp_path / "d", centre(FakeClock())):
        pass


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    trained(tmp_path / "d", 1)
    path = tmp_path / "d" / "state" / "edgeagent.db"
    path.write_bytes(b"not a database at all" * 100)
    for old in path.parent.glob("edgeagent.db-*"):
        old.unlink()
    with pytest.raises(StateDamaged, match=r"edgeagent\.db"), rig(tmp_path / "d", centre(FakeClock())):
        pass


def test_two_agents_never_share_a_state_folder(tmp_path: Path) -> None:
    with rig(tmp_path / "d", centre(FakeClock())):
        loaded = reading.load(tmp_path / "d" / "edgeagent.toml", environment={}, flags={})
        with pytest.raises(StateBusy), open_folder(loaded, alone=True):
            pass
        assert files.holder(loaded.state / LOCK) == os.getpid()
        with open_folder(loaded, alone=False) as reader:
            assert reader.lineages["tiny"].head().version == 0
    assert files.holder(loaded.state / LOCK) is None
    with open_folder(loaded, alone=True):
        pass


def test_the_private_part_reads_back_and_any_other_length_is_refused() -> None:
    manifest = manifest_of(TINY)
    residual = no_residual(manifest)
    for i, r in enumerate(residual):
        r[:] = range(i, i + len(r))
    data = pack(manifest.exponents, residual)
    exponents, again, _ = unpack(data, manifest)
    assert tuple(exponents) == manifest.exponents
    assert [r.tobytes() for r in again] == [r.tobytes() for r in residual]
    for bad in (data[:-1], data + b"\0", b"\0" + data[1:], b""):
        with pytest.raises(Malformed):
            unpack(bad, manifest)


def test_the_lineage_is_one_unbroken_chain(tmp_path: Path) -> None:
    with rig(tmp_path / "d", centre(FakeClock())) as r:
        fill(r.device)
        r.run(Goal(rounds=6, timeout=60))
        check_invariants(r)


def test_the_served_file_leads_somewhere_at_every_moment_of_a_start(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        idle = "a" if r.lineage.head().slot == "b" else "b"
    model = tmp_path / "d" / "state" / "models" / "tiny"
    (model / "served.tflite").unlink()
    (model / "served.tflite").symlink_to(f"{idle}/model.tflite")  # killed after the commit, before the link
    swept = ModelStore.tidy

    def tidy(self: ModelStore, active: str) -> list[str]:
        gone = swept(self, active)
        assert self.served.exists(), "killed now, the application would find nothing"
        return gone

    monkeypatch.setattr(ModelStore, "tidy", tidy)
    with rig(tmp_path / "d", c):
        pass
