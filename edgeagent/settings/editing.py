"""Adds a model to the text of a settings file, or takes one out: every other line stays, and the result is read before it counts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from modelwire.errors import ConfigError

from .reading import parse
from .template import model_lines

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")  # a name that TOML takes without quotes
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


def with_model(text: str, name: str, rate: tuple[float, str] | None) -> str:
    """Return the settings with one more model at their end, written as the file writes its others: [[model]], or [model.NAME].

    rate: as `template.model_lines` has it. Raises ConfigError where more than that would change.
    """
    before = parse(text)
    models = before.get("model", [])
    own = {"train": {"learning_rate": float(f"{rate[0]:g}")}} if rate and rate[0] else {}
    by_name = isinstance(models, dict)
    wanted = {**models, name: own} if by_name else [*models, {"name": name, **own}]
    end = "\r\n" if "\r\n" in text else "\n"
    apart = "" if not text or text.endswith(2 * end) else end if text.endswith(end) else 2 * end
    header = f"[model.{name if _BARE.match(name) else repr(name)}]" if by_name else ""
    after = text + apart + end.join([*model_lines(name, rate, header=header), ""])
    _require(after, {**before, "model": wanted})
    return after


def without_model(text: str, name: str) -> str:
    """Return the settings without one of their models and all that they say of it. Raises ConfigError where more would change."""
    before = parse(text)
    models = before.get("model", [])
    if isinstance(models, dict):
        left: Any = {other: said for other, said in models.items() if other != name}
    else:
        left = [model for model in models if model.get("name") != name]
    after = "".join(_without(_LINE.findall(text), name, models))
    _require(after, {**before, "model": left})
    return after


def _without(lines: Sequence[str], name: str, models: Any) -> list[str]:
    """Return the lines without the tables of one model. Comments right above the next header are that one's."""
    place = next((i for i, model in enumerate(models) if not isinstance(models, dict) and model.get("name") == name), -1)
    kept, comments, inside, nth = list[str](), list[str](), False, -1
    for line in lines:
        head = _head(line)
        if head is not None:
            of = head.get("model")
            if isinstance(of, list):  # [[model]]
                nth += 1
                inside = nth == place
            elif isinstance(models, dict):  # [model.NAME], or a table below it
                inside = isinstance(of, dict) and name in of
            else:  # a table below the last [[model]], or one of another section
                inside = inside and of is not None
        if inside:
            comments = [*comments, line] if head is None and line.lstrip().startswith("#") else []
            continue
        kept += [*comments, line]
        comments = []
    return kept


def _head(line: str) -> dict[str, Any] | None:
    """Return the empty table that a line begins, None for any other line."""
    if not line.lstrip().startswith("["):
        return None
    try:
        return parse(line)
    except ValueError:
        return None


def _require(text: str, wanted: Mapping[str, Any]) -> None:
    """Raise ConfigError unless the text reads as `wanted`: people may write a file in any way."""
    try:
        found = parse(text)
    except ValueError:
        found = {}
    if {**found, "model": found.get("model") or []} != {**wanted, "model": wanted["model"] or []}:  # without any there is no such key
        raise ConfigError(reason="they are written in a way in which this command would change more than the model")

