"""What a mosquitto is given so that nobody gets in: its settings, its access list, and a page that says where each file goes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgecommon import files
from modelwire.errors import BadArgument

from .authority import CENTRE

MAIN, SETTINGS, ACCESS, BUNDLE, LIST, CERTIFICATE, KEY, PAGE = (
    "mosquitto.conf", "conf.d/edge.conf", "acl", "ca.pem", "crl.pem", "server.pem", "server.key", "README",
)  # fmt: skip
RENEWABLE = (BUNDLE, LIST, CERTIFICATE)  # what `refresh` may replace; the others are the operator's once they are written


@dataclass(frozen=True, slots=True)
class BrokerPlace:
    """Where a broker runs. place: the folder of its files there, which need not be where they are written."""

    fleet: str
    place: Path
    port: int = 8883
    bind: str = ""  # one address alone; empty means all
    connections: int = 10_000


def texts(at: BrokerPlace) -> dict[str, str]:
    """Return the files that are text of ours, by name."""
    return {SETTINGS: settings(at), ACCESS: access(at.fleet), MAIN: main(at), PAGE: page(at)}


def settings(at: BrokerPlace) -> str:
    """Return mosquitto's settings. Debian's own mosquitto.conf says where it keeps its log and its messages, so this doesn't."""
    return f"""\
# Who may connect to the broker of the fleet {at.fleet}, and how much it holds. Written by edgecloud broker config.
# One set of rules for all listeners: sessions are shared by them, so one open listener would let ids be stolen from the others.
per_listener_settings false
allow_anonymous false
acl_file {at.place / ACCESS}

listener {at.port}{f" {at.bind}" if at.bind else ""}
protocol mqtt
max_connections {at.connections}
# TLS 1.2 and later; a certificate of the fleet's CA is asked for before a byte of MQTT is read.
tls_version tlsv1.2
cafile {at.place / BUNDLE}
certfile {at.place / CERTIFICATE}
keyfile {at.place / KEY}
crlfile {at.place / LIST}
require_certificate true
# The name in the certificate is the user of the access list, and the id of the session: nobody takes another's.
use_identity_as_username true
use_username_as_clientid true

# What the broker holds. Receipts carry correctness: what is lost here is sent again.
persistence true
autosave_interval 30
persistent_client_expiration 30d
max_packet_size 262144
max_inflight_messages 200
max_queued_messages 100000
max_queued_bytes 268435456
queue_qos0_messages false
allow_zero_length_clientid false

# Off: a listener without TLS, for programs on this machine. It would let every local user be anyone, so it stays a comment:
# a program on this machine connects to port {at.port} as all others do, with a certificate of its own.
# listener 1883 127.0.0.1
"""


def access(fleet: str) -> str:
    """Return the access list. What is not allowed here is refused, $SYS included."""
    return f"""\
# Who may say and hear what in the fleet {fleet}. Written by edgecloud broker config. %u is the name in a client's certificate.
# Every board: it speaks below its own name, and hears what the centre says to it and to all.
pattern write e1/{fleet}/%u/+/up/#
pattern read e1/{fleet}/%u/+/dn/#
pattern read e1/{fleet}/all/all/dn/trust

# The centre. No device's name has capitals.
user {CENTRE}
topic read e1/{fleet}/+/+/up/#
topic write e1/{fleet}/+/+/dn/#
"""


def main(at: BrokerPlace) -> str:
    """Return settings for a mosquitto that reads these files alone."""
    return f"""\
# For a mosquitto that reads these files alone: mosquitto -c {at.place / MAIN}
# On Debian leave this file out: /etc/mosquitto/mosquitto.conf says the same, and reads /etc/mosquitto/conf.d.
persistence_location {at.place}/
log_dest stderr
include_dir {at.place / "conf.d"}
"""


def page(at: BrokerPlace) -> str:
    """Return how these files are put to use."""
    return f"""\
The broker of the fleet {at.fleet}. These files belong into {at.place} on the broker's machine; docs/broker.md tells it at length.

  sudo apt-get install mosquitto
  sudo install -d -m 750 -g mosquitto {at.place}        and the files of this folder into it
  sudo chgrp -R mosquitto {at.place} && sudo chmod 640 {at.place / KEY}
  sudo ln -s {at.place / SETTINGS} /etc/mosquitto/conf.d/edge.conf
  sudo systemctl restart mosquitto

After edgecloud ca revoke or ca renew: edgecloud broker refresh -o FOLDER writes {BUNDLE}, {LIST} and {CERTIFICATE} anew. Put them in
place, then: sudo systemctl reload mosquitto. That refuses new connections. An open one stays: edgecloud broker kick NAME ends it.
After edgecloud ca rotate: sudo systemctl restart mosquitto, as {BUNDLE} is read at its start alone.
"""


def require_new(folder: Path) -> None:
    """Raise BadArgument when one of the files is there already."""
    there = [name for name in (MAIN, SETTINGS, ACCESS, BUNDLE, LIST, CERTIFICATE, KEY, PAGE) if (folder / name).exists()]
    if there:
        raise BadArgument(
            reason=f"{folder / there[0]} is there already, and nothing is overwritten",
            fix="name an empty folder with -o; edgecloud broker refresh renews certificates in one that is in use",
        )


def write_new(folder: Path, given: dict[str, bytes]) -> None:
    """Write all files, and none when one is there already. Raises BadArgument."""
    require_new(folder)
    (folder / "conf.d").mkdir(parents=True, exist_ok=True)
    for name, data in given.items():
        files.write(folder / name, data, mode=0o600 if name == KEY else 0o644, replace=False)


def refresh(folder: Path, given: dict[str, bytes]) -> list[str]:
    """Replace what may be renewed, where it changed, and return the names of what was replaced."""
    out = []
    for name in RENEWABLE:
        path = folder / name
        if not path.is_file():
            raise BadArgument(reason=f"{path} is not there", fix="edgecloud broker config -o writes a folder for a broker")
        if path.read_bytes() != given[name]:
            before = path.stat()
            files.write(path, given[name])
            with suppress(PermissionError):  # who may not give a file away owns it already, or is told by the broker
                os.chown(path, before.st_uid, before.st_gid)
            path.chmod(before.st_mode & 0o777)  # whatever the umask: the broker's user reads it
            out.append(name)
    return out
