"""Which broker a command line means, with what proves both sides to each other: the same for `ingest` and `doctor`."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecloud.intake import mqtt
from edgecloud.settings import BROKER, from_environment
from edgecommon.broker import Broker, Certificates


def add_broker(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where the broker is and how it is spoken to."""
    parser.add_argument("--broker", metavar="URL", help="mqtt[s]://[USER@]HOST[:PORT] (default: mqtt://127.0.0.1:1883); EDGECLOUD_BROKER")
    what = "file with the broker's password alone, readable by its owner alone; EDGECLOUD_PASSWORD_FILE"
    parser.add_argument("--password-file", metavar="FILE", help=what)
    parser.add_argument("--ca", metavar="FILE", help="certificates that sign the broker's; EDGECLOUD_CA")
    parser.add_argument("--cert", metavar="FILE", help="this centre's certificate; EDGECLOUD_CERT")
    parser.add_argument("--cert-key", metavar="FILE", help="the private key of --cert; EDGECLOUD_CERT_KEY")


def add_client_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--client-id", metavar="ID", help="MQTT client id, kept for ever (default: edgecloud.FLEET); EDGECLOUD_CLIENT_ID")


def client_id_of(args: argparse.Namespace, fleet: str) -> str:
    """Return the client id of a fleet's ingester."""
    return str(args.client_id or from_environment("CLIENT_ID", f"edgecloud.{fleet}"))


def broker_of(args: argparse.Namespace) -> Broker:
    """Return the broker that the command line and the environment name. Raises BadArgument."""
    return mqtt.parse_broker(
        args.broker or from_environment("BROKER", BROKER),
        password_file=_path(args.password_file or from_environment("PASSWORD_FILE", "")),
        certificates=Certificates(
            _path(args.ca or from_environment("CA", "")),
            _path(args.cert or from_environment("CERT", "")),
            _path(args.cert_key or from_environment("CERT_KEY", "")),
        ),
    )


def _path(text: str) -> Path | None:
    return Path(text) if text else None
