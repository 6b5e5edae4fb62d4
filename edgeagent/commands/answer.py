"""What all commands share: the answer they give, the settings they read, the times they take, and what can't be seen or written."""

from __future__ import annotations

import argparse
import errno
import os
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeagent.settings import reading, units
from edgeagent.settings.reading import Loaded
from edgeagent.settings.tree import Settings
from edgeagent.state.folder import DeviceFolder
from edgeagent.state.lineage import Lineage
from edgecommon import access, disk, logs
from edgecommon.arguments import duration
from edgecommon.broker import redacted
from modelwire.errors import ConfigError

if TYPE_CHECKING:  # an agent that runs looks at no folder
    from edgeagent.state.looking import Glance, Unseen


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
    as_json = args.json or said.format == "json"
    logs.start("edgeagent", said.level, logs.JsonLines(_utc, trace="trace") if as_json else text, partial(_fields, loaded.settings))
    return loaded


def _fields(settings: Settings, message: str) -> dict[str, str]:
    """Return what a line of the log is about, for the journal: whose it is, of which model, of which trouble."""
    about = {"EDGE_FLEET": settings.device.fleet, "EDGE_DEVICE": settings.device.name}
    first = message.partition(":")[0]
    if any(first == one.name for one in settings.models):
        about["EDGE_MODEL"] = first
    if trouble := re.search(r"\btrouble ([a-z]+(?:-[a-z]+)*)\b", message):
        about["EDGE_TROUBLE"] = trouble[1]
    return about


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
            reason = f"there is no model {name!r} on this device; it has {', '.join(device.lineages)}"
            raise ConfigError(reason=reason, fix="edgeagent status")
    return [device.lineages[n] for n in (names or device.lineages)]


def short(digest: bytes | None) -> str:
    return digest.hex()[:12] if digest else ""


# The disk under a device, and what the user who asks may not see.


def disk_document(look: Glance) -> dict[str, Any]:
    """Return what machines read of it."""
    d = look.disk
    return {
        "disk": None if d is None else {"place": d.place, "kind": d.kind, "free": d.free, "size": d.size, "read_only": d.read_only},
        "waits_for_disk": look.waits,
        "unseen": [{"what": one.what, "why": one.why, "owner": one.owner} for one in look.unseen],
    }


def disk_lines(look: Glance) -> list[str]:
    """Return what people read of a disk that takes nothing more; none where it does."""
    if look.waits is not None:
        since = datetime.fromtimestamp(int(look.waits.get("since", 0)), timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return [f"WAITS for its disk since {since}: {look.waits.get('message')}", f"  try: {look.waits.get('hint')}"]
    if look.disk is None or not (look.disk.read_only or look.disk.free < disk.TRIED or look.disk.files_free == 0):
        return []
    says = "its agent goes on until something is to be written" if look.agent else "an agent would wait"
    fix = disk.next_step(errno.EROFS if look.disk.read_only else errno.ENOSPC, look.disk.place)
    return [f"its disk takes nothing more: {look.disk.told()}; {says}", f"  try: {fix}"]


def unseen_lines(loaded: Loaded, look: Glance) -> list[str]:
    """Return what people read of what may not be seen, and whom to ask."""
    lines = [f"not to be seen: {one.what}: {one.why}" for one in look.unseen]
    owner = next((one.owner for one in look.unseen if one.owner), "")
    return [*lines, f"  try: {asked_as(owner, 'status', loaded)}"] if owner else lines


def unseen_hint(loaded: Loaded, one: Unseen) -> str:
    """Return the command that sees it."""
    return asked_as(one.owner, "doctor", loaded) if one.owner else ""


def asked_as(owner: str, verb: str, loaded: Loaded) -> str:
    """Return the line that does the same as the user who may."""
    import shlex  # for those who are shut out

    if owner == access.me():
        return f"chmod u+rwX {shlex.quote(str(loaded.state))}"
    return f"sudo {'' if owner == 'root' else f'-u {owner} '}edgeagent {verb} --config {shlex.quote(str(loaded.path.absolute()))}"
