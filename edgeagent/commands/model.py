"""`edgeagent model`: adds a model to a device that is set up, takes one away, or lists them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from edgeagent.features.base_file import CUSTOMARY
from edgeagent.settings import editing, reading, template
from edgeagent.settings.reading import Loaded
from edgeagent.state.models import Edit, KnownModel, add_model, check_removable, known_models, remove_model
from edgecommon.arguments import given, rule
from edgecommon.files import read_model_file
from edgecommon.printing import Answer, lines_of
from edgecommon.tables import table
from modelwire.errors import BadArgument, ConfigError, Malformed, ModelError, WireError
from modelwire.names import check_own_name
from modelwire.tflite.file import read_head
from modelwire.tflite.notes import notes_of
from modelwire.update.manifest import manifest_of

from .answer import add_folder, flags, load, short

NAME = "model"
HELP = "Add a model to this device, take one away, or list them. The agent is stopped meanwhile, and takes it up when it starts again."
EXAMPLES = (
    "edgeagent model list",
    "edgeagent model add doorbell=doorbell.tflite",
    "edgeagent model add doorbell=doorbell.tflite --dir pi-7 --json",
    "edgeagent model remove doorbell",
    "edgeagent model remove doorbell --yes --drop-unsent",
)
HELPED = "edgeagent init --help, or edgeagent model add --help"
MARK = b"TFL3"  # in each .tflite file, behind four bytes
BASE = "name the model that the centre has as its base"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("add", "remove", "list"))
    what = "its name; to add it, with its file: a trainable .tflite, or a stock int8 classifier"
    parser.add_argument("model", nargs="?", metavar="NAME[=FILE]", help=what)
    parser.add_argument("--exact", action="store_true", help="add: adopt nothing: train freely and send all changes, bit for bit")
    what = "add: ask the centre for the last version that it holds of it, and wait for it before training: link.resume_wait"
    parser.add_argument("--resume", action="store_true", help=what)
    parser.add_argument("--yes", action="store_true", help="remove: its samples may go")
    parser.add_argument("--drop-unsent", action="store_true", help="remove: versions that the centre has not verified may go, too")
    add_folder(parser)
    rule(parser, _sense)


def run(args: argparse.Namespace) -> Answer:
    loaded = load(args)
    if args.action == "list":
        return _list(known_models(loaded))
    return _add(args, loaded) if args.action == "add" else _remove(args, loaded)


def models_of(texts: list[str], said: str) -> dict[str, bytes]:
    """Return the base's file of each NAME=FILE. said: what the user wrote before it. Raises ConfigError, MissingFile or TooLarge."""
    out: dict[str, bytes] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not equals or not file:
            raise ConfigError(reason=f"{said} {text!r} is not NAME=FILE", fix=HELPED)
        try:
            check_own_name("model name", name)
        except Malformed as e:
            raise ConfigError(reason=f"{said}: {e.message}", fix=HELPED) from None
        if name in out:
            raise ConfigError(reason=f"{said}: {name!r} is there twice", fix=HELPED)
        out[name] = _read(Path(file))
    return out


def rate_of(file: bytes, name: str, mode: str) -> tuple[float, str] | None:
    """Return the learning rate to begin with and where it comes from; None where the default suits.

    It is the one that was found when the file was rehearsed, for the mode that the settings name. Where the board chooses a mode, and they
    learn at different rates, it is 0: each round takes that of its own. Of a file without, the customary one of its optimizer.
    """
    try:
        if read_head(file, model=name) is not None:
            return None
        notes = notes_of(file, model=name)
    except (ModelError, WireError):
        return None  # what is wrong with the file is said where it is put into the store
    named = [m for m in notes.modes if m.name == mode] or (notes.modes[:1] if mode == "features" else notes.modes)
    if all(m.learning_rate for m in named):
        found = f"found when its file was rehearsed: {', '.join(f'{m.name} {m.learning_rate:g}' for m in named)}"
        rates = {m.learning_rate for m in named}
        return (rates.pop(), found) if len(rates) == 1 else (0.0, f"left out, each mode takes its own, {found}")
    if notes.optimizer in CUSTOMARY:
        return CUSTOMARY[notes.optimizer], f"customary for {notes.optimizer}, with which its file trains"
    return None


