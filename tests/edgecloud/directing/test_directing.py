"""The director as a process: one at a registry, with a key that the fleet names, on the registry that has its name now."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgecloud.audit import tampering
from edgecloud.registry import TrustRow
from edgecloud.rollouts.directing import FIGURE, RolloutDirector
from edgecommon.systemd import Systemd
from modelwire.deploying.plans import RolloutVerb
from modelwire.errors import BadArgument, RetiredKey, StateBusy
from modelwire.wire.keys import KeyKind, write_key
from modelwire.wire.records import encode
from modelwire.wire.signing import PrivateKey, Signer
from tests.edgecloud import rollouts as words
from tests.edgecloud.centre import sign
from tests.edgecloud.desk import Desk
from tests.keys import COMMAND, DIRECTOR, FLEET_ID, ROOT, trust
from tests.notified import NotifySocket

from .desk import BY_STEPS, STRANGER, T0, Rolling

NEXT = PrivateKey(bytes([0x78]) * 32)


@pytest.fixture
def rolling(tmp_path: Path) -> Iterator[Rolling]:
    made = Rolling(tmp_path / "fleet.db")
    yield made
    made.store.close()


def director(rolling: Rolling, key: Signer = DIRECTOR, **options: object) -> RolloutDirector:
    return RolloutDirector(rolling.path, key, clock=lambda: rolling.now, synchronous="OFF", **options)  # type: ignore[arg-type]


def rotate(rolling: Rolling, *, overlap: int) -> None:
    """Let the root key name another director key."""
    said = replace(trust(words.FLEET, number=2, since=T0, overlap=overlap), director=NEXT.public)
    rolling.store.trusts.add(TrustRow(2, encode(said, ROOT, FLEET_ID)))


def test_once_it_does_all_that_is_due_and_ends(rolling: Rolling, caplog: pytest.LogCaptureFixture) -> None:
    rolling.plan(phases=BY_STEPS)
    caplog.set_level(logging.INFO)
    done = director(rolling).run(once=True)
    assert (done.assigned, done.offered) == (2, 2) and rolling.standing == ("running", 0)
    assert "spring: draft > running phase 1: start: anna" in caplog.text and "2 taken in, 2 offered a variant" in caplog.text
    assert not director(rolling).run(once=True)
    assert rolling.store.tallies.measured(FIGURE) == (T0, "looked")


def test_one_director_is_at_a_registry_at_a_time(rolling: Rolling) -> None:
    first = director(rolling, every=0.01)
    thread = threading.Thread(target=first.run)
    thread.start()
    try:
        while not rolling.store.tallies.measured(FIGURE):
            thread.join(0.01)
            assert thread.is_alive()
        with pytest.raises(StateBusy):
            director(rolling).run(once=True)
    finally:
        first.stop()
        thread.join()
    director(rolling).run(once=True)


def test_systemd_hears_that_it_is_ready_what_it_does_and_that_it_ends(rolling: Rolling, tmp_path: Path) -> None:
    notified = NotifySocket(tmp_path / "notify")
    rolling.plan()
    director(rolling, systemd=Systemd(notified.environment)).run(once=True)
    said = notified.words()
    notified.close()
    assert said.count("READY=1") == 1 and said[-1] == "STOPPING=1" and "STATUS=spring running phase 1" in said


def test_what_is_not_heeded_is_said_once(rolling: Rolling, caplog: pytest.LogCaptureFixture) -> None:
    rolling.plan(started=False)
    rolling.decide(RolloutVerb.START, key=STRANGER)
    one = director(rolling)
    for _ in range(3):
        one.run(once=True)
    assert caplog.text.count("decision 1") == 1 and len(one.total.notes) == 1


def test_through_an_overlap_the_key_of_before_is_good_and_afterwards_it_ends(rolling: Rolling) -> None:
    rotate(rolling, overlap=100)
    rolling.plan()
    assert director(rolling).run(once=True).offered == 8
    rolling.now += 101
    with pytest.raises(RetiredKey, match="the director's key"):
        director(rolling).run(once=True)


def test_a_new_key_in_its_file_is_taken_up_by_itself(rolling: Rolling) -> None:
    rolling.plan()
    one = director(rolling, read_key=lambda: NEXT)
    rotate(rolling, overlap=0)
    rolling.now += 1
    assert one.run(once=True).offered == 8
    rolling.key = NEXT
    assert rolling.terms("pi-1")[0].phase == 0, "sealed by the new key"


def test_a_key_that_no_record_ever_named_is_refused(rolling: Rolling) -> None:
    with pytest.raises(BadArgument, match="none of the director keys"):
        director(rolling, STRANGER).run(once=True)


def test_a_registry_that_a_restore_puts_in_the_place_is_the_one_that_is_stepped(rolling: Rolling, tmp_path: Path) -> None:
    one = director(rolling)
    one.run(once=True)
    rolling.plan()
    rolling.store.database.run("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(rolling.path, tmp_path / "copy.db")
    rolling.store.close()
    (tmp_path / "copy.db").rename(rolling.path)
    for side in ("-wal", "-shm"):
        rolling.path.with_name(rolling.path.name + side).unlink(missing_ok=True)
    assert one.run(once=True).offered == 8
    rolling.killed()
    assert rolling.states() == {"offered": 8}


def test_the_command_says_what_it_did_and_refuses_wrong_keys(rolling: Rolling, desk: Desk) -> None:
    rolling.now = 1_000
    rolling.plan()
    rolling.store.close()
    key = desk.folder / "director.key"
    key.write_text(write_key(KeyKind.DIRECTOR_PRIVATE, bytes([0xF4]) * 32))
    key.chmod(0o600)
    db = ("--db", str(rolling.path))
    code, out, err = desk.run("director", "--once", *db)
    assert (code, err) == (0, "") and "8 devices offered a variant" in out and "draft > running" in out
    said = desk.run("director", "--once", "--json", *db)[1]
    assert '"state": "running"' in said and '"offered": 0' in said
    key.chmod(0o644)
    assert "chmod 600" in str(desk.error("director", "--once", *db)["hint"])
    for kind, seed in ((KeyKind.COMMAND_PRIVATE, COMMAND), (KeyKind.DIRECTOR_PRIVATE, STRANGER)):
        key.unlink()
        key.write_text(write_key(kind, bytes([0xF3 if seed is COMMAND else 0x77]) * 32))
        key.chmod(0o600)
        assert desk.error("director", "--once", *db)["error"] in ("WrongKeyKind", "BadArgument")
    assert desk.error("director", "--every", "soon", *db)["error"] == "Usage"
    rolling.killed()


def test_what_a_director_seals_proves_itself_in_the_log(rolling: Rolling) -> None:
    rolling.plan(phases=BY_STEPS)
    rolling.settle()
    rolling.serve()
    rolling.decide(RolloutVerb.ROLL_BACK)
    rolling.settle()
    sign(rolling.store)
    found = [line for line in tampering.look(rolling.store) if "desired" in line or "decision" in line or "plan" in line]
    assert found == [] and rolling.store.database.number("SELECT count(*) FROM desired") > 4
