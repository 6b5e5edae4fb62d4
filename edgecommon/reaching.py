"""Why a broker can't be reached, or lets nobody in: at which step, in a person's words, and what to do about it.

Both links and both doctors say it by this page. It looks at errors by what they carry, so a link without TLS never loads `ssl`.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from .broker import Broker

NAME, PORT, TLS, LOGIN, SESSION, ACCESS, TRIP = "name", "port", "TLS", "login", "session", "access", "trip"
STEPS = (NAME, PORT, TLS, LOGIN, SESSION, ACCESS, TRIP)  # in the order in which a connection comes about
VERSION, TAKEN_OVER, NOT_AUTHORIZED = 0x84, 0x8E, 0x87
SHORT = 30.0  # seconds of a connection that was put off soon
OLD_CODES = {1: VERSION, 2: 0x85, 3: 0x88, 4: 0x86, 5: NOT_AUTHORIZED}  # of MQTT 3.1.1, as MQTT 5 numbers the same reasons


@dataclass(frozen=True, slots=True)
class Words:
    """What the places are called where one side is told of its broker."""

    broker: str
    user: str
    password: str
    ca: str
    own: str  # certificate
    client_id: str


BOARD = Words("link.broker", "link.user", "link.password_file", "link.tls_ca", "link.tls_cert", "link.client_id")
CENTRE = Words("--broker", "the USER of --broker", "--password-file", "--ca", "--cert", "--client-id")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps a link from coming about. refused: the broker answers, and does not let this client in or do what it needs."""

    step: str
    reason: str
    fix: str = ""
    refused: bool = False

    def __str__(self) -> str:
        return f"{self.reason}; {self.fix}" if self.fix else self.reason


def unbounded(library: str) -> Trouble:
    """Return what it means that an MQTT library reads past the bound on what comes in. library: its name and version."""
    reason = f"{library} reads what a broker sends in a way that this release does not know and can't bound"
    return Trouble(LOGIN, reason, "install one that it knows: pip install 'paho-mqtt>=2.0,<3'", refused=True)


# OpenSSL's numbers for why a certificate is not believed.
_EXPIRED, _NOT_YET, _SELF_SIGNED, _UNKNOWN, _WRONG_NAME = (10,), (9,), (18,), (2, 7, 19, 20, 21), (62, 64)


def explain(error: BaseException, broker: Broker, words: Words) -> Trouble:
    """Return what an error means that came before a broker answered in MQTT."""
    if isinstance(error, (socket.gaierror, UnicodeError)):  # UnicodeError: a name that no host can have
        return _no_name(error, broker, words)
    if getattr(error, "verify_code", None) is not None:
        return _not_believed(error, broker, words)
    if type(error).__name__.startswith("SSL") or "handshake" in str(error):
        return _no_tls(error, broker, words)
    if isinstance(error, ConnectionRefusedError):
        fix = f"start the broker, or correct {words.broker}"
        return Trouble(PORT, f"connection refused: nothing listens at port {broker.port} of {broker.host}", fix)
    if isinstance(error, TimeoutError):
        reason = f"{broker.host} does not answer at port {broker.port}"
        return Trouble(PORT, reason, f"see that it is on, that {words.broker} names it, and that no firewall is between")
    if isinstance(error, (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)):
        return hung_up(broker, words, tls_begun=broker.tls)
    if isinstance(error, OSError):
        return Trouble(PORT, f"there is no way to {broker.host}: {error.strerror or error}", "check this machine's network")
    return Trouble(LOGIN, str(error) or type(error).__name__)


def hung_up(broker: Broker, words: Words, *, tls_begun: bool = False) -> Trouble:
    """Return what it means that a connection ended before the broker answered."""
    if tls_begun:
        fix = "see that it speaks TLS at this port (8883 as a rule, and 1883 without: mqtt://), and read its log"
        return Trouble(TLS, f"port {broker.port} of {broker.host} hangs up when TLS begins", fix)
    if broker.tls:
        reason, fix = _certificate_asked(broker, words)
        return Trouble(LOGIN, f"the broker hangs up without an answer; {reason}", fix, refused=True)
    fix = f"where it speaks TLS at this port, write mqtts:// in {words.broker}; or see that it is an MQTT broker"
    return Trouble(LOGIN, f"port {broker.port} of {broker.host} hangs up without an answer in MQTT", fix)


def silent(broker: Broker, words: Words, seconds: float) -> Trouble:
    """Return what it means that a broker says nothing to a CONNECT."""
    fix = f"see that an MQTT broker listens there, and whether it speaks TLS at this port: mqtts:// in {words.broker}"
    if broker.tls:
        fix = "see that an MQTT broker listens there, and read its log"
    return Trouble(LOGIN, f"port {broker.port} of {broker.host} takes the connection and has not answered in MQTT for {seconds:g} s", fix)


