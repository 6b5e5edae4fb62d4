"""Whether a broker can be reached and believed, as the ingester would find it; and how one client is put off it."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from edgecommon import probing
from edgecommon.broker import Broker
from edgecommon.probing import SECONDS, Found, LookWish
from edgecommon.reaching import CENTRE, explain
from modelwire.errors import BadArgument
from modelwire.wire import topics

from .mqtt import SESSION_SECONDS, tls_of

if TYPE_CHECKING:
    import ssl


def look(broker: Broker, fleet: str, client_id: str, *, busy: str = "", free: bool = False, seconds: float = SECONDS) -> list[Found]:
    """Return what each step to the broker comes to, as the ingester would find it. busy: why the session of a running one is let alone.
    free: none runs.

    Raises BadArgument for certificates that can't be used.
    """
    context = tls_of(broker) if broker.tls else None
    nobody = f"{topics.ROOT}/{fleet}/all/all/dn"  # no board listens there but for trust records
    wish = LookWish(
        broker, CENTRE, client_id, listen=(topics.all_up(fleet),), speak=f"{nobody}/cmd", echo=f"{nobody}/look", session=SESSION_SECONDS,
        heard="; edgecloud devices says when a board was heard", free=free, seconds=seconds,
    )  # fmt: skip

    def made() -> ssl.SSLContext:
        assert context is not None
        return context

    return probing.look(wish, made, busy=busy)


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
        trouble = explain(error, broker, CENTRE)
        raise BadArgument(reason=f"{broker.url}: {trouble.reason}", fix=trouble.fix) from error
