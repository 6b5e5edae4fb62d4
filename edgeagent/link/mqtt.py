"""The MQTT link: the only module that knows paho. Tries MQTT 5, falls back to 3.1.1, and reconnects with back-off and jitter.

A client object lives for one connection. So no queue of paho's survives a lost link: what must not be lost is in the outbox.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeagent.settings.tree import LinkSettings
from edgeagent.system.backoff import Backoff
from edgeagent.system.deferred import defer
from edgecommon import reaching
from edgecommon.broker import Tenure, redacted
from edgecommon.mqtt_packets import INBOUND, BeyondBoundsError, InboundBound, Oversize
from edgecommon.reaching import BOARD, TAKEN_OVER, Trouble
from modelwire import limits
from modelwire.errors import LinkError, ModelWireError, TooLarge

from . import certificate
from .credentials import described, parse_broker, password_of, tls_of
from .transport import Accepted, Arrived, Connected, Event, Lost, Will, Woken

# paho imports them for brokers over TLS or behind a proxy: 3 MiB that a plain link never touches.
defer("ssl", "urllib.request")
import paho.mqtt  # noqa: E402
import paho.mqtt.client as mqtt  # noqa: E402
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode  # noqa: E402
from paho.mqtt.packettypes import PacketTypes  # noqa: E402
from paho.mqtt.properties import Properties  # noqa: E402
from paho.mqtt.subscribeoptions import SubscribeOptions  # noqa: E402

INBOUND_PENDING = 20  # messages that the broker may deliver before the first of them is acknowledged
FRAME = 16  # bytes of an MQTT PUBLISH around topic and message, at most
FAREWELL = 2.0  # seconds that closing may take, twice
SMALLEST = 2048  # bytes of a packet that hello and receipts need; a broker that takes less is of no use
STALLED = 4.0  # times keepalive, without the broker taking any of the messages that it was sent
STABLE = 10.0  # seconds a link must have lived before the back-off starts anew
ASIDE, ASIDE_MAX = 60.0, 600.0  # seconds of the first and the longest pause for another client of this name: it may be gone by then
WAITING_MAX = 4 * 1024 * 1024  # bytes that wait for the agent; a broker that keeps to INBOUND_PENDING comes to half of it
WAITING_EACH = 512  # bytes that a message takes beside what it carries
LOST = Trouble(reaching.TRIP, "the connection is lost")  # without a word
LIBRARY = f"paho-mqtt {paho.mqtt.__version__}"
_log = logging.getLogger("edgeagent.link")


@dataclass(frozen=True, slots=True)
class _Up:
    generation: int
    kept: bool  # the broker had a session of this name


@dataclass(frozen=True, slots=True)
class _Down:
    generation: int
    trouble: Trouble
    protocol: bool  # the broker may not speak this version of MQTT; of a link that was up: the broker ended it
    aside: bool = False  # it is left to another client of this name


@dataclass(frozen=True, slots=True)
class _Token:
    generation: int
    mid: int


class _Client(mqtt.Client):
    """A client that says when its network thread ends, whatever ended it."""

    ended: Callable[[BaseException | None], None]
    reached = False  # a TCP connection came about, so a failure after it may be one of the MQTT version
    fault: OSError | None = None  # with which the connection ended, of which paho says nothing
    kept = True  # the broker had a session of this name
    put_off = 0  # the reason with which the broker ended it, as MQTT 5 numbers it
    done = ""  # what the broker does once for each connection, as far as it did
    bound: InboundBound  # on what comes: a broker of 3.1.1 passes on what others publish, up to 256 MiB, which a board does not have
    plain = False  # no TLS: what paho asks of `ssl` at every read and write would load it

    def once(self, what: str) -> None:
        """Take note of what a broker does. Raises BeyondBoundsError the second time."""
        if what in self.done:
            raise BeyondBoundsError(f"the broker {what} twice")
        self.done += what

    def _sock_recv(self, bufsize: int) -> bytes:
        return self.bound.read(bufsize, self._receive)

    def _receive(self, bufsize: int) -> bytes:
        sock = self.socket() if self.plain else None
        try:
            return sock.recv(bufsize) if sock is not None else super()._sock_recv(bufsize)
        except BlockingIOError:
            raise
        except OSError as e:
            self.fault = e
            raise

    def _sock_send(self, buf: bytes | bytearray) -> int:
        sock = self.socket() if self.plain else None
        if sock is None:
            return super()._sock_send(buf)
        try:
            return sock.send(buf)
        except BlockingIOError:
            self._call_socket_register_write()
            raise

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        code, fault = MQTTErrorCode.MQTT_ERR_UNKNOWN, None
        try:
            code = super().loop_forever(timeout, retry_first_connection=False)
        except Exception as e:  # noqa: BLE001  # unreachable, or whatever a hostile broker provokes in paho; `ended` says why
            fault = e
        finally:
            self.ended(fault or self.fault)
        return code


class MqttLink:
    """A Transport over one MQTT broker."""

    def __init__(self, settings: LinkSettings, folder: Path, client_id: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """folder: where relative paths of the settings start; monotonic: seconds, by which it waits and gives up.

        Raises ConfigError or MissingFile for settings that can't work.
        """
        self.settings, self._monotonic = settings, monotonic
        self.broker = parse_broker(settings.broker)
        self.client_id = settings.client_id or client_id
        self.protocol = mqtt.MQTTv311 if settings.protocol == "3.1.1" else mqtt.MQTTv5
        self._password = password_of(folder, settings)
        self._folder = folder
        self._tls = tls_of(folder, settings) if self.broker.tls else None
        self._told_as = described(settings, folder, self._password)
        self._tls_files = certificate.stamp(settings, folder)
        self._events: queue.SimpleQueue[Event | _Up | _Down] = queue.SimpleQueue()  # put() is safe in a signal handler
        self._backoff = Backoff(settings.reconnect_min, settings.reconnect_max, random.Random())
        self._aside = Backoff(ASIDE, ASIDE_MAX, random.Random())
        self._tenure = Tenure(soon=20 * max(1.0, settings.reconnect_min), ended=4)
        self._client: _Client | None = None
        self._generation = 0
        self._up = False
        self._up_since = 0.0
        self._tried_since = 0.0
        self._next_try = 0.0
        self._not_taken: set[int] = set()  # tickets of messages that the broker has not taken yet
        self._progress_time = 0.0  # when it last took one, or was sent the first
        self._announced = 0  # the broker's own limit on a packet, 0 when it named none
        self._proven = settings.protocol != "auto"
        self._came = self._taken = 0  # bytes of messages: written by the network's thread, and by the agent's
        self._will: Will | None = None
        self._listen: tuple[str, ...] = ()  # topic filters

    @property
    def largest(self) -> int:
        most = self.settings.part_bytes
        return min(most, self._announced - FRAME - 256) if self._announced else most

    def open(self, will: Will, listen: Sequence[str]) -> None:
        self._will, self._listen = will, tuple(listen)
        self._next_try = self._monotonic()

    def poll(self, timeout: float) -> Event | None:
        deadline = self._monotonic() + timeout
        while True:
            self._keep_trying()
            left = deadline - self._monotonic()
            until = min(left, self._next_step())
            try:
                event = self._events.get(timeout=max(0.0, until))
            except queue.Empty:
                if left <= 0:
                    return None
                continue
            known = self._translate(event)
            if known is not None:
                return known

    def send(self, topic: str, data: bytes, *, retain: bool = False) -> int:
        # Over the limit a QoS 1 message gets no PUBACK, only a disconnect, and would be sent for ever: it must not leave.
        # Records are small but for the manifest of a transfer, so `part_bytes` alone does not bound them.
        limit = self._announced or max(self.settings.part_bytes, limits.DEFAULT.record) + FRAME + 256
        if len(data) + len(topic) + FRAME > limit:
            raise TooLarge(what=f"a message to {topic}", size=len(data), limit=limit)
        if self._client is None or not self._up:
            raise LinkError(broker=redacted(self.settings.broker), reason="the link is down")
        ticket = self._generation << 16 | self._client.publish(topic, data, qos=1, retain=retain).mid
        if not self._not_taken:
            self._progress_time = self._monotonic()
        self._not_taken.add(ticket)
        return ticket

    def acknowledge(self, message: Arrived) -> None:
        token = message.token
        assert isinstance(token, _Token)
        if self._client is not None and token.generation == self._generation:  # else it comes again, on the new connection
            self._client.ack(token.mid, 1)

    def wake(self) -> None:
        self._events.put(Woken())

    def stand_aside(self, why: str) -> None:
        self._events.put(_Down(self._generation, Trouble(reaching.SESSION, why), False, aside=True))

    def close(self, farewell: Will | None = None) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        if self._up and farewell is not None:
            with contextlib.suppress(RuntimeError, ValueError):  # the link went down meanwhile: the will says the same
                client.publish(farewell.topic, farewell.data, qos=1, retain=True).wait_for_publish(FAREWELL)
        self._up = False
        client.disconnect()
        until = self._monotonic() + FAREWELL
        while (left := until - self._monotonic()) > 0:  # the thread must get DISCONNECT out, or the broker speaks the will
            try:
                event = self._events.get(timeout=left)
            except queue.Empty:
                return
            if isinstance(event, _Down) and event.generation == self._generation:
                return

    # One connection.

    def _keep_trying(self) -> None:
        now = self._monotonic()
        if self._client is None and self._will is not None and now >= self._next_try:
            self._connect()
        elif self._client is not None and not self._up and now - self._tried_since > self.settings.connect_timeout + 1:
            # Some brokers answer a CONNECT of a version that they don't know with silence.
            self._events.put(_Down(self._generation, reaching.silent(self._told_as, BOARD, self.settings.connect_timeout), True))
        elif self._up and self._not_taken and now - self._progress_time > STALLED * self.settings.keepalive:
            # It answers pings, so nothing else ends this; on a connection that lives nothing may be sent again.
            stalled = Trouble(reaching.TRIP, f"the broker has taken none of {len(self._not_taken)} messages", "read the broker's log")
            self._events.put(_Down(self._generation, stalled, False))

    def _next_step(self) -> float:
        now = self._monotonic()
        if self._client is None:
            return max(0.0, self._next_try - now) if self._will is not None else 60.0
        return 60.0 if self._up else max(0.05, self._tried_since + self.settings.connect_timeout + 1.05 - now)

    def _connect(self) -> None:
        self._generation += 1
        self._tried_since = self._monotonic()
        self._take_renewed()
        self._client = self._make()
        self._client.connect_async(self.broker.host, self.broker.port, max(1, int(self.settings.keepalive)), **self._session())
        self._client.loop_start()

    def _take_renewed(self) -> None:
        """Go by the certificates as they are now: they may have been renewed since the last connection."""
        now = certificate.stamp(self.settings, self._folder)
        if self._tls is None or now == self._tls_files:
            return
        try:
            self._tls = tls_of(self._folder, self.settings)
            self._tls_files = now
        except ModelWireError as e:  # they are just being replaced: those of before hold on
            _log.warning("%s", e.message)

    def _make(self) -> _Client:
        v5 = self.protocol == mqtt.MQTTv5
        client = _Client(
            CallbackAPIVersion.VERSION2, client_id=self.client_id, protocol=self.protocol,
            clean_session=None if v5 else False, manual_ack=True, reconnect_on_failure=False,
        )  # fmt: skip
        client.bound = InboundBound(INBOUND, five=v5)
        client.connect_timeout = self.settings.connect_timeout
        if self.settings.user:
            client.username_pw_set(self.settings.user, self._password)
        client.plain = self._tls is None
        if self._tls is not None:
            client.tls_set_context(self._tls)
        assert self._will is not None
        client.will_set(self._will.topic, self._will.data, qos=1, retain=True)
        self._hear(client, v5)
        return client

    def _hear(self, client: _Client, v5: bool) -> None:
        """Make events of what comes on a connection, with its generation."""
        generation = self._generation

        def connected(c: mqtt.Client, _: Any, flags: Any, code: Any, properties: Any) -> None:
            if generation != self._generation:  # it was given up while it connected
                c.disconnect()
                return
            client.once("lets this device in")
            if not client.bound.kind and not self._goes_on_unbounded(generation, v5):
                return
            if code.is_failure:
                refused = code.value == reaching.VERSION or (not self._proven and str(code) == "Unspecified error")
                self._events.put(_Down(generation, reaching.refused(code.value, self._told_as, BOARD, self.client_id), refused))
                return
            client.kept = flags.session_present
            announced = getattr(properties, "MaximumPacketSize", 0) if properties is not None else 0
            if 0 < announced < SMALLEST:
                small = f"the broker takes no message above {announced} bytes"
                self._events.put(_Down(generation, Trouble(reaching.LOGIN, small, "raise its max_packet_size", refused=True), False))
                return
            self._announced = int(announced or 0)
            qos: Any = SubscribeOptions(qos=1) if v5 else 1
            c.subscribe([(one, qos) for one in self._listen])

        def subscribed(c: mqtt.Client, _: Any, mid: int, codes: Any, properties: Any) -> None:
            client.once("takes the subscriptions")
            if any(code.is_failure for code in codes):
                shut = [one for one, code in zip(self._listen, codes, strict=False) if code.is_failure]
                self._events.put(_Down(generation, reaching.not_heard(" or ".join(shut or self._listen), self._told_as), False))
            else:
                self._events.put(_Up(generation, client.kept))

        def arrived(c: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
            large = client.bound.oversize()
            if large is None and message.qos != 1:
                return
            size = len(message.payload) + WAITING_EACH
            if self._came + size - self._taken > WAITING_MAX:  # it was not acknowledged, so it comes again
                raise BeyondBoundsError("the broker sends more than it may before anything is acknowledged")
            self._came += size
            if large is not None:
                c.ack(message.mid, message.qos)  # there is nothing of it to be kept, and it must not come again
            self._events.put(large or Arrived(message.topic, bytes(message.payload), _Token(generation, message.mid)))

        def accepted(c: mqtt.Client, _: Any, mid: int, code: Any, properties: Any) -> None:
            self._events.put(Accepted(generation << 16 | mid))

        def ended(fault: BaseException | None) -> None:
            self._events.put(_Down(generation, self._why_ended(client, fault), client.reached))

        def put_off(c: mqtt.Client, _: Any, flags: Any, code: Any, properties: Any) -> None:
            client.put_off = code.value if flags.is_disconnect_packet_from_server else 0

        def reached(c: mqtt.Client, _: Any, sock: Any) -> None:
            client.reached = True

        client.ended, client.on_socket_open, client.on_disconnect = ended, reached, put_off
        client.on_connect, client.on_subscribe, client.on_message, client.on_publish = connected, subscribed, arrived, accepted

    def _goes_on_unbounded(self, generation: int, v5: bool) -> bool:
        """Say that the MQTT library reads past the bound, and return whether the broker itself keeps to it: in MQTT 5 it was told to."""
        trouble = reaching.unbounded(LIBRARY)
        if v5:
            _log.warning("%s; going on, as in MQTT 5 the broker itself keeps to the bound", trouble)
        else:
            self._events.put(_Down(generation, trouble, False))
        return v5

    def _why_ended(self, client: _Client, fault: BaseException | None) -> Trouble:
        """Return why a connection ended, or did not come about."""
        said = reaching.put_off(client.put_off, self.client_id) if client.put_off else None
        if said is not None:
            return said
        if isinstance(fault, BeyondBoundsError):
            return Trouble(reaching.TRIP, str(fault), "ask who runs the broker")
        if client.reached and "lets" in client.done:
            return replace(LOST, reason=f"{LOST.reason}: {fault}") if fault else LOST
        return reaching.hung_up(self._told_as, BOARD) if fault is None else reaching.explain(fault, self._told_as, BOARD)

    def _session(self) -> dict[str, Any]:
        if self.protocol != mqtt.MQTTv5:
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = int(self.settings.session_expiry)
        properties.ReceiveMaximum = INBOUND_PENDING
        properties.MaximumPacketSize = INBOUND
        return {"clean_start": False, "properties": properties}

    def _translate(self, event: Event | _Up | _Down) -> Event | None:
        if isinstance(event, (Arrived, Oversize)):
            self._taken += WAITING_EACH + (len(event.data) if isinstance(event, Arrived) else 0)
        if isinstance(event, _Up):
            if event.generation != self._generation or self._client is None:
                return None
            self._up, self._up_since, self._proven = True, self._monotonic(), True
            self._not_taken.clear()
            self._tenure.came_up(self._up_since, kept=event.kept)
            if due := certificate.due(self.settings, self._folder, time.time()):
                _log.warning("%s", due)
            return Connected()
        if isinstance(event, _Down):
            if event.generation != self._generation or self._client is None:
                return None
            return self._went_down(event)
        if isinstance(event, Accepted):
            self._progress_time = self._monotonic()
            self._not_taken.discard(event.ticket)
        if isinstance(event, Arrived) and isinstance(event.token, _Token) and event.token.generation != self._generation:
            return None
        return event

    def _went_down(self, event: _Down) -> Lost:
        client, self._client = self._client, None
        was_up, self._up = self._up, False
        self._announced = 0
        if client is not None:
            client.disconnect()
            if (sock := client.socket()) is not None:
                sock.close()
        now, taken = self._monotonic(), client is not None and client.put_off == TAKEN_OVER
        before = self._tenure.takeovers
        ousted = was_up and self._tenure.went_down(now, taken=taken, dropped=event.protocol)
        if not was_up:
            self._tenure.not_reached()
        elif now - self._up_since >= self._tenure.HELD:
            self._aside.reset()
        if event.protocol and not was_up and not self._proven:
            # Before any connection has worked, the version may be at fault: try the other one.
            self.protocol = mqtt.MQTTv311 if self.protocol == mqtt.MQTTv5 else mqtt.MQTTv5
        if ousted or event.aside:
            pause = self._aside.next()
        else:
            pause = self._backoff.anew() if was_up and now - self._up_since > STABLE else self._backoff.next()
        self._next_try = now + pause
        again = was_up and not taken and self._tenure.takeovers > before
        trouble = reaching.put_off_again(self.client_id) if again else event.trouble
        said = str(trouble) + certificate.trouble(self.settings, self._folder, time.time())
        return Lost(said, trouble.step, trouble.refused, self._tenure.said() if ousted else "")
