"""Corners in which an agent once stopped, fell silent or looked at the wrong thing; each test's name says what holds now."""

from __future__ import annotations

import errno
import io
import os
import socket
import sqlite3
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeagent import cli, device, files, fitting, rounds
from edgeagent.agent import Goal
from edgeagent.commands.train import finish
from edgeagent.database import Database
from edgeagent.link import MqttLink
from edgeagent.outcome import Outcome, merged, metrics
from edgeagent.rounds import Report
from edgeagent.settings import Link
from edgeagent.store import ModelStore
from edgeagent.transport import Connected, Lost, Will
from modelwire import cbor, container, limits, topics
from modelwire.errors import ConfigError, ModelWireError, OutboxFull, StateDamaged, TooLarge
from modelwire.records import Command, Level, Receipt, Welcome
from modelwire.snap import Snapped, snap

from .boards import TINY, Rig, ScriptedModel, centre, fill, make, make_with, rig, scripted
from .centre import FakeClock


def one(r: Rig) -> Report:
    return finish(rounds.run(r.lineage, r.device.spool, r.device.settings.model("tiny"), scripted, now=r.centre.clock.wall))


def smaller(monkeypatch: pytest.MonkeyPatch, most: int, *, of: int | None = None) -> None:
    """Let `seal` refuse what takes more than `most` bytes, as it does above 64 MiB; only kind `of` when given."""
    plain = container.seal

    def seal(header: container.Header, *args: object, **more: object) -> bytes:
        body = plain(header, *args, **more)  # type: ignore[arg-type]
        if len(body) > most and of in (None, int(header.kind)):
            raise TooLarge(what="the container", size=len(body), limit=most)
        return body

    monkeypatch.setattr(container, "seal", seal)


# Sizes.


