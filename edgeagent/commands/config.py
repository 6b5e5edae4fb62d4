"""`edgeagent config`: what settings hold, where each comes from, and whether a file is right."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from edgeagent.settings.reading import Loaded
from edgeagent.settings.template import literal, say
from edgeagent.settings.tree import PER_MODEL, SECTIONS
from edgecommon.arguments import never_with, rule
from edgecommon.printing import Answer, lines_of, visible
from modelwire.errors import ConfigError

from .answer import add_folder, load

NAME = "config"
HELP = "Show the settings that hold, or check a settings file."
EXAMPLES = ("edgeagent config show", "edgeagent config show --origin --json", "edgeagent config check edgeagent.toml")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("show", "check"), help="what to do")
    parser.add_argument("file", nargs="?", metavar="FILE", help="a settings file (default: edgeagent.toml in the folder)")
    parser.add_argument("--origin", action="store_true", help="say where each setting comes from")
    add_folder(parser)
    never_with(parser, "--dir", "file")
    never_with(parser, "--config", "file")
    rule(parser, lambda args: "--origin does nothing beside check" if args.origin and args.action == "check" else "")


def run(args: argparse.Namespace) -> Answer:
    try:
        loaded = load(args, Path(args.file) if args.file else None)
    except ConfigError as e:
        if e.next_step == ConfigError.hint:  # which is this very command
            e.hint = "mend that, and run this again; edgeagent init writes a file with every setting and what it is for"
        raise
    if args.action == "check":
        models = [m.name for m in loaded.settings.models]
        return Answer({"file": str(loaded.path), "ok": True, "models": models}, visible(f"{loaded.path}: right, {len(models)} models"))
    rows = _rows(loaded)
    document: dict[str, object] = {key: value for key, value, _, _ in rows}
    if args.origin:
        document = {key: {"value": value, "origin": origin} for key, value, _, origin in rows}
    width = max(len(f"{key} = {text}") for key, _, text, _ in rows)
    lines = [f"{f'{key} = {text}':{width if args.origin else 0}}{f'  # {origin}' if args.origin else ''}" for key, _, text, origin in rows]
    return Answer({"file": str(loaded.path), "settings": document}, lines_of(lines))


def _rows(loaded: Loaded) -> list[tuple[str, object, str, str]]:
    """Return (key, value, value as TOML, origin) of every setting; a model's own where it differs from the common one."""
    out = []
    for section, cls in SECTIONS.items():
        for f in fields(cls):
            value = getattr(getattr(loaded.settings, section), f.name)
            out.append((f"{section}.{f.name}", value, literal(f, say(f, value)), loaded.origins[f"{section}.{f.name}"]))
    for model in loaded.settings.models:
        for section in PER_MODEL:
            for f in fields(SECTIONS[section]):
                key = f"model.{model.name}.{section}.{f.name}"
                if key in loaded.origins:
                    value = getattr(getattr(model, section), f.name)
                    out.append((key, value, literal(f, say(f, value)), loaded.origins[key]))
    return out
