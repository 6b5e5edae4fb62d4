"""Addresses of files: filled in, read strictly, and where a server may send on to. No network here."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from modelwire.deploying.terms import URL_MAX

from .tasks import FetchTask

REDIRECTS = 3  # that are followed, one behind the other
_PORTS = {"http": 80, "https": 443}


class AddressError(ValueError):
    """An address that is not gone to; its text says why."""


@dataclass(frozen=True, slots=True)
class Address:
    """One that can be asked."""

    scheme: str
    host: str
    port: int
    target: str  # path and query, as they go into a request
    url: str

    @property
    def server(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def host_header(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _PORTS[self.scheme] else f"{name}:{self.port}"

    def __str__(self) -> str:
        """The address without its query, which may hold what lets one in."""
        return f"{self.scheme}://{self.host_header}{self.target.partition('?')[0]}"


def filled(url: str, task: FetchTask) -> str:
    """Return an address with the file's digest and the variant's commit, in hex, where it says {file} and {commit}."""
    return url.replace("{file}", task.file.hex()).replace("{commit}", task.commit.hex())


def leaves_beside(url: str) -> str:
    """Return where the leaves of the file at an address would lie: `NAME.leaves` beside `NAME.tflite`, which keeps its query."""
    path, mark, query = url.partition("?")
    return path.removesuffix(".tflite") + ".leaves" + mark + query


def read(url: str) -> Address:
    """Return an address. Raises AddressError."""
    if len(url) > URL_MAX * 2 or not url.isascii() or not url.isprintable() or " " in url:
        raise AddressError("its address is no plain text")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise AddressError(f"its address can't be read: {e}") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise AddressError("its address is neither http://HOST nor https://HOST")
    if parts.username is not None or parts.password is not None:
        raise AddressError("its address holds a user or a password")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(parts.scheme, parts.hostname, port if port is not None else _PORTS[parts.scheme], target, url)


def sent_on(before: Address, location: str) -> Address:
    """Return where a server sends on to. Raises AddressError, also for another scheme: https never ends in http."""
    try:
        url = urljoin(before.url, location)
    except ValueError as e:
        raise AddressError(f"where it is sent on to can't be read: {e}") from None
    after = read(url)
    if after.scheme != before.scheme:
        raise AddressError(f"it is sent on from {before.scheme} to {after.scheme}")
    return after
