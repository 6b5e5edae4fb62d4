"""MQTT topics: e1/{fleet}/{device}/{model}/up|dn/{leaf}. docs/protocol.md, "Topics"."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from modelwire.errors import Malformed
from modelwire.names import ALL, check_name, check_own_name

ROOT = "e1"
UP = ("hello", "update", "part", "card", "state", "rsp", "report", "enrol")
DOWN = ("receipt", "cmd", "desired", "part", "trust")
OF_NO_MODEL = ("enrol", "trust")  # leaves whose model is `all`


@dataclass(frozen=True, slots=True)
class Topic:
    """One parsed topic."""

    fleet: str
    device: str
    model: str
    way: str  # "up" or "dn"
    leaf: str

    def __str__(self) -> str:
        return "/".join((ROOT, self.fleet, self.device, self.model, self.way, self.leaf))


def up(fleet: str, device: str, model: str, leaf: str) -> str:
    """Return the topic on which a device speaks."""
    return str(parse("/".join((ROOT, fleet, device, model, "up", leaf))))


def down(fleet: str, device: str, model: str, leaf: str) -> str:
    """Return the topic on which the centre answers one device."""
    return str(parse("/".join((ROOT, fleet, device, model, "dn", leaf))))


@lru_cache(maxsize=4096)
def parse(topic: str) -> Topic:
    """Return the parts of a topic. Raises Malformed."""
    parts = topic.split("/")
    if len(parts) != 6 or parts[0] != ROOT:
        raise Malformed(what="topic", reason=f"{topic[:120]!r} is not e1/fleet/device/model/way/leaf")
    _, fleet, device, model, way, leaf = parts
    check_own_name("fleet name", fleet)
    for what, name in (("device name", device), ("model name", model)):
        check_name(what, name)
    if leaf not in {"up": UP, "dn": DOWN}.get(way, ()):
        raise Malformed(what="topic", reason=f"{way}/{leaf} is not a leaf of this release")
    if (model == ALL) is not (leaf in OF_NO_MODEL) or (device == ALL and leaf != "trust"):
        of = f"{ALL!r} is the model of {' and '.join(OF_NO_MODEL)}, and the device of trust alone"
        raise Malformed(what="topic", reason=f"{topic[:200]!r}: {of}")
    return Topic(fleet, device, model, way, leaf)


def all_up(fleet: str) -> str:
    """Return the filter on which an ingester listens."""
    return f"{ROOT}/{check_own_name('fleet name', fleet)}/+/+/up/#"


def all_down(fleet: str, device: str) -> str:
    """Return the filter on which a device listens."""
    return f"{ROOT}/{check_own_name('fleet name', fleet)}/{check_own_name('device name', device)}/+/dn/#"


def trust_of_all(fleet: str) -> str:
    """Return the topic on which all devices of a fleet hear a new trust record."""
    return down(fleet, ALL, ALL, "trust")
