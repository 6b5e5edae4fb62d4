"""`edgeagent init`: sets a device up: settings, keys, and the base models in their store."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

from edgeagent.settings import reading, template
from edgeagent.state.claim import read_token_text
from edgeagent.state.keys import read_fleet, read_private
from edgeagent.state.new_folder import create_folder
from edgecommon.printing import Answer, lines_of
from modelwire import limits
from modelwire.errors import ConfigError, Malformed, MissingFile, ModelError, TooLarge, WireError
from modelwire.tensors import check_own_name
from modelwire.tflite.file import read_head
from modelwire.tflite.notes import notes_of
from modelwire.update.manifest import manifest_of
from modelwire.wire import signing
from modelwire.wire.keys import KeyKind, fingerprint, write_key

from .answer import add_set, flags, key_lines, settings_folder

NAME = "init"
HELP = "Set this device up: write edgeagent.toml, make its key, copy the base models into its store. Never overwrites."
EXAMPLES = (
    "edgeagent init --device pi-7 --fleet home --broker mqtt://127.0.0.1:1883 --fleet-key fleet.pub --model digits=digits.tflite",
    "edgeagent init --device pi-7 --fleet home --broker mqtts://mqtt.example --fleet-key fleet.pub --model a=a.tflite --model b=b.tflite",
    "edgeagent init --device pi-7 --fleet home --fleet-key fleet.pub --model a=a.tflite --key old.key --set train.epochs=3",
    "edgeagent init --device pi-7 --fleet home --fleet-key fleet.pub --model a=a.tflite --claim line-3.claim",
    "edgeagent init --device pi-7 --fleet home --fleet-key fleet.pub --model a=a.tflite --resume",
)


HELPED = "edgeagent init --help"
RATES = {"adam": 0.001, "momentum": 0.02}  # at the default of plain SGD the guard would reject their first rounds


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", required=True, metavar="NAME", help="this device's name")
    parser.add_argument("--fleet", required=True, metavar="NAME", help="the fleet that it belongs to")
    parser.add_argument("--broker", metavar="URL", help="mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")
    what = "what a board is given of its fleet, edge-fleet-pub:..., from edgecloud init"
    parser.add_argument("--fleet-key", required=True, metavar="FILE", help=what)
    what = "a trainable .tflite, or a stock int8 classifier; repeatable"
    parser.add_argument("--model", required=True, action="append", metavar="NAME=FILE", help=what)
    what = "use this private key, edge-device-key:..., of the same device before it lost its state"
    parser.add_argument("--key", metavar="FILE", help=what)
    what = "the token that lets this device in by itself, edge-claim:..., from edgecloud claim new"
    parser.add_argument("--claim", metavar="FILE", help=what)
    what = "ask the centre for the last version that it holds of each model, and wait for it before training: link.resume_wait"
    parser.add_argument("--resume", action="store_true", help=what)
    parser.add_argument("--exact", action="store_true", help="adopt nothing: train freely and send all changes, bit for bit")
    parser.add_argument("--dir", metavar="DIR", help="where to write (default: EDGEAGENT_DIR, or here)")
    add_set(parser)


def run(args: argparse.Namespace) -> Answer:
    place = settings_folder(args)
    given = {"device.name": args.device, "device.fleet": args.fleet, **flags(args)}
    if args.broker:
        given["link.broker"] = args.broker
    models = _models(args.model)
    path = place / reading.FILE
    # The text is checked as it will be read, so that init can't write what run refuses.
    reading.build({"model": [{"name": n} for n in models]}, where="init", path=path, environment={}, flags=given)
    rates = {} if "train.learning_rate" in given else {n: rate for n, data in models.items() if (rate := _rate(data, n))}
    text = template.render(given, list(models), rates)
    loaded = reading.build(reading.parse(text), where="init", path=path, environment={}, flags={})
    seed = read_private(Path(args.key)) if args.key else secrets.token_bytes(signing.KEY_BYTES)
    fleet = read_fleet(Path(args.fleet_key))
    token = read_token_text(Path(args.claim)) if args.claim else ""
    create_folder(place, loaded, text, models=models, seed=seed, fleet=fleet, exact=args.exact, token=token, resume=args.resume)
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
        "on_the_centre": [
            *(f"edgecloud bases add {_file_of(args.model, n)}{' --exact' if args.exact else ''}" for n in bases), *add_lines
        ],
        "models": [
            {"name": n, "base": m.commit.hex(), "weights": m.schema.size, "tensors": len(m.schema.tensors)} for n, m in bases.items()
        ],
    }
    lines = [f"wrote {path}"]
    for n, m in bases.items():
        lines.append(f"model {n}: {m.schema.size:,} weights in {len(m.schema.tensors)} tensors, base {m.commit.hex()[:12]}")
    lines += [*key_lines(public, short), "on the centre, once:", *(f"  {line}" for line in document["on_the_centre"]), "", "then here:"]
    where = f" --dir {place}" if str(place) != "." else ""
    lines += [f"  edgeagent doctor{where}", f"  edgeagent run{where}", ""]
    if token:
        lines += ["it asks to be let in by its claim; there, `edgecloud claim list` tells whether it was"]
    else:
        lines += ["while it runs, `edgecloud devices` lists this key as one that waits; then the fingerprint is enough there:"]
        lines += [f"  edgecloud devices add {args.device} {short}"]
    if args.resume:
        lines += ["its last models come back when the operator allows it, once `edgecloud devices` says that it would like them:"]
        lines += [f"  edgecloud devices resume {args.device}"]
    return Answer(document, lines_of(lines))


def _rate(file: bytes, name: str) -> tuple[float, str] | None:
    """Return the customary rate of the optimizer in a file, and its name; None where the default suits."""
    try:
        optimizer = "" if read_head(file, model=name) else notes_of(file, model=name).optimizer
    except (ModelError, WireError):
        return None  # what is wrong with the file is said where it is put into the store
    return (RATES[optimizer], optimizer) if optimizer in RATES else None


def _models(texts: list[str]) -> dict[str, bytes]:
    out: dict[str, bytes] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not equals or not file:
            raise ConfigError(reason=f"--model {text!r} is not NAME=FILE", fix=HELPED)
        try:
            check_own_name("model name", name)
        except Malformed as e:
            raise ConfigError(reason=f"--model: {e.message}", fix=HELPED) from None
        if name in out:
            raise ConfigError(reason=f"--model: {name!r} is there twice", fix=HELPED)
        out[name] = _read(Path(file))
    return out


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > limits.DEFAULT.model_file:
            raise TooLarge(what=str(path), size=size, limit=limits.DEFAULT.model_file)
        return path.read_bytes()
    except FileNotFoundError:
        raise MissingFile(path=path, what="the base model") from None
    except OSError as e:
        raise ConfigError(reason=f"{path}: {e.strerror}", fix="check the path, and who may read it") from None


def _file_of(texts: list[str], name: str) -> str:
    return next(t.partition("=")[2] for t in texts if t.partition("=")[0] == name)
