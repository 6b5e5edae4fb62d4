"""Which devices a phase of a rollout goes to: those it names first, then by chance that is the same wherever it is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import pairwise

from modelwire.deploying.plans import PHASES_MAX, WHOLE, RolloutPhase
from modelwire.errors import BadArgument

CANARIES, ALL_WORD = 5, "all"
NAMED = 3  # devices of a phase that are named in words
USUAL = (RolloutPhase(count=CANARIES), *(RolloutPhase(share=share) for share in (500, 2_500, 5_000, WHOLE)))
AT_ONCE = "--phase all brings it to all at once; --phase 1 --phase all to one device first"


def rank(rollout: bytes, device: str) -> bytes:
    """Return where a device stands in a rollout's order: another one in each rollout, so that canaries take turns."""
    return hashlib.sha256(rollout + device.encode()).digest()


def ordered(rollout: bytes, devices: Iterable[str]) -> list[str]:
    """Return devices in the order in which a rollout goes to them, but for those that its phases name."""
    return sorted(devices, key=lambda device: rank(rollout, device))


def target(phase: RolloutPhase, group: int) -> int:
    """Return how many devices of so many have it after a phase by its number or its share; names come on top of neither."""
    return min(group, max(phase.count, -(-phase.share * group // WHOLE)))


def by_phase(phases: Sequence[RolloutPhase], rollout: bytes, group: Iterable[str]) -> list[list[str]]:
    """Return the devices that each phase brings in, in their order; a device is in one phase. Names outside the group are passed over."""
    order = ordered(rollout, group)
    inside, taken, out = set(order), set[str](), list[list[str]]()
    waiting = iter(order)
    for phase in phases:
        here = [name for name in dict.fromkeys(phase.devices) if name in inside and name not in taken]
        taken.update(here)
        missing = target(phase, len(order)) - len(taken)
        while missing > 0 and (one := next(waiting, None)) is not None:
            if one not in taken:
                taken.add(one)
                here.append(one)
                missing -= 1
        out.append(here)
    return out


def usual_for(phases: Sequence[RolloutPhase], group: int) -> tuple[RolloutPhase, ...]:
    """Return phases without those that would add nobody to a group of this size: of 40 devices, 5 % are fewer than five canaries."""
    out, have = list[RolloutPhase](), 0
    for phase in phases:
        reached = max(target(phase, group), min(group, len(phase.devices)))
        if reached > have:
            out.append(phase)
            have = reached
    return tuple(out)


def require_sound(phases: Sequence[RolloutPhase], group: Sequence[str], rollout: bytes) -> list[list[str]]:
    """Return the devices by phase, as `by_phase`.

    Raises BadArgument for phases that do not rise or add nobody, for a canary as large as its group, and for a name outside the group.
    """
    if not 1 <= len(phases) <= PHASES_MAX:
        raise BadArgument(reason=f"a rollout has from 1 to {PHASES_MAX} phases, and this one {len(phases)}", fix="give fewer --phase")
    shares = [phase.share for phase in phases if phase.share]
    counts = [phase.count for phase in phases if phase.count]
    for what, rising in (("shares", shares), ("numbers", counts)):
        if any(b <= a for a, b in pairwise(rising)):
            fix = "each phase says how many have it in all: 5 5% 25% 50% all"
            raise BadArgument(reason=f"the {what} of the phases do not rise", fix=fix)
    inside = set(group)
    if strange := [name for phase in phases for name in phase.devices if name not in inside]:
        raise BadArgument(
            reason=f"{strange[0]} is in a phase, and not among the {len(group)} devices that the rollout is for",
            fix="edgecloud deploy VARIANT ... --plan says who is left out, and why",
        )
    out = by_phase(phases, rollout, group)
    whole_at_once = len(phases) == 1 and phases[0].share == WHOLE
    if len(out[0]) == len(group) and not whole_at_once:
        what = f"a canary of {phases[0].count or len(out[0])} is as large as its group of {len(group)}: nobody would be spared"
        raise BadArgument(reason=what, fix=AT_ONCE)
    for number, (phase, devices) in enumerate(zip(phases, out, strict=True), 1):
        if not devices:
            raise BadArgument(
                reason=f"phase {number}, {said(phase)}, adds nobody: {sum(map(len, out[:number]))} of {len(group)} have it before",
                fix="leave it out, or let it reach more",
            )
    return out


def said(phase: RolloutPhase) -> str:
    """Return a phase in words: pi-1 and pi-2, up to 5 devices, up to 25 %, all."""
    parts = []
    if phase.devices:
        more = f" and {len(phase.devices) - NAMED} more" if len(phase.devices) > NAMED else ""
        parts.append(", ".join(phase.devices[:NAMED]) + more)
    if phase.count:
        parts.append(f"up to {phase.count} device{'s' * (phase.count != 1)}")
    if phase.share:
        parts.append("all" if phase.share == WHOLE else f"up to {percent(phase.share)}")
    return "; ".join(parts) or "nobody"


def percent(share: int) -> str:
    """Return ten-thousandths as people write them: 2.5 %."""
    return f"{share / 100:g} %"
