"""Whether a broker can be reached and believed, as the ingester would find it; and how one client is put off it."""

from __future__ import annotations

import socket
import struct
import time

from edgecommon.broker import Broker, require_taken
from edgecommon.certificates import life_of_bytes
from modelwire.errors import BadArgument

from .mqtt import tls_of

SECONDS = 5.0
# OpenSSL's numbers for why a certificate is not believed.
_EXPIRED, _NOT_YET, _SELF_SIGNED, _UNKNOWN, _WRONG_NAME = (10,), (9,), (18, 19), (2, 20, 21), (62, 64)


def reach(broker: Broker, *, seconds: float = SECONDS) -> str:
    """Return how the broker answers at its port: over TLS, where the URL asks for it, with the certificates that the ingester goes by.

    Raises BadArgument that says what to do.
    """
    context = tls_of(broker) if broker.tls else None
    try:
        with socket.create_connection((broker.host, broker.port), timeout=seconds) as plain:
            if context is None:
                return "answers"
            with context.wrap_socket(plain, server_hostname=broker.host) as secured:
                life = life_of_bytes(secured.getpeercert(binary_form=True) or b"")
                require_taken(secured)
                return f"answers over {secured.version()}, with a certificate that holds: it {life.told(time.time())}"
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
        raise BadArgument(reason=f"{broker.url}: {getattr(error, 'verify_message', '') or error}", fix=_fix(error, broker)) from error


def put_off(broker: Broker, name: str, *, seconds: float = SECONDS) -> None:
    """Connect with the certificate of a client's name, which ends that client's connection and its session, and leave.

    Raises BadArgument when the broker lets nobody in by that name.
    """
    packet = b"\x00\x04MQTT\x04\x02\x00\x3c" + struct.pack(">H", len(name)) + name.encode()  # a clean session of MQTT 3.1.1
    try:
        with (
            socket.create_connection((broker.host, broker.port), timeout=seconds) as plain,
            tls_of(broker).wrap_socket(plain, server_hostname=broker.host) as secured,
        ):
            secured.sendall(bytes((0x10, len(packet))) + packet)
            said = secured.recv(4)
            if said[:1] != b"\x20" or said[3:] != b"\x00":
                raise BadArgument(reason=f"{broker.url} let nobody in as {name}", fix="see that it runs with the files of broker config")
            secured.sendall(b"\xe0\x00")
    except (OSError, UnicodeError) as error:
        raise BadArgument(reason=f"{broker.url}: {getattr(error, 'verify_message', '') or error}", fix=_fix(error, broker)) from error


def _fix(error: Exception, broker: Broker) -> str:
    code = getattr(error, "verify_code", None)
    if code is None and broker.tls and getattr(error, "library", None):
        return "see that the broker speaks TLS at this port, and takes the certificate of --cert"
    if code in _EXPIRED:
        return "renew the broker's certificate; if it is good until later, set this machine's clock"
    if code in _NOT_YET:
        return "set this machine's clock, or wait until the broker's certificate holds"
    if code in _SELF_SIGNED:
        return "have the broker's certificate signed by a CA and name that with --ca; if this one is meant, name it itself with --ca"
    if code in _UNKNOWN:
        return "name the certificate of the CA that signed the broker's with --ca"
    if code in _WRONG_NAME:
        return "name the broker with --broker as its certificate names it, or have it issued for this name"
    return "start the broker, or name another one with --broker" if code is None else "renew the broker's certificate"
