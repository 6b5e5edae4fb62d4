"""Writes a settings file that explains itself: every setting with its default, the given ones set, the others commented out."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from typing import Any

from . import units
from .tree import SECTIONS

_HEAD = """\
# Settings of edgeagent. Durations: 500ms, 30s, 10min, 6h, 7d. Sizes: 512B, 4KiB, 2MiB. Unknown keys are errors.
# A flag (--set link.resend=10s) goes before the environment (EDGEAGENT_LINK_RESEND=10s), that before this file.
# edgeagent config show --origin says what holds and why.
"""


def render(
    given: Mapping[str, str], models: Sequence[str], rates: Mapping[str, tuple[float, str]] | None = None,
    notes: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """Return the text of a settings file. given: "section.key" -> value as text, already checked.

    rates: by model, a learning rate of its own and where it comes from. notes: by "section.key", where a given value comes from.
    """
    out = [_HEAD]
    for section, cls in SECTIONS.items():
        out.append(f"# {' '.join((cls.__doc__ or '').split())}\n[{section}]")
        for f in fields(cls):
            key = f"{section}.{f.name}"
            out.append(textwrap.fill(f.metadata["doc"], 110, initial_indent="# ", subsequent_indent="# "))
            note = f"  # {notes[key]}" if notes and key in notes else ""
            out.append(f"{f.name} = {literal(f, given[key])}{note}" if key in given else f"#{f.name} = {literal(f, say(f, f.default))}")
        out.append("")
    for name in models:
        out += [*model_lines(name, (rates or {}).get(name)), ""]
    return "\n".join(out)


def model_lines(name: str, rate: tuple[float, str] | None, *, header: str = "") -> list[str]:
    """Return the lines of one model. header: of its table; empty: [[model]] and its name.

    rate: a learning rate and where it comes from; one of 0 is left to the default, beside what is said of it.
    """
    out = [header] if header else ["[[model]]", f'name = "{name}"']
    out.append("# [train], [budget], [update] and [anomaly] hold for all models; a model's own go before them:")
    if rate is None or not rate[0]:
        return [*out, f"#train = {{ learning_rate = 0.01 }}{f'  # {rate[1]}' if rate else ''}"]
    return [*out, f"train = {{ learning_rate = {rate[0]:g} }}  # {rate[1]}"]


def say(f: Field[Any], value: Any) -> str:
    """Return a setting's value as text that reads back as the same."""
    if f.metadata["unit"] == "seconds":
        return units.say_seconds(value)
    if f.metadata["unit"] in ("bytes", "budget"):
        return units.say_size(value)
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def literal(f: Field[Any], text: str) -> str:
    """Return the text as TOML."""
    if f.metadata["unit"] or str(f.type) == "str":
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


