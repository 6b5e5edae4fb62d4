"""Where a broker is and how it wants to be spoken to: its URL, without a password in it, and TLS to it."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from edgecommon.files import require_regular

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files for TLS: the ones that sign the broker's, where the system's don't; and one's own certificate with its private key."""

    ca: Path | None = None
    own: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Return what TLS goes by. Raises OSError for files that can't be used."""
        import ssl  # a plain link never loads it

        for path in filter(None, (self.ca, self.own, self.own and self.key)):
            require_regular(path)  # OpenSSL would wait for a pipe, and read a device for ever
        context = ssl.create_default_context(cafile=self.ca)
        if self.own is not None:
            context.load_cert_chain(self.own, self.key)
        return context


NO_CERTIFICATES = Certificates()


@dataclass(frozen=True, slots=True)
class Broker:
    """What a broker's URL says, the password for it out of a file, and the certificates."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    certificates: Certificates = NO_CERTIFICATES

    @property
    def url(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"


# A CONNECT in a version of MQTT that there is not: a broker answers or hangs up, and no session of anyone is touched by it.
_PROBE = bytes.fromhex("100c00044d5154540900003c0000")
_SILENCE = 0.3  # seconds in which a broker that does not take a certificate says so


def require_taken(secured: ssl.SSLSocket) -> None:
    """Raise OSError when a broker does not take the certificate that it was shown, or wants one and was shown none.

    In TLS 1.3 it says so only after the handshake, which by itself proves nothing.
    """
    import select

    seconds = secured.gettimeout()
    if select.select([secured], [], [], _SILENCE)[0]:
        secured.settimeout(_SILENCE)
        with suppress(TimeoutError):  # what came was of TLS alone
            secured.recv(64)
    secured.settimeout(seconds)
    secured.sendall(_PROBE)
    with suppress(TimeoutError):  # it takes its time with strangers, and did not refuse this one
        secured.recv(64)


def parse_url(url: str) -> Broker | None:
    """Return the broker of mqtt[s]://[USER@]HOST[:PORT]; None for another URL, and for one that holds a password.

    Raises ValueError for what is no URL at all.
    """
    parts = urlsplit(url)
    tls, port = parts.scheme == "mqtts", parts.port
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path.strip("/") or parts.query or parts.password is not None:
        return None
    if port == 0 or re.search(r"[\s\x00-\x1f\x7f*,;<>\"'\\{}|^`]", parts.hostname) or parts.fragment:
        return None
    return Broker(parts.hostname, port or (8883 if tls else 1883), unquote(parts.username or ""), tls=tls)


def holds_password(url: str) -> bool:
    """Return whether a URL holds a password, or what may be meant as one: it never goes into a URL, which is seen by many."""
    return redacted(url) != url or _PASSWORD.search(url) is not None  # a password may be *** itself


def redacted(text: str) -> str:
    """Return a URL, or a text with one in it, as it may be shown: without passwords, and without what may be meant as one."""
    text = _PASSWORD.sub(r"\1***@", text)
    for forgotten in (_NO_PORT_AT_ALL, _NO_PORT, _NO_SCHEME):
        text = forgotten.sub(r"\1***", text)
    return _QUERY.sub(r"\1***", text)


class Tenure:
    """Who of two clients with one name steps back: the one that came later.

    A broker gives one session to one name, so each that connects puts the other off, for ever. Who held the session before, undisturbed
    for a while, goes on; who did not steps back after a few times. Who was away for a while holds it no more: somebody may be there in its
    place by now. Few brokers say what happened, and mosquitto 2.0 just hangs up; so connections that end soon, one after the other, count
    too. An eighth each, where the broker then knows nothing of the session: one that crashed has forgotten it, and of two clients of this
    kind each finds the other's; so it is a broker in trouble, or, seldom, a client of another kind that takes the name. Seconds of one
    monotonic clock.
    """

    HELD, AWAY = 60.0, 30.0  # the second is shorter: two can't both have held one session
    TAKEN = 3  # times in a row that a broker said it
    NAMED = 3  # connections in a row that ended soon, from which on it is named

    def __init__(self, *, soon: float = 20.0, ended: int = 6) -> None:
        """soon: how short a life is, longer than the other's pause between two attempts; ended: after so many of them it steps back."""
        self.takeovers = 0  # since the start
        self._soon, self._ended = soon, ended
        self._held = False
        self._taken = self._bare = self._forgotten = 0  # in a row
        self._up: float | None = None
        self._down: float | None = None

    def came_up(self, now: float, *, kept: bool = True) -> None:
        """Take note of a session that was given. kept: the broker had one of this name."""
        if self._down is not None and now - self._down > self.AWAY:
            self._held = False
        self._forgotten += self._down is not None and not kept
        self._up = now

    def not_reached(self) -> None:
        """Take note that a connection did not come about: a broker in trouble drops its clients, too."""
        self._bare = self._forgotten = 0

    def went_down(self, now: float, *, taken: bool, dropped: bool = True) -> bool:
        """Take note that the session is gone, and return whether to step back. taken: the broker says that another client has it now;
        dropped: the broker ended it, with or without a word.
        """
        if self._up is None:
            return False  # it was gone before
        lived, self._up, self._down = now - self._up, None, now
        if lived >= self.HELD:
            self._held, self._taken = True, 0
        self._taken += taken
        if dropped and not taken and lived < self._soon:
            self._bare += 1
        else:
            self._bare = self._forgotten = 0
        ended = self._bare - self._forgotten * 7 / 8
        self.takeovers += taken or ended >= self.NAMED
        return not self._held and (self._taken >= self.TAKEN if taken else ended >= self._ended)

    def said(self) -> str:
        """Return what was seen, as an error says it."""
        if self._bare:
            return f"the broker ended {self._bare} connections in a row within {self._soon:g} s, as when another client takes the name"
        return f"another client took its session {self.takeovers} {'time' if self.takeovers == 1 else 'times'}"


# What stands between the user's colon and the last @, with or without a scheme. A URL's reader may take the wide signs for them.
_PASSWORD = re.compile(r"(//[^:\uff1a\ufe55]*[:\uff1a\ufe55]|\A[^\s:/]*:(?!//)).*[@\uff20\ufe6b]", re.DOTALL)
# USER:PASSWORD, with the host forgotten: in a text up to the next space, and to the end of what is a URL from its beginning. A port has
# at most five digits.
_PORT = r"(?!\*\*\*(?:@|\Z)|[0-9]{1,5}(?![^\s/?#'\"]))"
_NO_PORT = re.compile(rf"(//[^\s:/\[]*:){_PORT}\S+")
_NO_PORT_AT_ALL = re.compile(rf"\A((?:[A-Za-z]+:)?//[^:\uff1a\ufe55/\[]*[:\uff1a\ufe55]){_PORT}(?!.*[@\uff20\ufe6b]).+\Z", re.DOTALL)
_NO_SCHEME = re.compile(r"\A(?!\w+://)([^\s:/\[\]]*:/?)(?!/|\*\*\*@|[0-9]{1,5}/?\Z)\S+\Z")
_QUERY = re.compile(r"(//[^\s?#]*[?#])[^\s'\"]+")
