"""How the bytes of docs/protocol.md are read, by one who has the page and the public functions of modelwire, for its negative vectors.

A side reads as the page says: the record, who has signed it, then where it belongs, then what it asks for. What it holds comes from the
vector's `with`: keys and identities in hexadecimal, topics as text, and records as names of files beside the vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from modelwire.errors import ModelWireError
from modelwire.merkle import leaves, merkle
from modelwire.update import adopting, container
from modelwire.wire import commands, devices, keys, log, parts, records, routes, topics, welcome
from modelwire.wire.commands import Adopt, Take
from modelwire.wire.records import Command, Signed, Transfer, Trust, Wanted, Welcome
from modelwire.wire.signing import Role
from modelwire.wire.trust import Trusted

from .refused import FOLDER, Reader

Held = Mapping[str, Any]


def read_key(data: bytes, held: Held) -> bytes:
    """A key. kind: what belongs there, by its prefix."""
    kind = next(kind for kind in keys.KeyKind if kind.prefix == held["kind"])
    return keys.read_key(data.decode(), kind, "the vector")


def read_fleet_pub(data: bytes, held: Held) -> object:
    """The content of fleet.pub."""
    return keys.read_fleet(data.decode(), "the vector")


def read_topic(data: bytes, held: Held) -> topics.Topic:
    """A topic, before anything that came on it."""
    return topics.parse(data.decode())


def read_on_device(data: bytes, held: Held) -> Signed:
    """What comes down to a device. fleet_pub; trust: its trust records, the first one first; time: the newest; topic; transfer.

    update: what came in parts for a take; take: the command that it has not answered.
    """
    trusted = _trusted(held)
    topic = topics.parse(held["topic"]) if "topic" in held else None
    signed = records.parse(data)
    if isinstance(signed.record, Trust):
        trusted.take(signed)
    else:
        trusted.verify(signed, held.get("time", 0))
    _read_record(signed, topic, held)
    if isinstance(signed.record, Command):
        task = commands.task_of(signed.record)
        if isinstance(task, Adopt):
            adopting.read_adopted(task.update, signed.record)
        if isinstance(task, Take) and "update" in held:
            update = _beside(held["update"])
            assert (hashlib.sha256(update).digest(), len(update)) == (task.id, task.size), "the vector's update is the one named"
            adopting.read_taken(update, signed.record)
    if isinstance(signed.record, Transfer) and "take" in held:
        taken = commands.task_of(records.expect(records.parse(_beside(held["take"])), Command))
        assert isinstance(taken, Take) and taken.id == signed.record.id
        taken.check(signed.record)
    if isinstance(signed.record, Welcome):
        welcome.check_numbers(signed.record)
    return signed


def read_at_centre(data: bytes, held: Held) -> object:
    """What comes up to the centre. fleet_id; fleet: its name; keys: those that speak for the device; topic; transfer."""
    fleet, known = bytes.fromhex(held["fleet_id"]), [bytes.fromhex(key) for key in held["keys"]]
    topic = topics.parse(held["topic"]) if "topic" in held else None
    if topic is not None:
        routes.check_heard(topic, held["fleet"])
    if topic is not None and topic.leaf == "update":
        update = container.parse(data)
        routes.check_update(topic, update.header.device, update.header.model)
        update.verify(known[0], fleet)
        return update
    signed = records.parse(data)
    devices.verify(signed, known, fleet)
    _read_record(signed, topic, held)
    return signed


def read_at_registry(data: bytes, held: Held) -> Signed:
    """An act that the operator hands to the registry. fleet_pub, trust, time: as on a device."""
    trusted, signed = _trusted(held), records.parse(data)
    refused: ModelWireError | None = None
    for key in trusted.keys(Role.ACT, held.get("time", 0)):
        try:
            signed.verify(key, trusted.fleet.id, "the operator", Role.ACT)
            return signed
        except ModelWireError as error:
            refused = error
    assert refused is not None, "the vector's registry holds a command key"
    raise refused


def read_part(data: bytes, held: Held) -> parts.Part:
    """A part. transfer: the record that describes what it is of."""
    part = parts.parse(data)
    parts.check(_transfer(held), part)
    return part


def read_joined(data: bytes, held: Held) -> bytes:
    """The parts of a transfer, one behind the other, each of them proven. transfer: as of a part."""
    transfer = _transfer(held)
    assert merkle(leaves(data, transfer.part_size)) == transfer.tree, "the vector's parts are proven"
    ends = [*range(0, transfer.size, transfer.part_size), transfer.size]
    return parts.join(transfer, {n: data[start:end] for n, (start, end) in enumerate(pairwise(ends))})


def read_link(data: bytes, held: Held) -> log.Link:
    """A link of the centre's log. signature, receipt, fleet_id: of a link that is signed."""
    link = log.parse_link(data)
    if "signature" in held:
        receipt, fleet, signature = (bytes.fromhex(held[name]) for name in ("receipt", "fleet_id", "signature"))
        link.verify(receipt, fleet, signature)
    return link


READERS: dict[str, Reader] = {
    "key": read_key,
    "fleet.pub": read_fleet_pub,
    "topic": read_topic,
    "device": read_on_device,
    "centre": read_at_centre,
    "registry": read_at_registry,
    "part": read_part,
    "joined": read_joined,
    "link": read_link,
}


def _trusted(held: Held) -> Trusted:
    trusted = Trusted(keys.read_fleet(held["fleet_pub"], "the vector"))
    for name in held.get("trust", ()):
        trusted = trusted.take(records.parse(_beside(name)))
    return trusted


def _transfer(held: Held) -> Transfer:
    return records.expect(records.parse(_beside(held["transfer"])), Transfer)


def _beside(name: str) -> bytes:
    return (FOLDER / "protocol" / name).read_bytes()


def _read_record(signed: Signed, topic: topics.Topic | None, held: Held) -> None:
    if topic is not None:
        routes.check_place(topic, signed.record)
    if isinstance(signed.record, Transfer):
        parts.count(signed.record)
    if isinstance(signed.record, Wanted) and "transfer" in held:
        parts.missing(signed.record.have, parts.count(_transfer(held)))
