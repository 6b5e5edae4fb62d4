"""Messages read the whole way, in the order that the pages write out (protocol page, Envelope)."""

from __future__ import annotations

from collections.abc import Sequence

from . import topics
from .commands import read_adopt, read_body
from .container import Container, read_container
from .errors import Malformed
from .fields import check_transfer
from .records import ACT, DOWN, UP, Record, read_record
from .topics import Topic
from .transfer import Receiver, read_have
from .trust import Trust


def check_content(record: Record, opened: Receiver | None = None) -> None:
    """Check what a kind asks for besides (step 9); a wanted of another transfer than the open one is dropped later.

    Of trust records and welcomes Trust does it, since it takes them.
    """
    if record.kind == "command":
        if read_body(record) is not None and record.fields["verb"] == "adopt":
            read_adopt(record)
    elif record.kind == "transfer":
        check_transfer(record.fields)
    elif record.kind == "wanted" and opened is not None and opened.id == record.fields["id"]:
        read_have(record.fields["have"], opened.count)


def read_down(data: bytes, trust: Trust, topic: str | None = None, opened: Receiver | None = None) -> Record:
    """Read, on a device, a record that came down, on a topic where that is given; trust takes what it says."""
    came_on = None if topic is None else topics.read_topic(topic)
    record = read_record(data, DOWN)
    record.check_fleet(trust.fleet.fleet_id)
    if came_on is not None:
        topics.check_record(came_on, record)
    if record.kind == "trust":
        trust.take(record)
    else:
        trust.read(record)
    check_content(record, opened)
    return record


def read_act(data: bytes, trust: Trust) -> Record:
    """Read, as the registry does, an act."""
    record = read_record(data)
    if record.kind == "act" or record.role == ACT:
        trust.verify(record)
        return record
    raise Malformed("no act")


class Centre:
    """What the centre reads of one device: its own fleet, and the keys that are registered for the device."""

    def __init__(self, fleet: str, fleet_id: bytes, keys: Sequence[bytes]) -> None:
        """Hold the fleet's name and id, and the keys."""
        self.fleet = fleet
        self.fleet_id = fleet_id
        self.keys = keys

    def topic(self, text: str) -> Topic:
        """Read a topic on which something came up (step 1: P1, P62 to P67, P73)."""
        topic = topics.read_topic(text)
        topics.check_centre(topic, self.fleet)
        return topic

    def read_update(self, data: bytes, topic: Topic) -> Container:
        """Read an update: its bytes, that it is of its topic (P70), its signature."""
        update = read_container(data)
        topics.check_update(topic, update.header)
        update.verify(self.keys, self.fleet_id)
        return update

    def read(self, data: bytes, topic: str | None = None, opened: Receiver | None = None) -> Record | Container:
        """Read what came up: an update where the topic is of one, else a record."""
        came_on = None if topic is None else self.topic(topic)
        if came_on is not None and came_on.place == "up/update":
            return self.read_update(data, came_on)
        record = read_record(data, UP)
        record.check_fleet(self.fleet_id)
        if came_on is not None:
            topics.check_record(came_on, record)
        record.verify_device(self.keys, self.fleet_id)
        check_content(record, opened)
        return record
