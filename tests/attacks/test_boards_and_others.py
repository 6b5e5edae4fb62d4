"""What updates in parts, the application's user, hostile words, changed files and floods can make of a board: nothing lasting."""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import sqlite3
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeagent import cli
from edgeagent.samples.spool_tables import FILE as SPOOL
from edgeagent.samples.spool_tables import FOLDER
from edgeagent.service.goal import Goal
from edgeagent.settings import reading
from edgeagent.state import agent_tables
from edgeagent.state.folder import open_folder
from edgeagent.state.taking import FILE, TRIES
from edgecommon.logs import TextLines
from modelwire.errors import DiskUnwritable, Malformed, ModelWireError, StateDamaged, WireError, WrongRole
from modelwire.wire import claims, parts, records
from modelwire.wire.keys import write_fleet
from modelwire.wire.records import Level, Receipt, Response, Transfer, Wait, Wanted
from modelwire.wire.signing import PrivateKey, Role
from tests import keys
from tests.edgeagent.boards import DEVICE_SEED, TINY, TOKEN, Rig, centre, command, fill, give_token, make_with, rig
from tests.edgeagent.centre import FakeClock
from tests.edgeagent.state.test_taking import AFTER, PART, cut, fresh, take, untouched, update

from .test_boards import NAMES, grown, hear, sealed, standing, welcome

# Updates in parts.


def described(r: Rig, number: int = 7) -> parts.Outgoing:
    """Let the operator ask the board to take an update, and return it."""
    r.run(Goal(publish=True, timeout=60))
    out = cut(update(r))
    hear(r, take(r, out, number))
    hear(r, sealed(out.transfer), "part")
    return out


def test_parts_of_another_transfer_index_size_or_path_are_refused_and_leave_no_byte(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock) as r:
        out = described(r)
        good = parts.parse(out.cut(0))
        other = cut(update(r, extension={"pad": bytes(9000)}))
        hear(r, other.cut(0), "part")
        for part in (
            replace(good, index=1), replace(good, index=out.count), replace(good, index=(1 << 32) - 1), replace(good, data=good.data[:-1]),
            replace(good, data=good.data + b"x"), replace(good, path=good.path[:-1]), replace(good, path=good.path * 2),
            replace(good, path=()),
        ):  # fmt: skip
            head = struct.pack("<4sHH32sI", parts.MAGIC, 1, len(part.path), part.id, part.index)
            with pytest.raises(WireError):
                hear(r, head + b"".join(part.path) + part.data, "part")
        with pytest.raises(WireError):
            hear(r, parts.MAGIC + bytes(97 * 1024), "part")
        assert not (r.lineage.store.folder / FILE).exists() and r.lineage.takings.current().held == frozenset()  # type: ignore[union-attr]


def test_a_transfer_of_another_size_role_or_tree_is_none_and_a_lying_tree_ends_by_name(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock) as r:
        out = described(r)
        true = out.transfer
        for lie in (
            replace(true, size=true.size + 1), replace(true, size=1), replace(true, size=(1 << 63) - 1), replace(true, what="base"),
            replace(true, part_size=0), replace(true, part_size=1000), replace(true, part_size=1 << 40),
        ):  # fmt: skip
            with pytest.raises(WireError):
                hear(r, sealed(lie), "part")
        with pytest.raises(WrongRole):
            hear(r, sealed(true, PrivateKey(DEVICE_SEED), Role.DEVICE), "part")
        false = cut(bytes(true.size))
        lying = parts.Outgoing(replace(false.transfer, id=true.id), false.data, false.levels)
        for _ in range(TRIES):
            hear(r, sealed(lying.transfer), "part")
            for index in range(lying.count):
                hear(r, lying.cut(index), "part")
        given = r.lineage.answers.given(7)
        assert given is not None and not given.ok and f"{TRIES} times" in given.text and untouched(r)
        hear(r, sealed(lying.transfer), "part")
        hear(r, lying.cut(0), "part")
        assert untouched(r), "endless parts of what was answered"


def test_an_older_cut_played_again_costs_parts_and_never_the_update(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock) as r:
        out = described(r)
        older = cut(bytes(out.data), PART + 1024)
        assert older.transfer.part_size != out.transfer.part_size
        for index in range(out.count - 1):
            hear(r, out.cut(index), "part")
        hear(r, sealed(older.transfer), "part")
        hear(r, sealed(out.transfer), "part")
        assert not r.lineage.takings.current().held  # type: ignore[union-attr]
        for index in reversed(range(out.count)):
            hear(r, out.cut(index), "part")
        assert r.lineage.answers.given(7).ok and r.lineage.load().state.root == AFTER.root  # type: ignore[union-attr]


