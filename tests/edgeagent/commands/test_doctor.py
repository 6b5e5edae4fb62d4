"""What doctor, status, publish and the log of a board say of a broker that lets it not in, and of another fleet's centre."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which

import pytest

from edgeagent import cli
from edgeagent.link import unread
from edgeagent.link.link_state import LinkState, note, noted
from edgeagent.settings import reading
from edgeagent.state.folder import LOCK, open_folder
from edgeagent.state.lineage import FORKED
from edgecommon import files
from edgecommon.mqtt_packets import INBOUND, Oversize
from modelwire.errors import BrokerRefused, LinkError, WrongFleet
from modelwire.wire import records, topics
from tests import broker, keys
from tests.edgeagent.boards import Rig, centre, make, rig
from tests.edgeagent.centre import FakeClock

needs_mosquitto = pytest.mark.skipif(broker.program() is None or which("mosquitto_passwd") is None, reason=broker.MISSING)
OTHER = b"\x99" * 16  # the id of another fleet


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[broker.Mosquitto]:
    """A broker that knows pi-7 by a password."""
    words = tmp_path / "words"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(words), "pi-7", "hush"], check=True, capture_output=True)
    words.chmod(0o644)
    made = broker.Mosquitto(tmp_path / "b")
    made._config.write_text(made._config.read_text().replace("allow_anonymous true", f"allow_anonymous false\npassword_file {words}"))
    made.start()
    yield made
    made.stop()


def board(folder: Path, url: str, word: str = "") -> list[str]:
    """Make a board that goes to this broker, and return the arguments that name it."""
    make(folder, link__broker=url, link__user="pi-7" if word else "", link__password_file="word" if word else "")
    if word:
        (folder / "word").write_text(word)
        (folder / "word").chmod(0o600)
    return ["--dir", str(folder)]


def checks(capsys: pytest.CaptureFixture[str], where: list[str]) -> dict[str, dict[str, object]]:
    """Return doctor's checks by their keys; of several of one key the last."""
    capsys.readouterr()
    code = cli.main(["doctor", *where, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == (1 if any(c["ok"] is False for c in found["checks"]) else 0) and found["ok"] is (code == 0)
    return {c["key"]: c for c in found["checks"]}


def status(capsys: pytest.CaptureFixture[str], where: list[str]) -> str:
    capsys.readouterr()
    assert cli.main(["status", *where]) == 0
    return capsys.readouterr().out


@needs_mosquitto
def test_a_wrong_password_is_named_by_publish_status_and_doctor_and_by_its_exit_code(
    tmp_path: Path, guarded: broker.Mosquitto, capsys: pytest.CaptureFixture[str]
) -> None:
    where = board(tmp_path / "d", guarded.url, "guess")
    assert cli.main(["publish", *where, "--timeout", "1s"]) == BrokerRefused.code == 34
    said = capsys.readouterr().err
    assert "wrong password for the user pi-7" in said and "guess" not in said
    out = status(capsys, where)
    assert "the last agent had no link: " in out and "wrong password for the user pi-7" in out
    found = checks(capsys, where)
    assert (found["broker-port"]["ok"], found["broker-login"]["ok"], found["broker-access"]["ok"]) == (True, False, None)
    assert "wrong password" in str(found["broker-login"]["text"]) and "link.password_file" in str(found["broker-login"]["hint"])
    (tmp_path / "d" / "word").write_text("hush")
    found = checks(capsys, where)
    assert all(found[f"broker-{step}"]["ok"] for step in ("name", "port", "login", "access", "trip"))


def test_a_port_at_which_nobody_listens_is_named_by_publish_with_another_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = board(tmp_path / "d", f"mqtt://127.0.0.1:{broker.free_port()}")
    assert cli.main(["publish", *where, "--timeout", "500ms", "--json"]) == LinkError.code
    assert "connection refused: nothing listens" in capsys.readouterr().err
    assert "connection refused" in status(capsys, where)


def test_messages_that_were_too_large_are_counted_by_status_and_doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = board(tmp_path / "d", f"mqtt://127.0.0.1:{broker.free_port()}")
    assert "unread" not in status(capsys, where) and "messages" not in checks(capsys, where)
    loaded = reading.load(tmp_path / "d" / "edgeagent.toml", environment={}, flags={})
    with open_folder(loaded, alone=False) as device:
        tally = unread.UnreadTally(device.database, lambda: 1_800_000_000)
        for n in range(1000):
            tally.add(Oversize("e1/home/pi-7/tiny/dn/cmd", 10**8), float(n) / 100)
        kept = unread.noted(device.database)
        assert kept is not None and kept.count == 1, "not written at each of them"
        tally.write()
        tally = unread.UnreadTally(device.database, lambda: 1_800_000_000)
        tally.add(Oversize("e1/home/pi-7/tiny/dn/cmd", 10**8), 0.0)
    assert f"1001 messages above {INBOUND} bytes were let go unread, {1001 * 10**8} bytes, the last 2027-01-15" in status(capsys, where)
    found = checks(capsys, where)["messages"]
    assert found["ok"] is None and "max_packet_size" in str(found["hint"]) and "1001 messages" in str(found["text"])


@needs_mosquitto
def test_the_session_of_an_agent_that_is_connected_is_let_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with broker.mosquitto(tmp_path) as b:
        where = board(tmp_path / "d", b.url)
        loaded = reading.load(tmp_path / "d" / "edgeagent.toml", environment={}, flags={})
        with open_folder(loaded, alone=False) as device:
            note(device.database, LinkState(True, b.url, 1_800_000_000))
            assert noted(device.database) == LinkState(True, b.url, 1_800_000_000)
        with files.locked(loaded.state / LOCK):
            before = b.log.read_text().count("New client connected")
            found = checks(capsys, where)
            assert found["broker-login"]["ok"] and f"the agent, process {os.getpid()}, is let in" in str(found["broker-login"]["text"])
            assert found["broker-access"]["ok"] is None and b.log.read_text().count("New client connected") == before
            assert "\nconnected since" in status(capsys, where)
            with open_folder(loaded, alone=False) as device:
                note(device.database, LinkState(False, b.url, 1_800_000_000, "session taken over: another client", "session", True))
            found = checks(capsys, where)
            assert found["broker-trip"]["ok"], "who is not connected has no session that could be taken"
            assert found["link"]["ok"] is False and "taken over" in str(found["link"]["text"])
            now = int(time.time())
            with open_folder(loaded, alone=False) as device:
                note(device.database, LinkState(True, b.url, now, "let in and put off again and again", "session", True))
            assert checks(capsys, where)["link"]["ok"] is False, "connected for a moment"
            assert "again and again" in status(capsys, where)
            with open_folder(loaded, alone=False) as device:
                note(device.database, LinkState(True, b.url, now - 3600, "let in and put off again and again", "session", True))
            assert "link" not in checks(capsys, where) and "again and again" not in status(capsys, where), "that is over"
            with open_folder(loaded, alone=False) as device:
                note(device.database, LinkState(False, b.url, now, "session taken over", "session", True))
        # As a kill leaves it, and another process has the number by now: one that surely holds no lock of another test.
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as another:
            (loaded.state / LOCK).write_text(str(another.pid))
            assert "the agent is not running" in status(capsys, where)
            assert another.poll() is None
            another.communicate()
        assert checks(capsys, where)["link"]["ok"] is False, "no look can see that another client takes the session"


def test_what_another_release_noted_of_the_link_is_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = board(tmp_path / "d", f"mqtt://127.0.0.1:{broker.free_port()}")
    loaded = reading.load(tmp_path / "d" / "edgeagent.toml", environment={}, flags={})
    for odd in ("no JSON", '{"up": true}', "[]", "7"):
        with open_folder(loaded, alone=False) as device:
            device.database.run("INSERT OR REPLACE INTO meta (key, value) VALUES ('link', ?)", odd)
            assert noted(device.database) is None
        assert "connected" not in status(capsys, where).splitlines()[1]


def trust_of(fleet_id: bytes, number: int = 1) -> tuple[str, bytes]:
    """Return a trust record of a fleet of our name, and the topic on which the centre says it to pi-7."""
    return topics.down("home", "pi-7", "all", "trust"), records.encode(keys.trust("home", number=number), keys.ROOT, fleet_id)


def told(r: Rig, fleet_id: bytes) -> None:
    topic, data = trust_of(fleet_id)
    with pytest.raises(WrongFleet) as refused:
        r.agent.hear(topic, data, 0.0)
    r.device.trust.hear_foreign(refused.value)


def test_a_board_with_another_fleets_key_says_so_in_status_doctor_and_log(
    tmp_path: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    where = board(tmp_path / "d", f"mqtt://127.0.0.1:{broker.free_port()}")
    assert OTHER.hex() not in status(capsys, where)
    silent = centre(clock)
    silent.drop_up = lambda leaf, said: True  # of another fleet: it believes no hello of ours
    with rig(tmp_path / "d", silent) as r:
        for _ in range(3):
            silent.deliver(*trust_of(OTHER))
            r.serve(2)
    assert capsys.readouterr().err.count("the centre that answers here is of the fleet with the id " + OTHER.hex()) == 1, "said once"
    out = status(capsys, where)
    assert f"fleet.pub is of the fleet with the id {keys.FLEET_ID.hex()}" in out and OTHER.hex() in out and "trust show" in out
    assert "devices add" not in out, "to be let in would help nothing"
    capsys.readouterr()
    assert cli.main(["doctor", *where]) == 1
    out = capsys.readouterr().out
    assert "FIX  centre" in out and OTHER.hex() in out
    with rig(tmp_path / "d", centre(clock)) as r:
        r.serve(5)
        assert r.device.trust.foreign == b"", "its own centre has answered"
        told(r, OTHER)
        assert "another fleet of this name" in r.device.trust.foreign_said, "its own has spoken before"

def test_doctor_calls_nothing_well_that_keeps_a_board_from_sending(
    tmp_path: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"mqtt://127.0.0.1:{broker.free_port()}"
    where = board(tmp_path / "d", url)
    early = checks(capsys, where)["welcome"]
    assert (early["ok"], "edgeagent run" in str(early["hint"])) == (None, True), "it was not started yet"
    with rig(tmp_path / "d", centre(clock)) as r:
        note(r.device.database, LinkState(True, url, int(time.time()) - 60))
    silent = checks(capsys, where)["welcome"]
    assert silent["ok"] is False and "of the fleet 'home'" in str(silent["text"]) and "edgecloud ingest" in str(silent["hint"])
    with rig(tmp_path / "d", centre(clock, known=False)) as r:
        r.serve(5)
    waits = checks(capsys, where)["welcome"]
    assert waits["ok"] is None and "does not know this key" in str(waits["text"]) and "edgecloud devices add pi-7" in str(waits["hint"])
    give = tmp_path / "d" / "device.claim"
    give.write_text("spoilt")
    assert str(checks(capsys, where)["welcome"]["hint"]).startswith("edgecloud claim list")
    give.unlink()
    with rig(tmp_path / "d", centre(clock)) as r:
        r.serve(5)
        assert checks(capsys, where)["welcome"]["ok"] is True
        r.device.database.run("UPDATE model SET blocked=?", f"{FORKED}: the centre holds @2")
    blocked = checks(capsys, where)["welcome"]
    assert blocked["ok"] is False and "BLOCKED" in str(blocked["text"]) and "Two of one name" in str(blocked["hint"])


def spoil(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[8192:24576] = b"\x5a" * 16384
    file.write_bytes(data)


BREAKS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a damaged spool": (lambda d: spoil(d / "state/samples/samples.db"), "state", "malformed"),
    "no spool": (lambda d: (d / "state/samples/samples.db").unlink(), "state", "the spool of samples is not there"),
    "no served file": (lambda d: (d / "state/models/tiny/served.tflite").unlink(), "model", "nothing to open"),
    "a clock that was set back": (lambda d: os.utime(d / "edgeagent.toml", (time.time() + 7200,) * 2), "clock", "it was set back"),
    "a cut model": (lambda d: (d / "state/models/tiny/a/model.tflite").write_bytes(b"x"), "model", "its bytes are not those"),
    "no base": (lambda d: (d / "state/models/tiny/base.tflite").unlink(), "disk", "base.tflite"),
    "a password file that is not there": (lambda d: (d / "word").unlink(), "broker", "the broker's password file"),
}


@pytest.mark.parametrize("how", BREAKS)
def test_doctor_says_so_of_each_thing_that_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str) -> None:
    where = board(tmp_path / "d", f"mqtt://127.0.0.1:{broker.free_port()}", "hush")
    change, key, said = BREAKS[how]
    assert checks(capsys, where)[key]["ok"], "it is well before"
    change(tmp_path / "d")
    found = checks(capsys, where)[key]
    assert found["ok"] is False and said in str(found["text"]) and found["hint"], found


@pytest.mark.parametrize("name", ["tls_ca", "tls_cert", "tls_key"])
def test_a_file_for_tls_that_is_not_there_is_named_by_its_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    beside = {"link__tls_cert": "word"} if name == "tls_key" else {}
    make(tmp_path / "d", link__broker="mqtts://127.0.0.1:1", **{f"link__{name}": "none.pem"}, **beside)
    (tmp_path / "d" / "word").write_text("x")
    found = checks(capsys, ["--dir", str(tmp_path / "d")])["broker"]
    assert found["ok"] is False and f"none.pem: the file of link.{name} is not there" in str(found["text"])
    assert found["hint"] == "check the path"
