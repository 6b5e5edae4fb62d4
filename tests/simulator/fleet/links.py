"""Scripted links: what a cost model's profile leaves open: how fast a link is, how long a connection lasts, when a radio goes to sleep.

Energy, and whether a link is always on, are of `modelwire.planning`. The rest is assumed here, and named so in what is printed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from modelwire.planning import PROFILES, LinkProfile, profile_of

DAY = 86_400.0
_LORA = PROFILES["lora-sf7"].bytes_per_s
assert _LORA is not None


@dataclass(frozen=True, slots=True)
class ScriptedLink:
    """One kind of link. Seconds; bytes a second, both ways."""

    profile: LinkProfile
    rate: float
    latency: float  # from a wake-up to a connection
    lasts: float  # a connection, on the mean
    gap: float  # none after it, on the mean
    linger: float = 0.0  # without a word, after which a radio that sleeps does so

    @property
    def sleeps(self) -> bool:
        return not self.profile.always_on

    @property
    def patience(self) -> float:
        """Seconds that an answer is waited for before something is said again."""
        return 30.0 + 20.0 * self.latency + 4000.0 / self.rate

    def on_air(self, size: int) -> float:
        """Return the bytes that a message takes on the link."""
        return float(self.profile.on_air(np.array([float(size)]))[0])


LINKS = {
    "ethernet": ScriptedLink(PROFILES["ethernet"], 1.25e6, 0.05, 14 * DAY, 300.0),
    "wifi": ScriptedLink(PROFILES["wifi"], 625e3, 0.5, 2 * DAY, 1800.0, 5.0),
    "lte": ScriptedLink(PROFILES["lte"], 625e3, 0.3, 2 * DAY, 600.0),
    "lte-sleeping": ScriptedLink(PROFILES["lte-sleeping"], 625e3, 0.3, 2 * DAY, 600.0, 11.6),
    "nb-iot": ScriptedLink(PROFILES["nb-iot"], 2500.0, 5.0, 3 * DAY, 3600.0, 20.0),
    "lora-sf7": ScriptedLink(PROFILES["lora-sf7"], _LORA, 36.0, 3 * DAY, 3600.0, 120.0),
}
_ALSO = {"nbiot": "nb-iot", "lora": "lora-sf7"}


def link_of(name: str) -> ScriptedLink:
    """Return the link of that name. Raises BadArgument, which lists them, for an unknown one."""
    return LINKS[profile_of(_ALSO.get(name, name)).name]


@dataclass
class Traffic:
    """What a fleet has sent and heard, in bytes of MQTT: topic, payload and header. TCP and TLS are not in it."""

    link: ScriptedLink
    up: Counter[str] = field(default_factory=Counter)  # by what it was
    down: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    air: float = 0.0  # bytes on the link, both ways: of whole frames where frames count
    wakeups: int = 0

    def sent(self, what: str, size: int) -> None:
        self.up[what] += size
        self.messages += 1
        self.air += self.link.on_air(size)

    def heard(self, what: str, size: int) -> None:
        self.down[what] += size
        self.messages += 1
        self.air += self.link.on_air(size)

    @property
    def joules(self) -> float:
        """What the radios took by the cost model: wake-ups and bytes, those that were heard as those that were sent."""
        profile = self.link.profile
        return self.wakeups * profile.joules_per_wakeup + self.air * profile.joules_per_byte


HEADER = 7  # bytes of MQTT around a message at QoS 1: fixed header, length of the topic, packet id


def size_of(topic: str, data: bytes) -> int:
    """Return the bytes that a message takes in MQTT."""
    return len(topic) + len(data) + HEADER
