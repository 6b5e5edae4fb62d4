"""A board with a token asks to be let in when the centre says that it does not know its key; the token itself never leaves it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeagent import cli
from edgeagent.service.goal import Goal
from edgeagent.settings import reading
from edgeagent.state import claim as claim_file
from edgeagent.state.claim import read_serial
from edgeagent.state.folder import open_folder
from edgeagent.state.history import claim_refused
from modelwire.errors import BadArgument, BadSignature, ConfigError, LinkError, NotWelcome, WrongKeyKind
from modelwire.wire import claims
from modelwire.wire.keys import KeyKind, write_key
from modelwire.wire.records import Enrol, Hello, Welcome
from tests import keys
from tests.edgeagent.boards import PUBLIC, TOKEN, Rig, centre, fill, give_token, make, rig
from tests.edgeagent.centre import Centre, FakeClock

SECRET = TOKEN.partition(":")[2][32:]


def enrolments(c: Centre) -> list[Enrol]:
    return [e for e in c.said("enrol") if isinstance(e, Enrol)]


def admits(c: Centre, known: bool = True) -> None:
    """Let the centre take what a good claim asks for."""

    def take(leaf: str, said: object) -> bool:
        if isinstance(said, Enrol) and known:
            token = claims.read_token(TOKEN, "the token")
            claims.verify(said.claim, token.key.public, keys.FLEET_ID, said.device, said.key, said.serial)
            c.keys[said.device] = said.key
        return False

    c.drop_up = take


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    serial = tmp_path / "serial-number"
    serial.write_bytes(b"10000000a1b2c3d4\0")
    monkeypatch.setattr(claim_file, "SERIAL", serial)
    return give_token(tmp_path / "d")


def test_a_board_that_nobody_knows_enrols_and_is_welcome_a_moment_later(
    tmp_path: Path, clock: FakeClock, token: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    c = centre(clock, known=False)
    admits(c)
    with rig(tmp_path / "d", c) as r:
        r.serve(5)
        assert [w.status for w in c.down if isinstance(w, Welcome)] == ["quarantine", "ok"]
        (said,) = enrolments(c)
        assert (said.device, said.model, said.key, said.serial, said.agent) == ("pi-7", "all", PUBLIC, "10000000a1b2c3d4", "test")
        r.serve(8000)
        assert len(enrolments(c)) == 1, "once it is in it asks no more"
    assert "asked to be let in by the claim 0c0c" in caplog.text and SECRET not in caplog.text


def test_a_round_follows_in_the_same_start(tmp_path: Path, clock: FakeClock, token: Path) -> None:
    c = centre(clock, known=False)
    admits(c)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=600))
        assert r.states() == {1: "verified"}


@pytest.mark.parametrize("goal", [Goal(once=True, timeout=60), Goal(publish=True, timeout=60)], ids=["once", "publish"])
def test_a_single_round_waits_for_what_the_claim_comes_to(tmp_path: Path, clock: FakeClock, token: Path, goal: Goal) -> None:
    c = centre(clock, known=False)
    admits(c)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(goal)
        assert [w.status for w in c.down if isinstance(w, Welcome)] == ["quarantine", "ok"]


def test_a_single_round_ends_where_the_claim_lets_it_not_in(tmp_path: Path, clock: FakeClock, token: Path) -> None:
    c = centre(clock, known=False)
    admits(c, known=False)
    with rig(tmp_path / "d", c) as r, pytest.raises(NotWelcome, match="does not know this key"):
        r.run(Goal(publish=True, timeout=60))


def test_one_that_is_not_let_in_asks_slower_and_slower(tmp_path: Path, clock: FakeClock, token: Path) -> None:
    c = centre(clock, known=False)
    with rig(tmp_path / "d", c) as r:
        r.serve(4 * 3600)
        assert 6 <= len(enrolments(c)) <= 14
        hellos = len(c.said("hello"))
        r.serve(0.5)
        assert len(c.said("hello")) <= hellos + 2


def test_a_broker_that_repeats_a_welcome_makes_it_ask_no_more_often(tmp_path: Path, clock: FakeClock, token: Path) -> None:
    c = centre(clock, known=False)
    with rig(tmp_path / "d", c) as r:
        r.serve(1)
        last = next(w for w in reversed(c.down) if isinstance(w, Welcome))
        before, hellos = len(enrolments(c)), len(c.said("hello"))
        for at in range(200):
            c.after(at / 100, lambda: c.push(last))
        r.serve(3)
        assert len(enrolments(c)) <= before + 1 and len(c.said("hello")) <= hellos + 3


def test_without_a_token_nothing_is_asked(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock, known=False)
    with rig(tmp_path / "d", c) as r:
        r.serve(4000)
        assert r.device.claim is None and not enrolments(c)


def test_nothing_is_asked_of_a_centre_that_has_not_answered_or_wants_its_peace(tmp_path: Path, clock: FakeClock, token: Path) -> None:
    c = centre(clock, known=False)
    c.drop_down = lambda record: isinstance(record, Welcome)
    with rig(tmp_path / "d", c) as r:
        r.serve(1000)
        assert not enrolments(c)
        c.drop_down = lambda record: False
        c.wait = 600
        r.serve(500)
        assert not enrolments(c)
        c.wait = 0
        r.serve(600)
        assert enrolments(c)


def test_an_enrolment_that_the_link_lost_is_said_again(tmp_path: Path, clock: FakeClock, token: Path) -> None:
    c = centre(clock, known=False)
    lost: list[object] = []
    c.drop_up = lambda leaf, said: leaf == "enrol" and not lost and not lost.append(said)  # type: ignore[func-returns-value]
    with rig(tmp_path / "d", c) as r:
        r.serve(1)
        assert lost and not enrolments(c)
        admits(c)
        r.serve(120)
        assert r.lineage.head().welcome == "ok" and len(enrolments(c)) == 1


def test_what_is_heard_is_good_for_no_other_key_name_or_board(tmp_path: Path, clock: FakeClock, token: Path) -> None:
    c = centre(clock, known=False)
    with rig(tmp_path / "d", c) as r:
        r.serve(1)
    (said, *_) = enrolments(c)
    public = claims.read_token(TOKEN, "the token").key.public
    for other in (replace(said, key=keys.COMMAND.public), replace(said, device="pi-8"), replace(said, serial="")):
        with pytest.raises(BadSignature):
            claims.verify(other.claim, public, keys.FLEET_ID, other.device, other.key, other.serial)


# The claim lets it not in, and the centre says why.


def refuses(c: Centre, why: object) -> list[Hello]:
    """Let the centre's welcome say why the claim lets a board not in; return the hellos that it looked at."""
    looked: list[Hello] = []
    real: Callable[..., Welcome] = Centre.welcome.__get__(c)

    def welcome(h: Hello, status: str, *places: int | bytes, **others: object) -> Welcome:
        looked.append(h)
        said = real(h, status, *places, **others)
        return replace(said, more={**said.more, claims.REFUSED: why}) if status == "quarantine" and h.claim else said  # type: ignore[dict-item]

    c.welcome = welcome  # type: ignore[method-assign]
    return looked


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "does not let this board in" in r.getMessage()]


