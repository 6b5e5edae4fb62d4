"""A broker is named by a URL, and what is none is refused at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgecloud.intake.mqtt import parse_broker
from edgecommon.broker import Broker
from modelwire.errors import BadArgument


@pytest.mark.parametrize("host", ["host..example", "a" * 64 + ".example", "-" * 300])
def test_a_broker_whose_name_no_resolver_takes_is_refused_at_once(host: str) -> None:
    with pytest.raises(BadArgument, match="is no broker"):
        parse_broker(f"mqtt://{host}")


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("mqtt://host", Broker("host", 1883)),
        ("host:2000", Broker("host", 2000)),
        ("mqtts://m%40e@host", Broker("host", 8883, "m@e", tls=True)),
        ("mqtt://[::1]:1884/", Broker("::1", 1884)),
    ],
)
def test_a_broker_is_read_from_its_url(url: str, broker: Broker) -> None:
    assert parse_broker(url) == broker


@pytest.mark.parametrize("url", ["http://host", "mqtt://", "mqtt://host:port", "mqtt://host/path", "", "mqtt://host:99999"])
def test_what_is_no_broker_is_said_so(url: str) -> None:
    with pytest.raises(BadArgument):
        parse_broker(url)


def test_the_password_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush\n")
    (tmp_path / "secret").chmod(0o600)
    assert parse_broker("mqtt://me@host", password_file=tmp_path / "secret").password == "hush"
    with pytest.raises(BadArgument):
        parse_broker("mqtt://me@host", password_file=tmp_path / "none")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o602])
def test_a_password_file_that_others_may_look_at_is_refused_with_the_line_that_mends_it(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "my secret"
    file.write_text("hush\n")
    file.chmod(mode)
    with pytest.raises(BadArgument, match="may be read by others") as refused:
        parse_broker("mqtt://me@host", password_file=file)
    assert refused.value.next_step == f"chmod 600 '{file}'" and "hush" not in str(refused.value)


def test_a_password_file_is_a_file_of_text(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "bytes").write_bytes(b"hush\xff")
    (tmp_path / "bytes").chmod(0o600)
    for name, said in (("pipe", "is no regular file"), ("folder", "is no regular file"), ("bytes", "holds no password")):
        with pytest.raises(BadArgument, match=said) as refused:
            parse_broker("mqtt://me@host", password_file=tmp_path / name)
        assert "hush" not in str(refused.value)


@pytest.mark.parametrize("url", ["mqtt://me:hush@host", "me:hush@host", "mqtts://me:hu/sh@host", "mqtt://me:hush\uff20host"])
def test_a_url_with_a_password_is_refused_by_name_and_not_shown(url: str) -> None:
    with pytest.raises(BadArgument, match="holds a password") as refused:
        parse_broker(url)
    said = f"{refused.value} {refused.value.next_step}"
    assert "--password-file" in said and "EDGECLOUD_PASSWORD_FILE" in said and "hush" not in said and "hu/sh" not in said
