"""What all commands share: the answer they give, the settings they read, the times they take."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from edgeagent.settings import reading, units
from edgeagent.settings.reading import Loaded
from edgeagent.state.folder import DeviceFolder
from edgeagent.state.lineage import Lineage
from edgecommon import logs
from edgecommon.arguments import duration
from edgecommon.broker import redacted
from modelwire.errors import ConfigError


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which device's settings hold."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--dir", metavar="DIR", help="folder that holds edgeagent.toml (default: EDGEAGENT_DIR, or here)")
    place.add_argument("--config", metavar="FILE", help="the settings file itself")
    add_set(parser)


def add_set(parser: argparse.ArgumentParser) -> None:
    what = "a setting, such as link.resend=10s; repeatable"
    parser.add_argument("--set", type=_setting, metavar="KEY=VALUE", action="append", default=[], help=what)


def seconds(most: float = 10 * 365 * 86400.0) -> Callable[[str], float]:
    """Return the type of an argument that is a time."""
    return duration(units.seconds, "30s, 5min or 2h", most)


def settings_folder(args: argparse.Namespace) -> Path:
    return Path(args.dir or os.environ.get("EDGEAGENT_DIR") or ".")


def flags(args: argparse.Namespace) -> dict[str, str]:
    """Return the settings that --set gives."""
    return {key.strip(): value.strip() for key, _, value in (text.partition("=") for text in args.set)}


def _setting(text: str) -> str:
    key, equals, _ = text.partition("=")
    if not equals or "." not in key:
        raise argparse.ArgumentTypeError(f"{redacted(text)!r} is not SECTION.KEY=VALUE")
    return text


def key_lines(public: str, fingerprint: str) -> list[str]:
    """Return what people carry to the centre, set apart so that it is read at a glance: the operator compares the fingerprint."""
    return ["", f"    fingerprint   {fingerprint}", f"    public key    {public}", ""]


def load(args: argparse.Namespace, path: Path | None = None) -> Loaded:
    """Return the settings, and start the log as they say."""
    path = path or (Path(args.config) if args.config else settings_folder(args) / reading.FILE)
    loaded = reading.load(path, environment=os.environ, flags=flags(args))
    said = loaded.settings.log
    text = logs.TextLines("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    logs.start("edgeagent", said.level, logs.JsonLines(_utc, trace="trace") if args.json or said.format == "json" else text)
    return loaded


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


def chosen(device: DeviceFolder, names: Sequence[str]) -> list[Lineage]:
    """Return the models that the arguments name, or all of them. Raises ConfigError."""
    for name in names:
        if name not in device.lineages:
            reason = f"there is no model {name!r} on this device; it has {', '.join(device.lineages)}"
            raise ConfigError(reason=reason, fix="edgeagent status")
    return [device.lineages[n] for n in (names or device.lineages)]


def short(digest: bytes | None) -> str:
    return digest.hex()[:12] if digest else ""
