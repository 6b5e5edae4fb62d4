"""Topics (protocol page, Topics)."""

from __future__ import annotations

from dataclasses import dataclass

from .container import Header
from .errors import Malformed
from .fields import check_fleet_name, check_name
from .records import DEVICE, Record

LEAVES: dict[str, frozenset[str]] = {
    "up/hello": frozenset({"hello"}),
    "up/update": frozenset(),
    "up/part": frozenset({"transfer", "wanted"}),
    "up/card": frozenset(),
    "up/state": frozenset({"presence"}),
    "up/rsp": frozenset({"response"}),
    "up/report": frozenset({"report"}),
    "up/enrol": frozenset({"enrol"}),
    "dn/receipt": frozenset({"receipt"}),
    "dn/cmd": frozenset({"welcome", "wait", "command", "response"}),
    "dn/desired": frozenset({"desired"}),
    "dn/part": frozenset({"transfer", "wanted"}),
    "dn/trust": frozenset({"trust"}),
}


@dataclass(frozen=True)
class Topic:
    """One topic."""

    fleet: str
    device: str
    model: str
    way: str
    leaf: str

    @property
    def place(self) -> str:
        """Give way and leaf."""
        return f"{self.way}/{self.leaf}"

    def __str__(self) -> str:
        """Write the topic."""
        return f"e1/{self.fleet}/{self.device}/{self.model}/{self.place}"


def read_topic(text: str) -> Topic:
    """Read a topic (P1, P62 to P65, P73)."""
    words = text.split("/")
    if len(words) != 6 or words[0] != "e1":
        raise Malformed("P62: not a topic of wire 1")
    topic = Topic(*words[1:])
    for what, name in (("fleet", topic.fleet), ("device", topic.device), ("model", topic.model)):
        check_name(what, name)
    check_fleet_name(topic.fleet)
    if topic.place not in LEAVES:
        raise Malformed("P63: a leaf that is not in the table")
    if (topic.model == "all") != (topic.place in ("up/enrol", "dn/trust")):
        raise Malformed("P64: model all")
    if topic.device == "all" and topic.place != "dn/trust":
        raise Malformed("P65: device all")
    return topic


def check_centre(topic: Topic, fleet: str) -> None:
    """Check, at the centre, that something comes up on a topic of the own fleet's name (P66, P67)."""
    if topic.way != "up" or topic.fleet != fleet:
        raise Malformed("P66: a topic that goes down, or is of another fleet")
    if topic.place == "up/card":
        raise Malformed("P67: nothing is read on up/card")


def check_update(topic: Topic, header: Header) -> None:
    """Check, at the centre, that an update belongs on the topic that it came on (P70)."""
    if (header.device, header.model) != (topic.device, topic.model):
        raise Malformed("P70: an update of another device or model")


def check_record(topic: Topic, record: Record) -> None:
    """Check that a record belongs on the topic that it came on (P68, P69)."""
    names = tuple(record.fields[key] for key in ("fleet", "device", "model"))
    wide_trust = record.kind == "trust" and names[1] == "all" and topic.place == "dn/trust"
    named = (topic.fleet, "all" if wide_trust else topic.device, topic.model)
    if names != named:
        raise Malformed("P68: names other than the topic's")
    if record.known and record.kind not in LEAVES[topic.place]:
        raise Malformed("P69: a kind that the leaf does not carry")


def topic_of(record: Record) -> Topic | None:
    """Give the topic that a record of a known kind goes on; none for an act."""
    way = "up" if record.role == DEVICE else "dn"
    for place, kinds in LEAVES.items():
        if place.startswith(way) and record.kind in kinds:
            names = (record.fields[key] for key in ("fleet", "device", "model"))
            return Topic(*names, *place.split("/"))
    return None
