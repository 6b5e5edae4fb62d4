"""Addresses: filled in, read strictly, and never sent on from https to http."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeagent.fetching.addresses import AddressError, filled, leaves_beside, read, sent_on

from .files import Wanted


@pytest.mark.parametrize(
    ("url", "server", "target", "host"),
    [
        ("http://files/a.tflite", ("http", "files", 80), "/a.tflite", "files"),
        ("https://files:8443/a?b=c#d", ("https", "files", 8443), "/a?b=c", "files:8443"),
        ("http://[::1]:8080", ("http", "::1", 8080), "/", "[::1]:8080"),
        ("https://files:443/a", ("https", "files", 443), "/a", "files"),
    ],
)
def test_an_address_is_read(url: str, server: tuple[str, str, int], target: str, host: str) -> None:
    address = read(url)
    assert (address.server, address.target, address.host_header) == (server, target, host)


@pytest.mark.parametrize(
    "url",
    [
        "", "ftp://files/a", "http://", "http:///a", "http://user:secret@files/a", "http://files:x/a", "http://files:99999/a",
        "http://a b/", "http://files/\r\nHost: x", "http://files/ü", "file:///etc/passwd", "//files/a", "http://[::1/a",
        "http://files/" + "a" * 5000,
    ],
)  # fmt: skip
def test_what_is_none_is_refused(url: str) -> None:
    with pytest.raises(AddressError):
        read(url)


@given(st.text())
@example("http://[")
@example("http://files/\x00")
@example("http://files\t/")
def test_any_text_is_read_or_refused(text: str) -> None:
    for url in (text, "http://" + text, "http://files/" + text):
        try:
            address = read(url)
        except AddressError:
            continue
        request = f"GET {address.target} HTTP/1.1\r\nHost: {address.host_header}\r\n"
        assert request.count("\r\n") == 2 and len(request.split(" ")) == 4, "nothing of an address may look like a line of a request"
        assert 0 <= address.port < 65536


@given(st.text())
@example("http://[")
@example("//[::1")
def test_wherever_a_server_sends_on_to_is_read_or_refused(location: str) -> None:
    with contextlib.suppress(AddressError):
        assert sent_on(read("http://files/a"), location).scheme == "http"


def test_the_query_is_told_to_nobody_but_the_server() -> None:
    assert str(read("https://files/a?token=secret")) == "https://files/a"


@pytest.mark.parametrize(
    ("location", "url"),
    [("/b", "http://files/b"), ("b?c", "http://files/x/b?c"), ("http://other:81/c", "http://other:81/c"), ("//other/c", "http://other/c")],
)
def test_a_server_may_send_on_within_its_scheme(location: str, url: str) -> None:
    assert sent_on(read("http://files/x/a"), location).url == url


@pytest.mark.parametrize(
    ("before", "location"), [("https://files/a", "http://files/a"), ("http://files/a", "https://files/a"), ("https://files/a", "file:///a")]
)
def test_and_not_beyond_it(before: str, location: str) -> None:
    with pytest.raises(AddressError):
        sent_on(read(before), location)


def test_where_the_leaves_lie_and_how_an_address_is_filled() -> None:
    assert leaves_beside("http://f/a.tflite?x=.tflite") == "http://f/a.leaves?x=.tflite"
    assert leaves_beside("http://f/a") == "http://f/a.leaves"
    task = Wanted(1).task()
    assert filled("http://f/{file}/{commit}", task) == f"http://f/{task.file.hex()}/{task.commit.hex()}"