def no_mqtt(broker: Broker, words: Words, said: bytes) -> Trouble:
    """Return what it means that what answers speaks something else."""
    if said[:2] == b"\x15\x03":  # an alert of TLS
        return speaks_tls(broker, words)
    what = "HTTP" if said[:4] in (b"HTTP", b"<htm", b"<!DO") else "something else than MQTT"
    return Trouble(LOGIN, f"port {broker.port} of {broker.host} speaks {what}", f"name a broker's port in {words.broker}")


def speaks_tls(broker: Broker, words: Words) -> Trouble:
    """Return what it means that a port asks for TLS and was spoken to without."""
    reason = f"port {broker.port} of {broker.host} speaks TLS, and it was spoken to without"
    return Trouble(TLS, reason, f"write mqtts:// in {words.broker}")


def speaks_plain(broker: Broker, words: Words) -> Trouble:
    """Return what it means that a port knows no TLS and TLS was begun."""
    reason = f"port {broker.port} of {broker.host} speaks MQTT without TLS"
    return Trouble(TLS, reason, f"name its port with TLS in {words.broker}: 8883 as a rule; mqtt:// is for a broker on this machine")


def refused(code: int, broker: Broker, words: Words, client_id: str) -> Trouble:
    """Return what a broker means that answers a CONNECT with this reason, numbered as in MQTT 5 or in 3.1.1."""
    code = OLD_CODES.get(code, code)
    if code in (0x86, NOT_AUTHORIZED):
        return _not_let_in(code, broker, words)
    if code == 0x85:
        fix = f"see which ids it takes, and set {words.client_id}"
        return Trouble(LOGIN, f"the broker takes no client id {client_id}", fix, refused=True)
    said, fix = _REASONS.get(code, (f"the broker refuses the connection for the reason 0x{code:02x}", "read the broker's log"))
    return Trouble(LOGIN, said, fix, refused=code not in (0x88, 0x89, 0x97, 0x9F))


def put_off(code: int, client_id: str) -> Trouble | None:
    """Return what a broker means that ends a connection with this reason; None where that says nothing of its own."""
    if code == TAKEN_OVER:
        reason = f"session taken over: another client has connected with the id {client_id}, and a broker keeps one of each"
        return Trouble(SESSION, reason, "find the other one (a cloned board, a second start) and stop it", refused=True)
    if code == 0x98:
        return Trouble(SESSION, "the broker put this client off by an administrator's action", "ask who runs the broker", refused=True)
    if code == NOT_AUTHORIZED:
        return Trouble(ACCESS, "the broker put this client off: not authorized", "see the broker's access list", refused=True)
    said = _REASONS.get(code)
    return Trouble(LOGIN, *said) if said else None


def put_off_again(client_id: str) -> Trouble:
    """Return what it means that connections end without a word soon after they came about, in a row: most brokers say no more."""
    reason = f"let in and put off again and again: most likely another client has the id {client_id}, and takes the session"
    return Trouble(SESSION, reason, "find the other one (a cloned board, a second start) and stop it", refused=True)


def not_heard(filters: str, broker: Broker) -> Trouble:
    """Return what it means that a broker refuses a subscription."""
    fix = "see the broker's access list: edgecloud broker config writes one"
    return Trouble(ACCESS, f"the broker does not let {_who(broker)} listen on {filters}", fix, refused=True)


def not_said(topic: str, broker: Broker) -> Trouble:
    """Return what it means that a broker refuses what is published."""
    fix = "see the broker's access list: edgecloud broker config writes one"
    return Trouble(ACCESS, f"the broker does not let {_who(broker)} speak on {topic}", fix, refused=True)


_BUSY = "see how many clients it takes, and its log"
_REASONS = {
    VERSION: ("the broker speaks another version of MQTT", "5 and 3.1.1 are spoken here: name a broker that speaks one of them"),
    0x88: ("the broker says that it is not available now", "wait, and read the broker's log"),
    0x89: ("the broker says that it is busy", _BUSY),
    0x8A: ("the broker has banned this client", "ask who runs the broker"),
    0x8B: ("the broker shuts down", "start it again"),
    0x8D: ("the broker heard nothing for too long", "see whether the network stalls"),
    0x95: ("the broker takes no packet as large as the one sent", "raise its max_packet_size"),
    0x97: ("the broker has no room for another client", _BUSY),
    0x9C: ("the broker sends to another server", "name that one"),
    0x9D: ("the broker has moved to another server", "name that one"),
    0x9F: ("the broker takes no more connections for now", _BUSY),
}


def _who(broker: Broker) -> str:
    if broker.user:
        return f"the user {broker.user}"
    return "this client's certificate" if broker.certificates.own else "a client without a user name"


def _no_name(error: BaseException, broker: Broker, words: Words) -> Trouble:
    code = error.errno if isinstance(error, socket.gaierror) else None
    if code == socket.EAI_AGAIN:
        said = f"the name {broker.host} can't be looked up: no name server answers"
        return Trouble(NAME, said, "check this machine's network and its DNS")
    said = f"no host is known by the name {broker.host}"
    return Trouble(NAME, said, f"correct {words.broker}, or check this machine's DNS: getent hosts {broker.host}")


