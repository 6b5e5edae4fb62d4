"""`edgeagent init`: sets a device up: settings, keys, and the base models in their store."""

from __future__ import annotations

import argparse
import secrets
import shlex
from pathlib import Path

from edgeagent import boards
from edgeagent.link import first_look
from edgeagent.link.credentials import parse_broker
from edgeagent.link.first_look import FirstLook
from edgeagent.samples import sharing
from edgeagent.settings import reading, template
from edgeagent.settings.tree import LinkSettings, TrainSettings
from edgeagent.state.claim import read_token_text
from edgeagent.state.keys import read_fleet, read_private
from edgeagent.state.new_folder import create_folder
from edgecommon.printing import Answer, lines_of
from modelwire.errors import BadArgument, ConfigError
from modelwire.update.manifest import manifest_of
from modelwire.wire import signing
from modelwire.wire.keys import KeyKind, fingerprint, write_key

from .answer import add_set, flags, key_lines, settings_folder
from .model import models_of, rate_of

NAME = "init"
HELP = "Set this device up: write edgeagent.toml, make its key, copy the base models into its store. Never overwrites."
EXAMPLES = (
    "edgeagent init --device pi-7 --fleet home --broker mqtt://127.0.0.1:1883 --fleet-key fleet.pub --model digits=digits.tflite",
    "edgeagent init --device pi-7 --fleet home --broker mqtts://mqtt.example --fleet-key fleet.pub --model a=a.tflite --model b=b.tflite",
    "edgeagent init --device pi-7 --fleet home --fleet-key fleet.pub --model a=a.tflite --key old.key --set train.epochs=3",
    "edgeagent init --device pi-7 --fleet home --fleet-key fleet.pub --model a=a.tflite --claim line-3.claim",
    "edgeagent init --device pi-7 --fleet home --fleet-key fleet.pub --model a=a.tflite --resume",
    "edgeagent init --device pi-7 --fleet home --fleet-key fleet.pub --model a=a.tflite --board auto",
    "edgeagent init --device pi-7 --fleet home --fleet-key fleet.pub --model a=a.tflite --spool-group samplers",
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", required=True, metavar="NAME", help="this device's name")
    parser.add_argument("--fleet", required=True, metavar="NAME", help="the fleet that it belongs to")
    what = "mqtt://HOST[:PORT] or mqtts://HOST[:PORT]; init looks for seconds whether it answers, and says what it found"
    parser.add_argument("--broker", metavar="URL", help=what)
    parser.add_argument("--no-check", action="store_true", help="do not look whether the broker answers")
    what = "what a board is given of its fleet, edge-fleet-pub:..., from edgecloud init"
    parser.add_argument("--fleet-key", required=True, metavar="FILE", help=what)
    what = "a trainable .tflite, or a stock int8 classifier; repeatable"
    parser.add_argument("--model", required=True, action="append", metavar="NAME=FILE", help=what)
    what = "take the settings of this board's profile: a name of edgeagent board list, or auto; --set goes before them"
    parser.add_argument("--board", metavar="NAME", help=what)
    what = "use this private key, edge-device-key:..., of the same device before it lost its state"
    parser.add_argument("--key", metavar="FILE", help=what)
    what = "the token that lets this device in by itself, edge-claim:..., from edgecloud claim new"
    parser.add_argument("--claim", metavar="FILE", help=what)
    what = "ask the centre for the last version that it holds of each model, and wait for it before training: link.resume_wait"
    parser.add_argument("--resume", action="store_true", help=what)
    what = "a group whose members may append samples, and reach nothing else: the application need not be the agent's user"
    parser.add_argument("--spool-group", metavar="GROUP", help=what)
    parser.add_argument("--exact", action="store_true", help="adopt nothing: train freely and send all changes, bit for bit")
    parser.add_argument("--dir", metavar="DIR", help="where to write (default: EDGEAGENT_DIR, or here)")
    add_set(parser)


def run(args: argparse.Namespace) -> Answer:
    place = settings_folder(args)
    own = {"device.name": args.device, "device.fleet": args.fleet, **flags(args)}
    if args.broker is not None:
        own["link.broker"] = args.broker
    board = boards.choose(args.board) if args.board is not None else None
    given = own if board is None else {**board.given, **own}
    _check_broker(given.get("link.broker", LinkSettings().broker))  # before any file is read
    models = models_of(args.model, "--model")
    path = place / reading.FILE
    # The text is checked as it will be read, so that init can't write what run refuses.
    reading.build({"model": [{"name": n} for n in models]}, where="init", path=path, environment={}, flags=given)
    said = {n: rate_of(data, n, given.get("train.mode", TrainSettings().mode)) for n, data in models.items()}
    rates = {} if "train.learning_rate" in given else {n: rate for n, rate in said.items() if rate}
    text = template.render(given, list(models), rates, board.notes_but(own) if board is not None else {})
    loaded = reading.build(reading.parse(text), where="init", path=path, environment={}, flags={})
    seed = read_private(Path(args.key)) if args.key else secrets.token_bytes(signing.KEY_BYTES)
    fleet = read_fleet(Path(args.fleet_key))
    token = read_token_text(Path(args.claim)) if args.claim else ""
    group = sharing.group_of(args.spool_group) if args.spool_group is not None else None
    create_folder(
        place, loaded, text, models=models, seed=seed, fleet=fleet, exact=args.exact, token=token, resume=args.resume, group=group
    )
    names = args.fleet, args.device, next(iter(models))
    seen = first_look.look(loaded.settings.link, place, *names) if "link.broker" in given and not args.no_check else None
    key = signing.PrivateKey(seed).public
    public, short = write_key(KeyKind.DEVICE, key), fingerprint(key)
    add_lines = [] if token else [f"edgecloud devices add {args.device} {public}"]
    bases = {name: manifest_of(data, exact=args.exact) for name, data in models.items()}
    document = {
        "settings": str(path),
        "device": args.device,
        "fleet": args.fleet,
        "public_key": public,
        "fingerprint": short,
        "resume": args.resume,
        "spool_group": args.spool_group,
        "board": board and {"profile": board.profile.name, "settings": sorted(board.notes_but(own)), "says": list(board.says)},
        "broker": {"url": loaded.settings.link.broker, "reached": seen and seen.reached, "says": seen.text if seen else ""},
        "on_the_centre": [
            *(f"edgecloud bases add {_file_of(args.model, n)}{' --exact' if args.exact else ''}" for n in bases), *add_lines
        ],
        "models": [
            {"name": n, "base": m.commit.hex(), "weights": m.schema.size, "tensors": len(m.schema.tensors)} for n, m in bases.items()
        ],
    }
    lines = [f"wrote {path}", *(board.says if board else ()), *(_broker_lines(seen) if seen else [])]
    for n, m in bases.items():
        lines.append(f"model {n}: {m.schema.size:,} weights in {len(m.schema.tensors)} tensors, base {m.commit.hex()[:12]}")
    lines += [*key_lines(public, short), "on the centre, once:", *(f"  {line}" for line in document["on_the_centre"]), "", "then here:"]
    lines += _next_lines(args, place, short, token)
    if group is not None:
        lines += [f"the group {args.spool_group} may append samples to {sharing.folder_of(loaded.state)}"]
        ways = [f"  chmod o+x {shlex.quote(str(way))}" for way in sharing.barred(loaded.state, group)]
        lines += ["it can't pass through to there; let it, or put the folder elsewhere:", *ways] if ways else []
    return Answer(document, lines_of(lines))


def _next_lines(args: argparse.Namespace, place: Path, short: str, token: str) -> list[str]:
    """Return what is to be done next, here and at the centre. short: the key's fingerprint."""
    where = f" --dir {place}" if str(place) != "." else ""
    lines = [f"  edgeagent doctor{where}", f"  edgeagent run{where}", ""]
    if token:
        lines += ["it asks to be let in by its claim; there, `edgecloud claim list` tells whether it was"]
    else:
        lines += ["while it runs, `edgecloud devices` lists this key as one that waits; then the fingerprint is enough there:"]
        lines += [f"  edgecloud devices add {args.device} {short}"]
    if args.resume:
        lines += ["its last models come back when the operator allows it, once `edgecloud devices` says that it would like them:"]
        lines += [f"  edgecloud devices resume {args.device}"]
    return lines


def _check_broker(url: str) -> None:
    try:
        parse_broker(url)
    except BadArgument:  # a password in it, and where that goes
        raise
    except ConfigError as e:
        e.hint = "such as --broker mqtt://192.0.2.10:1883; a user at the broker goes into --set link.user=NAME"
        raise


def _broker_lines(seen: FirstLook) -> list[str]:
    if seen.reached:
        return [f"broker: {seen.text}"]
    return [f"broker: NOT REACHED: {seen.text}", "  the board is set up all the same; edgeagent doctor looks again"]


def _file_of(texts: list[str], name: str) -> str:
    return next(t.partition("=")[2] for t in texts if t.partition("=")[0] == name)
