"""The features of a sample that its data card sketches: few numbers, each on an axis that is the same on all devices."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from modelwire.cards.card import CHANNELS_MAX
from modelwire.cards.sketch import Channel
from modelwire.errors import ConfigError, Malformed
from modelwire.tensors import F32

F64 = NDArray[np.float64]
_FORM = re.compile(r"x\.(mean|deviation|least|most|[0-9]{1,9})(:[^:]+){0,3}\Z")
_OF = {
    "mean": lambda x: x.mean(1), "deviation": lambda x: x.std(1), "least": lambda x: x.min(1), "most": lambda x: x.max(1),
}  # fmt: skip


def channels_of(texts: Sequence[str]) -> tuple[Channel, ...]:
    """Return channels as the settings say them: NAME[:CENTRE[:SCALE[:BOUND]]], such as x.mean or x.3:101325:10. Raises ConfigError.

    NAME: x.mean, x.deviation, x.least or x.most of all numbers of a sample, or x.N for one of them, counted from 0.
    """
    if len(texts) > CHANNELS_MAX or len({text.partition(":")[0] for text in texts}) < len(texts):
        raise ConfigError(reason=f"card.channels names one twice, or more than {CHANNELS_MAX}")
    return tuple(_channel(text) for text in texts)


def values_of(channels: Sequence[Channel], x: F32) -> F64:
    """Return the value of each channel for each sample, [samples, channels]; NaN where the sample has no such number."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    columns = [_column(channel.name.partition(".")[2], flat) for channel in channels]
    return np.stack(columns, axis=1) if columns and len(flat) else np.zeros((len(flat), len(channels)))


def _column(which: str, flat: F64) -> F64:
    if which in _OF:
        return np.asarray(_OF[which](flat), np.float64)
    number = int(which)
    return flat[:, number] if number < flat.shape[1] else np.full(len(flat), np.nan)


def _channel(text: str) -> Channel:
    name, *rest = text.split(":")
    try:
        if not _FORM.match(text):
            raise ValueError("it is not x.mean, x.deviation, x.least, x.most or x.N, with CENTRE, SCALE and BOUND behind colons")
        centre = float(rest[0]) if rest else 0.0
        return Channel(name, centre, *(int(number) for number in rest[1:]))
    except Malformed as e:
        raise ConfigError(reason=f"card.channels: {e.message}") from None
    except ValueError as e:
        raise ConfigError(reason=f"card.channels: {text!r}: {e}") from None