def test_the_list_of_clamped_tensors_is_paid_for_from_the_budget_however_long_it_is(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = tuple(range(1000, 1200))
    plain = snap
    seen: list[object] = []

    def clamps(*args: object, **more: object) -> Snapped:
        seen.append(more["overhead"])
        return replace(plain(*args, **more), clamped=many)  # type: ignore[arg-type]

    monkeypatch.setattr(fitting, "snap", clamps)
    with rig(tmp_path / "d", centre(clock), update__density="1", update__max_bytes="1100B") as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        report = one(r)
    assert report.accepted, report.reason
    assert report.bytes <= 1100 and report.kind == "delta"
    extension = len(cbor.encode(metrics(report.outcome, many)))
    assert seen[-1] == len("pi-7") + len("tiny") + extension, "exactly what the container carries beside the sections"


def test_lists_in_an_extension_stay_within_what_a_reader_takes() -> None:
    every = list(range(limits.DEFAULT.tensors))
    for extension in (metrics(Outcome(1, None, None, 9, 9, 0, 0), every), merged([{"clamped": list(every)}, {"clamped": [1]}], [1, 2])):
        data = cbor.encode(extension)
        assert len(data) <= limits.DEFAULT.extension and cbor.decode(data) == extension


def test_a_round_whose_update_no_container_holds_is_rejected_by_name_and_the_next_one_is_a_delta_again(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        r.device.database.run("UPDATE model SET widen='[0]'")
        smaller(monkeypatch, 300, of=0)
        before = r.lineage.head()
        report = one(r)
        assert not report.accepted and "the container is" in report.reason and isinstance(report.error, TooLarge)
        assert r.lineage.head().commit == before.commit and r.lineage.head().widen == ()
        assert one(r).kind == "delta"


def test_updates_whose_sum_no_container_holds_stay_apart_and_the_agent_goes_on(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, update__coalesce_after="2", update__max_bytes="600B") as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        sizes = [one(r).bytes for _ in range(4)]
        smaller(monkeypatch, max(sizes))
        c.cut()
        r.serve(10)
        assert set(r.states().values()) == {"queued"}, "the sum is larger than each of them"
        with pytest.raises(OutboxFull):
            rounds.check_due(r.lineage, r.device.spool, r.device.settings.model("tiny"), 700)
        c.mend()
        r.serve(60)
        assert set(r.states().values()) == {"verified"}


def test_a_snapshot_that_no_container_holds_is_an_answer_and_a_state_never_a_loop(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        smaller(monkeypatch, 300, of=0)
        c.commands.append(Command("home", "pi-7", "tiny", 0, 7, "snapshot"))
        r.serve(5)
        assert [(a.id, a.ok) for a in c.answers] == [(7, False)] and "the container is" in c.answers[0].text
        c.refuse = lambda h: "no"
        one(r)
        r.serve(20)
        assert r.states() == {1: "verified", 2: "refused"}
        assert "the container is" in r.lineage.head().blocked
        sent = len(c.updates())
        r.serve(600)
        assert len(c.updates()) == sent, "what was refused is not sent for ever"


# What the centre says, or seems to say.


def test_numbers_that_no_header_holds_are_refused_with_the_welcome(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        base = r.lineage.base_commit
        c.drop_down = lambda record: isinstance(record, Welcome) and record.epoch == 1 and record.version == 0
        for epoch, version in ((1 << 32, 0), (1, (1 << 63) - 1)):
            w = Welcome("home", "pi-7", "tiny", 0, r.device.state, "ok", epoch, version, base, 0, 0)
            c.after(1, lambda w=w: c.push(w))  # type: ignore[misc]
        r.serve(5)
        assert (r.lineage.head().epoch, r.lineage.head().last_version) == (0, 0)
        c.drop_down = lambda record: False
        r.agent.stopping = ""
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        assert r.states() == {1: "verified"}


def test_old_welcomes_that_come_again_in_a_row_do_not_make_the_device_start_over(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        old = [w for w in c.down if isinstance(w, Welcome)][-1]
        assert old.head_version == 0
        one(r)
        r.serve(30)
        assert r.states() == {1: "verified", 2: "verified"}
        for _ in range(4):  # their acknowledgements were lost with the connection, so the broker delivers them again
            c.after(1, lambda: c.push(old))
        r.serve(60)
        assert r.states() == {1: "verified", 2: "verified"} and r.lineage.head().version == 2


def test_receipts_that_are_no_news_do_not_put_off_what_waits_for_one(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        old = [x for x in c.down if isinstance(x, Receipt)][-1]
        one(r)
        lose = [True]
        c.drop_up = lambda leaf, said: leaf == "update" and lose.pop() if lose else False
        for at in range(1, 60):
            c.after(4 * at, lambda: c.push(old, "receipt"))
        r.serve(120)
        assert r.states()[2] == "verified"


def test_a_refusal_that_is_repeated_later_changes_nothing(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        c.refuse = lambda h: "no" if h.version == 2 else ""
        one(r)
        r.serve(60)
        refusal = next(x for x in c.down if isinstance(x, Receipt) and x.level is Level.REFUSED)
        before = r.states()
        assert before == {1: "verified", 2: "refused", 3: "verified"}
        for at in range(1, 20):
            c.after(at, lambda: c.push(refusal, "receipt"))
        r.serve(60)
        assert r.states() == before


class Deaf:
    """A broker that lets everybody in, answers each ping, and never says that it took a message."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        while packet := connection.recv(4096):
            if packet[0] == 0x10:
                connection.sendall(b"\x20\x02\x00\x00")
            elif packet[0] == 0x82:
                connection.sendall(b"\x90\x03" + packet[2:4] + b"\x01")
            elif packet[0] == 0xC0:
                connection.sendall(b"\xd0\x00")

    def close(self) -> None:
        self._listener.close()


def test_a_link_over_which_the_broker_takes_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeagent.link.STALLED", 0.2)  # times keepalive
    broker = Deaf()
    link = MqttLink(Link(broker=broker.url, protocol="3.1.1", keepalive=5, reconnect_min=0.05), tmp_path, "pi-7")
    link.open(Will(topics.up("home", "pi-7", "m", "state"), b""), topics.all_down("home", "pi-7"))
    try:
        until = time.monotonic() + 150
        seen: list[object] = []
        while time.monotonic() < until and not any(isinstance(e, Lost) for e in seen):
            event = link.poll(0.2)
            seen += [event] if event else []
            if isinstance(event, Connected):
                link.send("e1/home/pi-7/m/up/hello", b"x")
        lost = [e for e in seen if isinstance(e, Lost)]
        assert lost and "has taken none" in lost[0].reason
    finally:
        link.close()
        broker.close()


# The disk.


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


def test_an_init_that_was_killed_between_two_renames_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

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


def test_a_full_disk_in_the_middle_of_a_round_leaves_nothing_behind_and_names_the_file(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        before, plain = r.lineage.head(), os.write

        def write(handle: int, data: bytes) -> int:
            if len(data) > 100:
                plain(handle, bytes(data)[:100])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return plain(handle, data)

        monkeypatch.setattr(os, "write", write)
        with pytest.raises(OSError) as e:
            one(r)
        assert e.value.filename and e.value.filename.endswith("model.tflite")
        monkeypatch.undo()
        assert r.lineage.head() == before
        assert list((tmp_path / "d").rglob(f"*{files.TEMPORARY}")) == [], "the half that was written takes room that is missing"
        one(r)
        assert r.lineage.head().version == before.version + 1


def test_a_lock_is_held_on_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with files.locked(tmp_path / "lock"):  # a start sweeps files away, and so makes room
        assert files.holder(tmp_path / "lock") is None


def test_a_full_disk_is_not_called_a_damaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = Database.create(tmp_path / "x.db", "CREATE TABLE t (a);", 1)
    monkeypatch.setattr("edgeagent.database._free", lambda path: 4096)
    with pytest.raises(ConfigError, match="disk is full") as e, db._naming():
        raise sqlite3.OperationalError("disk I/O error")
    assert not isinstance(e.value, StateDamaged)
    monkeypatch.undo()
    with pytest.raises(StateDamaged), db._naming():
        raise sqlite3.OperationalError("disk I/O error")
    db.close()


# The order of things.


def test_a_model_that_is_always_due_does_not_keep_the_others_from_training(tmp_path: Path, clock: FakeClock) -> None:
    make_with(tmp_path / "d", {"train.every": "0s"}, {"one": TINY, "two": TINY})
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device, model="one")
        fill(r.device, model="two", seed=1)
        trained: list[str] = []

        class Told(list[Report]):
            def append(self, report: Report) -> None:
                trained.append(report.model)
                if len(trained) == 6:
                    r.agent.stop("enough")

        r.agent.reports = Told()
        r.run(Goal(timeout=600))
    assert trained == ["one", "two"] * 3


def test_samples_that_go_between_two_looks_cost_a_round_not_the_agent(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock), train__every="1s") as r:
        fill(r.device)
        split = r.device.spool.split
        gone = [True]

        def first_empty(model: str, held_out: float, *, until: int) -> object:
            return split(model, held_out, until=0 if gone and gone.pop() else until)

        object.__setattr__(r.device.spool, "split", first_empty)
        r.run(Goal(rounds=1, timeout=60))
        assert r.lineage.head().rounds == 1


@pytest.mark.slow("lives through more rounds than a service remembers")
def test_a_long_service_remembers_only_its_last_rounds(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeagent.agent.REPORTS", 3)
    with rig(tmp_path / "d", centre(clock), train__every="1s") as r:
        fill(r.device)
        r.serve(20)
        assert r.lineage.head().rounds > 5 and len(r.agent.reports) == 3
        assert r.agent.reports[-1].round == r.lineage.head().rounds


# The command line.


def test_status_of_a_round_from_a_model_without_a_score(tmp_path: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    def sick(file: bytes, name: str) -> ScriptedModel:
        asked: list[bool] = []

        def answer(x: np.ndarray, weights: object) -> np.ndarray:  # type: ignore[type-arg]
            asked.append(True)
            return np.full((len(x), 3), np.nan if len(asked) == 1 else 1 / 3, np.float32)

        return ScriptedModel(file, answer=answer)

    with rig(tmp_path / "d", centre(clock), sick) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        assert r.lineage.head().version == 1
    assert cli.main(["status", "--dir", str(tmp_path / "d")]) == 0
    assert "held-out loss none ->" in capsys.readouterr().out


@pytest.mark.parametrize(
    "value",
    [
        "spool.max_samples=1" + "0" * 30,
        "spool.max_bytes=99999999999GiB",
        f"spool.max_bytes={'9' * 400}GiB",
        f"train.every={'9' * 400}d",
    ],
)
def test_a_setting_beyond_all_measure_is_an_error_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str) -> None:
    make(tmp_path / "d")
    assert cli.main(["config", "show", "--dir", str(tmp_path / "d"), "--set", value]) == ConfigError.code
    assert value.partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("line", ["[train]\nmargin", "[link]\nresend", "[spool]\nmax_samples", "[train]\nmin_samples"])
def test_an_endless_number_in_the_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    file = tmp_path / "edgeagent.toml"
    file.write_text(f'[device]\nname="a"\nfleet="b"\n[[model]]\nname="m"\n{line}=1{"0" * 400}\n')
    assert cli.main(["config", "check", str(file)]) == ConfigError.code


def test_a_count_or_a_host_beyond_all_measure_is_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "d")
    assert cli.main(["log", "-n", "9" * 20, "--dir", str(tmp_path / "d")]) == 0
    host = "link.broker=mqtt://" + "a" * 70 + ".example"
    assert cli.main(["doctor", "--dir", str(tmp_path / "d"), "--set", host]) == 1
    assert "FIX  broker" in capsys.readouterr().out


def test_samples_of_a_model_that_is_not_there_are_an_error_not_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "d")
    assert cli.main(["samples", "list", "nosuch", "--dir", str(tmp_path / "d")]) == ConfigError.code
    assert "it has tiny" in capsys.readouterr().err


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
