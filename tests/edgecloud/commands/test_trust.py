"""`edgecloud trust`: the old root signs the new keys, all of it or nothing, and what does not follow changes nothing."""

from __future__ import annotations

import os
import signal
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from edgecloud import keys
from edgecloud.commands.trust import rotating, trust
from edgecloud.registry import open_registry
from modelwire.errors import ModelWireError
from modelwire.wire import records
from modelwire.wire.keys import KeyKind, fingerprint, read_fleet, write_key
from modelwire.wire.records import Trust, expect
from modelwire.wire.signing import Fleet, PrivateKey, Role
from modelwire.wire.trust import Trusted
from tests.edgecloud.desk import Desk

DAY = 24 * 3600


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.ok("init", "--fleet", "orchard")
    return desk


def rows(desk: Desk) -> list[bytes]:
    store = open_registry(desk.folder / "fleet.db")
    try:
        return [row.record for row in store.trusts.all()]
    finally:
        store.close()


def held(desk: Desk) -> Trusted:
    store = open_registry(desk.folder / "fleet.db")
    try:
        return keys.trusted(store.identity, [row.record for row in store.trusts.all()])
    finally:
        store.close()


def newest(desk: Desk) -> Trust:
    found = held(desk).newest
    assert found is not None
    return found


def public(desk: Desk, name: str) -> bytes:
    return keys.read_key_file(desk.folder / name).public


def contents(desk: Desk) -> dict[str, bytes]:
    """Return all files but the registry's own, and the registry's records."""
    files = {p.name: p.read_bytes() for p in desk.folder.iterdir() if p.is_file() and not p.name.startswith("fleet.db")}
    return {**files, "records": b"|".join(rows(desk))}


@pytest.mark.parametrize("word", ["receipt", "command", "director"])
def test_a_new_key_is_named_by_a_record_that_the_root_signs_and_the_old_one_is_kept(desk: Desk, word: str) -> None:
    before, was = newest(desk), public(desk, f"{word}.key")
    said = desk.json("trust", "rotate", word, "--overlap", "7d")
    now = newest(desk)
    assert (said["number"], said["changed"], now.number, now.overlap, now.until) == (2, [word], 2, 7 * DAY, 0)
    for other in rotating.WORDS:
        assert (getattr(now, other) == getattr(before, other)) is (other != word)
    assert getattr(now, word) == public(desk, f"{word}.key") != was == public(desk, f"{word}.key.before-2")
    for name in (f"{word}.key", f"{word}.key.before-2"):
        assert stat.S_IMODE((desk.folder / name).stat().st_mode) == 0o600
    shown = {Path(str(f["file"])).name: f["state"] for f in desk.json("trust", "show")["keys"]}  # type: ignore[attr-defined]
    assert shown[f"{word}.key"] == "speaks" and str(shown[f"{word}.key.before-2"]).startswith("is good until")


def test_a_new_root_is_signed_by_the_old_one_and_signs_a_record_of_its_own(desk: Desk) -> None:
    old, first = public(desk, "root.key"), read_fleet((desk.folder / "fleet.pub").read_text(), "fleet.pub")
    desk.ok("trust", "rotate", "root", "command")
    second, third = (records.parse(row) for row in rows(desk)[1:])
    second.verify(old, first.id, "the old root", Role.ROOT)
    third.verify(public(desk, "root.key"), first.id, "the new root", Role.ROOT)
    assert newest(desk).command == public(desk, "command.key") != expect(second, Trust).command, "the overlap begins with the last record"
    now = read_fleet((desk.folder / "fleet.pub").read_text(), "fleet.pub")
    assert now == Fleet(public(desk, "root.key"), first.id)
    assert rotating.chain(first, rows(desk)).number == rotating.chain(now, rows(desk)).number == 3, "an old board and one set up today"
    desk.ok("trust", "rotate", "receipt", "--end-overlap")
    assert newest(desk).number == 4 and held(desk).root == public(desk, "root.key")


