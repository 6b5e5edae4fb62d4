"""The golden data cards: their bytes, what they say, and what two of them come to together."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from modelwire.cards.card import Card, merge
from modelwire.cards.sketch import Channel, Sketch, sketch_of

from .folder import WIRE_1

ABOUT = """\
# Golden data cards, wire 1

Each `.bin` is one card, the bytes that an update's extension has under `card`. `cards` in `expected.json` says what it holds: counts by
class, hour, tag and bucket; sums as text, because they may have more than 64 bits; `hours` 24 counts, or none. `merged` are two cards and
the card of both together. Files are only added, never changed.
"""


def cards() -> dict[str, Card]:
    """Return the cards by name."""
    rng = np.random.default_rng(23)
    plain, wide = Channel("brightness"), Channel("pressure", 101325.0, 10, 40)
    odd = Channel("tilt", -0.5, -3, 4)
    sketches = tuple(
        sketch_of(channel, values)
        for channel, values in (
            (plain, rng.random(50)), (wide, np.array([1e30, -1e30, 101325.0, np.nan, np.inf])), (odd, rng.standard_normal(9)),
        )
    )  # fmt: skip
    hours = [0] * 24
    hours[3], hours[4], hours[22] = 5, 1, 2
    return {
        "1-empty": Card(0),
        "2-labels": Card(21, labels={3: 7, 4: 9, 7: 5}),
        "3-hours": Card(8, hours=tuple(hours)),
        "4-hours-without-count": Card(8, hours=(0,) * 24),
        "5-last-class": Card(2**53 - 1, labels={0: 1, 4095: 2**53 - 1}),
        "6-count-of-zero": Card(9, labels={2: 0, 3: 9}),
        "7-tags": Card(12, tags={"board": {"pi-4": 1}, "weather": {"é": 2, "rain": 4, "sun": 6}}),
        "8-loss": Card(40, judged=10, loss_before=3 << 20, loss_after=-(1 << 19)),
        "9-entries": Card(40, entries={"accuracy/light=day": (8, 7 << 20), "accuracy/light=night": (0, 0), "error": (3, -12345)}),
        "10-channels": Card(50, sketches=sketches),
        "11-empty-channel": Card(4, sketches=(Sketch(plain, 0, 4),)),
        "12-all": Card(
            60, {0: 20, 1: 40}, tuple(hours), {"weather": {"sun": 60}}, (sketch_of(plain, rng.random(60) - 3),), 6, 1 << 21, 1 << 20,
            {"accuracy/light=day": (5, 4 << 20)},
        ),
    }  # fmt: skip


def said(card: Card) -> dict[str, Any]:
    """Return what a card says, for a reader in any language."""
    return {
        "samples": card.samples,
        "labels": {str(label): n for label, n in card.labels.items()},
        "hours": list(card.hours),
        "tags": {name: dict(values) for name, values in card.tags.items()},
        "channels": [
            {
                "name": s.channel.name, "centre": s.channel.centre, "scale": s.channel.scale, "bound": s.channel.bound, "count": s.count,
                "missing": s.missing, "sum": str(s.total), "squares": str(s.squares), "level": s.level,
                "buckets": {str(key): n for key, n in s.buckets.items()},
            }
            for s in card.sketches
        ],
        "loss": [card.judged, card.loss_before, card.loss_after],
        "entries": {name: list(pair) for name, pair in card.entries.items()},
    }  # fmt: skip


def main() -> None:
    """Write the folder."""
    folder = WIRE_1 / "cards"
    folder.mkdir()  # never overwrites: vectors are only added
    made = cards()
    merged = {"13-merged": ("10-channels", "12-all"), "14-merged-with-empty": ("1-empty", "7-tags")}
    for name, (a, b) in merged.items():
        made[name] = merge(made[a], made[b])
    for name, card in made.items():
        (folder / f"{name}.bin").write_bytes(card.encode())
    expected = {
        "cards": [{"file": f"{name}.bin", **said(card)} for name, card in made.items()],
        "merged": [{"of": [f"{a}.bin", f"{b}.bin"], "file": f"{name}.bin"} for name, (a, b) in merged.items()],
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")
    (folder / "README.md").write_text(ABOUT)
