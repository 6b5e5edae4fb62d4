"""One look at a broker tells in seconds what stands where it should be, and a look is never a session."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeagent import cli
from edgeagent.link.first_look import look
from edgeagent.settings.tree import LinkSettings
from modelwire.wire.keys import write_fleet
from tests import broker, keys
from tests.certificates import Authority, server
from tests.worlds import MODELS

SOON = 20.0  # seconds: far more than it takes on a busy machine, and far less than a name server that is not there


@contextmanager
def answering(first: bytes | None) -> Iterator[int]:
    """Listen; to whoever connects and speaks, answer so, or hang up for none at all. Yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(512)
                        if first is not None:
                            connection.sendall(first)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def seen(url: str, folder: Path, *, seconds: float = 3.0, **settings: Any) -> tuple[bool, str]:
    found = look(LinkSettings(broker=url, **settings), folder, "home", "pi-7", "tiny", seconds=seconds)
    return found.reached, found.text


@pytest.mark.skipif(broker.program() is None, reason=broker.MISSING)
def test_a_broker_answers_over_plain_mqtt_and_not_over_tls(tmp_path: Path) -> None:
    with broker.mosquitto(tmp_path) as b:
        assert seen(b.url, tmp_path) == (True, f"{b.url} answers")
        reached, text = seen(b.url.replace("mqtt:", "mqtts:"), tmp_path)
        assert not reached and "speaks MQTT without TLS" in text and "mqtt://" in text


def test_tls_is_told_from_plain_and_a_certificate_nobody_knows_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with server(authority.issue("127.0.0.1")) as port:
        reached, text = seen(f"mqtt://127.0.0.1:{port}", tmp_path)
        assert not reached and "TLS" in text and "mqtts://" in text
        reached, text = seen(f"mqtts://127.0.0.1:{port}", tmp_path)
        assert not reached and "is not believed" in text and "link.tls_ca" in text
        reached, text = seen(f"mqtts://127.0.0.1:{port}", tmp_path, tls_ca=authority.file.name)
        assert not reached and "certificate" not in text, "it is believed, and speaks no MQTT behind TLS"
        reached, text = seen(f"mqtts://127.0.0.1:{port}", tmp_path, tls_ca="nowhere.pem")
        assert not reached and "tls_ca" in text


@pytest.mark.parametrize(
    ("first", "said"),
    [(b"HTTP/1.1 400 Bad", "speaks HTTP"), (b"SSH-2.0", "something else than MQTT"), (None, "mqtts://"), (b"\x15\x03\x01", "speaks TLS")],
)
def test_what_is_no_broker_is_told(tmp_path: Path, first: bytes | None, said: str) -> None:
    with answering(first) as port:
        reached, text = seen(f"mqtt://127.0.0.1:{port}", tmp_path)
        assert not reached and said in text


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts"])
def test_a_port_where_nothing_listens_and_a_name_that_is_none_are_told_apart(tmp_path: Path, scheme: str) -> None:
    assert "nothing listens" in seen(f"{scheme}://127.0.0.1:{broker.free_port()}", tmp_path)[1]
    for name in ("no-such-host.invalid", "host..example", "x" * 70):
        reached, text = seen(f"{scheme}://{name}", tmp_path)
        assert not reached and ("no host" in text or "has not answered within" in text), text


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts"])
def test_who_takes_the_connection_and_says_nothing_is_not_waited_for(tmp_path: Path, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        reached, text = seen(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", tmp_path, seconds=0.3)
        assert not reached and time.monotonic() - began < SOON, text


def init(capsys: pytest.CaptureFixture[str], folder: Path, *more: str) -> tuple[int, str, str]:
    key = folder.parent / "fleet.pub"
    key.write_text(f"{write_fleet(keys.FLEET)}\n")
    words = ["init", "--device", "pi-7", "--fleet", "home", "--fleet-key", str(key), "--model", f"tiny={MODELS / 'tiny.tflite'}"]
    capsys.readouterr()
    code = cli.main([*words, "--dir", str(folder), *more])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("EDGEAGENT_")]:
        monkeypatch.delenv(name)


def test_init_sets_a_board_up_offline_and_says_that_nobody_was_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{broker.free_port()}"
    code, out, _ = init(capsys, tmp_path / "a", "--broker", url)
    assert code == 0 and f"broker: NOT REACHED: {url}: " in out and "nothing listens at" in out
    code, out, _ = init(capsys, tmp_path / "b", "--broker", url, "--no-check", "--json")
    assert code == 0 and json.loads(out)["broker"] == {"url": url, "reached": None, "says": ""}
    code, out, _ = init(capsys, tmp_path / "c", "--set", f"link.broker={url}", "--json")
    assert code == 0 and json.loads(out)["broker"]["reached"] is False
    code, out, _ = init(capsys, tmp_path / "d")
    assert code == 0 and "broker" not in out, "the default was not asked for"


@pytest.mark.parametrize(
    "url",
    [
        "host", "host:1883", "tcp://host", "mqtt://", "mqtt://host:0", "mqtt://host:65536", "mqtt://host:-1", "mqtt://ho st", "mqtt://host/topic",
        "mqtt://host?x=1", "mqtt://me@host", "http://host", "", "mqtt://[::1", "mqtt://host#x", "mqtt//host", "mqtt://host,other",
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["--broker", "--set"])
def test_what_can_t_be_a_brokers_url_is_refused_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, url: str, form: str
) -> None:
    code, _, err = init(capsys, tmp_path / "d", form, url if form == "--broker" else f"link.broker={url}", "--no-check")
    assert code in (10, 15) and "link.broker" in err and not (tmp_path / "d").exists()
    assert "--broker mqtt://192.0.2.10:1883" in err or code == 15
