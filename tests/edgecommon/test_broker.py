"""A broker's URL says where it is, who speaks and whether over TLS; what is no such URL says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecommon.broker import Broker, Certificates, parse_url


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("mqtt://host", Broker("host", 1883)),
        ("mqtts://host", Broker("host", 8883, tls=True)),
        ("mqtts://me:p%40ss@host:99/", Broker("host", 99, "me", "p@ss", True)),
        ("mqtt://[::1]:1884", Broker("::1", 1884)),
    ],
)
def test_a_url_names_a_broker(url: str, broker: Broker) -> None:
    assert parse_url(url) == broker


@pytest.mark.parametrize("url", ["host", "http://host", "mqtt://", "mqtt://host/path", "mqtt://host?query", ""])
def test_another_url_names_none(url: str) -> None:
    assert parse_url(url) is None


@pytest.mark.parametrize("url", ["mqtt://host:port", "mqtt://host:99999", "mqtt://[::1"])
def test_what_is_no_url_at_all_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        parse_url(url)


def test_certificates_that_cannot_be_used_are_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    bad = tmp_path / "ca.pem"
    for certificates in (Certificates(ca=tmp_path / "none.pem"), Certificates(ca=bad), Certificates(own=bad)):
        with pytest.raises(OSError):
            certificates.context()
    assert Certificates(key=tmp_path / "none.pem").context().check_hostname, "a key without its certificate is nothing"
