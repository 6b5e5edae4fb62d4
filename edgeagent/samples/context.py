"""The context of a sample: what the application knows of the circumstances, as a few names with a word each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from modelwire.cards.card import TAG_LENGTH
from modelwire.cards.facts import FACTS
from modelwire.errors import Malformed, ModelError
from modelwire.names import check_name

NAMES_MAX = 8  # of one sample

Context: TypeAlias = Mapping[str, str | int | bool]
Contexts: TypeAlias = Context | Sequence[Context | None]


def text_of(model: str, context: Context | None) -> str:
    """Return a context as the spool keeps it: equal ones have equal texts. Raises ModelError for what a data card could not tell.

    A whole number or a bool counts as its text. A measured number has a value of its own each time: name a range of it instead.
    """
    if not context:
        return ""
    if not isinstance(context, Mapping) or len(context) > NAMES_MAX:
        raise ModelError(model=model, reason=f"a context is a map of at most {NAMES_MAX} names to values")
    out = {}
    for name in sorted(context):
        try:
            check_name("context", name)
        except Malformed as e:
            raise ModelError(model=model, reason=e.message) from None
        if name in FACTS:
            raise ModelError(model=model, reason=f"context {name}: the agent tells that itself; use another name")
        out[name] = _value(model, name, context[name])
    return json.dumps(out, separators=(",", ":"))


def texts_of(model: str, contexts: Contexts | None, samples: int) -> list[str]:
    """Return the texts of `samples` contexts: one for all, or one each. Raises ModelError."""
    if contexts is None or isinstance(contexts, Mapping):
        return [text_of(model, contexts)] * samples
    if len(contexts) != samples:
        raise ModelError(model=model, reason=f"{samples} samples and {len(contexts)} contexts")
    return [text_of(model, one) for one in contexts]


def context_of(text: str) -> dict[str, str]:
    """Return the context that the spool keeps as `text`."""
    return dict(json.loads(text)) if text else {}


def _value(model: str, name: str, value: object) -> str:
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif hasattr(value, "__index__"):  # numpy's whole numbers too
        value = str(value)
    if not isinstance(value, str) or not 0 < len(value) <= TAG_LENGTH or not value.isprintable():
        raise ModelError(model=model, reason=f"context {name}: {str(value)[:60]!r} is not a word of 1 to {TAG_LENGTH} printable characters")
    return value
