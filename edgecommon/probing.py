"""A look at a broker step by step, as a client with these very settings would find it: name, port, TLS, login, access, a message and back.

It speaks MQTT by itself, a few packets of it, so that each step is bounded in time and nobody's session is touched: its client id is one
of its own, and where a broker makes one id of a user's or a certificate's name all the same, what that session holds is left as it was.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from . import reaching
from .broker import Broker, require_taken
from .certificates import life_of_bytes
from .mqtt_packets import (
    CONNACK,
    DISCONNECT,
    PUBACK,
    PUBLISH,
    SUBACK,
    MqttVersion,
    NoPacketError,
    PacketReader,
    SessionLimits,
    connect,
    leave,
    publish,
    subscribe,
)
from .reaching import ACCESS, LOGIN, NAME, PORT, STEPS, TLS, TRIP, Trouble, Words

if TYPE_CHECKING:
    import ssl

SECONDS = 5.0  # for each step
ECHO_SECONDS = 2.0  # for a message to come back
HELD = 60  # seconds for which a broker keeps what a look that was cut off has left behind
SMALLEST = 2048  # bytes of a packet that a fleet needs


@dataclass(frozen=True, slots=True)
class Found:
    """What one step came to. ok: None where it was not tried, and `text` says why."""

    step: str
    ok: bool | None
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class LookWish:
    """What is looked at. The topics are those that the client truly uses, but for `echo`, which nobody hears."""

    broker: Broker
    words: Words
    client_id: str
    listen: tuple[str, ...]
    speak: str  # a topic on which an empty message means nothing
    echo: str
    session: int  # seconds for which the client's own session is kept
    heard: str = ""  # when the other side was last heard, for who can't send itself a message
    free: bool = False  # no client of ours uses the id now, so it may be tried where a broker takes no other
    versions: tuple[MqttVersion, ...] = (MqttVersion.FIVE, MqttVersion.FOUR)
    seconds: float = SECONDS


def look(wish: LookWish, context: Callable[[], ssl.SSLContext], *, busy: str = "") -> list[Found]:
    """Return what each step came to, all steps in order. context: makes what TLS goes by, where it is spoken.

    busy: who is connected with the client's own id, whose session is let alone; the broker is then looked at up to TLS.
    """
    out: list[Found] = []
    try:
        for found in _steps(wish, context, busy):
            out.append(found)
    except _StopError as stop:
        out.append(Found(stop.trouble.step, False, stop.trouble.reason, stop.trouble.fix))
    have = {one.step for one in out}
    failed = next((one.step for one in out if one.ok is False), "")
    # In the order of a connection; TLS of a plain URL and a session that nobody took are no lines of their own.
    rest = [step for step in (NAME, PORT, *((TLS,) if wish.broker.tls else ()), LOGIN, ACCESS, TRIP) if step not in have]
    out += [Found(step, None, f"not tried: {failed} comes first") for step in rest]
    return sorted(out, key=lambda one: STEPS.index(one.step))


class _StopError(Exception):
    """A step failed, and those behind it can't be tried."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.reason)
        self.trouble = trouble


def _steps(wish: LookWish, context: Callable[[], ssl.SSLContext], busy: str) -> Iterator[Found]:
    broker = wish.broker
    addresses = _addresses(wish)
    yield Found(NAME, True, f"{broker.host} is {', '.join(dict.fromkeys(a[0] for a in addresses))}")
    began = time.monotonic()
    with _opened(wish, addresses) as plain:
        yield Found(PORT, True, f"port {broker.port} answers in {_ms(began)}")
        if broker.tls:
            made = context()
            with _secured(wish, plain, made) as secured:
                yield Found(TLS, True, _tls_said(wish, secured))
    if busy:
        yield Found(LOGIN, True, busy)
        for step in (ACCESS, TRIP):
            yield Found(step, None, "not tried: the session of who is connected is let alone")
        return
    yield from _Visit(wish, addresses, context).run()