def test_a_stolen_key_is_good_no_more_at_once(desk: Desk) -> None:
    stolen = public(desk, "command.key")
    desk.ok("trust", "rotate", "command", "--now")
    now = newest(desk)
    assert now.overlap == 0
    for time in (1, now.at - 1, now.at):  # of the last welcome that a device has heard: it may be as old as it likes
        assert stolen not in held(desk).keys(Role.COMMAND, time) and now.command in held(desk).keys(Role.COMMAND, time)
    desk.ok("trust", "rotate", "command", "--now")
    desk.ok("trust", "rotate", "receipt", "--overlap", "0s")
    assert newest(desk).number == 4


def test_an_overlap_that_runs_is_not_ended_unawares(desk: Desk) -> None:
    desk.ok("trust", "rotate", "receipt")
    before = contents(desk)
    said = desk.error("trust", "rotate", "command")
    assert said["error"] == "BadArgument" and "--end-overlap" in str(said["hint"]) and contents(desk) == before
    desk.ok("trust", "rotate", "command", "--end-overlap")
    assert newest(desk).number == 3


def test_a_command_is_sealed_with_the_newest_key_alone(desk: Desk) -> None:
    desk.ok("trust", "rotate", "command")
    device = ("devices", "add", "pi-7", "edge-device-pub:" + "d7" * 32)
    said = desk.error(*device, "--key", "command.key.before-2")
    assert said["error"] == "BadArgument" and "trust record 2" in str(said["message"])
    desk.ok(*device)


def test_a_record_is_made_where_the_root_key_is_and_taken_where_the_registry_is(desk: Desk, tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    vault.mkdir()
    (desk.folder / "root.key").rename(vault / "root.key")
    said = desk.error("trust", "rotate", "receipt")
    assert "--root-key" in str(said["hint"]) and "trust import" in str(said["hint"])
    desk.ok("trust", "show", "--out", "vault/records")
    (vault / "fleet.pub").write_bytes((desk.folder / "fleet.pub").read_bytes())
    made = desk.json(
        "trust", "rotate", "receipt", "command", "--db", "vault/none.db", "--records", "vault/records", "--out", "vault/next"
    )
    assert made["number"] == 2 and newest(desk).number == 1
    waits = sorted(p.name for p in vault.iterdir())
    assert waits == ["command.key.next-2", "fleet.pub", "next", "receipt.key.next-2", "records", "root.key"]
    for name in ("receipt.key.next-2", "command.key.next-2"):
        (vault / name).rename(desk.folder / name)
    taken = desk.json("trust", "import", "vault/next")
    assert (taken["number"], taken["taken"]) == (2, 1)
    now = newest(desk)
    assert (now.receipt, now.command) == (public(desk, "receipt.key"), public(desk, "command.key"))
    before = contents(desk)
    assert desk.json("trust", "import", "vault/next")["taken"] == 0 and contents(desk) == before


def test_a_record_that_was_made_beside_the_registry_is_taken_later(desk: Desk) -> None:
    desk.ok("trust", "rotate", "root", "receipt", "--out", "next")
    assert newest(desk).number == 1 and (desk.folder / "receipt.key.next-3").exists()
    said = desk.error("trust", "rotate", "command")
    assert "receipt.key.next-3" in str(said["message"]) or "root.key.next-3" in str(said["message"])
    desk.ok("trust", "import", "next")
    assert newest(desk).number == 3 and newest(desk).receipt == public(desk, "receipt.key") and held(desk).root == public(desk, "root.key")


def forged(desk: Desk, how: str) -> bytes:
    """Return a record that the registry must not take."""
    root, fleet = keys.load_key(desk.folder / "root.key", KeyKind.ROOT_PRIVATE), held(desk).fleet
    thief = PrivateKey(b"\x13" * 32)
    record = replace(newest(desk), number=newest(desk).number + 1, command=thief.public)
    if how == "retired root":
        root = keys.load_key(desk.folder / "root.key.before-3", KeyKind.ROOT_PRIVATE)
    if how == "stranger":
        root = thief
    if how == "command key":
        root = keys.load_key(desk.folder / "command.key", KeyKind.COMMAND_PRIVATE)
    if how == "foreign fleet":
        return records.encode(record, root, bytes(16))
    if how == "namesake":
        return records.encode(replace(record, fleet="abroad"), root, fleet.id)
    if how == "same number":
        record = replace(record, number=newest(desk).number)
    if how == "ends before":
        record = replace(record, until=record.since)
    if how == "older":
        return rows(desk)[1]
    return records.encode(record, root, fleet.id)


@pytest.mark.parametrize(
    "how", ["retired root", "stranger", "command key", "foreign fleet", "namesake", "same number", "ends before", "older", "cut", "flipped"]
)
def test_a_record_that_does_not_follow_is_refused_and_changes_nothing(desk: Desk, how: str) -> None:
    desk.ok("trust", "rotate", "root")
    data = forged(desk, how)
    if how == "cut":
        data = data[:-1]
    if how == "flipped":
        data = data[:60] + bytes([data[60] ^ 1]) + data[61:]
    (desk.folder / "next").write_bytes(rotating.write_records([data]))
    before = contents(desk)
    said = desk.error("trust", "import", "next")
    assert said["error"] in ("BadSignature", "WrongFleet", "Malformed") and contents(desk) == before


@pytest.mark.parametrize("text", ["", "rubbish", "edge-trust:", "edge-trust:zz", "edge-trust:AB", "edge-trust:00", "\xff\x00"])
def test_a_file_that_holds_no_record_is_refused(desk: Desk, text: str) -> None:
    (desk.folder / "next").write_text(text, encoding="latin-1")
    before = contents(desk)
    assert desk.error("trust", "import", "next")["error"] == "Malformed"
    assert contents(desk) == {**before}
    assert desk.error("trust", "import", "none")["error"] == "BadArgument"


def test_every_byte_of_a_record_that_is_flipped_is_refused(desk: Desk) -> None:
    desk.ok("trust", "rotate", "command", "--out", "next")
    (data,) = rotating.read_records(desk.folder / "next")
    now = held(desk)
    for at in range(len(data)):
        with pytest.raises(ModelWireError) as refused:
            rotating.news(now, [data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]])
        assert type(refused.value).__name__ in (
            "Malformed", "BadSignature", "WrongFleet", "WrongRole", "UnsupportedWire", "TooLarge", "NotUnderstood",
        ), (at, refused.value)  # fmt: skip


