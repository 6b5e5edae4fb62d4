"""The MQTT transport, over paho: the one module of the centre that knows about a broker; its client is in paho_client.py.

MQTT 5 is tried first and 3.1.1 after it: some brokers refuse version 5, some never answer it (RabbitMQ 3.10).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paho.mqtt
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgecommon import reaching
from edgecommon.broker import NO_CERTIFICATES, Broker, Certificates, Tenure, holds_password, parse_url, redacted
from edgecommon.certificates import life_of, read_file
from edgecommon.files import NotPrivateError, read_password, require_closed
from edgecommon.mqtt_packets import INBOUND, BeyondBoundsError
from edgecommon.reaching import CENTRE, TAKEN_OVER, Trouble
from modelwire.errors import BadArgument, ModelWireError
from modelwire.wire import topics

from .paho_client import AGAIN_SECONDS, PahoClient
from .quotas.screening import PacketScreen, Turns
from .transport import Delivery

if TYPE_CHECKING:
    import ssl

log = logging.getLogger("edgecloud.link")

KEEPALIVE_SECONDS = 60
CONNECT_SECONDS = 5.0  # from an open socket to the broker's answer
SESSION_SECONDS = 7 * 24 * 3600  # how long the broker keeps messages for a centre that is down
LISTEN_SECONDS = 30.0  # after a broker that does not let the centre listen: its operator may change that
IN_FLIGHT = 200  # unacknowledged messages that the broker may send; at least a batch, or the flow stops dead
PASSWORD_GOES = "write mqtt://USER@HOST[:PORT]; the password goes alone into a file of mode 600: --password-file or EDGECLOUD_PASSWORD_FILE"
QUEUED = 10_000  # answers kept while the link is down; a lost one is asked for again


def parse_broker(url: str, *, password_file: Path | None = None, certificates: Certificates = NO_CERTIFICATES) -> Broker:
    """Return the broker that mqtt[s]://[user@]host[:port] names. Raises BadArgument, which never says a password."""
    if holds_password(url):
        raise BadArgument(reason=f"{redacted(url)!r} holds a password, and a URL is no place for one", fix=PASSWORD_GOES)
    try:
        broker = parse_url(url if "//" in url else f"mqtt://{url}")
        (broker.host if broker else "").encode("idna")  # as every resolver will
    except ValueError:
        broker = None
    if broker is None:
        raise BadArgument(reason=f"{redacted(url)!r} is no broker", fix="write mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")
    password = ""
    if password_file is not None:
        try:
            password = read_password(password_file)
        except NotPrivateError as error:
            raise BadArgument(reason=f"the password file {error}", fix=error.fix) from None
        except OSError as error:
            raise BadArgument(reason=f"{password_file}: {error.strerror}", fix="name a file that holds the password alone") from None
    return replace(broker, password=password, certificates=certificates)


@dataclass(frozen=True, slots=True)
class _Token:
    generation: int  # of the connection on which the id means this message
    id: int
    qos: int


