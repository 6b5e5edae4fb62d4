"""`edgecloud broker`: the files by which a mosquitto lets in the fleet and nobody else, and how one client is put off it."""

from __future__ import annotations

import argparse
import socket
import tempfile
from dataclasses import replace
from pathlib import Path

from edgecloud.certificates import CENTRE, CertificateFolder, Holder, broker_files
from edgecloud.intake import mqtt
from edgecloud.intake.reaching import put_off
from edgecloud.settings import BROKER, from_environment
from edgecommon import files
from edgecommon.arguments import whole
from edgecommon.broker import Certificates
from edgecommon.printing import Answer
from modelwire.errors import BadArgument, MissingFile
from modelwire.names import check_own_name

from ..answer import now
from ..authority_folder import add_authority, authority_folder
from ..verb import Verb
from .ca import issue_server

NAME = "broker"
HELP = "What a mosquitto is given so that the fleet alone gets in: its settings, access list and certificates."
EXAMPLES = (
    "edgecloud broker config -o broker --host broker.example",
    "edgecloud broker refresh -o broker",
    "edgecloud broker kick pi-7 --broker mqtts://broker.example",
)
KICK_SECONDS = 300  # how long the certificate is good by which a client is put off


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", required=True, metavar="DIR", help="an empty folder, or a new one")
    what = "a name or an address at which the broker is reached; repeatable (default: this machine's name)"
    parser.add_argument("--host", action="append", metavar="HOST", help=what)
    parser.add_argument("--place", metavar="DIR", help="where the folder will lie on the broker's machine (default: where it is written)")
    parser.add_argument("--port", type=whole(1, 65535), default=8883, metavar="PORT", help="where it listens (default: 8883)")
    parser.add_argument("--bind", default="", metavar="ADDRESS", help="listen on this address alone")
    what = "most connections at a time (default: 10000)"
    parser.add_argument("--connections", type=whole(1, 10_000_000), default=10_000, metavar="N", help=what)
    add_authority(parser)


def config(args: argparse.Namespace) -> Answer:
    folder, hosts = Path(args.out), args.host or [socket.gethostname().lower()]
    place = Path(args.place) if args.place else folder.absolute()
    for text in (str(place), args.bind):
        if any(not c.isprintable() or c.isspace() for c in text):
            raise BadArgument(reason=f"{text!r} can't stand in mosquitto's settings", fix="name a place without blanks")
    broker_files.require_new(folder)  # before a certificate is issued for it
    with CertificateFolder.open(authority_folder(args)) as authority:
        held = authority.ledger.newest(hosts[0], Holder.SERVER)
        if held is None or held.revoked or list(held.hosts) != hosts:
            held, _ = issue_server(authority, hosts, now())
        at = broker_files.BrokerPlace(authority.ledger.fleet, place, args.port, args.bind, args.connections)
        given = {name: text.encode() for name, text in broker_files.texts(at).items()}
        given |= _renewable(authority, hosts[0]) | {broker_files.KEY: _key_of(authority, hosts[0])}
    broker_files.write_new(folder, given)
    lines = [f"wrote {folder}: {', '.join(given)}", f"what to do with them: {folder / broker_files.PAGE}, and docs/broker.md"]
    return Answer({"folder": str(folder), "place": str(place), "hosts": hosts, "port": args.port, "files": sorted(given)}, "\n".join(lines))


def _refresh_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", required=True, metavar="DIR", help="a folder that edgecloud broker config wrote")
    add_authority(parser)


def refresh(args: argparse.Namespace) -> Answer:
    folder = Path(args.out)
    with CertificateFolder.open(authority_folder(args), readonly=True) as authority:  # root's own files would shut its owner out
        shown = folder / broker_files.CERTIFICATE
        if not shown.is_file():
            raise MissingFile(path=shown, what="the broker's certificate")
        serials = _serials(shown)
        mine = next((one for one in authority.ledger.issues if one.serial in serials and one.kind is Holder.SERVER), None)
        if mine is None:
            raise BadArgument(reason=f"{shown} is none that this CA issued", fix="name its CA with --ca-dir")
        changed = broker_files.refresh(folder, _renewable(authority, mine.name))
    next_step = "reload the broker" if broker_files.BUNDLE not in changed else "restart the broker: it reads ca.pem at its start alone"
    text = f"{folder}: {', '.join(changed)} written anew; {next_step}" if changed else f"{folder}: nothing changed"
    return Answer({"folder": str(folder), "changed": changed}, text)


def _kick_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the device, or CENTRE")
    parser.add_argument("--broker", metavar="URL", help="mqtts://HOST[:PORT] (default: EDGECLOUD_BROKER)")
    add_authority(parser)


def kick(args: argparse.Namespace) -> Answer:
    if args.name != CENTRE:
        check_own_name("device name", args.name)
    broker = mqtt.parse_broker(args.broker or from_environment("BROKER", BROKER))
    if not broker.tls:
        raise BadArgument(reason=f"{broker.url} speaks no TLS: certificates mean nothing to it", fix="name the broker as mqtts://HOST[:PORT]")
    place = authority_folder(args)
    with tempfile.TemporaryDirectory(prefix="edgecloud-kick-") as text, CertificateFolder.open(place, readonly=True) as authority:
        folder = Path(text)
        key, certificate = authority.passing(args.name, now(), KICK_SECONDS)
        files.write(folder / "key", key, mode=0o600)
        files.write(folder / "own", certificate)
        files.write(folder / "ca", authority.bundle.encode())
        put_off(replace(broker, certificates=Certificates(folder / "ca", folder / "own", folder / "key")), args.name)
    text = f"{args.name} is off {broker.url}, and what the broker kept for it is gone; with a certificate that holds it comes back"
    return Answer({"name": args.name, "broker": broker.url}, text)


def _renewable(authority: CertificateFolder, host: str) -> dict[str, bytes]:
    folder = authority.folder
    files_of = {broker_files.BUNDLE: "ca.pem", broker_files.LIST: "crl.pem", broker_files.CERTIFICATE: f"servers/{host}.pem"}
    out = {}
    for name, source in files_of.items():
        if not (folder / source).is_file():
            raise BadArgument(reason=f"{folder / source} is not there: it was revoked", fix=f"edgecloud ca issue --server {host}")
        out[name] = (folder / source).read_bytes()
    return out


def _key_of(authority: CertificateFolder, host: str) -> bytes:
    path = authority.server_key(host)
    try:
        return files.read_private(path, 16 * 1024)
    except FileNotFoundError:
        raise MissingFile(path=path, what="the broker's private key") from None


def _serials(path: Path) -> set[str]:
    from edgecommon.certificates import read_certificates, read_file

    return {f"{one.serial_number:x}" for one in read_certificates(read_file(path, "the broker's certificate"), str(path))}


VERBS = (
    Verb(
        "config", "Write the files of a mosquitto: TLS with client certificates, an access list, limits. Never overwrites.",
        ("edgecloud broker config -o broker --host broker.example",
         "edgecloud broker config -o broker --host broker.example --place /etc/mosquitto/edge"),
        config, _config_arguments,
    ),
    Verb(
        "refresh", "Put what was renewed or revoked into a broker's files: ca.pem, crl.pem, server.pem.",
        ("edgecloud broker refresh -o broker",), refresh, _refresh_arguments,
    ),
    Verb(
        "kick", "End the connection of a client and drop what the broker keeps for it; a revoked one does not come back.",
        ("edgecloud broker kick pi-7 --broker mqtts://broker.example",), kick, _kick_arguments,
    ),
)  # fmt: skip
