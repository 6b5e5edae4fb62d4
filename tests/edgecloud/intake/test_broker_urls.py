"""A broker is named by a URL, and what is none is refused at once."""

from __future__ import annotations

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
        ("mqtts://me:p%40ss@host", Broker("host", 8883, "me", "p@ss", True)),
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
    assert parse_broker("mqtt://me@host", password_file=tmp_path / "secret").password == "hush"
    with pytest.raises(BadArgument):
        parse_broker("mqtt://me@host", password_file=tmp_path / "none")