def _addresses(wish: LookWish) -> list[tuple[str, int]]:
    """Return where the host is. A resolver may take minutes, so it is not waited for."""
    found: list[tuple[str, int]] = []
    failed: list[Exception] = []

    def ask() -> None:
        try:
            for *_, address in socket.getaddrinfo(wish.broker.host, wish.broker.port, type=socket.SOCK_STREAM):
                found.append((str(address[0]), int(address[1])))
        except (OSError, UnicodeError) as error:
            failed.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(wish.seconds)
    if failed:
        raise _StopError(reaching.explain(failed[0], wish.broker, wish.words))
    if not found:
        raise _StopError(reaching.explain(socket.gaierror(socket.EAI_AGAIN, "no answer"), wish.broker, wish.words))
    return found


@contextmanager
def _opened(wish: LookWish, addresses: list[tuple[str, int]]) -> Iterator[socket.socket]:
    until, last = time.monotonic() + wish.seconds, OSError("no address")
    for address in addresses:
        try:
            made = socket.create_connection(address, timeout=max(0.1, until - time.monotonic()))
        except OSError as error:
            last = error
            continue
        with made:
            made.settimeout(wish.seconds)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield made
        return
    raise _StopError(reaching.explain(last, wish.broker, wish.words))


@contextmanager
def _secured(wish: LookWish, plain: socket.socket, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """Give the connection in TLS, once the broker has taken the certificate that it was shown."""
    broker, words = wish.broker, wish.words
    try:
        wrapped = context.wrap_socket(plain, server_hostname=broker.host)
    except (OSError, ValueError) as error:  # ValueError: a name that no certificate can be for
        trouble = reaching.explain(error, broker, words)
        if getattr(error, "verify_code", None) is None and not trouble.refused and _speaks_plain(wish):
            trouble = reaching.speaks_plain(broker, words)
        raise _StopError(trouble) from None
    with wrapped:
        yield wrapped


def _tls_said(wish: LookWish, secured: ssl.SSLSocket) -> str:
    try:
        require_taken(secured)
    except OSError as error:
        raise _StopError(_refused_late(error, wish)) from None
    life = life_of_bytes(secured.getpeercert(binary_form=True) or b"")
    now = time.time()
    soon = "; have it renewed" if life.word(now) == "due" else ""
    return f"{secured.version()}, with a certificate that holds: it {life.told(now)}{soon}"


def _refused_late(error: OSError, wish: LookWish) -> Trouble:
    """Return what it means that a broker ends TLS after the handshake: it says so of a client's certificate only then."""
    if getattr(error, "library", None):
        return reaching.explain(error, wish.broker, wish.words)
    return replace(reaching.hung_up(wish.broker, wish.words), step=TLS)


def _speaks_plain(wish: LookWish) -> bool:
    """Return whether a port answers in MQTT without TLS. Asked in a version that there is not: nobody's session is touched."""
    with suppress(OSError), socket.create_connection((wish.broker.host, wish.broker.port), timeout=wish.seconds) as plain:
        plain.sendall(connect(MqttVersion.NONE, "", SessionLimits(0, 0)))
        return plain.recv(1)[:1] == bytes((CONNACK << 4,))
    return False


def _speaks_tls(wish: LookWish) -> bool:
    """Return whether a port that gave no answer in MQTT begins TLS."""
    import ssl

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is said over it
    try:
        with socket.create_connection((wish.broker.host, wish.broker.port), timeout=min(wish.seconds, 2.0)) as plain:
            context.wrap_socket(plain, server_hostname=wish.broker.host).close()
    except (OSError, ValueError) as error:
        return "ALERT" in (getattr(error, "reason", None) or "").upper()
    return True


class _Visit:
    """A look from within: one connection in MQTT, and what is allowed on it."""

    def __init__(self, wish: LookWish, addresses: list[tuple[str, int]], context: Callable[[], ssl.SSLContext]) -> None:
        self._wish, self._addresses, self._context = wish, addresses, context
        mark = os.urandom(4).hex()
        self._id, self._echo = f"{wish.client_id}.look-{mark}", f"{wish.echo}-{mark}"

    def run(self) -> Iterator[Found]:
        """Yield login, access and trip. The version of MQTT is the first that the broker answers."""
        last: Trouble | None = None
        for version in self._wish.versions:
            try:
                yield from self._in(version)
                return
            except _VersionError as other:
                last = last or other.trouble
            except _StopError as stop:
                if not self._tries_own_id(stop.trouble):
                    raise
                yield from self._in(version)
                return
        assert last is not None
        if last.step == LOGIN and not last.refused and not self._wish.broker.tls and _speaks_tls(self._wish):
            last = reaching.speaks_tls(self._wish.broker, self._wish.words)
        raise _StopError(last)

    def _tries_own_id(self, trouble: Trouble) -> bool:
        """Return whether the client's own id is tried: some brokers take no other of a user. Its session is left as it was."""
        tries = self._wish.free and trouble.step == LOGIN and trouble.refused and self._id != self._wish.client_id
        if tries:
            self._id = self._wish.client_id
        return tries

    def _in(self, version: MqttVersion) -> Iterator[Found]:
        wish, began = self._wish, time.monotonic()
        with self._connected(version, fresh=False) as talk:
            kept = talk.limits.session_there  # the broker has made one id of this one and the client's own
            try:
                yield self._login(version, talk.limits, began)
                yield from self._access(version, talk)
            finally:
                with suppress(OSError):
                    talk.send(leave(version, wish.session if kept else 0))
        if version is not MqttVersion.FIVE and not kept:
            # A new one forgets the session that this one has made.
            with suppress(_VersionError, _StopError), self._connected(version, fresh=True) as talk:
                talk.send(leave(version, 0))

    @contextmanager
    def _connected(self, version: MqttVersion, *, fresh: bool) -> Iterator[_Talk]:
        wish, broker = self._wish, self._wish.broker
        with _opened(wish, self._addresses) as plain:
            talk = _Talk(plain, wish.seconds)
            if broker.tls:
                with _secured(wish, plain, self._context()) as secured:
                    talk = _Talk(secured, wish.seconds)
                    yield self._greeted(talk, version, fresh)
                return
            yield self._greeted(talk, version, fresh)

    def _greeted(self, talk: _Talk, version: MqttVersion, fresh: bool) -> _Talk:
        broker, words, wish = self._wish.broker, self._wish.words, self._wish
        asked = SessionLimits(HELD, 1)
        try:
            talk.send(connect(version, self._id, asked, user=broker.user, password=broker.password, fresh=fresh))
            kind, body = talk.read((CONNACK,))
        except TimeoutError:
            raise _VersionError(reaching.silent(broker, words, wish.seconds)) from None
        except NoPacketError as said:
            raise _VersionError(reaching.no_mqtt(broker, words, said.data)) from None
        except OSError as error:
            if getattr(error, "library", None):  # TLS ends only now
                raise _StopError(reaching.explain(error, broker, words)) from None
            raise _VersionError(reaching.hung_up(broker, words)) from None
        if len(body) < 2:
            raise _VersionError(reaching.no_mqtt(broker, words, bytes((kind << 4,)) + body))
        code = reaching.OLD_CODES.get(body[1], body[1])
        if code == reaching.VERSION:
            raise _VersionError(reaching.refused(code, broker, words, self._id))
        if code:
            raise _StopError(reaching.refused(code, broker, words, self._id))
        talk.limits = SessionLimits.of(body, version)
        return talk

    def _login(self, version: MqttVersion, limits: SessionLimits, began: float) -> Found:
        broker = self._wish.broker
        who = f" as {broker.user}" if broker.user else ""
        text = f"let in{who} over MQTT {version.said}, in {_ms(began)}"
        if 0 < limits.packet < SMALLEST:
            return Found(LOGIN, False, f"{text}; but it takes no packet above {limits.packet} bytes", "raise max_packet_size at the broker")
        if limits.qos == 0:
            return Found(LOGIN, False, f"{text}; but it takes messages of QoS 0 alone", "have it take QoS 1")
        return Found(LOGIN, True, text + (f"; packets up to {limits.packet} bytes" if limits.packet else ""))

    def _access(self, version: MqttVersion, talk: _Talk) -> Iterator[Found]:
        wish, broker = self._wish, self._wish.broker
        try:
            talk.send(subscribe(version, 1, [(one, 1) for one in wish.listen] + [(self._echo, 0)]))
            answer = talk.answer(SUBACK, 1)
            asked = len(wish.listen) + 1
            codes = version.codes(answer)
            shut = [one for one, code in zip(wish.listen, codes, strict=False) if code >= 0x80]
            if shut:
                raise _StopError(reaching.not_heard(" or ".join(shut), broker))
            if len(codes) != asked:
                odd = f"the broker answers {len(codes)} of {asked} subscriptions"
                raise _StopError(Trouble(ACCESS, odd, "read the broker's log"))
            talk.send(publish(version, 2, wish.speak, b""))
            if version.refusal(talk.answer(PUBACK, 2)):
                raise _StopError(reaching.not_said(wish.speak, broker))
        except OSError as error:
            raise _StopError(self._ended(error, talk)) from None
        speaks = f"may speak on {wish.speak}"
        if version is not MqttVersion.FIVE:
            speaks = f"whether it {speaks}, no broker says in MQTT {version.said}"
        yield Found(ACCESS, True, f"may listen on {' and '.join(wish.listen)}; {speaks}")
        yield self._trip(version, talk)

    def _trip(self, version: MqttVersion, talk: _Talk) -> Found:
        began = time.monotonic()
        untold = "no message comes back: an access list lets nobody hear what it says itself, as is right" + self._wish.heard
        try:
            talk.send(publish(version, 3, self._echo, b""))
            if version.refusal(talk.answer(PUBACK, 3)):
                return Found(TRIP, None, untold)
            came = talk.hears(self._echo, ECHO_SECONDS)
        except OSError as error:
            if talk.ended:
                raise _StopError(self._ended(error, talk)) from None
            return Found(TRIP, None, f"{untold}: the broker hangs up instead")
        if came:
            return Found(TRIP, True, f"a message came back in {_ms(began)}")
        if talk.heard:
            return Found(TRIP, True, f"messages come: one on {talk.heard[0]}")
        return Found(TRIP, None, untold)

    def _ended(self, error: OSError, talk: _Talk) -> Trouble:
        """Return why a connection ended that was let in."""
        said = reaching.put_off(talk.ended, self._wish.client_id) if talk.ended else None
        if said is not None:
            return said
        how = "says nothing more" if isinstance(error, TimeoutError) else "hangs up"
        fix = "see the broker's access list and its log"
        return Trouble(ACCESS, f"the broker lets this client in and then {how}, when it listens and speaks", fix, refused=True)


class _VersionError(Exception):
    """A broker does not answer in this version of MQTT; it may in another."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.reason)
        self.trouble = trouble


class _Talk:
    """What is said on one connection, within a time for each answer."""

    def __init__(self, plain: socket.socket, seconds: float) -> None:
        self._socket, self._seconds = plain, seconds
        self._reader = PacketReader(plain)
        self.limits = SessionLimits(0, 0)
        self.ended = 0  # the reason with which the broker ended it
        self.heard: list[str] = []  # topics of what came

    def send(self, data: bytes) -> None:
        self._socket.settimeout(self._seconds)
        self._socket.sendall(data)

    def read(self, wanted: tuple[int, ...]) -> tuple[int, bytes]:
        """Return the next packet. Raises TimeoutError, ConnectionError, NoPacketError."""
        return self._reader.read(time.monotonic() + self._seconds, wanted)

    def answer(self, kind: int, number: int) -> bytes:
        """Return the answer to what was sent under a number. Raises OSError when none comes."""
        until = time.monotonic() + self._seconds
        while True:
            got, body = self._next(until)
            if got == kind and body[:2] == number.to_bytes(2, "big"):
                return body[2:]

    def hears(self, topic: str, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while topic not in self.heard:
            try:
                self._next(until)
            except TimeoutError:
                return False
        return True

    def _next(self, until: float) -> tuple[int, bytes]:
        try:
            kind, body = self._reader.read(until)
        except NoPacketError:
            raise ConnectionError("no MQTT") from None
        if kind == PUBLISH:
            size = int.from_bytes(body[:2], "big")
            self.heard.append(body[2 : 2 + size].decode(errors="replace"))
            del self.heard[:-64]
        elif kind == DISCONNECT:
            self.ended = body[0] if body else 0
            raise ConnectionError("the broker ended it")
        return kind, body


def _ms(began: float) -> str:
    return f"{1000 * (time.monotonic() - began):.0f} ms"