class MqttTransport:
    """Implements Transport: one persistent session, QoS 1, acknowledged by hand."""

    def __init__(self, broker: Broker, *, fleet: str, client_id: str, connect_seconds: float = CONNECT_SECONDS) -> None:
        self._broker, self._client_id = broker, client_id
        self._filter = topics.all_up(fleet)
        self._connect_seconds = connect_seconds
        self._receive: Callable[[Delivery], None] = lambda _: None
        self._turns: Turns | None = None
        self._client: PahoClient | None = None
        self._tls: ssl.SSLContext | None = None
        self._protocol = mqtt.MQTTv5
        self._lock = threading.Lock()
        self._out = 0  # answers that the broker has not taken yet
        self._generation = 0  # counts connections: an id of an older one means another message today
        self._connected = threading.Event()  # greeted, and allowed to listen
        self._greeted = threading.Event()
        self._refused = threading.Event()  # for the version of MQTT that it speaks
        self._answered = threading.Event()  # in this version of MQTT, whatever it said
        self._socket_open = threading.Event()
        self._stopping = threading.Event()
        self._watch: threading.Thread | None = None
        self._tenure = Tenure()
        self._ousted = ""
        self._trouble: Trouble | None = None  # of the last attempt
        self._said: Trouble | None = None  # what was logged last
        self._muted: Trouble | None = None  # of this connection: why the broker passes no answers on
        self._answers = f"{topics.ROOT}/{fleet}/+/+/dn/#"
        # Of this connection: monotonic seconds of its begin, whether it is open, and whether the broker has answered on it.
        self._opened, self._open, self._heard = 0.0, False, False

    @property
    def name(self) -> str:
        return self._broker.url

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    @property
    def client_id(self) -> str:
        return self._client_id

    @property
    def takeovers(self) -> int:
        return self._tenure.takeovers

    @property
    def ousted(self) -> str:
        return self._ousted

    @property
    def trouble(self) -> Trouble | None:
        return self._muted if self.connected else self._trouble

    def start(self, receive: Callable[[Delivery], None]) -> None:
        self._receive = receive
        self._stopping.clear()
        self._begin()
        self._watch = threading.Thread(target=self._settle_protocol, name="edgecloud-link", daemon=True)
        self._watch.start()

    def screen_with(self, turns: Turns) -> None:
        """Let messages that have no turn be acknowledged and not be read, from the next connection on."""
        self._turns = turns

    def publish(self, topic: str, data: bytes) -> None:
        client = self._client
        if client is None:
            return
        # Not under the lock: paho holds one of its own while it calls `_on_publish`, which takes ours.
        self._count(+1)
        said = client.publish(topic, data, qos=1)
        if said.rc not in (mqtt.MQTT_ERR_SUCCESS, mqtt.MQTT_ERR_NO_CONN):
            self._count(-1)
            log.warning("an answer on %s is left out: %s", topic, mqtt.error_string(said.rc))

    def acknowledge(self, delivery: Delivery) -> None:
        token, client = delivery.token, self._client
        assert isinstance(token, _Token)
        if client is not None and token.generation == self._generation:
            client.ack(token.id, token.qos)

    def drain(self, seconds: float) -> bool:
        waited = threading.Event()
        left = seconds
        while left > 0:
            with self._lock:
                if self._out <= 0:
                    return True
            waited.wait(0.02)
            left -= 0.02
        return False

    def stop(self) -> None:
        self._stopping.set()
        self._socket_open.set()
        if self._watch is not None:
            self._watch.join()
        self._end()

    def _begin(self) -> None:
        with self._lock:
            self._out = 0
        for event in (self._refused, self._answered, self._socket_open, self._greeted):
            event.clear()
        # A new client numbers its connections on: what an old one delivered is never acknowledged to this one.
        client = self._build()
        self._client = client
        if self._protocol == mqtt.MQTTv5:
            wish = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            wish.SessionExpiryInterval = SESSION_SECONDS
            wish.ReceiveMaximum = IN_FLIGHT
            wish.MaximumPacketSize = INBOUND
            client.connect_async(self._broker.host, self._broker.port, KEEPALIVE_SECONDS, clean_start=False, properties=wish)
        else:
            client.connect_async(self._broker.host, self._broker.port, KEEPALIVE_SECONDS)
        client.loop_start()

    def _end(self) -> None:
        client, self._client = self._client, None
        self._connected.clear()
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _build(self) -> PahoClient:
        five = self._protocol == mqtt.MQTTv5
        client = PahoClient(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=None if five else False,
            protocol=self._protocol,
            manual_ack=True,
        )
        client.five = five
        if self._broker.user:
            client.username_pw_set(self._broker.user, self._broker.password or None)
        if self._broker.tls:
            self._tls = tls_of(self._broker)
            client.tls_set_context(self._tls)
        client.max_inflight_messages_set(IN_FLIGHT)
        client.max_queued_messages_set(QUEUED)
        client.reconnect_delay_set(min_delay=1, max_delay=30)
        client.screen = PacketScreen(self._turns) if self._turns is not None else None
        client.on_fault = lambda: self._mend(client)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_socket_open = self._on_socket_open
        return client

    def _settle_protocol(self) -> None:
        """Change to the other version of MQTT whenever an open socket gets no welcome in time; end with the first welcome."""
        while not self._stopping.is_set():
            self._socket_open.wait()
            if self._stopping.is_set() or self._wait_welcome():
                return
            if not self._socket_open.is_set():
                continue
            if self._open and not self._refused.is_set() and self._is_silent():
                self._say(reaching.silent(self._broker, CENTRE, self._connect_seconds))
            other = mqtt.MQTTv311 if self._protocol == mqtt.MQTTv5 else mqtt.MQTTv5
            level = logging.INFO if self._trouble is None else logging.DEBUG  # of what is known to be wrong it would come each five seconds
            log.log(level, "%s does not answer this version of MQTT; trying the other", self._broker.url)
            self._end()
            if self._refused.is_set() and other == mqtt.MQTTv5:  # both were refused
                self._stopping.wait(AGAIN_SECONDS)
            self._protocol = other
            self._begin_again()

    def _begin_again(self) -> None:
        while not self._stopping.is_set():
            try:
                return self._begin()
            except ModelWireError as error:  # certificates that are being replaced
                log.error("%s; trying again", error)
                self._stopping.wait(self._connect_seconds)

    def _mend(self, client: mqtt.Client) -> bool:
        """Forget a connection that met a fault, and return whether another one is wanted."""
        if client is not self._client or self._stopping.is_set():
            return False
        self._connected.clear()
        self._generation += 1
        if isinstance(fault := getattr(client, "fault", None), BeyondBoundsError):
            self._say(Trouble(reaching.TRIP, str(fault), "ask who runs the broker"))
        return True

    def _wait_welcome(self) -> bool:
        left = self._connect_seconds
        # An answer settles the version, whatever it is; a refusal that is no welcome is met again at the next attempt.
        while (left > 0 or self._answered.is_set()) and not self._refused.is_set() and not self._stopping.is_set():
            if self._greeted.wait(0.05):
                return True
            left -= 0.05
        return self._greeted.is_set() or self._stopping.is_set()

    def _say(self, trouble: Trouble) -> None:
        """Take note of why there is no link, and say it when it is another reason than before."""
        self._trouble = trouble
        if trouble != self._said:
            self._said = trouble
            log.log(logging.ERROR if trouble.refused else logging.WARNING, "%s: %s; trying again", self._broker.url, trouble)

    def _on_socket_open(self, _client: mqtt.Client, _data: Any, _socket: Any) -> None:
        self._opened, self._open, self._heard = time.monotonic(), True, False
        self._socket_open.set()

    def _on_connect(self, client: mqtt.Client, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        if client is not self._client:
            return
        self._heard = True
        if not self._client.bound.kind and not self._goes_on_unbounded(client):
            return
        if reason.is_failure:
            self._say(reaching.refused(reason.value, self._broker, CENTRE, self._client_id))
            # Some brokers say of a version only that it is an error.
            (self._refused if reason.value in (reaching.VERSION, 0x80) else self._answered).set()
            return
        self._generation += 1
        self._muted = None
        self._greeted.set()
        self._tenure.came_up(time.monotonic(), kept=flags.session_present)
        client.subscribe(self._filter, qos=1)

    def _goes_on_unbounded(self, client: mqtt.Client) -> bool:
        """Say that the MQTT library reads past the bound, and return whether the broker itself keeps to it: in MQTT 5 it was told to."""
        trouble = reaching.unbounded(f"paho-mqtt {paho.mqtt.__version__}")
        if self._protocol == mqtt.MQTTv5:
            log.warning("%s; going on, as in MQTT 5 the broker itself keeps to the bound", trouble)
            return True
        self._say(trouble)
        self._answered.set()
        client.disconnect()
        return False

    def _on_connect_fail(self, client: mqtt.Client, _data: Any) -> None:
        self._socket_open.clear()
        self._tenure.not_reached()
        fault = getattr(client, "fault", None)
        if client is self._client and fault is not None:
            self._say(reaching.explain(fault, self._broker, CENTRE))
        self._take_renewed()

    def _take_renewed(self) -> None:
        """Read the certificates again, for the next connection: they may have been renewed since this process began."""
        given = self._broker.certificates
        if self._tls is None or given.own is None:
            return
        try:
            require_closed(given.key or given.own)
            self._tls.load_cert_chain(given.own, given.key)
            if given.ca is not None:
                self._tls.load_verify_locations(given.ca)
            if (life := life_of(read_file(given.own, "the centre's certificate"))).word(time.time()) in ("due", "ended"):
                log.warning("the centre's certificate %s %s; edgecloud ca renew", given.own, life.told(time.time()))
        except (OSError, ModelWireError) as error:  # they are just being replaced: those of before hold on
            log.warning("the certificates can't be read again: %s", error)

    def _on_disconnect(self, client: mqtt.Client, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        if client is self._client:
            self._open = False
            was, by_broker = self._connected.is_set(), flags.is_disconnect_packet_from_server
            self._connected.clear()
            self._generation += 1
            if not self._stopping.is_set():
                self._say_lost(was, reason.value if by_broker else 0, getattr(client, "fault", None))
                if self._ousted:
                    client.disconnect()  # it connects no more
                self._take_renewed()

    def _say_lost(self, was: bool, code: int, fault: Exception | None) -> None:
        """Say why a connection ended. was: the centre listened on it. code: of the broker's own word, 0 where it said none."""
        before = self._tenure.takeovers
        if self._tenure.went_down(time.monotonic(), taken=code == TAKEN_OVER):
            self._ousted = self._tenure.said()
        said = reaching.put_off(code, self._client_id) if code else None
        if said is None and self._tenure.takeovers > before:
            said = reaching.put_off_again(self._client_id)
        if said is None and was:
            said = Trouble(reaching.TRIP, f"the link is lost{f': {fault}' if fault else ''}")
        elif said is None and not self._heard:
            said = self._why_unanswered(fault)
        if said is not None:
            self._say(said)

    def _is_silent(self) -> bool:
        """Return whether the connection came about long ago and the broker has said nothing on it: others hang up at once."""
        return self._opened > 0 and not self._heard and time.monotonic() - self._opened >= 0.9 * self._connect_seconds

    def _why_unanswered(self, fault: Exception | None) -> Trouble:
        if fault is not None:
            return reaching.explain(fault, self._broker, CENTRE)
        if self._is_silent():
            return reaching.silent(self._broker, CENTRE, self._connect_seconds)
        return reaching.hung_up(self._broker, CENTRE)

    def _on_message(self, client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        if client is not self._client:
            return
        try:
            topic = message.topic
        except UnicodeDecodeError:  # no broker should pass it on, and it would come again for ever
            log.warning("a message on a topic that is no text is dropped")
            client.ack(message.mid, message.qos)
        else:
            large = self._client.bound.oversize()
            if not message.payload and large is None:  # it says nothing: with one a doctor sees whether its client may speak
                client.ack(message.mid, message.qos)
                return
            token = _Token(self._generation, message.mid, message.qos)
            self._receive(Delivery(topic, bytes(message.payload), token, large.size if large is not None else 0))

    def _on_publish(self, client: mqtt.Client, _data: Any, _id: int, reason: Any, _properties: Any) -> None:
        if client is not self._client:
            return
        self._count(-1)
        if reason.value == reaching.NOT_AUTHORIZED and self._muted is None:
            self._muted = reaching.not_said(self._answers, self._broker)
            log.error("%s: %s", self._broker.url, self._muted)

    def _on_subscribe(self, client: mqtt.Client, _data: Any, _id: int, reasons: Any, _properties: Any) -> None:
        if client is not self._client:
            return
        if any(r.is_failure for r in reasons):
            self._say(reaching.not_heard(self._filter, self._broker))
            again = threading.Timer(LISTEN_SECONDS, lambda: self._listen_again(client))
            again.daemon = True
            again.start()
            return
        self._connected.set()
        self._trouble = None
        if self._said is not None and self._said.step != reaching.SESSION:  # of who is put off each second that is said once
            self._said = None
        log.info("connected to %s, listening on %s", self._broker.url, self._filter)

    def _listen_again(self, client: mqtt.Client) -> None:
        if client is self._client and not self._connected.is_set() and not self._stopping.is_set():
            client.subscribe(self._filter, qos=1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._out += change


def tls_of(broker: Broker) -> ssl.SSLContext:
    """Return what TLS to a broker goes by. Raises BadArgument for certificates that can't be used, and for a key that lies open."""
    given = broker.certificates
    try:
        if given.own is not None:
            require_closed(given.key or given.own)
        return given.context()
    except NotPrivateError as error:
        raise BadArgument(reason=f"the private key {error}", fix=error.fix) from None
    except OSError as error:
        raise BadArgument(reason=f"the certificates for {broker.url}: {error}", fix="check --ca, --cert and --cert-key") from None