def test_why_the_claim_lets_it_not_in_is_said_once_and_stands_in_status_and_doctor(
    tmp_path: Path, clock: FakeClock, token: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    why, d = "it was for 1 board, and all are in", str(tmp_path / "d")
    c = centre(clock, known=False)
    refuses(c, why)
    with rig(tmp_path / "d", c) as r:
        r.serve(4 * 3600)
        assert len(enrolments(c)) > 5
        add = f"edgecloud devices add pi-7 {r.device.board.fingerprint}"
        assert warned(caplog) == [f"the claim {'0c' * 16} does not let this board in: {why}; try: {add}"]
        with pytest.raises(NotWelcome, match=f"claim does not let it in: {why}"):
            r.lineage.check_welcome(r.lineage.head())
    with rig(tmp_path / "d", c) as r:  # the next start says it again, once
        r.serve(3600)
        assert len(warned(caplog)) == 2
    looked_at(d, why, add, capsys)


def looked_at(folder: str, why: str, add: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Look at a board that its claim does not let in, as people and programs do."""
    capsys.readouterr()
    assert cli.main(["status", "--dir", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["claim_refused"] == why
    cli.main(["status", "--dir", folder])
    line = f"the centre says quarantine: it does not know this key, and the board's claim does not let it in: {why}; try: {add}"
    assert line in capsys.readouterr().out
    cli.main(["doctor", "--dir", folder])
    out = capsys.readouterr().out
    assert f"the board's claim does not let it in: {why}" in out and f"what became of its claim; or {add}" in out


def test_another_reason_is_said_anew_and_forgotten_once_the_board_is_in(
    tmp_path: Path, clock: FakeClock, token: Path, caplog: pytest.LogCaptureFixture
) -> None:
    c = centre(clock, known=False)
    refuses(c, "it was for 1 board, and all are in")
    with rig(tmp_path / "d", c) as r:
        r.serve(100)
        refuses(c, "it has expired")
        r.serve(8000)
        assert [said.partition(" in: ")[2].partition(";")[0] for said in warned(caplog)] == [
            "it was for 1 board, and all are in", "it has expired"
        ]  # fmt: skip
        assert claim_refused(r.device.database) == "it has expired"
        c.keys["pi-7"] = PUBLIC  # the operator lets it in by hand
        r.serve(8000)
        assert r.lineage.head().welcome == "ok" and claim_refused(r.device.database) == "" and len(warned(caplog)) == 2


@pytest.mark.parametrize("odd", [7, b"expired", "", "x" * 201, "two\nlines", "\x1b[2J", ["it has expired"], {"why": "x"}, None])
def test_a_reason_of_another_form_counts_for_nothing(
    tmp_path: Path, clock: FakeClock, token: Path, caplog: pytest.LogCaptureFixture, odd: object
) -> None:
    c = centre(clock, known=False)
    refuses(c, odd)
    with rig(tmp_path / "d", c) as r:
        r.serve(100)
        assert enrolments(c) and claim_refused(r.device.database) == "" and not warned(caplog)


def test_a_hello_says_the_serial_number_of_its_proof_until_it_is_welcome(tmp_path: Path, clock: FakeClock, token: Path) -> None:
    c = centre(clock, known=False)
    looked = refuses(c, "it has expired")
    with rig(tmp_path / "d", c) as r:
        r.serve(10)
        assert looked and {claims.serial_in(h.more) for h in looked} == {"10000000a1b2c3d4"}
        public = claims.read_token(TOKEN, "the token").key.public
        claims.verify(looked[0].claim, public, keys.FLEET_ID, "pi-7", PUBLIC, "10000000a1b2c3d4")
        c.keys["pi-7"] = PUBLIC
        r.serve(8000)
        looked.clear()
        r.serve(8000)
        assert looked and not any(h.claim or claims.SERIAL in h.more for h in looked)


# The token's file and the board's serial number.


def opened(r: Path) -> None:
    with open_folder(reading.load(r / reading.FILE, environment={}, flags={}), alone=True):
        pass


def test_a_token_that_others_may_read_is_not_used_and_doctor_says_so(
    tmp_path: Path, token: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token.chmod(0o640)
    with pytest.raises(BadArgument, match="others than its owner"):
        opened(tmp_path / "d")
    assert cli.main(["status", "--dir", str(tmp_path / "d")]) == 0, "who only looks needs no token"
    capsys.readouterr()
    cli.main(["doctor", "--dir", str(tmp_path / "d")])
    out = capsys.readouterr().out
    assert "FIX  claim" in out and "chmod 600" in out and SECRET not in out
    token.chmod(0o600)
    cli.main(["doctor", "--dir", str(tmp_path / "d")])
    out = capsys.readouterr().out
    assert f"ok   claim         {'0c' * 16}, for the board with the serial number 10000000a1b2c3d4" in out and SECRET not in out


def key_of_another_kind(path: Path) -> None:
    path.write_text(write_key(KeyKind.DEVICE_PRIVATE, bytes(32)))


def half_of_one(path: Path) -> None:
    path.write_text(TOKEN[:60])


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe" * 20)


def large(path: Path) -> None:
    path.write_text(TOKEN + "0" * 10_000)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [key_of_another_kind, half_of_one, no_text, large, folder], ids=lambda f: f.__name__)
def test_a_file_that_is_no_token_is_named_and_not_repeated(tmp_path: Path, token: Path, damage: Callable[[Path], None]) -> None:
    damage(token)
    with pytest.raises((WrongKeyKind, ConfigError, BadArgument), match=r"device\.claim") as refused:
        opened(tmp_path / "d")
    assert SECRET[:20] not in refused.value.message


def test_init_puts_the_token_beside_the_key_for_its_owner_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = give_token(tmp_path / "image")
    model = Path(__file__).parents[2] / "models" / "tiny.tflite"
    words = ["init", "--device", "pi-8", "--fleet", "home", "--fleet-key", str(tmp_path / "image" / "fleet.pub"), "--model",
             f"tiny={model}", "--dir", str(tmp_path / "n"), "--claim", str(source)]  # fmt: skip
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert SECRET not in out and "edgecloud devices add" not in out and "edgecloud claim list" in out
    made = tmp_path / "n" / "device.claim"
    assert made.read_text() == f"{TOKEN}\n" and made.stat().st_mode & 0o777 == 0o600
    assert SECRET not in (tmp_path / "n" / "edgeagent.toml").read_text()
    source.chmod(0o644)
    assert cli.main([*words[:-3], str(tmp_path / "m"), *words[-2:]]) == 15 and not (tmp_path / "m").exists()
    assert SECRET not in capsys.readouterr().err
    missing = [*words[:-3], str(tmp_path / "m"), "--claim", str(tmp_path / "none")]
    assert cli.main(missing) == 12 and not (tmp_path / "m").exists()


def test_the_setting_goes_before_the_firmwares_serial_number(tmp_path: Path, token: Path) -> None:
    path = tmp_path / "d" / reading.FILE
    for flags, serial in (({}, "10000000a1b2c3d4"), ({"device.serial": "line-3/17"}, "line-3/17"), ({"device.claim": ""}, None)):
        with open_folder(reading.load(path, environment={}, flags=flags), alone=True) as device:  # type: ignore[arg-type]
            assert (device.claim.serial if device.claim else None) == serial


@pytest.mark.parametrize(
    ("data", "serial"),
    [(b"", ""), (b"\0", ""), (b"abc", "abc"), (b" abc \n\0", "abc"), (b"abc\0def", "abc"), (b"a" * 64, "a" * 64), (b"a" * 65, ""),
     (b"a" * 300, ""), (b"\xff\xff", ""), (b"a\x1b[2J", "")],
)  # fmt: skip
def test_what_the_firmware_says_is_a_serial_number_or_nothing(tmp_path: Path, data: bytes, serial: str) -> None:
    (tmp_path / "serial").write_bytes(data)
    assert read_serial(tmp_path / "serial") == serial
    assert read_serial(tmp_path / "none") == "" == read_serial(tmp_path)


# Too many epochs.


def test_a_board_whose_name_burns_epochs_is_told_so_in_words(
    tmp_path: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "d")
    c = centre(clock)
    c.welcome = lambda h, status, *a, **k: real(h, "epochs")  # type: ignore[method-assign]
    real: Callable[..., Welcome] = Centre.welcome.__get__(c)
    with rig(tmp_path / "d", c) as r:
        r.serve(5)
        check_says_why(r)
    capsys.readouterr()
    assert cli.main(["status", "--dir", str(tmp_path / "d")]) == 0
    out = capsys.readouterr().out
    assert "the centre says epochs: a device of this name was set up anew too often in a day" in out
    assert "edgecloud devices reset pi-7" in out
    assert cli.main(["doctor", "--dir", str(tmp_path / "d")]) == 1
    out = capsys.readouterr().out
    assert "FIX  centre" in out and "edgecloud devices reset pi-7" in out


def check_says_why(r: Rig) -> None:
    with pytest.raises(LinkError, match="set up anew too often in a day") as refused:
        r.lineage.check_welcome(r.lineage.head())
    assert "edgecloud devices reset pi-7" in refused.value.next_step
