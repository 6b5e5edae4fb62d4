"""Settings of the centre: a flag wins over the environment (EDGECLOUD_*), the environment over the default."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edgecommon import logs
from modelwire.errors import BadArgument, ConfigError

PREFIX = "EDGECLOUD_"
DATABASE = "fleet.db"
BROKER = "mqtt://127.0.0.1:1883"
_ABOUT = re.compile(r"(?:[a-z]+ ){0,2}([a-z0-9][a-z0-9._-]{0,63})/([a-z0-9][a-z0-9._-]{0,63}?)(?=[@:,;]|\s|$)")


def from_environment(name: str, default: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return EDGECLOUD_<NAME>, or the default when it is not set or empty."""
    return environment.get(PREFIX + name) or default


def seconds(text: str) -> float:
    """Return a time in seconds, more than 0. Raises BadArgument."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise BadArgument(reason=f"{text!r} is not a time in seconds", fix="write a number above 0, such as 2.5")
    return value


def count(text: str, most: int) -> int:
    """Return a whole number from 0 to `most`. Raises BadArgument."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= most):
        raise BadArgument(reason=f"{text!r} is not a whole number from 0 to {most}", fix="write one such as 2")
    return int(text)


@contextmanager
def of_a_service(service: bool) -> Iterator[None]:
    """Say that a setting is wrong as ConfigError, where a service reads it: systemd starts none again that ends with its code."""
    try:
        yield
    except BadArgument as error:
        if not service:
            raise
        raise ConfigError(reason=error.message, fix=error.next_step) from error


def registry_path(flag: str | None) -> Path:
    """Return where the registry is."""
    return Path(flag or from_environment("DB", DATABASE))


def start_log(style: str, level: str) -> None:
    """Send log lines to standard error. style: "text", or "json" for one object a line."""
    text = logs.TextLines("%(asctime)s %(levelname)s %(name)s %(message)s")
    as_json = logs.JsonLines(lambda seconds: round(seconds, 3), trace="exception")
    logs.start("edgecloud", level, as_json if style == "json" else text, _fields)


def _fields(message: str) -> dict[str, str]:
    """Return what a line of the log is about, for the journal: the device and the model that its beginning names, if it does."""
    named = _ABOUT.match(message)
    return {"EDGE_DEVICE": named[1], "EDGE_MODEL": named[2]} if named else {}
