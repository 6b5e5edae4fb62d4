"""Attacks on rows, anchors, backups, key files, ssh-agents, claims and the operator's screen, from the centre's desk."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from edgecloud import cli, keys
from edgecloud.audit import entries, tampering
from edgecloud.audit.admissions import Admissions
from edgecloud.commands import ssh_agent
from edgecloud.intake.decision import Result
from edgecloud.registry import WitnessRow, claims, encrypted, open_registry
from edgecloud.registry.claims import Statement, Withdrawal
from edgecloud.registry.lock import share_registry
from edgecloud.registry.sqlite.models import SqliteVersions
from edgecloud.registry.sqlite.trusts import SqliteDevices
from modelwire.errors import ModelWireError, RegistryDamaged
from modelwire.wire import topics
from modelwire.wire.claims import prove, read_token, write_token
from modelwire.wire.keys import KeyKind, write_fleet
from modelwire.wire.records import Act, Enrol, Hello, encode
from modelwire.wire.signing import Fleet, PrivateKey, Role
from tests.edgecloud import conftest as fixtures
from tests.edgecloud.audit.edits import rows
from tests.edgecloud.centre import Centre, admit, ask, damage, revoke
from tests.edgecloud.desk import LINE, Desk
from tests.edgecloud.device import FLEET, ScriptedDevice, key_of
from tests.keys import COMMAND, FLEET_ID, ROOT

base, store, centre, device = fixtures.base, fixtures.store, fixtures.centre, fixtures.device
grown, desk = fixtures.grown, fixtures.desk
SEEDS = {keys.ROOT: 0xF1, keys.RECEIPT: 0xF2, keys.COMMAND: 0xF3, keys.DIRECTOR: 0xF4}
TOKEN = read_token(write_token(b"\x0c" * 16, b"\xc1" * 32), "the token")


@pytest.fixture
def keyed(desk: Desk) -> Desk:
    """A desk whose registry has the keys of the tests beside it."""
    for name, number in SEEDS.items():
        path = desk.folder / name
        path.write_text(keys.key_text(keys.SECRET[name], bytes([number]) * 32))
        path.chmod(0o600)
    return desk


def closed(centre: Centre) -> Path:
    """Return a registry that nobody has open, all in its own file."""
    path = centre.store.database.path
    centre.store.database.run("PRAGMA wal_checkpoint(TRUNCATE)")
    centre.store.close()
    return path


# Rows.

EDITS = {
    "another name for the fleet": ("UPDATE registry SET fleet = 'plum'", "the fleet's name is plum"),
    "a head that refers to an older version": ("UPDATE head SET version_id = 2", "refers to another version"),
    "a head that refers to nothing": ("UPDATE head SET version_id = NULL", "refers to another version"),
    "another answer of a board": ("UPDATE command SET text = 'all is forgotten'", "the answer to command 70"),
    "text for the bytes of a key": ("UPDATE rejection SET key = substr('" + "x" * 32 + "', 1)", "rejection.key has a value"),
    "a time that is a word": ("UPDATE lineage SET seen_at = 'never'", "lineage.seen_at has a value"),
    "a real number for a time": ("UPDATE lineage SET seen_at = 1e300", "lineage.seen_at has a value"),
    "text for the bytes of a version": ("UPDATE version SET blob = '" + "x" * 32 + "' WHERE version = 3", "version.blob has a value"),
    "bytes for a note": ("UPDATE annotation SET text = x'ff'", "annotation.text has a value"),
    "a witness of no time": ("UPDATE witness SET at = 'x'", "witness.at has a value"),
    "text for a signature": ("UPDATE log_end SET signature = '" + "x" * 64 + "'", "log_end.signature has a value"),
    "text for an entry": ("UPDATE log SET entry = 'x' WHERE number = 4", "log.entry has a value"),
    "a number for a trust record": ("UPDATE trust SET record = 5", "trust.record has a value"),
}


@pytest.fixture
def busy(keyed: Desk, grown: Centre, device: ScriptedDevice) -> Path:
    """A registry with a row of each kind."""
    store = grown.store
    lineage = store.lineages.get("pi-7", "digits")
    assert lineage is not None
    ask(store, lineage, number=70)
    grown.take(device.response(70, True, "done"))
    store.devices.reject("pi-7", key_of("nobody").public, 5)
    store.annotations.add("device", "pi-7", "on the roof", 5)
    store.losses.testify(WitnessRow("pi-7", 3, bytes(32), b"", 5), 9)
    grown.take(device.presence(True, 1))
    return closed(grown)


@pytest.mark.parametrize("what", EDITS)
def test_a_row_that_was_changed_is_named_and_gives_no_traceback(keyed: Desk, busy: Path, what: str) -> None:
    statement, told = EDITS[what]
    assert keyed.json("verify")["tampered"] == []
    with closing(sqlite3.connect(busy)) as database, database:
        rows(statement)(database)
    code, out, err = keyed.run("verify")
    assert code == 56 and told in out + err
    for words in (["devices"], ["log", "pi-7"], ["show", "pi-7"], ["backup", "o.db", "--force"]):
        assert keyed.run(*words)[0] in (0, 20, 56)
    if "log_end" in statement or "log SET" in statement or "trust" in statement:
        assert keyed.error("ingest", "--once", "--broker", "mqtt://127.0.0.1:1")["error"] == "RegistryDamaged"


@pytest.mark.parametrize("column", ["id", "root", "fleet", "files_from"])
def test_a_registry_that_names_its_fleet_by_other_kinds_of_values_is_damaged_by_name(keyed: Desk, grown: Centre, column: str) -> None:
    value = {"id": f"'{'x' * 16}'", "root": f"'{'x' * 32}'", "fleet": "x'ff'", "files_from": "'x'"}[column]
    damage(grown.store, f"UPDATE registry SET {column} = {value}")
    for words in (["devices"], ["audit"], ["trust", "show"], ["verify"], ["claim"], ["devices", "revoke", "pi-7"]):
        assert keyed.error(*words)["error"] == "RegistryDamaged"


@pytest.mark.parametrize("at", [1 << 62, -(1 << 62), 1 << 40])
def test_a_time_that_no_calendar_has_is_shown_as_its_number(keyed: Desk, grown: Centre, at: int) -> None:
    grown.store.log.append(entries.RESTORE, end=0, link=bytes(32), carried=0, at=at)
    assert str(at) in keyed.ok("audit")


def test_words_of_an_enemy_move_nothing_on_the_operators_screen(keyed: Desk, grown: Centre) -> None:
    evil = "\x1b]0;mine\x07\x1b[2J\u202e\u2066\x9b31m\r\n\x00ok"
    grown.store.log.append(entries.ANSWER, device=evil, model=evil, number=1, ok=True, text=evil)
    grown.store.log.append(entries.VERDICT, bytes(32), commit=bytes(32), ok=False, reason=evil)
    for table, column in (("device", "name"), ("device_key", "device"), ("lineage", "device"), ("lineage", "model"), ("base", "name")):
        damage(grown.store, "PRAGMA foreign_keys = OFF")
        damage(grown.store, f'UPDATE {table} SET "{column}" = ?', evil)
    damage(grown.store, "UPDATE registry SET fleet = ?", evil)
    simple = (["audit"], ["audit", "--lines"], ["devices"], ["claim"], ["trust", "show"], ["verify"], ["doctor"], ["bases"])
    for words in (*simple, ["log", evil]):
        for json_too in ([], ["--json"]):
            _, out, err = keyed.run(*words, *json_too)
            assert all(c.isprintable() or c == "\n" for c in out + err), words
    assert all("\\x1b[2J" in "".join(keyed.run(*words)[1:]) for words in (["audit"], ["devices"], ["verify"], ["bases"]))


# Files and their names.

def test_a_registry_with_a_second_name_elsewhere_is_not_written(keyed: Desk, grown: Centre) -> None:
    path = closed(grown)
    (keyed.folder / "elsewhere").mkdir()
    other = keyed.folder / "elsewhere" / "other.db"
    os.link(path, other)
    for name in (path, other):
        for words in (["devices", "revoke", "pi-7"], ["ingest", "--once", "--broker", "mqtt://127.0.0.1:1"]):
            assert "hard link" in str(keyed.error(*words, "--db", str(name))["message"])
    other.unlink()
    keyed.ok("devices", "revoke", "pi-7")


def test_a_restore_does_not_run_beside_a_command_whose_word_it_would_lose(keyed: Desk, grown: Centre) -> None:
    keyed.ok("backup", "monday.db")
    path = closed(grown)
    with share_registry(path):
        assert keyed.error("restore", "monday.db", "--force")["error"] == "StateBusy"
    keyed.ok("restore", "monday.db", "--force")


def test_a_backup_of_another_fleet_is_not_put_in_the_place_of_ours(keyed: Desk, grown: Centre) -> None:
    path = closed(grown)
    (keyed.folder / keys.PUBLIC).write_text(write_fleet(Fleet(ROOT.public, FLEET_ID)) + "\n")
    (keyed.folder / "theirs").mkdir()
    keyed.ok("init", "--fleet", FLEET, "--db", "theirs/fleet.db")
    keyed.ok("backup", "monday.db", "--db", "theirs/fleet.db")
    before = path.read_bytes()
    assert "is of the fleet with the id" in str(keyed.error("restore", "monday.db", "--force")["message"])
    assert path.read_bytes() == before


def test_a_kill_between_revoking_the_old_key_and_admitting_the_new_one_leaves_neither(keyed: Desk, grown: Centre) -> None:
    path = closed(grown)
    for step in ("revoke", "add", "reject"):
        child = os.fork()
        if child == 0:
            setattr(SqliteDevices, step, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            with suppress(BaseException):
                if step == "reject":
                    cli.main(["devices", "reject", "pi-7", "edge-device-pub:" + key_of("x").public.hex()])
                else:
                    cli.main(["devices", "add", "pi-7", "edge-device-pub:" + key_of("new").public.hex(), "--replace"])
            os._exit(1)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert keyed.json("verify")["tampered"] == []
        with closing(open_registry(path, readonly=True)) as store:
            held = Admissions(store.identity)
            held.catch_up(store.log, path)
            assert held.speaks("pi-7", key_of("pi-7").public) and not held.speaks("pi-7", key_of("new").public)


# Anchors and encrypted backups.

@pytest.mark.parametrize("change", [
    {"number": 1 << 63}, {"number": 10**4000}, {"number": -1}, {"number": True}, {"at": 1 << 70}, {"at": "x"}, {"sealed": "abc"},
    {"sealed": {"a": 1}}, {"sealed": [["00"]]}, {"link": "zz"}, {"restored": 1}, {"fleet_id": None},
], ids=lambda change: "-".join(f"{k}" for k in change))  # fmt: skip
def test_an_anchor_of_odd_values_is_malformed_by_name(keyed: Desk, grown: Centre, change: dict[str, object]) -> None:
    line = json.loads(keyed.ok("anchor", "-"))
    (keyed.folder / "a").write_text(json.dumps({**line, **change}) + "\n")
    assert keyed.error("verify", "--anchor", "a")["error"] == "Malformed"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "\xff\xfe", "1" * 5000])
def test_a_file_that_would_exhaust_the_reader_of_anchors_is_malformed_by_name(keyed: Desk, grown: Centre, text: str) -> None:
    (keyed.folder / "a").write_text(text, encoding="latin-1")
    assert keyed.error("verify", "--anchor", "a")["error"] == "Malformed"


def test_anchors_of_other_fleets_and_an_empty_file_prove_nothing_and_are_named(keyed: Desk, grown: Centre) -> None:
    line = json.loads(keyed.ok("anchor", "-"))
    keyed.ok("backup", "monday.db")
    (keyed.folder / "none").write_text("")
    (keyed.folder / "theirs").write_text(json.dumps({**line, "fleet_id": "00" * 16}) + "\n")
    closed(grown)
    for name in ("none", "theirs"):
        for words in (["verify"], ["restore", "monday.db", "--force"]):
            assert "no anchor of this fleet" in str(keyed.error(*words, "--anchor", name)["message"])


def test_an_anchor_after_a_line_without_an_end_does_not_spoil_both(keyed: Desk, grown: Centre) -> None:
    keyed.ok("anchor", "a")
    path = keyed.folder / "a"
    path.write_text(path.read_text().rstrip("\n"))
    keyed.ok("anchor", "a")
    assert keyed.json("verify", "--anchor", "a")["tampered"] == [] and len(path.read_text().splitlines()) == 2


def test_an_anchor_is_not_written_to_a_pipe_that_nobody_reads(keyed: Desk, grown: Centre) -> None:
    os.mkfifo(keyed.folder / "pipe")
    assert keyed.error("anchor", "pipe")["error"] == "BadArgument"


def test_an_encrypted_backup_that_was_cut_or_pieced_together_becomes_no_registry(keyed: Desk, grown: Centre) -> None:
    pytest.importorskip("pyrage")
    private, public = encrypted.made_backup_key()
    (keyed.folder / "b.key").write_text(private + "\n")
    (keyed.folder / "b.key").chmod(0o600)
    keyed.ok("backup", "one.age", "--encrypt-to", public)
    keyed.ok("backup", "two.age", "--encrypt-to", public)
    path = closed(grown)
    one, two, before = (keyed.folder / "one.age").read_bytes(), (keyed.folder / "two.age").read_bytes(), path.read_bytes()
    body = one.index(b"\n--- ") + 49 + 16  # past the header's line of proof, and the nonce
    chunk = 64 * 1024 + 16
    assert len(one) > body + 2 * chunk
    first, second = one[body : body + chunk], one[body + chunk : body + 2 * chunk]
    odd = {
        "cut at a chunk": one[: body + chunk], "cut in a chunk": one[: body + 100], "cut in its header": one[:60],
        "chunks exchanged": one[:body] + second + first + one[body + 2 * chunk :], "a chunk twice": one[:body] + first + one[body:],
        "another's header": two[:body] + one[body:], "another's chunk": one[:body] + two[body : body + chunk] + one[body + chunk :],
        "more behind it": one + b"x", "a chunk out": one[:body] + one[body + chunk :],
    }  # fmt: skip
    for what, data in odd.items():
        (keyed.folder / "odd.age").write_bytes(data)
        said = keyed.error("restore", "odd.age", "--backup-key", "b.key", "--force")
        assert said["error"] in ("DigestMismatch", "BadArgument"), what
        assert path.read_bytes() == before and not list(keyed.folder.glob("*.opened")), what


# Keys.

def test_a_file_that_is_no_command_key_seals_nothing(keyed: Desk, grown: Centre) -> None:
    end = grown.store.log.end()
    odd = keyed.folder / "odd.key"
    texts = {
        "another role": keys.key_text(KeyKind.RECEIPT_PRIVATE, bytes([0xF3]) * 32),
        "nobody's": keys.key_text(KeyKind.COMMAND_PRIVATE, bytes(32)),
        "two lines": keys.key_text(KeyKind.COMMAND_PRIVATE, bytes([0xF3]) * 32) * 2, "empty": "", "zeros": "\0" * 9999,
        "kept by nothing": "edge-command-key: kept by a passphrase\n", "a board's": LINE,
    }  # fmt: skip
    for what, text in texts.items():
        odd.write_text(text)
        odd.chmod(0o600)
        assert keyed.error("devices", "revoke", "pi-7", "--key", str(odd))["error"] in ("WrongKeyKind", "BadArgument", "Malformed"), what
    odd.unlink()
    os.mkfifo(odd, 0o600)
    (keyed.folder / "loop").symlink_to("loop")
    for name in (str(odd), "loop", ".", "/dev/zero", "/dev/null"):
        assert keyed.error("devices", "revoke", "pi-7", "--key", name)["error"] in ("BadArgument", "MissingFile"), name
    assert grown.store.log.end() == end


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def blob(public: bytes) -> bytes:
    return string(b"ssh-ed25519") + string(public)


def framed(kind: int, body: bytes) -> bytes:
    return struct.pack(">IB", len(body) + 1, kind) + body


LISTED = framed(12, struct.pack(">I", 1) + string(blob(COMMAND.public)) + string(b"me"))
OTHER = PrivateKey(b"\x42" * 32)
SIGNED = framed(14, string(string(b"ssh-ed25519") + string(OTHER.sign(b"", b"", b"x"))))


@contextmanager
def lying(folder: Path, answers: list[bytes], drip: bool = False) -> Iterator[None]:
    """Be an ssh-agent that gives these answers, whatever it is asked; the last one byte by byte where it drips."""
    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "agent"))
        listening.listen()

        def serve() -> None:
            for n, answer in enumerate(answers):
                with suppress(OSError):
                    link, _ = listening.accept()
                    with link:
                        link.recv(1 << 20)
                        if not drip or n + 1 < len(answers):
                            link.sendall(answer)
                            continue
                        for byte in answer:
                            link.sendall(bytes([byte]))
                            if done.wait(0.02):
                                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            with suppress(OSError), socket.socket(socket.AF_UNIX) as waking:
                waking.connect(str(folder / "agent"))
            thread.join(5)
            (folder / "agent").unlink()


def test_an_ssh_agent_that_lies_seals_nothing_and_holds_nobody_up(keyed: Desk, grown: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ssh_agent.SOCKET, str(keyed.folder / "agent"))
    monkeypatch.setattr(ssh_agent, "SECONDS", 0.5)
    end = grown.store.log.end()
    lies: dict[str, tuple[list[bytes], bool]] = {
        "the signature of another key": ([LISTED, SIGNED], False),
        "an answer of 4 GiB": ([struct.pack(">IB", 0xFFFFFFFF, 12)], False),
        "four billion identities": ([framed(12, struct.pack(">I", 0xFFFFFFFF))], False),
        "an empty answer": ([struct.pack(">I", 0)], False), "a cut answer": ([LISTED[:20]], False), "nothing": ([b""], False),
        "another type": ([LISTED, framed(14, string(string(b"ssh-rsa") + string(bytes(64))))], False),
        "a short signature": ([LISTED, framed(14, string(string(b"ssh-ed25519") + string(bytes(63))))], False),
        "a byte now and then": ([LISTED, struct.pack(">IB", 200_000, 14) + bytes(200_000)], True),
    }  # fmt: skip
    for what, (answers, drip) in lies.items():
        with lying(keyed.folder, answers, drip):
            said = keyed.error("devices", "revoke", "pi-7", "--key", "ssh-agent")
        assert said["error"] in ("BadArgument", "BadSignature"), what
    assert grown.store.log.end() == end


# Claims, enrolment and hellos.

def give(centre: Centre, *, count: int = 3, serials: tuple[str, ...] = (), key: PrivateKey = COMMAND, fleet: bytes = FLEET_ID) -> None:
    said = Statement(TOKEN.id, TOKEN.key.public, count, 1 << 40, serials, 1)
    centre.store.log.append(entries.CLAIM, record=claims.seal(said, key, fleet))


def come(centre: Centre, name: str, serial: str = "", fleet: bytes = FLEET_ID) -> Result:
    key = key_of(name)
    said = Enrol(FLEET, name, "all", 1, key.public, prove(TOKEN, fleet, name, key.public, serial), serial, "0.1.0")
    return centre.take((topics.up(FLEET, name, "all", "enrol"), encode(said, key, fleet))).result


@pytest.mark.parametrize("serial", ["\u0410-1", "A-1 ", " A-1", "a-1", "\uff21-1", "A\u20101", "A-1\u200b", "A-\u0661", ""])
def test_a_serial_number_that_only_looks_like_a_listed_one_lets_nobody_in(centre: Centre, serial: str) -> None:
    give(centre, count=1, serials=("A-1",))
    with suppress(ModelWireError):  # some are no serial numbers at all
        assert come(centre, "pi-1", serial) is Result.DROPPED
    assert centre.store.devices.names() == [] and come(centre, "pi-2", "A-1") is Result.ADMITTED


def test_a_board_that_was_let_in_elsewhere_is_let_in_by_no_message_of_there(centre: Centre) -> None:
    give(centre)
    assert come(centre, "pi-1", fleet=bytes(16)) is Result.DROPPED
    assert centre.store.devices.names() == []


def _twin(at: int) -> bytes:
    return encode(Act(FLEET, "pi-66", "all", 5, at, "admit", key_of("mallory").public), COMMAND, bytes(16))


FORGED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "an act of a fleet with the same keys": (entries.ACT, lambda: _twin(9)),
    "a claim of a fleet with the same keys": (
        entries.CLAIM, lambda: claims.seal(Statement(b"\x09" * 16, TOKEN.key.public, 9, 1 << 40, (), 1), COMMAND, bytes(16))
    ),
    "an act as a claim": (entries.CLAIM, lambda: encode(Act(FLEET, "pi-66", "all", 5, 9, "admit", bytes(32)), COMMAND, FLEET_ID)),
    "a claim as an act": (
        entries.ACT, lambda: claims.seal(Statement(b"\x09" * 16, TOKEN.key.public, 9, 1 << 40, (), 1), COMMAND, FLEET_ID)
    ),
    "a withdrawal as a claim": (entries.CLAIM, lambda: claims.withdraw(Withdrawal(TOKEN.id, 5), COMMAND, FLEET_ID)),
    "a withdrawal of no claim": (entries.WITHDRAWAL, lambda: claims.withdraw(Withdrawal(b"\x01" * 16, 5), COMMAND, FLEET_ID)),
    "a claim twice": (
        entries.CLAIM, lambda: claims.seal(Statement(TOKEN.id, TOKEN.key.public, 3, 1 << 40, (), 1), COMMAND, FLEET_ID)
    ),
    "a claim by a board": (entries.CLAIM, lambda: claims.seal(Statement(b"\x09" * 16, bytes(32), 9, 9, (), 1), key_of("pi-7"), FLEET_ID)),
    "a hello as an act": (entries.ACT, lambda: encode(replace(HELLO, at=9), key_of("pi-7"), FLEET_ID, role=Role.DEVICE)),
}  # fmt: skip
HELLO = Hello(FLEET, "pi-7", "digits", 1, key_of("pi-7").public, bytes(16), bytes(32), 0, 0, bytes(32), "r", "a", 1, b"", b"", False, (1,))


@pytest.mark.parametrize("what", FORGED)
def test_an_entry_that_is_moved_from_elsewhere_stops_the_ingester_and_lets_nobody_in(centre: Centre, what: str) -> None:
    give(centre)
    kind, record = FORGED[what]
    centre.store.log.append(kind, record=record())
    with pytest.raises(RegistryDamaged):
        come(centre, "pi-1")
    assert centre.store.devices.names() == [] and tampering.look(centre.store) != []


def test_an_act_that_is_entered_again_undoes_no_later_one(centre: Centre, device: ScriptedDevice) -> None:
    admit(centre.store, "pi-8", key_of("pi-8").public, 5)
    acts = centre.store.acts.of("pi-8")
    revoke(centre.store, "pi-8", 6)
    centre.take(device.presence(True, 1))
    centre.store.log.append(entries.ACT, record=acts[0].record)
    with pytest.raises(RegistryDamaged, match="entered before, or again"):
        centre.take(device.presence(True, 2))


def test_one_hello_with_every_range_there_is_costs_no_more_than_a_bounded_look(
    grown: Centre, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0
    real = SqliteVersions.numbered

    def counted(self: SqliteVersions, lineage: int, version: int) -> object:
        nonlocal looked
        looked += 1
        return real(self, lineage, version)

    monkeypatch.setattr(SqliteVersions, "numbered", counted)
    wide = [[epoch, 1 + n, (1 << 61) + n] for n, epoch in enumerate((1, 2, (1 << 32) - 1) * 10)]
    tight = [[1 + n % 2, 1, 12] for n in range(32)]
    for spans in (wide, tight):
        more = {"lost": spans, "dropped": spans, "unsure": spans, "witness": ((1 << 63) - 1).to_bytes(8, "little") + bytes(32)}
        for version in (max(12, device.version), (1 << 62) - 1):  # one behind the head would be a copy's
            before, looked = grown.store.log.end(), 0
            assert grown.take(device.hello(version=version, more=more)).result is Result.WELCOMED
            assert looked <= grown.bounds.looks and grown.store.log.end() == before
    assert len(grown.store.losses.witnesses()) == 1
    for odd in ((1 << 63).to_bytes(8, "little"), bytes([255] * 8)):
        assert grown.take(device.hello(more={"witness": odd + bytes(32)})).result is Result.WELCOMED
    lineage = grown.store.lineages.get("pi-7", "digits")
    assert lineage is not None and lineage.last_version < 1 << 62
