"""The operator gives claims, sees who came by them, and takes them back; the token is shown once and kept nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from edgecloud.audit import tampering
from edgecloud.intake.decision import Result
from edgecloud.registry import open_registry
from edgecloud.registry.claims import prove
from modelwire.wire import topics
from modelwire.wire.claims import SERIAL, Token, read_token
from modelwire.wire.keys import fingerprint
from modelwire.wire.records import Enrol, encode
from tests.edgecloud.centre import Centre
from tests.edgecloud.desk import LINE, Desk
from tests.edgecloud.device import FLEET, TINY, Base, ScriptedDevice, key_of

AT = 1_800_000_000


@pytest.fixture
def centre(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Centre]:
    desk.ok("init", "--fleet", FLEET)
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    made = Centre(open_registry(desk.folder / "fleet.db", synchronous="OFF"), now=AT)
    for module in ("claim", "devices", "listing", "overview"):
        monkeypatch.setattr(f"edgecloud.commands.fleet.{module}.now", lambda: made.now)
    yield made
    made.store.close()


def come(centre: Centre, token: Token, name: str, serial: str = "") -> Result:
    key, fleet = key_of(name), centre.store.identity.id
    said = Enrol(FLEET, name, "all", 1, key.public, prove(token, fleet, name, key.public, serial), serial, "0.1.0")
    return centre.take((topics.up(FLEET, name, "all", "enrol"), encode(said, key, fleet))).result


def wait(centre: Centre, base: Base, token: Token, name: str, serial: str = "") -> None:
    """Let a board say hello by a claim that does not let it in."""
    board = ScriptedDevice(base, name=name, fleet_id=centre.store.identity.id)
    proof = prove(token, centre.store.identity.id, name, board.key.public, serial)
    assert centre.take(board.hello(claim=proof, more={SERIAL: serial})).result is Result.QUARANTINED


def given(desk: Desk, *words: str) -> tuple[str, Token]:
    """Give a claim and return its id and token."""
    said = desk.json("claim", *words)
    return str(said["claim"]), read_token(str(said["token"]), "the token")


@pytest.mark.parametrize("words", [("claim",), ("claim", "new")])
def test_a_claim_for_so_many_boards_and_a_while(desk: Desk, centre: Centre, words: tuple[str, ...]) -> None:
    text = desk.ok(*words, "--count", "2", "--expires", "12h")
    (line,) = re.findall("^edge-claim:[0-9a-f]{96}$", text, re.MULTILINE)
    token = read_token(line, "the token")
    assert f"the claim {token.id.hex()} lets in 2 boards, each once, until 2027-01-15 20:00:00Z" in text
    assert [come(centre, token, name) for name in ("pi-1", "pi-2", "pi-3")] == [Result.ADMITTED, Result.ADMITTED, Result.DROPPED]
    (one,) = desk.json("claim", "list")["claims"]  # type: ignore[misc]
    assert (one["state"], one["count"], one["used"], one["left"], one["serials"]) == ("used up", 2, 2, 0, [])
    assert [(b["device"], b["state"], b["fingerprint"]) for b in one["boards"]] == [
        (name, "admitted", fingerprint(key_of(name).public)) for name in ("pi-1", "pi-2")
    ]
    assert line[-64:] not in desk.ok("claim") + desk.ok("claim", "list", "--json")


def test_a_token_goes_into_a_file_for_its_owner_alone_and_is_not_shown(desk: Desk, centre: Centre) -> None:
    text = desk.ok("claim", "new", "--count", "1", "-o", "line.claim")
    file = desk.folder / "line.claim"
    assert "edge-claim:" not in text and "line.claim" in text and file.stat().st_mode & 0o777 == 0o600
    assert come(centre, read_token(file.read_text(), "it"), "pi-1") is Result.ADMITTED
    before, claims = file.read_text(), desk.json("claim")["claims"]
    assert desk.error("claim", "new", "--count", "1", "-o", "line.claim")["error"] == "BadArgument"
    assert file.read_text() == before and desk.json("claim")["claims"] == claims, "and no claim without its token"


def test_boards_are_listed_by_serial_number_before_and_after(desk: Desk, centre: Centre) -> None:
    (desk.folder / "serials.txt").write_text("# line 3\nb-2\n a-1 \n\nc-3\n")
    id, token = given(desk, "--serials", "serials.txt")
    assert come(centre, token, "pi-1", "b-2") is Result.ADMITTED
    assert come(centre, token, "pi-2", "b-2") is Result.DROPPED
    (one,) = desk.json("claim", "list")["claims"]  # type: ignore[misc]
    assert one["serials"] == ["a-1", "b-2", "c-3"]
    assert {(b["serial"], b["state"], b["device"]) for b in one["boards"]} == {
        ("b-2", "admitted", "pi-1"), ("a-1", "preauthorised", None), ("c-3", "preauthorised", None)
    }  # fmt: skip
    said = desk.json("devices")
    assert {(p["claim"], p["serial"], p["state"], p["left"]) for p in said["preauthorised"]} == {  # type: ignore[attr-defined]
        (id, "a-1", "preauthorised", 1), (id, "c-3", "preauthorised", 1)
    }  # fmt: skip
    assert "2 boards are preauthorised by claims" in desk.ok("devices")
    text = desk.ok("claim")
    assert re.search("^b-2 +admitted +pi-1 +", text, re.MULTILINE) and re.search("^a-1 +preauthorised", text, re.MULTILINE)


def test_a_board_that_its_claim_refuses_is_shown_beside_its_waiting_key_and_beside_its_claim(
    desk: Desk, centre: Centre, base: Base
) -> None:
    id, token = given(desk, "--count", "1")
    wait(centre, base, token, "pi-2", "s-2")
    assert desk.json("devices")["waiting"][0]["claim"] == {"id": id, "serial": "s-2", "refused": ""}  # type: ignore[index]
    assert "its claim" not in desk.ok("devices") and desk.json("claim")["claims"][0]["refused"] == []  # type: ignore[index]
    assert come(centre, token, "pi-1") is Result.ADMITTED
    why = "it was for 1 board, and all are in"
    for page in ((), ("-n", "1")):
        (one,) = desk.json("devices", *page)["waiting"]  # type: ignore[misc]
        assert (one["device"], one["claim"]) == ("pi-2", {"id": id, "serial": "s-2", "refused": why})
    short = fingerprint(key_of("pi-2").public)
    assert f"pi-2, {short}, the board s-2: its claim {id} was refused: {why}" in desk.ok("devices")
    (claim,) = desk.json("claim", "list")["claims"]  # type: ignore[misc]
    assert claim["refused"] == [{"serial": "s-2", "device": "pi-2", "fingerprint": short, "at": AT, "reason": why}]
    text = desk.ok("claim", "list")
    assert f"waiting, and not let in by {id}:" in text and re.search(f"^s-2 +pi-2 +{short} +.*{why}$", text, re.MULTILINE)
    desk.ok("devices", "add", "pi-2", short)
    centre.tick()
    assert desk.json("devices")["waiting"] == [] and desk.json("claim")["claims"][0]["refused"] == []  # type: ignore[index]


def test_strangers_who_name_claims_fill_no_more_than_the_quarantine(desk: Desk, centre: Centre, base: Base) -> None:
    id, token = given(desk, "--count", "1")
    centre.ingest.bounds = centre.bounds = replace(centre.bounds, held_total=20)
    for n in range(60):
        wait(centre, base, Token(token.id, key_of("mallory")), f"pi-{n}", "\x1b[2J"[1:])
    (claim,) = desk.json("claim")["claims"]  # type: ignore[misc]
    assert claim["claim"] == id and len(claim["refused"]) == 20 == len(desk.json("devices")["waiting"])  # type: ignore[arg-type]
    assert all("does not belong to the token" in one["reason"] for one in claim["refused"])


def test_a_claim_is_withdrawn_by_the_first_digits_of_its_id(desk: Desk, centre: Centre) -> None:
    id, token = given(desk, "--count", "5")
    assert come(centre, token, "pi-1") is Result.ADMITTED
    for wrong in (id[:7], "00000000", "", id + "0"):
        assert desk.error("claim", "withdraw", wrong)["error"] == "BadArgument"
    said = desk.json("claim", "withdraw", id[:8])
    assert (said["claim"], said["state"], said["used"]) == (id, "withdrawn", 1)
    desk.ok("claim", "withdraw", id)  # again: nothing more to do
    assert come(centre, token, "pi-2") is Result.DROPPED
    assert desk.json("devices")["preauthorised"] == []
    (one,) = desk.json("claim")["claims"]  # type: ignore[misc]
    assert (one["state"], one["left"], one["used"]) == ("withdrawn", 0, 1)


def test_an_expired_claim_is_listed_as_such_and_expects_nobody(desk: Desk, centre: Centre) -> None:
    _, token = given(desk, "--count", "5", "--expires", "90s")
    (one,) = desk.json("devices")["preauthorised"]  # type: ignore[misc]
    assert (one["serial"], one["left"], one["expires_at"]) == (None, 5, AT + 90)
    centre.now = AT + 91
    assert come(centre, token, "pi-1") is Result.DROPPED
    assert desk.json("devices")["preauthorised"] == []
    assert [c["state"] for c in desk.json("claim")["claims"]] == ["expired"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "lines", "why"),
    [
        (["--count", "0"], "", "from 1 to 1000000"), (["--count", "-3"], "", "from 1 to 1000000"),
        (["--count", "1000001"], "", "from 1 to 1000000"), (["--count", "3", "--serials", "s.txt"], "a\nb\n", "1 to 2 boards"),
        (["--count", "1", "--expires", "soon"], "", "is no time"), (["--count", "1", "--expires", "4000d"], "", "is no time"),
        (["--serials", "s.txt"], "a\nb\na\n", "line 3: 'a' stands in line 1 too"), (["--serials", "s.txt"], "\n#x\n", "lists 0 serial"),
        (["--serials", "s.txt"], "a\nb\x1b[2J\n", "line 2"), (["--serials", "s.txt"], "x" * 65, "line 1"),
        (["--serials", "s.txt"], "\n".join(str(n) for n in range(10_001)), "lists 10001 serial"),
        (["--serials", "."], "", "folder"),
    ],
)  # fmt: skip
def test_what_can_be_no_claim_is_refused_and_nothing_is_given(
    desk: Desk, centre: Centre, words: list[str], lines: str, why: str
) -> None:
    (desk.folder / "s.txt").write_text(lines)
    said = desk.error("claim", "new", *words, "-o", "token")
    assert said["error"] == ("BadArgument" if lines or words == ["--serials", "."] else "Usage") and why in str(said["message"])
    assert desk.json("claim")["claims"] == [] and not (desk.folder / "token").exists()


def test_a_list_that_is_not_there_and_a_key_that_is_not_the_operators_are_named(desk: Desk, centre: Centre) -> None:
    assert desk.error("claim", "--serials", "none.txt")["error"] == "MissingFile"
    assert desk.error("claim", "--count", "1", "--key", "receipt.key")["error"] == "WrongKeyKind"
    assert desk.error("claim", "withdraw", "12345678", "--key", "receipt.key")["error"] == "WrongKeyKind"
    assert desk.json("claim")["claims"] == [] and desk.ok("claim") == "no claim was given\n"


def test_who_was_let_in_by_a_claim_stands_with_the_devices_and_is_revoked_like_any_other(desk: Desk, centre: Centre) -> None:
    _, token = given(desk, "--count", "5")
    assert come(centre, token, "pi-1") is Result.ADMITTED
    desk.ok("devices", "add", "pi-7", LINE)
    listed = {d["device"]: d["status"] for d in desk.json("devices")["devices"]}  # type: ignore[attr-defined]
    assert listed == {"pi-1": "admitted", "pi-7": "admitted"}
    desk.ok("devices", "revoke", "pi-1")
    assert come(centre, token, "pi-1") is Result.DROPPED
    assert come(centre, token, "pi-7") is Result.DROPPED


def test_a_backup_of_before_brings_no_withdrawn_claim_back_and_its_boards_come_again_by_the_others(desk: Desk, centre: Centre) -> None:
    first, token = given(desk, "--count", "2")
    second, other = given(desk, "--count", "9")
    assert come(centre, token, "pi-1") is Result.ADMITTED
    desk.ok("backup", "monday.db")
    third, late = given(desk, "--count", "2")
    came = ((token, "pi-2"), (other, "pi-3"), (late, "pi-4"), (late, "pi-5"))
    assert [come(centre, t, n) for t, n in came] == [Result.ADMITTED] * 4
    desk.ok("claim", "withdraw", second)
    desk.ok("devices", "revoke", "pi-5")
    centre.store.close()
    said = desk.json("restore", "monday.db", "--force")
    assert said["carried"] == {"trust": 0, "admitted": [], "revoked": ["pi-5"], "claims": 2}
    assert {c["claim"]: (c["state"], c["used"]) for c in desk.json("claim")["claims"]} == {  # type: ignore[attr-defined]
        first: ("open", 1), second: ("withdrawn", 0), third: ("open", 0)
    }  # fmt: skip
    again = Centre(open_registry(desk.folder / "fleet.db", synchronous="OFF"), now=AT)
    try:
        assert come(again, token, "pi-1") is Result.NOTED
        assert [come(again, t, n) for t, n in came] == [Result.ADMITTED, Result.DROPPED, Result.ADMITTED, Result.DROPPED]
        assert come(again, token, "pi-8") is Result.DROPPED, "the claim is used up by those whom it let in before"
        assert tampering.look(again.store) == []
    finally:
        again.store.close()


def test_the_log_says_in_words_who_gave_whom_a_claim_and_who_came(desk: Desk, centre: Centre) -> None:
    id, token = given(desk, "--count", "2")
    come(centre, token, "pi-1", "a-1")
    desk.ok("claim", "withdraw", id)
    text = desk.ok("audit")
    for words in (f"the claim {id}", "gave it for 2 boards", f"was let in by the claim {id}", "serial number a-1", "withdrew it"):
        assert words in text


def test_a_command_key_with_a_passphrase_gives_and_withdraws_claims(desk: Desk, centre: Centre) -> None:
    word = desk.folder / "word"
    word.write_text("correct horse 12\n")
    word.chmod(0o600)
    desk.ok("keys", "protect", "command.key", "--passphrase-file", "word")
    for words in (("claim", "new", "--count", "1", "-o", "token"), ("claim", "withdraw", "12345678")):
        assert desk.error(*words)["error"] == "BadArgument"
    assert not (desk.folder / "token").exists() and desk.json("claim")["claims"] == []
    id, token = given(desk, "--count", "2", "--passphrase-file", "word")
    assert come(centre, token, "pi-1") is Result.ADMITTED
    desk.ok("claim", "withdraw", id, "--passphrase-file", "word")
    assert come(centre, token, "pi-2") is Result.DROPPED
    desk.ok("devices", "reset", "pi-1", "--passphrase-file", "word")
