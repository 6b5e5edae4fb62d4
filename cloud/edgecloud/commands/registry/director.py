"""`edgecloud director`: the process that brings variants to devices, by plans and decisions that operators sealed."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from edgecloud import keys
from edgecloud.registry import open_registry
from edgecloud.registry.privacy import require_private
from edgecloud.rollouts.directing import RolloutDirector
from edgecloud.rollouts.stepping import StepDone
from edgecloud.settings import from_environment, of_a_service, registry_path, start_log
from edgecommon.printing import Answer
from edgecommon.systemd import Systemd
from modelwire.wire.keys import KeyKind
from modelwire.wire.signing import PrivateKey, Role

from ..answer import Document, sentences
from ..passphrases import add_passphrase, passphrase_of
from ..sealing import expires_type, parse_expires

NAME = "director"
EVERY = "5s"
HELP = "Bring variants to devices, by plans and decisions that operators sealed, until stopped; with --once until nothing is left to do."
EXAMPLES = ("edgecloud director", "edgecloud director --once", "edgecloud director --key /etc/edgecloud/director.key --every 30s")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="do what is due now, and end")
    what = f"time between two looks at the registry (default: {EVERY}); EDGECLOUD_EVERY"
    parser.add_argument("--every", type=expires_type("--every"), metavar="TIME", help=what)
    what = "the director's key (default: director.key beside the registry); EDGECLOUD_DIRECTOR_KEY"
    parser.add_argument("--key", metavar="FILE", help=what)
    add_passphrase(parser)
    parser.add_argument("--log", choices=("text", "json"), help="form of the log on standard error (default: text); EDGECLOUD_LOG")
    what = "default: info, with --once error; EDGECLOUD_LOG_LEVEL"
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help=what)


def run(args: argparse.Namespace) -> Answer:
    usual = "error" if args.once else "info"  # the answer says it all
    start_log(args.log or from_environment("LOG", "text"), args.log_level or from_environment("LOG_LEVEL", usual))
    path = registry_path(args.db)
    if path.exists():
        require_private(path)
    store = open_registry(path)
    try:
        held = keys.trusted(store.identity, [row.record for row in store.trusts.all()])
    finally:
        store.close()
    said = args.key or from_environment("DIRECTOR_KEY", "")
    file = Path(said) if said else path.parent / keys.DIRECTOR
    sealed = keys.read_key_file(file, KeyKind.DIRECTOR_PRIVATE)
    keys.require_speaks(sealed, Role.DIRECTOR, held, file)  # before anybody types
    passphrase = passphrase_of(args)
    with of_a_service(not args.once):
        every = parse_expires(args.every or from_environment("EVERY", EVERY), "--every")

    def read_key() -> PrivateKey:
        return keys.load_key(file, KeyKind.DIRECTOR_PRIVATE, passphrase)

    director = RolloutDirector(path, keys.open_key(sealed, passphrase), read_key=read_key, every=every, systemd=Systemd())
    interrupted = False

    def on_signal(number: int, _frame: object) -> None:
        nonlocal interrupted
        interrupted = number == signal.SIGINT
        director.stop()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        done = director.run(once=args.once)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return Answer(_document(path, done), _text(done), code=130 if interrupted else 0)


def _document(path: Path, done: StepDone) -> Document:
    store = open_registry(path, readonly=True)
    try:
        rows = store.rollouts.all()
    finally:
        store.close()
    rollouts = [{"name": one.name, "state": one.state, "phase": one.phase + 1, "reason": one.reason} for one in rows]
    return {
        "assigned": done.assigned, "offered": done.offered, "taken_back": done.taken_back, "moves": done.lines, "notes": done.notes,
        "rollouts": rollouts,
    }  # fmt: skip


def _text(done: StepDone) -> str:
    counts = (("taken in", done.assigned), ("offered a variant", done.offered), ("sent back or told to stay", done.taken_back))
    told = [f"{n} device{'s' * (n != 1)} {what}" for what, n in counts if n]
    return sentences([*done.lines, *told, *(f"NOT HEEDED {note}" for note in done.notes)] or ["nothing was due"])
