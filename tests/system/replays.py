"""Every message of two fleets of one name, said in every role, delivered on every topic to both sides: who takes what.

The two fleets even have the same keys; their ids alone differ. What is taken must be a record of our fleet, said by the role that may say
it, about the device and on the leaf where it belongs; everything else is a replay that succeeded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgecloud.intake.decision import Result
from edgecloud.registry import TrustRow, create_registry, open_registry
from modelwire.errors import WireError
from modelwire.names import ALL
from modelwire.update.container import seal
from modelwire.update.header import Header
from modelwire.update.sections import Kind
from modelwire.wire import records, topics
from modelwire.wire.records import Act, Enrol, Hello, Record, Trust
from modelwire.wire.routes import CARRIES
from modelwire.wire.signing import PrivateKey, Role
from tests import keys
from tests.edgeagent import boards
from tests.edgeagent.centre import FakeClock
from tests.edgecloud.centre import Centre, add_base, admit
from tests.edgecloud.device import Base
from tests.modelwire.wire.examples import EXAMPLES

FLEET, MODEL = "home", "tiny"
OURS, THEIRS = keys.FLEET_ID, bytes(range(100, 116))
DEVICES = {"pi-7": PrivateKey(boards.DEVICE_SEED), "pi-8": PrivateKey(b"\x08" * 32)}
SIGNERS = {
    Role.RECEIPT: keys.RECEIPT, Role.COMMAND: keys.COMMAND, Role.ACT: keys.COMMAND, Role.DIRECTOR: keys.DIRECTOR, Role.ROOT: keys.ROOT,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """Something that one party of one fleet has signed."""

    data: bytes
    fleet: bytes  # id
    device: str
    record: Record | None  # None: an update
    role: Role


@dataclass(slots=True)
class Tally:
    """What came of all pairs."""

    pairs: int = 0
    taken: int = 0  # where they belong
    wrongly: list[str] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.wrongly = []


def messages() -> Iterator[Message]:
    """Yield every example about both devices, in every role, of both fleets; and an update of each device."""
    base = Base.of()
    for fleet in (OURS, THEIRS):
        for device, key in DEVICES.items():
            for example in EXAMPLES:
                yield from _of_record(example, fleet, device, key)
            m = base.manifest
            header = Header(Kind.DELTA, device, MODEL, 1, 1, m.commit, m.schema.id, m.root, (0, 0))
            yield Message(seal(header, (), m.schema, key, fleet).data, fleet, device, None, Role.DEVICE)


def _of_record(example: Record, fleet: bytes, device: str, key: PrivateKey) -> Iterator[Message]:
    named = {"fleet": FLEET, "device": ALL if isinstance(example, Trust) else device}
    named["model"] = ALL if isinstance(example, (Trust, Enrol, Act)) else MODEL
    record = replace(example, **named, **({"key": key.public} if isinstance(example, (Hello, Enrol)) else {}))
    for role in Role:
        signer = key if role is Role.DEVICE else SIGNERS[role]
        yield Message(_said(record, role, signer, fleet), fleet, device, record, role)


def _said(record: Record, role: Role, signer: PrivateKey, fleet: bytes) -> bytes:
    """Return a record with a good signature in a role that may not even say it."""
    honest = records.encode(record, signer, fleet, role=record.ROLES[0])
    body = bytearray(honest[:-64])
    body[5] = role
    return bytes(body) + signer.sign(role.domain, fleet, bytes(body))


def places() -> list[topics.Topic]:
    """Return every topic on which either side may hear something of the two devices."""
    out = []
    for device in (*DEVICES, ALL):
        for way, leaf in CARRIES:
            model = ALL if leaf in topics.OF_NO_MODEL else MODEL
            if device != ALL or leaf == "trust":
                out.append(topics.Topic(FLEET, device, model, way, leaf))
    return out


def belongs(message: Message, topic: topics.Topic, reader: str) -> bool:
    """Return whether a message may be taken there: reader is "centre", or the device."""
    up = reader == "centre"
    if message.fleet != OURS or (topic.way == "up") is not up or (not up and topic.device not in (reader, ALL)):
        return False
    record = message.record
    if record is None:
        return topic.leaf == "update" and message.device == topic.device
    about = isinstance(record, Trust) or message.device == topic.device
    right = message.role is Role.DEVICE if up else message.role is not Role.DEVICE
    return about and right and message.role in record.ROLES and type(record) in CARRIES[topic.way, topic.leaf]


@contextmanager
def sides(folder: Path) -> Iterator[tuple[Centre, boards.Rig]]:
    """Yield a centre that knows both devices, and the device pi-7 with a trust record."""
    trust = records.encode(keys.trust(FLEET), keys.ROOT, OURS)
    create_registry(folder / "fleet.db", fleet=FLEET, identity=keys.FLEET, trust=TrustRow(1, trust), now=1)
    centre = Centre(open_registry(folder / "fleet.db", synchronous="OFF"))
    add_base(centre.store, Base.of())
    for device, key in DEVICES.items():
        admit(centre.store, device, key.public, 1)
    with boards.rig(folder / "pi-7", boards.centre(FakeClock())) as rig:
        assert rig.agent.hear(f"e1/{FLEET}/all/all/dn/trust", trust, 0.0)
        yield centre, rig
    centre.store.close()


def measure(folder: Path) -> Tally:
    """Return what is taken of all pairs of a message and a topic, by the centre and by a device."""
    tally, where = Tally(), places()
    with sides(folder) as (centre, rig):
        rig.agent.transport.open(rig.agent._presence(1, False), ())
        for message in messages():
            for topic in where:
                for reader in ("centre", "pi-7"):
                    taken = _by_centre(centre, topic, message) if reader == "centre" else _by_device(rig, topic, message)
                    tally.pairs += 1
                    if taken and not belongs(message, topic, reader):
                        kind = message.record.KIND if message.record else "update"
                        tally.wrongly.append(f"{reader} took {kind} of {message.device} by {message.role.name} on {topic}")
                    tally.taken += taken
    return tally


def _by_centre(centre: Centre, topic: topics.Topic, message: Message) -> bool:
    # What waits for the operator under a key that is not registered is believed in nothing, and gets no receipt.
    return centre.take((str(topic), message.data)).result not in (Result.DROPPED, Result.QUARANTINED)


def _by_device(rig: boards.Rig, topic: topics.Topic, message: Message) -> bool:
    try:
        return rig.agent.hear(str(topic), message.data, 0.0)
    except WireError:
        return False
