"""What a rollout comes to before it starts: groups by phase, bytes, time, and what its quality gate can tell. Seals nothing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgecloud.registry import SqliteStore
from edgecloud.registry.rollout_rows import HALTED
from modelwire.deploying.plans import DEVICES_MAX, ID_BYTES, RolloutPhase, RolloutPlan
from modelwire.deploying.variants import Variant
from modelwire.errors import BadArgument
from modelwire.planning import PROFILES, LinkProfile

from . import choosing
from .group import UNFIT, RolloutGroup, held_out, named
from .power import GatePower, power, tellable
from .verbs import follows

DAY = 86_400
LEAF = 64 * 1024
DETAIL = 80  # characters of why a device is left out
CANARIES_READ = 200  # devices of the first phase whose held-out samples are looked up
LISTED_BYTES = 32 * 1024  # of devices' names in a plan, which travels nowhere and is one record all the same
# Bytes a second that a link carries down, where its profile names none: assumed, for a plan's time alone.
RATES = {"ethernet": 10_000_000, "wifi": 2_000_000, "lte": 625_000, "lte-sleeping": 625_000, "nb-iot": 3_000}


@dataclass(frozen=True, slots=True)
class PhaseOutline:
    """One phase as it would go."""

    phase: RolloutPhase
    devices: tuple[str, ...]  # that it brings in, in their order
    total: int  # devices that have it afterwards
    bytes: int  # that they fetch together
    seconds: int  # from its start to the next phase, where every device is on line and none waits for a window


@dataclass(frozen=True, slots=True)
class RolloutOutline:
    """All that a plan comes to."""

    plan: RolloutPlan
    variant: Variant
    group: RolloutGroup
    phases: tuple[PhaseOutline, ...]
    each: int  # bytes that one device fetches
    link: LinkProfile
    rate: float  # bytes a second that the link carries
    power: GatePower  # of the first phase
    warnings: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.phases)

    @property
    def seconds(self) -> int:
        return sum(one.seconds for one in self.phases)

    @property
    def joules(self) -> float:
        """What fetching it costs one device, by the link's profile."""
        return self.link.joules_per_wakeup + self.each * self.link.joules_per_byte


def identified(plan: RolloutPlan) -> RolloutPlan:
    """Return the plan with its id: the same for the same words, so that what a plan shows is what is sealed."""
    words = repr(replace(plan, rollout=b"", at=0, made_by=""))
    return replace(plan, rollout=hashlib.sha256(words.encode()).digest()[:ID_BYTES])


def listable(devices: Sequence[str]) -> bool:
    """Return whether a plan can list so many devices by name."""
    return len(devices) <= DEVICES_MAX and sum(len(name) + 2 for name in devices) <= LISTED_BYTES


def outline(store: SqliteStore, plan: RolloutPlan, variant: Variant, group: RolloutGroup, link: str) -> RolloutOutline:
    """Return what a plan comes to for a group.

    Raises BadArgument where nobody is left, as `choosing.require_sound`, and for more devices by name than a plan lists.
    """
    if not group.lineages:
        why = "; ".join(f"{count} {reason}" for reason, count in group.reasons.items()) or "no device is as asked for"
        fix = "edgecloud devices lists them, and edgecloud freeze those that are frozen"
        if plan.where and not group.left_out:
            fix = "--where takes facts that `edgecloud card DEVICE` shows"
        if "another schema" in group.reasons:
            fix = "deploy a variant of the schema that they have, or say --learned anew"
        raise BadArgument(reason=f"{variant.name} can go to nobody: {why}", fix=fix)
    if not listable(plan.devices):
        reason = f"a plan lists at most {DEVICES_MAX} devices in {LISTED_BYTES} bytes of names, and these are {len(plan.devices)}"
        raise BadArgument(reason=reason, fix="say --where or --all: then the plan says who fits, and lists nobody")
    devices = choosing.require_sound(plan.phases, group.names, plan.rollout)
    profile = PROFILES[link]
    rate = profile.bytes_per_s or RATES[link]
    each = fetched(variant.size, over_http=bool(plan.urls))
    phases, total = list[PhaseOutline](), 0
    for phase, names in zip(plan.phases, devices, strict=True):
        total += len(names)
        phases.append(PhaseOutline(phase, tuple(names), total, len(names) * each, _seconds(plan, phase, len(names), each / rate)))
    lineage = {one.device: one for one in group.lineages}
    rows = [held_out(store, lineage[name]) for name in phases[0].devices[:CANARIES_READ]]
    told = power(sum(rows), sum(n > 0 for n in rows), len(phases[0].devices), plan.gates)
    warnings = [*_beside(store, plan), *_warnings(plan, group, phases, told, profile)]
    return RolloutOutline(plan, variant, group, tuple(phases), each, profile, rate, told, tuple(warnings))