def test_a_root_key_that_is_not_the_fleets_makes_nothing(desk: Desk) -> None:
    (desk.folder / "other.key").write_text(write_key(KeyKind.ROOT_PRIVATE, b"\x13" * 32))
    (desk.folder / "other.key").chmod(0o600)
    before = contents(desk)
    said = desk.error("trust", "rotate", "receipt", "--root-key", "other.key")
    assert "root keys that the fleet's trust record 1 names" in str(said["message"]) and contents(desk) == before
    assert desk.error("trust", "rotate", "receipt", "--root-key", "command.key")["error"] == "WrongKeyKind"
    assert contents(desk) == before


def test_a_clock_that_stands_before_the_last_record_makes_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(desk)
    monkeypatch.setattr(trust, "now", lambda: 1000)
    assert "clock" in str(desk.error("trust", "rotate", "receipt")["message"]) and contents(desk) == before


def test_a_key_that_is_kept_elsewhere_is_named_by_its_public_key(desk: Desk) -> None:
    mine, yours = (PrivateKey(bytes([n]) * 32).public for n in (5, 6))
    for wrong in (write_key(KeyKind.DEVICE, mine), write_key(KeyKind.RECEIPT, mine), "edge-command-pub:12", "none.pub"):
        assert desk.error("trust", "rotate", "command", "--public", wrong)["error"] in ("WrongKeyKind", "Malformed")
    (desk.folder / "yours.pub").write_text(write_key(KeyKind.COMMAND, yours) + "\n")
    desk.ok("trust", "rotate", "command", "--public", write_key(KeyKind.COMMAND, mine), "--public", "yours.pub")
    assert newest(desk).command == mine + yours and not (desk.folder / "command.key.before-2").exists()
    shown = {Path(str(f["file"])).name: f["state"] for f in desk.json("trust", "show")["keys"]}  # type: ignore[attr-defined]
    assert str(shown["command.key"]).startswith("is good until")
    same = write_key(KeyKind.COMMAND, newest(desk).receipt)
    assert "this is the receipt key" in str(desk.error("trust", "rotate", "command", "--now", "--public", same)["message"])
    many = [w for n in range(10, 15) for w in ("--public", write_key(KeyKind.COMMAND, bytes([n]) * 32))]
    assert "at most 4" in str(desk.error("trust", "rotate", "command", "--now", *many)["message"])


