"""MQTT topics: e1/{fleet}/{device}/{model}/up|dn/{leaf}. docs/wire-format.md, "Topics"."""

from __future__ import annotations

from dataclasses import dataclass

from modelwire.errors import Malformed
from modelwire.tensors import check_name

ROOT = "e1"
UP = ("hello", "update", "part", "card", "state", "rsp")
DOWN = ("receipt", "cmd", "desired", "part")


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


def parse(topic: str) -> Topic:
    """Return the parts of a topic. Raises Malformed."""
    parts = topic.split("/")
    if len(parts) != 6 or parts[0] != ROOT:
        raise Malformed(what="topic", reason=f"{topic[:120]!r} is not e1/fleet/device/model/way/leaf")
    _, fleet, device, model, way, leaf = parts
    for what, name in (("fleet name", fleet), ("device name", device), ("model name", model)):
        check_name(what, name)
    if leaf not in {"up": UP, "dn": DOWN}.get(way, ()):
        raise Malformed(what="topic", reason=f"{way}/{leaf} is not a leaf of this release")
    return Topic(fleet, device, model, way, leaf)


def all_up(fleet: str) -> str:
    """Return the filter on which an ingester listens."""
    return f"{ROOT}/{check_name('fleet name', fleet)}/+/+/up/#"


def all_down(fleet: str, device: str) -> str:
    """Return the filter on which a device listens."""
    return f"{ROOT}/{check_name('fleet name', fleet)}/{check_name('device name', device)}/+/dn/#"