def test_parts_for_one_model_are_none_for_another(tmp_path: Path, clock: FakeClock) -> None:
    loaded = make_with(tmp_path / "d", {}, {"tiny": TINY, "other": TINY})
    with open_folder(loaded, alone=True) as opened:
        r = Rig(opened, centre(clock))
        out = described(r)
        with pytest.raises(Malformed):
            hear(r, sealed(out.transfer), "part", model="other")
        with pytest.raises(Malformed):
            hear(r, take(r, out, 8), model="other")
        hear(r, out.cut(0), "part", model="other")
        assert opened.lineages["other"].takings.current() is None
        assert not (opened.lineages["other"].store.folder / FILE).exists()
        stranger = cut(update(r, model="other"))
        hear(r, take(r, stranger, 9))
        hear(r, sealed(stranger.transfer), "part")
        for index in range(stranger.count):
            hear(r, stranger.cut(index), "part")
        given = r.lineage.answers.given(9)
        assert given is not None and not given.ok and "pi-7/other" in given.text and untouched(r)


@pytest.mark.parametrize("said", [{"device": "pi-8"}, {"epoch": 3}, {"parent": b"\x09" * 32}, {"root": bytes(32)}])
def test_the_last_model_of_another_device_epoch_or_line_is_not_taken_back(
    tmp_path: Path, clock: FakeClock, said: dict[str, object]
) -> None:
    with fresh(tmp_path / "d", clock) as r:
        r.run(Goal(publish=True, timeout=60))
        out = cut(update(r, **said))
        hear(r, take(r, out))
        hear(r, sealed(out.transfer), "part")
        for index in range(out.count):
            hear(r, out.cut(index), "part")
        given = r.lineage.answers.given(7)
        assert given is not None and not given.ok and untouched(r) and r.lineage.wish() is not None


def test_a_recorded_return_of_the_last_model_does_nothing_in_a_third_folder(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "second", clock) as r:
        out = described(r)
        asked = sealed(take(r, out))
        said = [asked, sealed(out.transfer), *(out.cut(index) for index in range(out.count))]
        for index, data in enumerate(said):
            hear(r, data, "part" if index else "cmd")
        assert r.lineage.head().version == 1
        c = r.centre
    with fresh(tmp_path / "third", c) as r:
        r.run(Goal(publish=True, timeout=60))
        for index, data in enumerate(said):
            hear(r, data, "part" if index else "cmd")
        given = r.lineage.answers.given(7)
        assert given is not None and not given.ok and untouched(r)


def test_an_offer_that_is_never_kept_ends_and_the_board_learns_from_its_base(tmp_path: Path, clock: FakeClock) -> None:
    with fresh(tmp_path / "d", clock, link__resume_wait="5min") as r:
        for again in range(3):
            r.centre.last_model = bytes([again + 1]) * 32, (1 << 63) - 1 - again
            r.serve(110)
        r.serve(60)
        assert r.lineage.head().rounds > 0 and r.lineage.takings.current() is None


