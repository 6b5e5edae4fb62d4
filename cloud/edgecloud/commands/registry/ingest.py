"""`edgecloud ingest`: the service that listens to the fleet."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from edgecloud import keys
from edgecloud.intake import mqtt
from edgecloud.intake.service import Ingester, Pace
from edgecloud.registry import open_registry
from edgecloud.settings import BROKER, from_environment, registry_path, seconds, start_log
from edgecommon.broker import Certificates
from edgecommon.printing import Answer
from modelwire.wire.keys import KeyKind

from ..answer import facts

NAME = "ingest"
HELP = "Take in what devices send until stopped, or with --once until nothing more comes."
EXAMPLES = (
    "edgecloud ingest --broker mqtt://127.0.0.1:1883",
    "edgecloud ingest --once --idle 5",
    "edgecloud ingest --broker mqtts://centre@broker:8883 --password-file secret --ca ca.pem",
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--broker", metavar="URL", help="mqtt[s]://[USER@]HOST[:PORT] (default: mqtt://127.0.0.1:1883); EDGECLOUD_BROKER")
    parser.add_argument("--once", action="store_true", help="end when nothing has come for a while and all is rebuilt")
    parser.add_argument("--idle", default="3", metavar="SECONDS", help="how long that while is (default: 3)")
    parser.add_argument("--key", metavar="FILE", help="the centre's receipt key (default: receipt.key beside the registry); EDGECLOUD_KEY")
    parser.add_argument("--client-id", metavar="ID", help="MQTT client id, kept for ever (default: edgecloud.FLEET); EDGECLOUD_CLIENT_ID")
    parser.add_argument("--password-file", metavar="FILE", help="file with the broker's password alone; EDGECLOUD_PASSWORD_FILE")
    parser.add_argument("--ca", metavar="FILE", help="certificates that sign the broker's; EDGECLOUD_CA")
    parser.add_argument("--cert", metavar="FILE", help="this centre's certificate; EDGECLOUD_CERT")
    parser.add_argument("--cert-key", metavar="FILE", help="the private key of --cert; EDGECLOUD_CERT_KEY")
    parser.add_argument("--resend", metavar="SECONDS", help="repeat a command without an answer after this (default: 30); EDGECLOUD_RESEND")
    parser.add_argument("--log", choices=("text", "json"), help="form of the log on standard error (default: text); EDGECLOUD_LOG")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="default: info; EDGECLOUD_LOG_LEVEL")


def run(args: argparse.Namespace) -> Answer:
    start_log(args.log or from_environment("LOG", "text"), args.log_level or from_environment("LOG_LEVEL", "info"))
    path = registry_path(args.db)
    store = open_registry(path)
    fleet = store.fleet
    store.close()
    key_file = args.key or from_environment("KEY", "")
    key = keys.load_key(Path(key_file) if key_file else path.parent / keys.RECEIPT, KeyKind.RECEIPT_PRIVATE)
    broker = mqtt.parse_broker(
        args.broker or from_environment("BROKER", BROKER),
        password_file=_path(args.password_file or from_environment("PASSWORD_FILE", "")),
        certificates=Certificates(
            _path(args.ca or from_environment("CA", "")),
            _path(args.cert or from_environment("CERT", "")),
            _path(args.cert_key or from_environment("CERT_KEY", "")),
        ),
    )
    client = args.client_id or from_environment("CLIENT_ID", f"edgecloud.{fleet}")
    pace = Pace(resend=seconds(args.resend or from_environment("RESEND", "30")))
    ingester = Ingester(path, key, mqtt.MqttTransport(broker, fleet=fleet, client_id=client), pace=pace)
    interrupted = False

    def on_signal(number: int, _frame: object) -> None:
        nonlocal interrupted
        interrupted = number == signal.SIGINT
        ingester.stop()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        tally = ingester.run(once=seconds(args.idle) if args.once else None)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    document = tally.document()
    return Answer(document, facts([(name, count) for name, count in document.items() if count]), code=130 if interrupted else 0)


def _path(text: str) -> Path | None:
    return Path(text) if text else None