def _not_believed(error: BaseException, broker: Broker, words: Words) -> Trouble:
    code = getattr(error, "verify_code", 0)
    said = str(getattr(error, "verify_message", "") or error).rstrip(".")
    reason = f"the broker's certificate is not believed: {said}"
    if code in _EXPIRED:
        fix = "renew the broker's certificate; if it is good until later, set this machine's clock"
    elif code in _NOT_YET:
        fix = "set this machine's clock, or wait until the broker's certificate holds"
    elif code in _SELF_SIGNED:
        fix = f"have the broker's certificate signed by a CA and name that with {words.ca}; if this one is meant, name it itself"
    elif code in _UNKNOWN:
        fix = f"name the certificate of the CA that signed the broker's with {words.ca}"
    elif code in _WRONG_NAME:
        fix = f"name the broker in {words.broker} as its certificate names it, or have it issued for {broker.host}"
    else:
        fix = "renew the broker's certificate"
    return Trouble(TLS, reason, fix)


# What OpenSSL calls the alerts of a broker that does not take a client's certificate.
_ALERTS = {
    "CERTIFICATE_REQUIRED": "it asks for a client certificate (certificate required)",
    "CERTIFICATE_REVOKED": "client certificate revoked",
    "CERTIFICATE_EXPIRED": "the client certificate has expired by the broker's clock",
    "UNKNOWN_CA": "the client certificate is signed by a CA that the broker does not know",
    "BAD_CERTIFICATE": "the client certificate is not taken",
    "CERTIFICATE_UNKNOWN": "the client certificate is not taken",
    "UNSUPPORTED_CERTIFICATE": "the client certificate is for another use",
    "ACCESS_DENIED": "the client certificate is not let in",
    "DECRYPT_ERROR": "the client certificate is not by a CA that the broker knows",
}
_NO_TLS = (
    "WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "BAD_RECORD_TYPE", "PACKET_LENGTH_TOO_LONG", "UNEXPECTED_MESSAGE",
)  # fmt: skip
_OTHER_TLS = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE", "NO_SHARED_CIPHER")


def _no_tls(error: BaseException, broker: Broker, words: Words) -> Trouble:
    said = (getattr(error, "reason", None) or "").upper()
    for alert, meaning in _ALERTS.items():
        if f"ALERT_{alert}" in said:
            _, fix = _certificate_asked(broker, words)
            return Trouble(TLS, f"the broker refuses TLS: {meaning}", fix, refused=True)
    if "ALERT_HANDSHAKE_FAILURE" in said:
        reason, fix = _certificate_asked(broker, words)
        return Trouble(TLS, f"the broker refuses TLS; {reason}", fix, refused=True)
    if any(word in said for word in _OTHER_TLS):
        return Trouble(TLS, f"the broker speaks another version of TLS: {said.lower()}", "have it speak TLS 1.2 or later")
    port = f"port {broker.port} of {broker.host}"
    fix = f"see that the broker speaks TLS at this port (8883 as a rule); where it speaks none, {words.broker} begins with mqtt://"
    if any(word in said for word in _NO_TLS):
        return Trouble(TLS, f"{port} speaks no TLS", fix)
    if "timed out" in str(error):
        return Trouble(TLS, f"{port} takes the connection and says nothing when TLS begins", fix)
    if type(error).__name__ in ("SSLEOFError", "SSLZeroReturnError") or "EOF" in said:
        return Trouble(TLS, f"{port} hangs up when TLS begins", fix)
    return Trouble(TLS, f"TLS with {port} fails: {error}", fix)


def _certificate_asked(broker: Broker, words: Words) -> tuple[str, str]:
    """Return what a broker may mean that ends TLS, and what to do."""
    if broker.certificates.own is None:
        reason = f"it may ask for a client certificate, and {words.own} is not set"
        return reason, f"set {words.own} to one of this fleet's CA: docs/broker.md"
    fix = f"see whether it has ended or was taken back (edgecloud ca list), and have the one of {words.own} issued anew"
    return f"it may not take the certificate of {words.own}", fix


def _not_let_in(code: int, broker: Broker, words: Words) -> Trouble:
    said = "bad user name or password" if code == 0x86 else "not authorized"
    if broker.user and broker.password:
        reason, fix = f"wrong password for the user {broker.user}, or no such user", f"correct {words.user} and {words.password}"
    elif broker.user:
        reason, fix = f"the user {broker.user} is sent without a password", f"name the file with the password: {words.password}"
    elif broker.certificates.own is not None:
        reason, fix = "the name in its certificate may not connect", "see the broker's access list"
    else:
        reason, fix = "it asks for a user name and a password, and none is set", f"set {words.user} and {words.password}"
    return Trouble(LOGIN, f"the broker does not let this client in ({said}): {reason}", fix, refused=True)