def test_a_full_disk_costs_the_parts_that_found_no_room_and_no_more(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with fresh(tmp_path / "d", clock) as r:
        out = described(r)
        with monkeypatch.context() as m:
            m.setattr("edgeagent.state.taking.os.pwrite", full)
            for index in range(out.count):
                with pytest.raises(DiskUnwritable, match="No space left on device"):  # the agent keeps it, and waits
                    hear(r, out.cut(index), "part")
        assert not r.lineage.takings.current().held  # type: ignore[union-attr]
        for index in range(out.count):
            hear(r, out.cut(index), "part")
        assert r.lineage.load().state.root == AFTER.root


# The application's user, who may write into the spool and nowhere else.


STRANGE = (
    "UPDATE sample SET x=x'00' WHERE id=5", "UPDATE sample SET x='text' WHERE id=5", "UPDATE sample SET class=99 WHERE id=5",
    "UPDATE sample SET class='abc' WHERE id=5", "UPDATE sample SET target=x'0011', class=-1 WHERE id=5",
    "UPDATE sample SET at='x' WHERE id=5",
)  # fmt: skip
WRITTEN = (
    "UPDATE model SET x_shape='[9]'", "UPDATE model SET x_shape='nonsense'", "UPDATE model SET x_shape='[-4]'",
    "UPDATE model SET y_shape='[1000000000000]'", "UPDATE model SET x_shape=CAST(x'ff' AS TEXT)", "UPDATE cell SET context='{'",
    "UPDATE model SET carded='x', held='y', seen='z'", "DROP TABLE sample", "DROP TABLE cell", "DROP TABLE model",
)  # fmt: skip


@pytest.mark.parametrize("written", STRANGE)
def test_a_row_that_no_spool_holds_goes_by_name_and_the_round_is_done(
    tmp_path: Path, clock: FakeClock, written: str, caplog: pytest.LogCaptureFixture
) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        fill(r.device)
    with contextlib.closing(sqlite3.connect(tmp_path / "d" / "state" / FOLDER / SPOOL)) as database, database:
        database.execute(written)
    with rig(tmp_path / "d", centre(clock)) as r:
        r.run(Goal(rounds=1, timeout=600))
        assert r.agent.reports[-1].accepted and r.device.spool.count("tiny") == 39
    assert "1 rows of the spool were no samples of this model" in caplog.text and "see who may write" in caplog.text


def test_rows_that_are_all_no_samples_go_and_the_agent_waits_for_others(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        fill(r.device)
    with contextlib.closing(sqlite3.connect(tmp_path / "d" / "state" / FOLDER / SPOOL)) as database, database:
        database.execute("UPDATE sample SET at='x'")
    with rig(tmp_path / "d", centre(clock)) as r:
        r.serve(60)
        assert r.device.spool.count("tiny") == 0 == r.lineage.head().rounds
        fill(r.device)
        r.serve(60)
        assert r.lineage.head().rounds == 1 and r.agent.reports[-1].accepted


@pytest.mark.parametrize("written", WRITTEN)
def test_rows_that_no_spool_holds_are_named(tmp_path: Path, clock: FakeClock, written: str) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        fill(r.device)
        r.run(Goal(publish=True, timeout=60))
    database = sqlite3.connect(tmp_path / "d" / "state" / FOLDER / SPOOL)
    database.execute("PRAGMA foreign_keys = OFF")
    database.execute(written)
    database.commit()
    database.close()
    with pytest.raises(StateDamaged, match=r"samples\.db") as e, rig(tmp_path / "d", centre(clock)) as r:
        r.run(Goal(rounds=1, timeout=60))
    assert "see who may write" in e.value.hint


@pytest.mark.parametrize("written", ["UPDATE model SET x_shape='nonsense'", "DROP TABLE cell", "UPDATE cell SET context='{', samples='x'"])
def test_no_command_ends_in_a_traceback_over_such_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], written: str, clock: FakeClock
) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        fill(r.device)
    with contextlib.closing(sqlite3.connect(tmp_path / "d" / "state" / FOLDER / SPOOL)) as database, database:
        database.execute(written)
    for words in (["status"], ["log"], ["outbox"], ["samples", "list"], ["estimate"], ["run", "--once", "--timeout", "1s"], ["train"]):
        for form in ([], ["--json"]):
            code = cli.main([*words, "--dir", str(tmp_path / "d"), "--set", "link.broker=mqtt://127.0.0.1:1", *form])
            said = capsys.readouterr()
            assert code in range(64) and "Traceback" not in said.out + said.err, words


