"""A larger fleet on paper: what each kind of thing took in one run, times how many of it a larger one has; and how well that foretells.

Nothing is simulated here. `Constants` come from a run; `foretold` multiplies. A run of a tenth of the devices foretells the whole one in
the same program, so that the errors of the multiplication are seen before it is believed for a million.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .links import DAY, ScriptedLink
from .simulated import FleetReport
from .sparse import NEW_BASE

MILLION, MONTH = 1_000_000, 30  # devices, days
BATCH = 100  # messages that one commit of the ingester takes at most (edgecloud.intake.service.Pace)
FLUSHES = 40  # that are timed
ONCE_UP, ONCE_DOWN = ("report", NEW_BASE), ("desired", "variant")  # what a rollout takes, once a device

ASSUMED = (
    "devices are as those of this run: one round a day, the same net, density, link and weather, and no more failures",
    "one rollout of a variant in the time, and no other operator's work",
    "updates come evenly through the day: a fleet that trains at one hour needs so many times more at that hour",
    "seconds of the centre and of proof are of this machine's processor, and grow with the versions alone",
    "storage grows with versions and devices alone; nothing is thinned, and the disk's own overhead is not in it",
    "commits are as many as messages at worst; under load one takes up to 100, so what the disk must flush has that as its bounds",
    "bytes are of MQTT; TCP and TLS add to them, and most for a device that connects for each update",
    "joules are of the radio by the cost model's profile, with a byte heard as dear as one sent; training is not in them",
)


@dataclass(frozen=True, slots=True)
class Constants:
    """What things took in one run: bytes, joules and seconds of a processor."""

    link: ScriptedLink
    versions_a_round: float  # below 1 where rounds wait for each other; those of the rollout are apart
    versions_once: float  # a device: the snapshot of a new base
    up_a_day: float  # a device
    up_once: float
    down_a_day: float
    down_once: float
    wakeups_a_day: float
    air_over: float  # bytes on the link for each byte of a message: frames
    messages_a_day: float
    stored_empty: float
    stored_a_version: float
    stored_a_device: float
    centre_a_version: float  # seconds
    prove_a_version: float  # seconds
    start_an_entry: float  # seconds that a start of the ingester takes for each version: it reads the log


def constants_of(run: FleetReport) -> Constants:
    """Return what things took in a run."""
    devices, days = run.script.devices, run.simulated_days
    took_over = run.curve[-1][2] if run.curve else 0
    first, last = run.days[0], run.days[-1]
    grown = (last.stored - first.stored) / (last.versions - first.versions) if last.versions > first.versions else 0.0
    a_version = max(grown, 0.0) or (run.stored - run.empty) / max(1, run.versions)
    up_once, down_once = sum(run.up[what] for what in ONCE_UP), sum(run.down[what] for what in ONCE_DOWN)
    up, down = sum(run.up.values()), sum(run.down.values())
    return Constants(
        run.script.scripted_link, (run.versions - took_over) / max(1, run.rounds), took_over / devices, (up - up_once) / devices / days,
        up_once / devices, (down - down_once) / devices / days, down_once / devices, run.wakeups / devices / days, run.air / (up + down),
        run.messages / devices / days, run.empty, a_version, max(0.0, (run.stored - run.empty - a_version * run.versions) / devices),
        run.centre_cpu_s / max(1, run.versions), run.prove_s / max(1, run.versions), run.start_s / max(1, run.versions),
    )  # fmt: skip


def foretold(c: Constants, devices: int, days: int) -> dict[str, float]:
    """Return what a fleet of so many devices comes to in so many days, by name and unit."""
    versions = devices * (days * c.versions_a_round + c.versions_once)
    up, down = devices * (days * c.up_a_day + c.up_once), devices * (days * c.down_a_day + c.down_once)
    profile = c.link.profile
    joules = devices * days * c.wakeups_a_day * profile.joules_per_wakeup + (up + down) * c.air_over * profile.joules_per_byte
    return {
        "versions": versions, "bytes up": up, "bytes down": down, "wake-ups": devices * days * c.wakeups_a_day, "joules": joules,
        "registry bytes": c.stored_empty + devices * c.stored_a_device + versions * c.stored_a_version,
        "seconds of the centre": versions * c.centre_a_version, "seconds of proof": versions * c.prove_a_version,
    }  # fmt: skip


def measured(run: FleetReport) -> dict[str, float]:
    """Return the same of a run, as it was."""
    return {
        "versions": float(run.versions), "bytes up": float(sum(run.up.values())), "bytes down": float(sum(run.down.values())),
        "wake-ups": float(run.wakeups), "joules": run.joules, "registry bytes": float(run.stored),
        "seconds of the centre": run.centre_cpu_s, "seconds of proof": run.prove_s,
    }  # fmt: skip


def errors(told: Mapping[str, float], came: Mapping[str, float]) -> dict[str, float]:
    """Return by how much each was foretold wrongly, as a share of what came."""
    return {name: (told[name] - came[name]) / came[name] if came[name] else 0.0 for name in told}


@dataclass(frozen=True, slots=True)
class MonthOnPaper:
    """A million devices for a month."""

    totals: Mapping[str, float]
    versions_a_second: float
    messages_a_second: float
    bits_up: float  # a second, on the mean
    bits_down: float
    cores: float  # that the centre keeps busy
    flushes: tuple[float, float]  # a second: under full batches, and with a commit for each message
    flushes_here: float  # a second that this disk takes
    start_s: float  # that a start of the ingester takes


def month(c: Constants, folder: Path, devices: int = MILLION, days: int = MONTH) -> MonthOnPaper:
    """Return what a large fleet comes to in a month. folder: where this disk is asked how often it flushes."""
    totals, seconds = foretold(c, devices, days), days * DAY
    messages = devices * c.messages_a_day / DAY
    return MonthOnPaper(
        totals, totals["versions"] / seconds, messages, 8 * totals["bytes up"] / seconds, 8 * totals["bytes down"] / seconds,
        totals["seconds of the centre"] / seconds, (messages / BATCH, messages), flushes(folder), totals["versions"] * c.start_an_entry,
    )  # fmt: skip


def flushes(folder: Path) -> float:
    """Return how many times a second this disk has what was written."""
    path = folder / "flushes"
    with path.open("wb") as file:
        began = time.perf_counter()
        for _ in range(FLUSHES):
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        took = time.perf_counter() - began
    path.unlink()
    return FLUSHES / took
