"""Bias: each planted one is first in its field's list, and fleets without any name a device no more often than is said.

    python -m tests.evidence.compare.bias              the figures; FULL=1 for a hundred planted fleets, too
    python -m tests.evidence.compare.bias --page       runs what docs/bias.md shows, and writes it there
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from edgecloud.bias.skew import FALSE_ALARMS, Judgement, judged
from edgecloud.bias.telling import told_by
from modelwire.cards.card import Card
from modelwire.cards.privacy import Privacy
from modelwire.cards.sketch import Channel
from tests.edgecloud.bias.fleets import Seen, judge
from tests.planted import WORLDS, Plan, cards

Figures = dict[str, int | float | str]
DEVICES, FLEETS = 60, 100
PLANTED = {"night": ("tags.light", "hours"), "rain": ("tags.weather",), "alps": ("tags.region", "labels"), "lens": ("tags.board",)}
ALONE = {"lens": "channels.contrast"}  # in a fleet with the night and the rain these move it more


def measure(full: bool) -> Figures:
    """Return how many planted biases come first, and how many fleets without bias name a device."""
    first, of = planted_first(range(5 if full else 1))
    named, fleets = unbiased(FLEETS * (3 if full else 1))
    planted_named = sum(bool(found.biased) for found in unbiased_planted(FLEETS if full else 3))
    tried = FLEETS if full else 3
    return {
        "biased_first": first / of, "false_alarm_share": named / fleets, "false_alarm_fleets": fleets,
        "false_alarm_share_planted": planted_named / tried, "false_alarm_fleets_planted": tried, "false_alarm_rate_stated": FALSE_ALARMS,
    }  # fmt: skip


def planted_first(seeds: range) -> tuple[int, int]:
    """Return how many devices with a planted bias stand among the first of its field's list, as many as there are; and how many are."""
    first = of = 0
    for seed in seeds:
        for streaky in (0.0, 0.1):
            plan = Plan(seed=seed, streaky=streaky)
            of_fleet = cards(plan)
            for world, fields in PLANTED.items():
                for field in fields:
                    good = among_first(plan, world, field, judgement(of_fleet, field))
                    first, of = first + good, of + plan.per_world
                    say(f"planted fleet {seed}, days differ by {streaky}: {good} of {plan.per_world} {world} first in {field}")
        for world, field in ALONE.items():
            plan = Plan(seed=seed, biased=(world,))
            good = among_first(plan, world, field, judgement(cards(plan), field))
            first, of = first + good, of + plan.per_world
            say(f"planted fleet {seed}, {world} alone: {good} of {plan.per_world} first in {field}")
    return first, of


def among_first(plan: Plan, world: str, field: str, found: Judgement) -> int:
    listed = [plan.devices[one.device] for one in found.findings if one.field == field]
    return sum(name == world for name in listed[: plan.per_world])


def judgement(of_fleet: Mapping[str, list[Card]], *fields: str) -> Judgement:
    axes: dict[str, Channel] = {}
    return judged([told_by(device, some, axes) for device, some in of_fleet.items()], axes, fields)


def unbiased(fleets: int) -> tuple[int, int]:
    """Return how many of the fleets without bias name any device: days alike or not, few cards or many, small cards, noise."""
    named = 0
    for seed in range(fleets):
        found = bool(judge(seed, unbiased_fleet(seed)).biased)
        named += found
        if found or not seed % 20:
            say(f"unbiased fleet {seed} of {fleets}: {named} named a device")
    return named, fleets


def unbiased_fleet(seed: int) -> list[Seen]:
    """Return sixty devices that see one world, by turns with what is known to look like bias."""
    rng = np.random.default_rng([21, seed])
    usual = Seen(alike=(0.0, 0.02, 0.1, 0.3)[seed % 4], cards=int(rng.integers(2, 9)), samples=int(rng.choice([40, 200, 600])))
    many = [replace(usual, cards=int(n)) for n in rng.integers(2, 9, DEVICES)]
    kind = seed // 4 % 4
    if kind == 1:  # devices that send small cards among others that send large ones
        return [replace(one, samples=int(n)) for one, n in zip(many, rng.choice([25, 100, 500], DEVICES), strict=True)]
    if kind == 2:  # small cells are kept back
        return [replace(one, samples=int(n), privacy=Privacy(least=5)) for one, n in zip(many, rng.choice([40, 300], DEVICES), strict=True)]
    if kind == 3:  # a third put noise on their counts
        return [replace(one, privacy=Privacy(epsilon=1.0, least=5) if n % 3 == 0 else None) for n, one in enumerate(many)]
    return many


def unbiased_planted(fleets: int) -> Iterator[Judgement]:
    """Yield what is found in planted fleets without bias, whose days differ or not; cameras are turned a little, no two alike."""
    for seed in range(fleets):
        found = judgement(cards(Plan(seed=100 + seed, biased=(), streaky=(0.0, 0.05, 0.2)[seed % 3])))
        say(f"planted fleet without bias {seed}: {len(found.biased)} findings")
        yield found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, or write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.evidence.compare.bias", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--page", action="store_true", help="run what docs/bias.md shows and write it there")
    if parser.parse_args().page:
        from tests.evidence.compare import bias_page

        bias_page.write()
        return
    for name, value in measure(bool(os.environ.get("FULL"))).items():
        print(f"{name:28} {value}")


if __name__ == "__main__":
    assert set(PLANTED) <= set(WORLDS)
    main()