def test_no_file_that_is_there_is_written_over(desk: Desk) -> None:
    before = contents(desk)
    assert desk.error("trust", "show", "--out", "root.key")["error"] == "BadArgument" and contents(desk) == before
    desk.error("trust", "rotate", "receipt", "--out", "root.key")
    assert contents(desk)["root.key"] == before["root.key"] and newest(desk).number == 1


def test_show_lists_fingerprints_and_says_of_files_that_are_open_that_it_cannot_tell(desk: Desk) -> None:
    desk.ok("trust", "rotate", "receipt")
    (desk.folder / "director.key").chmod(0o644)
    said = desk.json("trust", "show")
    now = newest(desk)
    assert said["records"][1]["receipt"] == [fingerprint(now.receipt)] and said["records"][1]["new"] == ["receipt"]  # type: ignore[index]
    shown = {Path(str(f["file"])).name: f for f in said["keys"]}  # type: ignore[attr-defined]
    assert shown["director.key"]["state"] == "no private key, or open to others" and shown["director.key"]["public"] is None
    text = desk.ok("trust", "show")
    assert fingerprint(now.receipt) in text and "open to others" in text
    for name in ("root.key", "receipt.key"):
        assert keys.load_key(desk.folder / name, keys.SECRET[name])._seed.hex() not in text + str(said)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_key_that_root_changes_still_belongs_to_the_service_that_reads_it(desk: Desk) -> None:
    os.chown(desk.folder / "receipt.key", 4711, 4712)
    (desk.folder / "word").write_text("x")
    (desk.folder / "word").chmod(0o600)
    for words in (("trust", "rotate", "receipt"), ("keys", "protect", "receipt.key", "--passphrase-file", "word")):
        desk.ok(*words)
        found = (desk.folder / "receipt.key").stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (4711, 4712, 0o600)


STEPS = ("replace", "link", "fsync", "unlink", "rename")


def killed_at(desk: Desk, step: int, *words: str) -> bool:
    """Run a command in a child that is killed at its n-th touch of the disk; return whether it was."""
    child = os.fork()
    if child == 0:
        left = step
        for name in STEPS:
            def hit(*args: object, _given: object = getattr(os, name), **named: object) -> object:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return _given(*args, **named)  # type: ignore[operator]

            setattr(os, name, hit)
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        from edgecloud import cli

        os._exit(cli.main(list(words)))
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.slow("kills a rotation at each touch of the disk", seconds=20)
@pytest.mark.parametrize("words", [("receipt", "command"), ("root",)])
def test_a_rotation_that_is_killed_anywhere_is_finished_by_the_same_command(desk: Desk, words: tuple[str, ...]) -> None:
    kills = 0
    while True:
        before = newest(desk)
        old = {word: public(desk, f"{word}.key") for word in rotating.WORDS}
        killed = killed_at(desk, kills, "trust", "rotate", *words, "--now")
        here = {p.public for p in rotating.found(rotating.KeyPlace(desk.folder, desk.folder / "root.key")) if isinstance(p, keys.KeyFile)}
        assert set(old.values()) <= here, "no key that spoke is lost"
        assert all((desk.folder / f"{word}.key").exists() for word in rotating.WORDS)
        assert {getattr(newest(desk), word) for word in rotating.WORDS} <= here, "what is named is here"
        if not killed:
            break
        desk.ok("trust", "show")
        if newest(desk).number == before.number or any(p.match("*.next-*") for p in desk.folder.iterdir()):
            desk.ok("trust", "rotate", *words, "--now")
        now = newest(desk)
        assert now.number == before.number + 1 + ("root" in words), "one change, not two"
        assert all(getattr(now, word) == public(desk, f"{word}.key") for word in rotating.WORDS)
        assert [p for p in desk.folder.iterdir() if p.match("*.next-*")] == []
        fleet = read_fleet((desk.folder / "fleet.pub").read_text(), "fleet.pub")
        if "root" in words and fleet.root != now.root:  # cut off between the key's file and fleet.pub
            desk.ok("trust", "rotate", *words, "--now")
            assert newest(desk) == now
            fleet = read_fleet((desk.folder / "fleet.pub").read_text(), "fleet.pub")
        assert fleet.root == now.root
        kills += 1
    assert kills > 8