def test_a_table_that_never_ends_does_not_stop_the_agent_for_ever(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        fill(r.device)
    with contextlib.closing(sqlite3.connect(tmp_path / "d" / "state" / FOLDER / SPOOL)) as database, database:
        database.execute("DROP TABLE cell")
        endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x id, 'tiny' model, 0 class, '' context, 1 samples"
        database.execute(f"CREATE VIEW cell AS {endless}, 1 bytes FROM c")
    monkeypatch.setattr("edgeagent.samples.spool_tables.PATIENCE", 3)
    with pytest.raises(StateDamaged, match="interrupted"), rig(tmp_path / "d", centre(clock)) as r:
        r.run(Goal(rounds=1, timeout=60))


# Words and secrets.


def test_texts_of_records_that_turn_a_terminal_are_refused_before_they_are_kept(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        before = standing(r), r.lineage.quiet()
        for escape in ("\x1b[2J", "\x9b31m", "\u202eevil", "\u2028line", "a\nFORGED", "\x07", "\ufeff", "\u200b"):
            head = r.lineage.head().commit
            for make in (
                lambda t: Wait(*NAMES, 60, t), lambda t: Receipt(*NAMES, 1, 1, head, Level.REFUSED, t, b"", 0, 0),  # noqa: B023
                lambda t: Response(*NAMES, 5, True, t, {}), lambda t: command(r, 5, verb=t), lambda t: welcome(r, status=t),
            ):  # fmt: skip
                with pytest.raises(Malformed):
                    make_and_hear(r, make, escape)
        assert (standing(r), r.lineage.quiet()) == before


def make_and_hear(r: Rig, make: Callable[[str], records.Record], text: str) -> None:
    """Seal a record with a harmless text, put the other one in its place, and let the board read it: its form is looked at first."""
    harmless = "h" * len(text.encode()) + "armless-words"
    record = make(harmless)
    before, harmless, after = sealed(record).rpartition(harmless.encode())  # type: ignore[assignment]
    assert harmless, "it stands there"
    hear(r, before + text.encode() + b"armless-words" + after, "receipt" if isinstance(record, Receipt) else "cmd")  # type: ignore[operator]


def test_topics_that_turn_a_terminal_or_walk_through_folders_reach_no_line_and_no_file(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        before = sorted(str(p) for p in tmp_path.rglob("*"))
        data = sealed(command(r, 5))
        with caplog.at_level(logging.WARNING):
            for name in ("../../etc", "\x1b[2J", "a\nb", "x" * 65_000, "", "+", "#", "TINY", "tiny\x00"):
                r.centre.after(1, lambda name=name: r.centre.deliver(f"e1/home/pi-7/{name}/dn/cmd", data))  # type: ignore[misc]
            r.serve(5)
        assert r.lineage.answers.last() == 0 and sorted(str(p) for p in tmp_path.rglob("*")) == before
        lines = [TextLines().format(record) for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(lines) == 9 and max(map(len, lines)) < 700 and not any("\x1b" in line or "\n" in line for line in lines)


def test_the_token_of_a_claim_is_in_no_output_no_log_and_no_database(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, clock: FakeClock
) -> None:
    give_token(tmp_path / "d")
    secret = TOKEN.partition(":")[2]
    caplog.set_level(logging.DEBUG)
    with rig(tmp_path / "d", centre(clock, known=False)) as r:
        r.serve(30)
        said = [records.encode(s, PrivateKey(DEVICE_SEED), keys.FLEET_ID) for leaf, s in r.centre.up if isinstance(s, records.Record)]
    for words in (["status"], ["status", "--json"], ["doctor"], ["log"], ["config", "show"], ["outbox"]):
        cli.main([*words, "--dir", str(tmp_path / "d")])
    out = capsys.readouterr()
    kept = [p.read_bytes() for p in (tmp_path / "d" / "state").rglob("*") if p.is_file()]
    assert secret not in out.out + out.err + caplog.text
    assert not any(secret.encode() in data or bytes.fromhex(secret)[16:] in data for data in [*kept, *said])


@pytest.mark.parametrize(("word", "secret"), [("--claim", TOKEN), ("--key", f"edge-device-key:{'ab' * 32}")])
def test_a_secret_that_was_typed_in_the_place_of_its_file_is_not_said_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, secret: str
) -> None:
    fleet, model = tmp_path / "fleet.pub", tmp_path / "tiny.tflite"
    fleet.write_text(write_fleet(keys.FLEET) + "\n")
    model.write_bytes(TINY)
    words = ["init", "--device", "pi-7", "--fleet", "home", "--fleet-key", str(fleet), "--model", f"tiny={model}"]
    words += ["--dir", str(tmp_path / "d")]
    for more in ([], ["--json"]):
        assert cli.main([*words, word, secret, *more]) != 0
        said = capsys.readouterr()
        assert secret.partition(":")[2] not in said.out + said.err and "file" in said.err


def test_the_proof_of_a_claim_is_of_one_key_name_serial_and_fleet(tmp_path: Path) -> None:
    token, mine = claims.read_token(TOKEN, "here"), PrivateKey(DEVICE_SEED).public
    proof = claims.prove(token, keys.FLEET_ID, "pi-7", mine, "10000000abc")
    claims.verify(proof, token.key.public, keys.FLEET_ID, "pi-7", mine, "10000000abc")
    for said in (
        (keys.FLEET_ID, "pi-7", keys.ROOT.public, "10000000abc"), (keys.FLEET_ID, "pi-8", mine, "10000000abc"),
        (keys.FLEET_ID, "pi-7", mine, ""), (keys.FLEET_ID, "pi-71", mine, "0000000abc"), (bytes(16), "pi-7", mine, "10000000abc"),
    ):  # fmt: skip
        with pytest.raises(WireError):
            claims.verify(proof, token.key.public, *said)


# Files that are others than they were.


def test_files_of_another_model_slot_or_board_are_named_at_start(tmp_path: Path, clock: FakeClock) -> None:
    loaded = make_with(tmp_path / "d", {}, {"tiny": TINY, "other": TINY})
    with open_folder(loaded, alone=True) as opened:
        r = Rig(opened, centre(clock))
        fill(opened)
        fill(opened, model="other", seed=3)
        r.run(Goal(rounds=1, timeout=60))
        files = {n: opened.lineages[n].store.folder for n in ("tiny", "other")}
        slots = {n: files[n] / lineage.head().slot / "model.tflite" for n, lineage in opened.lineages.items()}
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "d", whole, symlinks=True)
    mine = slots["tiny"].read_bytes()
    slots["tiny"].write_bytes(TINY)
    with pytest.raises(StateDamaged, match="not those that the database names"), open_folder(loaded, alone=True):
        pass
    slots["tiny"].write_bytes(mine)
    (files["tiny"] / "served.tflite").unlink()
    (files["tiny"] / "served.tflite").symlink_to("/etc/passwd")
    with open_folder(loaded, alone=True) as opened:
        assert opened.lineages["tiny"].store.served.read_bytes() == mine
    make_with(tmp_path / "e", {}, {"tiny": TINY})
    shutil.copy(whole / "state" / agent_tables.FILE, tmp_path / "e" / "state" / agent_tables.FILE)
    with pytest.raises(ModelWireError), open_folder(reading.load(tmp_path / "e" / reading.FILE, environment={}, flags={}), alone=True):
        pass


# Floods and fuzz.


def test_a_flood_of_records_with_wrong_seals_takes_no_room_and_no_answer(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        before, said = standing(r), len(r.centre.up)
        rows = r.device.database.number("SELECT count(*) FROM answer") + r.device.database.number("SELECT count(*) FROM version")
        liar = PrivateKey(b"\x99" * 32)
        kinds = [command(r, 5), welcome(r, epoch=9), Wait(*NAMES, 86_400, "x" * 1000)]
        flood = [sealed(replace(kind, at=n), liar) for n in range(100) for kind in kinds]
        refused = 0
        for data in flood:
            try:
                hear(r, data)
            except WireError:
                refused += 1
        assert refused == len(flood) and standing(r) == before and len(r.centre.up) == said
        now = r.device.database.number("SELECT count(*) FROM answer") + r.device.database.number("SELECT count(*) FROM version")
        assert now == rows and len(r.agent.sessions["tiny"].agreement._asked) <= 8


def test_a_recording_with_any_byte_changed_is_refused_by_name(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        before = standing(r)
        receipt = Receipt(*NAMES, 1, 1, r.lineage.head().commit, Level.VERIFIED, "", b"", 0, 0)
        for leaf, record in (("cmd", command(r, 5)), ("receipt", receipt)):
            data = sealed(record)
            for place in range(0, len(data), 3):
                for flip in (1, 0x80):
                    with pytest.raises(WireError):
                        hear(r, data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :], leaf)
            for end in range(0, len(data), 7):
                with pytest.raises(WireError):
                    hear(r, data[:end], leaf)
        assert standing(r) == before


def test_a_wanted_that_is_played_again_and_again_keeps_few_parts_on_the_way(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.most = PART
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        c.drop_up = lambda leaf, said: isinstance(said, parts.Part)
        r.serve(120)
        sent = [s for s in c.said("part") if isinstance(s, Transfer)]
        if sent:
            played = sealed(Wanted(*NAMES, sent[0].id, bytes(-(-parts.count(sent[0]) // 8))), keys.RECEIPT, Role.RECEIPT)
            for _ in range(50):
                hear(r, played, "part")
        (upload,) = r.agent.sessions["tiny"]._uploads.values() or (None,)
        assert upload is None or len(upload._tickets) <= 8
