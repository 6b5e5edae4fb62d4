"""Whoever writes to the registry's file without a key is told of: by verify, by doctor, and by restore, which takes no such copy."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgecloud.audit import carrying, tampering
from edgecloud.audit.signing import require_signed
from edgecloud.registry import TrustRow, open_registry
from modelwire.deploying.plans import RolloutVerb
from modelwire.errors import ModelWireError, RegistryDamaged
from modelwire.wire import cbor
from modelwire.wire.records import encode
from tests.edgecloud import rollouts
from tests.edgecloud.audit import edits
from tests.edgecloud.audit.page_flips import flip
from tests.edgecloud.centre import Centre, admit, revoke
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import Base, ScriptedDevice, key_of
from tests.keys import FLEET_ID, ROOT, trust


@pytest.fixture
def kept(desk: Desk, grown: Centre, device: ScriptedDevice, base: Base) -> Iterator[Path]:
    """A registry with a history, a device that was revoked, and nobody who has it open."""
    path = grown.store.database.path
    admit(grown.store, "pi-8", key_of("pi-8").public, 70)
    revoke(grown.store, "pi-8", 80)
    rollouts.deploy(grown.store, base)
    grown.take(device.presence(True, 1))  # the ingester signs what the operator entered
    grown.store.database.run("PRAGMA wal_checkpoint(TRUNCATE)")
    grown.store.close()
    yield path


def said_of(desk: Desk, *command: str) -> str:
    """Return what a command that must fail says is wrong."""
    code, out, err = desk.run(*command)
    assert code == 56, (command, code, out, err)
    return out + err


def test_a_registry_that_nobody_changed_is_whole(desk: Desk, kept: Path) -> None:
    said = desk.json("verify", "--all")
    assert said["tampered"] == said["wrong"] == [] and said["exact"] == 12
    desk.ok("backup", "copy.db")
    desk.ok("restore", "copy.db", "--db", "again.db")
    assert desk.json("verify", "--db", "again.db")["tampered"] == []


@pytest.mark.parametrize("one", edits.EDITS, ids=lambda one: one.name.replace(" ", "-"))
def test_an_edit_without_a_key_is_named_by_verify_doctor_and_restore(desk: Desk, kept: Path, one: edits.Edit) -> None:
    shutil.copy(kept, desk.folder / "monday.db")
    edits.edit(kept, one)
    assert one.told in said_of(desk, "verify", "--all")
    code, out, _ = desk.run("doctor")
    assert code == 1 and one.told in " ".join(out.split())
    before = kept.read_bytes()
    (desk.folder / "elsewhere").mkdir()
    assert desk.run("restore", str(kept), "--db", "elsewhere/fleet.db")[0] == 56
    assert [p.name for p in (desk.folder / "elsewhere").iterdir() if p.suffix != ".lock"] == [] and kept.read_bytes() == before
    desk.ok("restore", "monday.db", "--force")
    assert desk.json("verify", "--all")["tampered"] == []


def test_better_figures_in_both_places_are_named_as_the_version_is_rebuilt(desk: Desk, kept: Path) -> None:
    said = cbor.encode({"loss_before": 1.0, "loss_after": 0.01})
    row = f"UPDATE version SET extension = x'{said.hex()}' WHERE version = 3"
    edits.edit(kept, edits.Edit("better figures", edits.rows(row, "UPDATE score SET loss_after = 0.01 WHERE version_id = 3"), ""))
    assert "the row of pi-7/digits@3 does not agree with its container" in said_of(desk, "verify", "--all")


OF_KEYS = [e for e in edits.EDITS if "key" in e.name or "revocation" in e.name]


@pytest.mark.parametrize("one", OF_KEYS, ids=lambda e: e.name.replace(" ", "-"))
def test_who_was_not_let_in_by_a_seal_is_not_heard_whatever_the_rows_say(kept: Path, device: ScriptedDevice, one: edits.Edit) -> None:
    edits.edit(kept, one)
    try:
        store = open_registry(kept, synchronous="OFF")
    except ModelWireError:
        return  # the schema is not ours: nothing is taken in at all
    try:
        centre = Centre(store)
        try:  # as an ingester does when it starts
            centre.ingest.catch_up()
            require_signed(store, centre.ingest.admissions, kept)
        except RegistryDamaged:
            return
        for name, who in (("pi-7", "mallory"), ("pi-8", "pi-8")):
            intruder = ScriptedDevice(device.base, name=name)
            intruder.key = key_of(who)
            assert centre.take(intruder.hello()).result.value == "quarantined"
    finally:
        store.close()


def test_a_running_ingester_notices_that_the_log_went_back(grown: Centre, device: ScriptedDevice) -> None:
    path = grown.store.database.path
    edits.edit(path, next(e for e in edits.EDITS if e.name == "the log emptied"))
    with pytest.raises(ModelWireError, match="its log"):
        grown.take(device.hello())


def test_an_ingester_signs_no_entry_that_it_did_not_make(grown: Centre, device: ScriptedDevice) -> None:
    other = open_registry(grown.store.database.path, synchronous="OFF")
    other.log.append("verdict", bytes(32), commit=bytes(32), ok=True, reason="")
    signed = other.log.signed()
    with pytest.raises(ModelWireError, match="was made by no ingester"):
        grown.take(device.hello())
    assert other.log.signed() == signed
    other.close()


def test_the_audit_says_who_did_what_and_can_go_on_from_where_it_was(desk: Desk, kept: Path) -> None:
    all_of_it = desk.json("audit")["entries"]
    assert [e["number"] for e in all_of_it] == list(range(len(all_of_it), 0, -1)), "the newest first"
    assert [e["number"] for e in desk.json("audit", "-n", "2")["entries"]] == [len(all_of_it), len(all_of_it) - 1]
    said = {(e["who"], e["what"]) for e in all_of_it}
    by_ingester = {("the ingester", what) for what in ("epoch", "head", "verdict")}
    deployed = {("the root key", "variant"), ("the operator", "plan"), ("the operator", "decision"), ("the director", "desired")}
    assert said == {("the root key", "trust"), ("the operator", "act")} | by_ingester | deployed
    assert [e["text"].split()[0] for e in desk.json("audit", "--about", "pi-8")["entries"]] == ["revoked", "admitted"]
    lines = [json.loads(line) for line in desk.ok("audit", "--after", "3", "--lines").splitlines()]
    assert [line["number"] for line in lines] == [e["number"] for e in reversed(all_of_it[:-3])], "for a log server, the oldest first"
    assert {line["fleet"] for line in lines} == {"orchard"}


def test_an_anchor_tells_of_a_log_that_was_cut_off_where_the_file_itself_can_not(desk: Desk, kept: Path) -> None:
    shutil.copy(kept, desk.folder / "older.db")
    with_more = open_registry(kept, synchronous="OFF")
    admit(with_more, "pi-9", key_of("pi-9").public, 90)
    with_more.close()
    desk.ok("anchor", "away.anchors")
    assert desk.json("verify", "--anchor", "away.anchors")["tampered"] == []
    for name in ("fleet.db", "fleet.db-wal", "fleet.db-shm"):
        (desk.folder / name).unlink(missing_ok=True)
    shutil.copy(desk.folder / "older.db", kept)
    assert desk.json("verify")["tampered"] == []  # it is whole, and older
    assert "was cut off, or an older copy restored" in said_of(desk, "verify", "--anchor", "away.anchors")
    assert "older copy" in str(desk.error("anchor", "away.anchors")["message"])
    desk.ok("anchor", "away.anchors", "--restored")
    assert desk.json("verify", "--anchor", "away.anchors")["tampered"] == []


SHORT = '{"fleet_id": "00", "at": 1, "number": 1, "link": "", "sealed": [], "restored": false}'


@pytest.mark.parametrize("line", ["", "{}", "[]", "1", '{"number": 1}', "\x00", SHORT])
def test_a_line_that_is_no_anchor_is_named(desk: Desk, kept: Path, line: str) -> None:
    desk.ok("anchor", "away.anchors")
    with (desk.folder / "away.anchors").open("a") as file:
        file.write(line + "\n")
    assert desk.error("verify", "--anchor", "away.anchors")["error"] == "Malformed"


def test_a_revocation_outlives_the_restore_of_an_older_backup(desk: Desk, grown: Centre, device: ScriptedDevice) -> None:
    desk.ok("backup", "monday.db")
    revoke(grown.store, "pi-7", 90)
    admit(grown.store, "pi-9", key_of("pi-9").public, 91)
    desk.ok("anchor", "away.anchors")
    grown.store.close()
    said = desk.json("restore", "monday.db", "--force")
    assert said["carried"] == {"trust": 0, "admitted": ["pi-9"], "revoked": ["pi-7"], "claims": 0}
    _not_heard(desk.folder / "fleet.db", device)
    # The registry is lost with its disk: the anchors, which lie elsewhere, hold what was sealed.
    (desk.folder / "new").mkdir()
    said = desk.json("restore", "monday.db", "--db", "new/fleet.db", "--anchor", "away.anchors")
    assert said["carried"] == {"trust": 0, "admitted": ["pi-9"], "revoked": ["pi-7"], "claims": 0}
    _not_heard(desk.folder / "new" / "fleet.db", device)


def test_a_rollout_that_was_halted_since_the_backup_stays_so(desk: Desk, grown: Centre, base: Base, device: ScriptedDevice) -> None:
    store = grown.store
    first = rollouts.deploy(store, base)
    desk.ok("backup", "monday.db")
    later = rollouts.deploy(store, base, rollout=b"l" * 16, name="later")  # it brings variant 2
    for number, verb in ((2, RolloutVerb.PAUSE), (3, RolloutVerb.RESUME), (4, RolloutVerb.HALT)):
        store.rollouts.decide(first.id, number, rollouts.decision(verb, number), 9)
    desk.ok("anchor", "away.anchors")
    store.close()
    said = desk.json("restore", "monday.db", "--force")
    assert said["rollouts"] == 4 and "later rollouts were not" in desk.ok("restore", "monday.db", "--force")
    (desk.folder / "new").mkdir()
    assert desk.json("restore", "monday.db", "--db", "new/fleet.db", "--anchor", "away.anchors")["rollouts"] == 4
    for name in ("fleet.db", "new/fleet.db"):
        held = open_registry(desk.folder / name, readonly=True)
        assert [d.number for d in held.rollouts.decisions(first.id)] == [1, 2, 3, 4] and len(held.rollouts.variants()) == 2
        assert [row.name for row in held.rollouts.all()] == ["spring"] and later.name not in str(held.rollouts.all())
        assert tampering.look(held) == []
        held.close()


def test_decisions_by_a_key_that_is_good_no_more_only_hold_a_rollout_up(desk: Desk, grown: Centre, base: Base) -> None:
    store = grown.store
    first = rollouts.deploy(store, base)
    desk.ok("backup", "monday.db")
    for number, verb in ((2, RolloutVerb.PAUSE), (3, RolloutVerb.RESUME), (4, RolloutVerb.HALT)):
        store.rollouts.decide(first.id, number, rollouts.decision(verb, number), 9)
    newer = replace(trust("orchard", number=2, since=1, overlap=0), command=key_of("another command key").public)
    store.trusts.add(TrustRow(2, encode(newer, ROOT, FLEET_ID)))
    after = [row.entry for row in store.log.after(0)]
    store.close()
    copy = open_registry(desk.folder / "monday.db", synchronous="OFF")
    carrying.carry(copy, [], after, None, 100)
    assert [d.number for d in copy.rollouts.decisions(first.id)] == [1, 2, 4] and tampering.look(copy) == []
    copy.close()


def test_a_revocation_by_a_key_that_was_changed_since_outlives_a_restore_and_an_admission_by_it_does_not(
    desk: Desk, device: ScriptedDevice, grown: Centre
) -> None:
    store = grown.store
    desk.ok("backup", "monday.db")
    revoke(store, "pi-7", 90)
    admit(store, "pi-9", key_of("pi-9").public, 91)
    newer = replace(trust("orchard", number=2, since=1, overlap=0), command=key_of("another command key").public)
    store.trusts.add(TrustRow(2, encode(newer, ROOT, FLEET_ID)))
    assert tampering.look(store) == []
    after = [row.entry for row in store.log.after(0)]
    store.close()
    copy = open_registry(desk.folder / "monday.db", synchronous="OFF")
    # The trust record first, as a file of anchors in any order may have it: then only what takes rights away still counts.
    said = carrying.carry(copy, [], sorted(after, key=lambda entry: b"trust" not in entry), None, 100)
    assert (said.trusts, said.revoked, said.admitted) == (1, ("pi-7",), ())
    assert tampering.look(copy) == []
    copy.close()


def test_what_nobody_sealed_does_not_come_along_with_a_restore(desk: Desk, grown: Centre) -> None:
    desk.ok("backup", "monday.db")
    desk.ok("anchor", "away.anchors")
    one = json.loads((desk.folder / "away.anchors").read_text())
    forged = []
    for row in grown.store.log.after(0):
        for at in range(0, len(row.entry), 7):
            forged.append((row.entry[:at] + bytes([row.entry[at] ^ 1]) + row.entry[at + 1 :]).hex())
    one["sealed"] = forged
    (desk.folder / "away.anchors").write_text(json.dumps(one) + "\n")
    grown.store.close()
    said = desk.json("restore", "monday.db", "--force", "--anchor", "away.anchors")
    assert said["carried"] == {"trust": 0, "admitted": [], "revoked": [], "claims": 0}
    assert desk.json("verify")["tampered"] == []


def _not_heard(path: Path, device: ScriptedDevice) -> None:
    store = open_registry(path, synchronous="OFF")
    try:
        centre = Centre(store)
        assert centre.take(device.hello()).result.value == "quarantined"
        assert store.devices.owner(key_of("pi-9").public) == "pi-9"
    finally:
        store.close()


def test_flips_in_the_pages_of_a_registry_give_no_traceback_and_no_false_exact(desk: Desk, kept: Path) -> None:
    def verify(copy: Path) -> tuple[int, str]:
        code, out, err = desk.run("verify", "--all", "--db", str(copy))
        return code, out + err

    found = flip(kept.read_bytes(), desk.folder / "flipped.db", verify, count=210, seed=11)
    assert (found.tried, found.tracebacks, found.false_exact) == (210, 0, 0)
    assert found.named > 60  # the others hit free room, or times and notes


def test_a_full_disk_adds_no_half_of_an_anchor(desk: Desk, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.ok("anchor", "away.anchors")
    before, plain, left = (desk.folder / "away.anchors").read_bytes(), os.write, [40]

    def full(descriptor: int, data: memoryview) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count, left[0] = plain(descriptor, data[: left[0]]), 0
        return count

    with monkeypatch.context() as disk:
        disk.setattr("edgecloud.audit.anchors.os.write", full)
        said = desk.error("anchor", "away.anchors")
    assert "away.anchors: No space left on device" in str(said["message"]) and "no line was added" in str(said["hint"])
    assert (desk.folder / "away.anchors").read_bytes() == before
    desk.ok("anchor", "away.anchors")
    assert desk.json("verify", "--anchor", "away.anchors")["tampered"] == []
