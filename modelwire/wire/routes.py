"""Which records belong on which topic: a record is taken only where it belongs, and about whom the topic says."""

from __future__ import annotations

from modelwire.errors import Malformed
from modelwire.names import ALL

from .records import (
    Command,
    Desired,
    Enrol,
    Hello,
    Presence,
    Receipt,
    Record,
    Report,
    Response,
    Transfer,
    Trust,
    Unknown,
    Wait,
    Wanted,
    Welcome,
)
from .topics import Topic

RESERVED = "card"  # goes up; wire 1 reads nothing there
CARRIES: dict[tuple[str, str], tuple[type[Record], ...]] = {
    ("up", "hello"): (Hello,),
    ("up", "update"): (),  # containers
    ("up", "part"): (Transfer, Wanted),  # and parts
    ("up", RESERVED): (),
    ("up", "state"): (Presence,),
    ("up", "rsp"): (Response,),
    ("up", "report"): (Report,),
    ("up", "enrol"): (Enrol,),
    ("dn", "receipt"): (Receipt,),
    ("dn", "cmd"): (Welcome, Wait, Command, Response),
    ("dn", "desired"): (Desired,),
    ("dn", "part"): (Transfer, Wanted),  # and parts
    ("dn", "trust"): (Trust,),
}


def check_heard(topic: Topic, fleet: str) -> None:
    """Raise Malformed unless the centre of the fleet with this name reads what comes on a topic."""
    if topic.way != "up" or topic.fleet != fleet:
        raise Malformed(what="topic", reason=f"{topic} does not go up in the fleet {fleet!r}")
    if topic.leaf == RESERVED:
        raise Malformed(what="topic", reason=f"up/{topic.leaf} is not read in this release")


def check_update(topic: Topic, device: str, model: str) -> None:
    """Raise Malformed unless an update came on a topic of the device and model that its header names."""
    if (device, model) != (topic.device, topic.model):
        raise Malformed(what="container", reason=f"it is of {device}/{model} and came on {topic}")


def check_place(topic: Topic, record: Record) -> None:
    """Raise Malformed unless a record came on a topic of the fleet, device and model that it names, and on its leaf.

    A trust record names all devices, and is good on any device's topic. Where a record of an unknown kind belongs, nobody knows.
    """
    names = (record.fleet, record.device, record.model)
    to_all = isinstance(record, Trust) and names == (topic.fleet, ALL, topic.model)
    what = record.KIND or "record"
    if names != (topic.fleet, topic.device, topic.model) and not to_all:
        raise Malformed(what=what, reason=f"it is of {'/'.join(names)} and came on {topic}")
    if not isinstance(record, (Unknown, *CARRIES[topic.way, topic.leaf])):
        raise Malformed(what=what, reason=f"it does not belong on {topic}")
