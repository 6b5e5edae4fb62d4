"""A broker's URL says where it is, who speaks and whether over TLS; what is no such URL says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecommon.broker import Broker, Certificates, holds_password, parse_url, redacted


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("mqtt://host", Broker("host", 1883)),
        ("mqtts://host", Broker("host", 8883, tls=True)),
        ("mqtts://m%40e@host:99/", Broker("host", 99, "m@e", tls=True)),
        ("mqtt://[::1]:1884", Broker("::1", 1884)),
    ],
)
def test_a_url_names_a_broker(url: str, broker: Broker) -> None:
    assert parse_url(url) == broker


@pytest.mark.parametrize("url", ["host", "http://host", "mqtt://", "mqtt://host/path", "mqtt://host?query", "", "mqtt://me:pass@host"])
def test_another_url_names_none(url: str) -> None:
    assert parse_url(url) is None


@pytest.mark.parametrize("url", ["mqtt://host:port", "mqtt://host:99999", "mqtt://[::1"])
def test_what_is_no_url_at_all_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        parse_url(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mqtt://me:hush@host:1883", "mqtt://me:***@host:1883"),
        ("mqtts://me:h/u#s?h@host", "mqtts://me:***@host"),
        ("mqtt://me:hu@sh@host", "mqtt://me:***@host"),
        ("mqtt://me:my hush\n@host", "mqtt://me:***@host"),
        ("mqtt://m@e.org:hush@host", "mqtt://m@e.org:***@host"),
        ("mqtt://me:@host", "mqtt://me:***@host"),
        ("mqtt://:hush@host", "mqtt://:***@host"),
        ("mqtt://me\uff1ahush\uff20host", "mqtt://me\uff1a***@host"),
        ("me:hush@host", "me:***@host"),
        ("http://me:hush@host/path", "http://me:***@host/path"),
    ],
)
def test_a_password_in_a_url_is_seen_and_never_shown(url: str, shown: str) -> None:
    assert holds_password(url) and redacted(url) == shown
    assert "hush" not in redacted(f"unrecognized arguments: {url}") or "//" not in url


@pytest.mark.parametrize(
    "url",
    ["mqtt://host", "mqtt://host:1883", "mqtts://me@host:99/", "mqtt://[::1]:1884", "host:2000", "me@host:2000", "mqtt://m%40e@host", ""],
)
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert not holds_password(url) and redacted(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://me:hush", "mqtt://me:123hush/", "mqtt://host?password=hush", "mqtt://host/#hush", "me:hush", "mqtt://me:a/hush",
        "mqtt://me:a'hush", "mqtt://me:my hush", "mqtts:me:hush", "mqtt:/me:hush", "//me:hush", "mqtt://me:hush:1883",
        "mqtt://me\uff1ahush", "me:1883hush", ":hush",
    ],
)  # fmt: skip
def test_what_may_be_meant_as_a_password_is_not_shown_either(url: str) -> None:
    assert "hush" not in redacted(url)


@pytest.mark.parametrize("url", ["mqtt://me:123456", "me:123456"])
def test_more_digits_than_a_port_has_are_not_shown(url: str) -> None:
    assert "123456" not in redacted(url)


@pytest.mark.parametrize("text", ["a file: none", "FILE: mqtt://host:1883 is away", "12:30", "b: c:d"])
def test_a_text_that_holds_no_password_is_shown_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_a_broker_does_not_tell_its_password_when_it_is_printed() -> None:
    assert "hush" not in repr(Broker("host", 1883, "me", "hush"))


def test_certificates_that_cannot_be_used_are_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    bad = tmp_path / "ca.pem"
    for certificates in (Certificates(ca=tmp_path / "none.pem"), Certificates(ca=bad), Certificates(own=bad)):
        with pytest.raises(OSError):
            certificates.context()
    assert Certificates(key=tmp_path / "none.pem").context().check_hostname, "a key without its certificate is nothing"
