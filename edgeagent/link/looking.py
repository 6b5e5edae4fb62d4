"""Looks once, for seconds at most, whether a broker is where the settings say: for who sets a board up, often before there is a network."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgeagent.settings.tree import LinkSettings
from edgecommon.broker import Broker, first_word
from modelwire.errors import LinkError, ModelWireError

from .mqtt import parse_broker, reach

SECONDS = 3.0  # for all of it: a name server that is not there would be waited for much longer


@dataclass(frozen=True, slots=True)
class BrokerLook:
    """What one look at a broker found."""

    reached: bool
    text: str


def look(settings: LinkSettings, folder: Path, *, seconds: float = SECONDS, monotonic: Callable[[], float] = time.monotonic) -> BrokerLook:
    """Return what is found at the broker's port. No session is asked for, and no password is sent. Raises ConfigError for no broker's URL.

    folder: of the settings, where relative paths of certificates begin.
    """
    broker = parse_broker(settings.broker)
    found: list[BrokerLook] = []
    until = monotonic() + seconds

    def at_work() -> None:
        short = replace(settings, connect_timeout=seconds, password_file="")
        try:
            found.append(BrokerLook(True, reach(short, folder)) if broker.tls else _plain(broker, seconds))
        except ModelWireError as e:
            found.append(BrokerLook(False, _said(e, broker)))

    thread = threading.Thread(target=at_work, name="a look at the broker", daemon=True)  # what still waits then ends with the process
    thread.start()
    thread.join(max(0.0, until - monotonic()))
    return found[0] if found else BrokerLook(False, f"{broker.url} has not answered within {seconds:g} s")


def _plain(broker: Broker, seconds: float) -> BrokerLook:
    try:
        with socket.create_connection((broker.host, broker.port), timeout=seconds) as plain:
            word = first_word(plain)
    except (OSError, UnicodeError) as e:
        return BrokerLook(False, f"{broker.url}: {_why(e, broker)}")
    if word[:1] == b"\x20":  # CONNACK
        return BrokerLook(True, f"{broker.url} answers")
    if word[:2] in (b"\x15\x03", b"\x16\x03"):  # an alert of TLS, or its hello
        return BrokerLook(False, f"{broker.url}: what listens there speaks TLS: mqtts://{_host(broker)}:{broker.port}")
    if word:
        return BrokerLook(False, f"{broker.url}: what listens there is no MQTT broker")
    return BrokerLook(False, f"{broker.url}: what listens there says nothing to MQTT; where it speaks TLS, write mqtts://")


def _why(error: Exception, broker: Broker) -> str:
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return f"the name {broker.host} is not known here"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens at this port"
    if isinstance(error, TimeoutError):
        return "nobody answers"
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        mine, other = ("TLS", "plain MQTT, write mqtt://") if broker.tls else ("MQTT", "TLS, write mqtts://")
        return f"what listens there hung up on {mine}; where it speaks {other}"
    return getattr(error, "strerror", None) or str(error)


def _said(error: ModelWireError, broker: Broker) -> str:
    """Return why a broker over TLS was not reached, in one line."""
    cause = error.__context__ if isinstance(error, LinkError) else None  # another error is about a file that TLS goes by
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"{broker.url}: its certificate is not to be believed here ({cause.verify_message}); name the CA's with link.tls_ca"
    if isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE"):
        return f"{broker.url}: what listens there does not speak TLS; where it speaks plain MQTT, write mqtt://"
    if isinstance(cause, (OSError, UnicodeError)) and not isinstance(cause, ssl.SSLError):
        return f"{broker.url}: {_why(cause, broker)}"
    return error.message


def _host(broker: Broker) -> str:
    return f"[{broker.host}]" if ":" in broker.host else broker.host
