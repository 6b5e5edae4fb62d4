"""`edgecloud ingest`: the service that listens to the fleet."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from edgecloud import keys
from edgecloud.feasibility.lazily import SHARE
from edgecloud.intake import mqtt
from edgecloud.intake.service import Ingester, Pace, wait_for_room
from edgecloud.registry import open_registry
from edgecloud.settings import count, from_environment, of_a_service, registry_path, seconds, start_log
from edgecloud.workers.pool import usual_count
from edgecommon.arguments import number, only_with, whole
from edgecommon.printing import Answer
from edgecommon.systemd import Systemd
from modelwire.errors import BadArgument
from modelwire.wire.keys import KeyKind
from modelwire.wire.signing import PrivateKey

from ..answer import facts
from ..broker import add_broker, add_client_id, broker_of, client_id_of
from ..passphrases import add_passphrase, passphrase_file, passphrase_of

NAME = "ingest"
IDLE = 3.0  # seconds
WORKERS_MAX = 256
HELP = "Take in what devices send until stopped, or with --once until nothing more comes."
EXAMPLES = (
    "edgecloud ingest --broker mqtt://127.0.0.1:1883",
    "edgecloud ingest --once --idle 5",
    "edgecloud ingest --broker mqtts://centre@broker:8883 --password-file secret --ca ca.pem",
)


def add(parser: argparse.ArgumentParser) -> None:
    add_broker(parser)
    parser.add_argument("--once", action="store_true", help="end when nothing has come for a while and all is rebuilt")
    parser.add_argument("--idle", type=number(), metavar="SECONDS", help="how long that while is (default: 3)")
    only_with(parser, "--idle", "--once")
    parser.add_argument("--key", metavar="FILE", help="the centre's receipt key (default: receipt.key beside the registry); EDGECLOUD_KEY")
    add_passphrase(parser)
    add_client_id(parser)
    what = "boards' certificates, ca/issued: a board that has an older one is sent the newer; EDGECLOUD_CERTIFICATES"
    parser.add_argument("--certificates", metavar="DIR", help=what)
    what = "repeat a command without an answer after this (default: 30); EDGECLOUD_RESEND"
    parser.add_argument("--resend", type=number(), metavar="SECONDS", help=what)
    what = (
        "processes that rebuild; 0: a thread of this one does (default: 2; with --once or on one core, 0); "
        "recipes are trained again in one more, whatever is said here; EDGECLOUD_WORKERS"
    )
    parser.add_argument("--workers", type=whole(most=WORKERS_MAX), metavar="N", help=what)
    what = f"share of a processor for scoring new versions on probe sets; 0: none (default: {SHARE:g}); EDGECLOUD_EVALUATE_SHARE"
    parser.add_argument("--evaluate-share", type=number(-1.0, 1.0), metavar="SHARE", help=what)
    parser.add_argument("--log", choices=("text", "json"), help="form of the log on standard error (default: text); EDGECLOUD_LOG")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="default: info; EDGECLOUD_LOG_LEVEL")


def run(args: argparse.Namespace) -> Answer:
    start_log(args.log or from_environment("LOG", "text"), args.log_level or from_environment("LOG_LEVEL", "info"))
    path, systemd = registry_path(args.db), Systemd()
    if not args.once:
        wait_for_room(path, say=systemd.starting)
    store = open_registry(path)
    fleet = store.fleet
    store.close()
    key_file = args.key or from_environment("KEY", "")
    passphrase = passphrase_of(args) if passphrase_file(args) is not None else None  # nobody is there to type one

    def read_key() -> PrivateKey:
        return keys.load_key(Path(key_file) if key_file else path.parent / keys.RECEIPT, KeyKind.RECEIPT_PRIVATE, passphrase)

    with of_a_service(not args.once):
        broker = broker_of(args)
        client = client_id_of(args, fleet)
        usual = 0 if args.once else usual_count()
        workers = args.workers if args.workers is not None else count(from_environment("WORKERS", str(usual)), WORKERS_MAX)
        pace = Pace(resend=args.resend or seconds(from_environment("RESEND", "30")), workers=workers, evaluate=_share(args))
    folder = args.certificates or from_environment("CERTIFICATES", "")
    certificates = Path(folder) if folder else None
    transport = mqtt.MqttTransport(broker, fleet=fleet, client_id=client)
    ingester = Ingester(path, read_key(), transport, read_key=read_key, pace=pace, certificates=certificates, systemd=systemd)
    interrupted = False

    def on_signal(number: int, _frame: object) -> None:
        nonlocal interrupted
        interrupted = number == signal.SIGINT
        ingester.stop()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        tally = ingester.run(once=(args.idle or IDLE) if args.once else None)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    document = tally.document()
    return Answer(document, facts([(name, count) for name, count in document.items() if count]), code=130 if interrupted else 0)


def _share(args: argparse.Namespace) -> float:
    """Return the share of a processor that scoring may take. Raises BadArgument."""
    if args.evaluate_share is not None:
        return float(args.evaluate_share)
    said = from_environment("EVALUATE_SHARE", f"{SHARE:g}")
    try:
        return number(-1.0, 1.0)(said)
    except argparse.ArgumentTypeError as error:
        raise BadArgument(reason=f"EDGECLOUD_EVALUATE_SHARE: {error}", fix="write a number such as 0.05; 0 scores nothing") from None