def fetched(size: int, *, over_http: bool) -> int:
    """Return the bytes that one device fetches: the file and the list of its leaves by HTTP, else parts with their paths."""
    leaves = -(-size // LEAF)
    if over_http:
        return size + (32 * leaves if leaves > 1 else 0)  # one leaf is proven by the file's own digest
    return size + leaves * (44 + 32 * max(0, math.ceil(math.log2(leaves))))


def _seconds(plan: RolloutPlan, phase: RolloutPhase, devices: int, fetching: float) -> int:
    offering = 60 * math.ceil(devices / plan.rate) if plan.rate else 0
    return math.ceil(max(offering, plan.jitter) + fetching) + (phase.soak or plan.soak)


def _beside(store: SqliteStore, plan: RolloutPlan) -> list[str]:
    """Return which rollouts of the same model are not over."""
    out = []
    for row in store.rollouts.all(ended=False):
        if row.model == plan.model and row.state != HALTED:
            then = "takes in who comes later, until this one begins" if follows(row) else f"is {row.state}; a device is in one at a time"
            out.append(f"{row.name} of the same model {then}")
    return out


def _warnings(plan: RolloutPlan, group: RolloutGroup, phases: Sequence[PhaseOutline], told: GatePower, link: LinkProfile) -> list[str]:
    out, gates = list[str](), plan.gates
    unfit = sum(one.why in UNFIT for one in group.left_out)
    if unfit and plan.devices:
        out.append(f"{unfit} can't run it, so the plan lists the others by name, and who comes later does not follow")
    elif unfit:
        out.append(f"{unfit} can't run it, and get nothing; the director passes by such devices that come later, too")
    if phases[-1].total < len(group.lineages):
        out.append(f"{len(group.lineages) - phases[-1].total} of {len(group.lineages)} devices never get it: the last phase is not all")
    away = [name for name in phases[0].devices if (group.seen.get(name) or 0) < plan.at - DAY]
    if away:
        then = f"paused after {duration(gates.patience)} without news" if gates.patience else "waits for them; --patience bounds that"
        out.append(f"{len(away)} of {told.devices} devices of the first phase were not heard of for a day ({named(away)}): it {then}")
    if len(phases) == 1:
        out.append("one phase: all of them have it before anything is judged")
    elif told.devices < gates.error_least:
        out.append(f"the first phase has {told.devices} devices, fewer than --error-least {gates.error_least}: one failure halts it")
    if not told.known:
        out.append("no canary has told how many held-out samples it has: the quality gate is judged by what their reports bring")
    elif not tellable(told.rows, gates.margin):
        margin = choosing.percent(gates.margin)
        out.append(
            f"{told.rows} held-out samples can never show that a loss is below {margin}: the first phase would always pause;"
            f" take more canaries, or a --margin above it; {told.enough} samples would do" if gates.margin else
            "--margin 0% can be shown by no number of samples: every phase would pause"
        )  # fmt: skip
    elif told.passes < 0.5:
        out.append(f"an equal variant would pause in {1 - told.passes:.0%} of rollouts: {told.enough} held-out samples would do")
    if plan.phases[0].soak + plan.soak == 0:
        out.append("no soak: a device confirms the variant as soon as it has tried it, and the next phase begins at once")
    if link.name.startswith("lora"):
        out.append(f"a base over {link.name} takes the air for days: deploy by another link")
    if plan.consent and not plan.gates.patience:
        out.append("--consent without --patience: a phase waits for ever for a host that says nothing")
    return out


def duration(seconds: float) -> str:
    """Return a time as people read it: 3 d 4 h, 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, days = round(seconds / 3600), round(seconds / 3600) // 24
    return f"{hours} h" if hours < 48 else f"{days} d" + (f" {hours % 24} h" if hours % 24 else "")


def left_out_said(group: RolloutGroup) -> list[str]:
    """Return who is left out, a reason a line: frozen (2): pi-1, pi-2."""
    lines = []
    for why, count in group.reasons.items():
        here = [one for one in group.left_out if one.why == why]
        detail = next((one.detail for one in here if one.detail), "")[:DETAIL]
        lines.append(f"{why} ({count}): {named([one.device for one in here])}" + (f"; {detail}" if detail else ""))
    return lines