def _add(args: argparse.Namespace, loaded: Loaded) -> Answer:
    ((name, base),) = models_of([args.model], "model add").items()
    rate = None if loaded.origins["train.learning_rate"] != "default" else rate_of(base, name, loaded.settings.train.mode)
    text = before = _text(loaded)
    if name not in [m.name for m in loaded.settings.models]:
        try:
            text = editing.with_model(text, name, rate)
        except ConfigError as e:
            lines = template.model_lines(name, rate)
            fix = f"write these lines into {loaded.path} as its other models are written, and run this again"
            said = BadArgument(reason=f"{loaded.path} was left as it is: {e.message}", fix=fix)
            return Answer({"add": lines}, lines_of(lines), error=said)
        # As `run` will read it: what does not go together is said now, and nothing has changed.
        reading.build(reading.parse(text), where=str(loaded.path), path=loaded.path, environment=os.environ, flags=flags(args))
    version = add_model(loaded, Edit(before, text), name, base, exact=args.exact, resume=args.resume)
    manifest = manifest_of(base, exact=args.exact)
    bases = f"edgecloud bases add {args.model.partition('=')[2]}{' --exact' if args.exact else ''}"
    document = {
        "model": name, "base": manifest.commit.hex(), "weights": manifest.schema.size, "tensors": len(manifest.schema.tensors),
        "version": version, "settings": str(loaded.path), "on_the_centre": [bases],
    }  # fmt: skip
    lines = [
        f"model {name}: {manifest.schema.size:,} weights in {len(manifest.schema.tensors)} tensors, base {manifest.commit.hex()[:12]}",
        f"{loaded.path} names it; the state folder {f'held it already: it goes on at @{version}' if version else 'holds its base'}",
        "on the centre, once, where it does not hold this base:", f"  {bases}",
        "start the agent (again): it says hello for it and trains it when it has samples",
    ]
    return Answer(document, lines_of(lines))


def _remove(args: argparse.Namespace, loaded: Loaded) -> Answer:
    name, allowed = args.model, {"drop_unsent": args.drop_unsent, "drop_samples": args.yes}
    known = check_removable(loaded, name, **allowed)
    text = before = _text(loaded)
    if known.in_settings:
        try:
            text = editing.without_model(before, name)
        except ConfigError as e:
            fix = f"take {name} out of {loaded.path} by hand, and run this again: the rest goes then"
            raise BadArgument(reason=f"{loaded.path} was left as it is: {e.message}", fix=fix) from None
    gone = remove_model(loaded, Edit(before, text), name, **allowed)
    document = {"model": name, "version": gone.version, "samples": gone.samples, "dropped": list(gone.waiting)}
    lines = [f"{name} is gone from this device: {'' if gone.version is None else f'@{gone.version}, '}{gone.samples} samples"]
    if gone.waiting:
        lines.append(f"versions that the centre will never have verified: {', '.join(f'@{n}' for n in gone.waiting)}")
    lines.append("the centre keeps what it holds of it; added again here, it begins at its base as a new one")
    return Answer(document, lines_of(lines))


def _list(known: list[KnownModel]) -> Answer:
    document = [
        {
            "name": m.name, "in_settings": m.in_settings, "in_state": m.version is not None, "version": m.version, "base": m.base.hex(),
            "samples": m.samples, "waiting": list(m.waiting),
        }
        for m in known
    ]  # fmt: skip
    cells = [(m.name, "" if m.version is None else f"@{m.version}", short(m.base), m.samples, len(m.waiting), _stands(m)) for m in known]
    return Answer({"models": document}, table(("model", "version", "base", "samples", "waiting", ""), cells))


def _stands(m: KnownModel) -> str:
    if m.in_settings:
        return "" if m.version is not None else f"not in the state folder: edgeagent model add {m.name}=FILE"
    return f"not in the settings: edgeagent model add {m.name}=FILE, or model remove {m.name}"


def _sense(args: argparse.Namespace) -> str:
    """Return which words do nothing beside `add`, `remove` or `list`, or which one is missing."""
    if (args.model is None) is not (args.action == "list"):
        wanted = {"add": "NAME=FILE", "remove": "NAME", "list": "no name"}
        return f"model {args.action} takes {wanted[args.action]}"
    if args.action == "remove" and "=" in args.model:
        return f"model remove takes a name alone: {args.model.partition('=')[0]}"
    of = {"--exact": "add", "--resume": "add", "--yes": "remove", "--drop-unsent": "remove"}
    idle = next((option for option, action in of.items() if given(args, option) and args.action != action), "")
    return f"{idle} does nothing beside {args.action}" if idle else ""


def _text(loaded: Loaded) -> str:
    return loaded.path.read_bytes().decode()  # as it was read before


def _read(path: Path) -> bytes:
    data = read_model_file(path, "the base model")
    if data[4:8] != MARK:
        raise Malformed(what=str(path), reason=f"it does not carry the mark {MARK.decode()}, so it is no .tflite file", fix=BASE)
    return data
