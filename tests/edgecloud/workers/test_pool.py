"""Rebuilding in worker processes: the same verdicts in the same order, and whatever ends or holds up a worker is named and set aside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgecloud.intake.rebuilding import Judged, Rebuilder
from edgecloud.registry import SqliteStore
from edgecloud.workers import pool as pools
from edgecloud.workers.pool import WorkerBounds, WorkerPool
from modelwire.wire.records import Level
from tests.edgecloud.centre import Centre, damage, make_registry, sign
from tests.edgecloud.device import Base, ScriptedDevice

pytestmark = pytest.mark.slow("starts worker processes")
PATIENCE = 120.0  # seconds: a safety limit


@pytest.fixture
def pool(store: SqliteStore) -> Iterator[WorkerPool]:
    made = WorkerPool(store.database.path, 2)
    yield made
    made.close()


def rebuilt(centre: Centre, pool: WorkerPool, count: int | None = None) -> list[Judged]:
    """Return what came of all that waits, or of so many versions, rebuilt by the pool."""
    rebuilder, out, end = Rebuilder(centre.store, bounds=centre.bounds, sign=sign, pool=pool), list[Judged](), time.monotonic() + PATIENCE
    while (judged := rebuilder.run(centre.now, stopping=lambda: time.monotonic() > end)) and len(out) != count:
        out += judged
    for one in out:
        centre.replies += one.replies
    return out


def fleet(centre: Centre, base: Base, count: int) -> list[ScriptedDevice]:
    return [centre.meet(ScriptedDevice(base, name=f"pi-{n}")) for n in range(count)]


def waits_for_a_sign(folder: Path, body: str) -> str:
    """Return the path of a program that stands for Python: a worker of it does as `body` says when it is to build pi-0@2."""
    program = folder / "python"
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, sys, time\n"
        "from edgecloud.workers import worker\n"
        "from edgecloud.workers.building import Builder\n"
        "build = Builder.build\n"
        "def odd(self, lineage, version):\n"
        "    if (lineage.device, version.version) == ('pi-0', 2):\n"
        f"        {body}\n"
        "    return build(self, lineage, version)\n"
        "Builder.build = odd\n"
        "worker.main(sys.argv[3:])\n"
    )
    program.chmod(0o755)
    return str(program)


def test_workers_prove_what_this_thread_proves_in_the_order_of_each_lineage(store: SqliteStore, base: Base, pool: WorkerPool) -> None:
    centre = Centre(store)
    devices = fleet(centre, base, 5)
    for _ in range(30):
        for device in devices:
            centre.deliver(device, device.train())
    centre.deliver(devices[0], devices[0].snapshot(), devices[0].train())
    centre.said()
    judged = rebuilt(centre, pool)
    assert all(one.ok for one in judged)
    assert len(judged) == 152
    for device in devices:
        assert set(centre.statuses(device).values()) == {"verified"}
        names = [one.name for one in judged if one.name.startswith(f"{device.name}/")]
        assert names == [f"{device.name}/digits@{n + 1}" for n in range(len(names))]
    assert [level for _, level in centre.receipts()] == [Level.VERIFIED] * 152


def test_a_lie_is_refused_with_all_that_was_built_on_it(store: SqliteStore, base: Base, pool: WorkerPool) -> None:
    centre = Centre(store)
    liar, other = fleet(centre, base, 2)
    centre.deliver(liar, liar.train(), liar.train(root=bytes(32)), *(liar.train() for _ in range(5)))
    centre.deliver(other, *(other.train() for _ in range(5)))
    rebuilt(centre, pool)
    assert centre.statuses(liar) == {1: "verified", 2: "refused", **dict.fromkeys(range(3, 8), "refused")}
    assert set(centre.statuses(other).values()) == {"verified"}
    assert centre.head(liar) == 1
    first = store.versions.numbered(1, 1)
    assert first is not None
    centre.deliver(liar, liar.snapshot(first.commit))
    rebuilt(centre, pool)
    assert centre.statuses(liar)[8] == "verified"


def test_a_damaged_registry_is_not_the_devices_fault_and_others_go_on(store: SqliteStore, base: Base, pool: WorkerPool) -> None:
    centre = Centre(store)
    one, other = fleet(centre, base, 2)
    centre.deliver(one, one.train(), one.train())
    centre.deliver(other, other.train())
    lineage = store.lineages.get("pi-0", "digits")
    assert lineage is not None
    row = store.versions.numbered(lineage.id, 1)
    assert row is not None
    damage(store, "DELETE FROM blob WHERE sha256 = ?", row.blob)
    rebuilt(centre, pool)
    assert centre.statuses(one) == {1: "stored", 2: "stored"}
    assert centre.statuses(other) == {1: "verified"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("os.kill(os.getpid(), 9)", "SIGKILL"),
        ("os.abort()", "SIGABRT"),
        ("os._exit(3)", "code 3"),
        ("time.sleep(1000)", "longer than 2 s"),
        ("hog = [bytes(1 << 20) + b'1' for _ in range(1 << 14)]", "MemoryError"),
    ],
)
def test_what_ends_or_holds_up_a_worker_is_named_and_set_aside_and_others_go_on(
    store: SqliteStore, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, body: str, said: str
) -> None:
    centre = Centre(store)
    devices = fleet(centre, base, 4)
    for _ in range(3):
        for device in devices:
            centre.deliver(device, device.train())
    monkeypatch.setattr(sys, "executable", waits_for_a_sign(tmp_path, body))
    pool = WorkerPool(store.database.path, 2, WorkerBounds(seconds=2.0 if "sleep" in body else 600.0, memory=1 << 30))
    try:
        rebuilt(centre, pool)
    finally:
        pool.close()
    assert centre.statuses(devices[0]) == {1: "verified", 2: "stored", 3: "stored"}
    for device in devices[1:]:
        assert set(centre.statuses(device).values()) == {"verified"}
    assert any("pi-0/digits@2 met a fault" in r.getMessage() and said in r.getMessage() for r in caplog.records)


def test_a_worker_that_is_killed_once_costs_nothing_but_its_work(store: SqliteStore, base: Base, pool: WorkerPool) -> None:
    centre = Centre(store)
    devices = fleet(centre, base, 4)
    for _ in range(40):
        for device in devices:
            centre.deliver(device, device.train())
    rebuilder, done, end, killed = Rebuilder(store, sign=sign, pool=pool), 0, time.monotonic() + PATIENCE, 0
    while judged := rebuilder.run(1, limit=8, stopping=lambda: time.monotonic() > end):
        done += len(judged)
        for pid in pool.pids[: max(0, 3 - killed)]:
            os.kill(pid, signal.SIGKILL)
            killed += 1
    assert done == 160
    assert killed >= 3
    for device in devices:
        assert set(centre.statuses(device).values()) == {"verified"}


def test_workers_end_with_their_parent_whatever_they_do(tmp_path: Path, base: Base) -> None:
    store = make_registry(tmp_path / "fleet.db", base)
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base, name="pi-0"))
    centre.deliver(device, device.train(), device.train())
    store.close()
    stand_in = waits_for_a_sign(tmp_path, "time.sleep(1000)")
    parent = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from edgecloud.workers.pool import WorkerPool\n"
        f"sys.executable = {stand_in!r}\n"
        f"pool = WorkerPool(Path({str(tmp_path / 'fleet.db')!r}), 1)\n"
        "pool.give(1, 1); pool.give(2, 1)\n"
        "got = []\n"
        "while not got: got = pool.take(1.0)\n"
        "print(*pool.pids, flush=True)\n"
        "time.sleep(1000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    end = time.monotonic() + PATIENCE
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert not is_alive(pid)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_that_does_not_start_is_tried_again_and_said(
    store: SqliteStore, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.train())
    monkeypatch.setattr(pools, "REST", (0.05, 0.1))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    pool = WorkerPool(store.database.path, 1)
    looks: list[int] = []

    def stopping() -> bool:
        looks.append(1)
        if len(looks) > 3:
            monkeypatch.undo()
        return False

    try:
        judged = Rebuilder(store, sign=sign, pool=pool).run(1, stopping=stopping)
    finally:
        pool.close()
    assert [one.ok for one in judged] == [True]
    assert any("can't be started" in r.getMessage() for r in caplog.records)


@pytest.mark.parametrize("said", [b"\xff", b"\x81\x84\x01\x62no\x60\x00", b"\x81\x84\x18\x63\x62ok\x60\x00", b"\x01" * 50])
def test_a_worker_that_says_what_none_says_is_ended(
    store: SqliteStore, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.train())
    body = f"os.write(1, {len(said).to_bytes(4, 'big') + said!r}); time.sleep(1000)"
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\nimport os, time\n"
        "os.write(1, b'\\0\\0\\0\\1\\x80')\n"
        f"os.read(0, 1000)\n{body}\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    pool = WorkerPool(store.database.path, 1)
    seen: list[Any] = []
    try:
        pool.give(1, 1)
        end = time.monotonic() + PATIENCE
        while not seen and time.monotonic() < end:
            seen += pool.take(1.0)
    finally:
        pool.close()
    assert [(one.id, one.word) for one in seen] == [(1, "fault")]
