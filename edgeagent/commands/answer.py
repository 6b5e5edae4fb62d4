"""What all commands share: the answer they give, the settings they read, the way they print a table."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from edgeagent.settings import reading
from edgeagent.settings.reading import Loaded
from edgeagent.state.folder import DeviceFolder
from edgeagent.state.lineage import Lineage
from edgecommon import logs
from edgecommon.broker import redacted
from edgecommon.printing import visible
from modelwire.errors import ConfigError


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which device's settings hold."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--dir", metavar="DIR", help="folder that holds edgeagent.toml (default: EDGEAGENT_DIR, or here)")
    place.add_argument("--config", metavar="FILE", help="the settings file itself")
    add_set(parser)


def add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting, such as link.resend=10s; repeatable")


def settings_folder(args: argparse.Namespace) -> Path:
    return Path(args.dir or os.environ.get("EDGEAGENT_DIR") or ".")


def flags(args: argparse.Namespace) -> dict[str, str]:
    """Return the settings that --set gives. Raises ConfigError."""
    out = {}
    for text in args.set:
        key, equals, value = text.partition("=")
        if not equals or "." not in key:
            raise ConfigError(reason=f"--set {redacted(text)!r} is not SECTION.KEY=VALUE")
        out[key.strip()] = value.strip()
    return out


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


def local(seconds: int) -> str:
    """Return a time as people here read it."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):  # the centre may ask for quiet beyond the year 9999
        return f"{seconds} s after 1970"


def chosen(device: DeviceFolder, names: Sequence[str]) -> list[Lineage]:
    """Return the models that the arguments name, or all of them. Raises ConfigError."""
    for name in names:
        if name not in device.lineages:
            raise ConfigError(reason=f"there is no model {name!r} on this device; it has {', '.join(device.lineages)}")
    return [device.lineages[n] for n in (names or device.lineages)]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows under a head, in columns; numbers to the right."""
    text = [[("" if c is None else visible(str(c))) for c in row] for row in rows]
    widths = [max(len(h), *(len(r[i]) for r in text)) if text else len(h) for i, h in enumerate(head)]
    right = [bool(rows) and all(c is None or isinstance(c, (int, float)) for c in (r[i] for r in rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)).rstrip()

    return "\n".join([line(head), *(line(r) for r in text)])


def short(digest: bytes | None) -> str:
    return digest.hex()[:12] if digest else ""
