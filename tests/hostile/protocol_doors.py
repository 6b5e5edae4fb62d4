"""What comes in on docs/protocol.md, changed at random: a reader gives a value that is written back the same, or a ModelWireError.

python -m tests.hostile.protocol_doors --runs 100000     of each door; without atheris, which finds its way deeper (fuzz_door.py)
"""

from __future__ import annotations

import argparse
import contextlib
import random
import struct
import sys
from collections.abc import Callable, Iterator

from modelwire import _core
from modelwire.errors import ModelWireError
from modelwire.update import adopting
from modelwire.update.header import PREAMBLE_BYTES
from modelwire.update.proof import header_proof, parse_header_proof
from modelwire.wire import cbor, commands, devices, keys, parts, records, routes, topics, welcome
from modelwire.wire.records import Command, Transfer, Unknown, Wanted, Welcome
from modelwire.wire.signing import Role
from modelwire.wire.trust import Trusted
from tests import keys as fleet
from tests.modelwire.wire.examples import EXAMPLES, KEYS
from tests.vectors import barn

_HEAD = 24  # bytes of a record's envelope
_ROLE_AT, _LENGTH_AT = 5, 6
TRUSTED = Trusted(fleet.FLEET).take(records.parse(records.encode(fleet.trust("demo"), fleet.ROOT, fleet.FLEET_ID)))
TOPICS = [
    topics.parse(f"e1/demo/pi-7/{model}/{leaf}") for model, leaf in (("digits", "up/part"), ("digits", "dn/cmd"), ("all", "dn/trust"))
]
_AWKWARD: list[cbor.Value] = [
    0, 1, -1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 64), 0.0, -0.0, 1e308, True, False, None, "",
    "all", "a" * 65, "ü" * 1001, "\n", "\u2028",
    b"", bytes(16), bytes(31), bytes(32), bytes(64), bytes(257), [], [1], [2, 1], [0], [[[]]], {}, {"!": 1}, {"x": {"!": [None]}},
]  # fmt: skip


def resigned(data: bytes) -> bytes:
    """Return a record with its length put right and a signature of its role's key, so that changes get past both."""
    if len(data) < _HEAD:
        return data
    front = data[:_LENGTH_AT] + struct.pack("<H", (len(data) - _HEAD) & 0xFFFF) + data[_LENGTH_AT + 2 :]
    role = next((role for role in Role if role == front[_ROLE_AT]), Role.DEVICE)
    return front + KEYS[role].sign(role.domain, front[8:_HEAD], front)


def try_record(data: bytes) -> None:
    """A record as it came, and with a signature that holds, on all ways that it can go."""
    for whole in (data, resigned(data[:-64])):
        try:
            read = records.parse(whole)
        except ModelWireError:
            continue
        if not isinstance(read.record, Unknown):
            again = records.encode(read.record, KEYS[read.role], read.fleet, role=read.role)
            assert again[:-64] == read.body, "two forms of one record"
        for way in (_on_device, _at_centre, *(_place(topic) for topic in TOPICS), _what_it_asks):
            refused(way, read)


def refused(way: Callable[[records.Signed], object], read: records.Signed) -> None:
    """Go a way; nothing but a named error may come of it."""
    with contextlib.suppress(ModelWireError):
        way(read)


def _on_device(read: records.Signed) -> None:
    TRUSTED.verify(read, 0)


def _at_centre(read: records.Signed) -> None:
    devices.verify(read, (barn.DEVICE.public,), fleet.FLEET_ID)


def _place(topic: topics.Topic) -> Callable[[records.Signed], object]:
    return lambda read: routes.check_place(topic, read.record)


def _what_it_asks(read: records.Signed) -> None:
    record = read.record
    if isinstance(record, Command):
        task = commands.task_of(record)
        if isinstance(task, commands.Adopt):
            adopting.read_adopted(task.update, record)
    elif isinstance(record, Transfer):
        parts.count(record)
    elif isinstance(record, Wanted):
        parts.missing(record.have, 8)
    elif isinstance(record, Welcome):
        welcome.check_numbers(record)


def try_trust(data: bytes) -> None:
    """A trust record; what is taken names whole keys, and never goes back."""
    for whole in (data, resigned(data[:-64])):
        try:
            after = TRUSTED.take(records.parse(whole))
        except ModelWireError:
            continue
        assert after.number > TRUSTED.number and after.before is TRUSTED.newest
        for role in Role:
            if role is not Role.DEVICE:
                for time in (0, 1 << 40, (1 << 63) - 1):
                    assert all(len(key) == 32 for key in after.keys(role, time))


def try_part(data: bytes) -> None:
    """A part; what is proven is the file's own bytes, and is written the same."""
    try:
        part = parts.parse(data)
        parts.check(barn.OUT.transfer, part)
    except ModelWireError:
        return
    start = part.index * barn.OUT.transfer.part_size
    assert part.data == barn.FILE[start : start + barn.OUT.transfer.part_size], "another file was proven"
    assert barn.OUT.cut(part.index) == data, "two forms of one part"


def try_key(data: bytes) -> None:
    """A line of text that may be a key of any kind; what is read is written the same."""
    text = data.decode("utf-8", "replace")
    for kind in keys.KeyKind:
        try:
            key = keys.read_key(text, kind, "here")
        except ModelWireError:
            continue
        assert keys.write_key(kind, key) == text.strip(), "two forms of one key"


def try_topic(data: bytes) -> None:
    """A topic; what is read is written the same."""
    text = data.decode("utf-8", "replace")
    try:
        read = topics.parse(text)
        routes.check_heard(read, "demo")
    except ModelWireError:
        return
    assert str(read) == text


def try_proof(data: bytes) -> None:
    """A header proof as it came, and with its checksum put right; what is proven by the signature is the update that was sealed."""
    front = data[8 : 8 + PREAMBLE_BYTES - 4]
    whole = data[:8] + front + struct.pack("<I", _core.crc32c(front)) + data[8 + PREAMBLE_BYTES :]
    for one in (data, whole):
        try:
            proof = parse_header_proof(one)
            proof.verify(barn.DEVICE.public, fleet.FLEET_ID)
        except ModelWireError:
            continue
        assert proof.commit == barn.UPDATE.commit, "another update was proven"


def record_seeds() -> list[bytes]:
    """Return every example in every role that may say it."""
    return [records.encode(r, KEYS[role], fleet.FLEET_ID, role=role) for r in EXAMPLES for role in r.ROLES] + [
        barn.signed(barn.unknown(), Role.RECEIPT)
    ]


def trust_seeds() -> list[bytes]:
    """Return trust records that may follow, and one that may not."""
    made = [fleet.trust("demo", number=n, since=n, until=(n - 1) * 100, overlap=n) for n in (1, 2, 3)]
    return [records.encode(record, fleet.ROOT, fleet.FLEET_ID) for record in made]


def part_seeds() -> list[bytes]:
    """Return all parts of a file."""
    return [barn.OUT.cut(n) for n in range(barn.OUT.count)]


def key_seeds() -> list[bytes]:
    """Return a line of each kind."""
    return [keys.write_key(kind, bytes(range(kind.value[2]))).encode() for kind in keys.KeyKind]


def topic_seeds() -> list[bytes]:
    """Return each topic of one device."""
    leaves = [("up", leaf) for leaf in topics.UP] + [("dn", leaf) for leaf in topics.DOWN]
    return [f"e1/demo/pi-7/{'all' if leaf in topics.OF_NO_MODEL else 'digits'}/{way}/{leaf}".encode() for way, leaf in leaves]


def proof_seeds() -> list[bytes]:
    """Return what proves an update."""
    return [header_proof(barn.UPDATE.data)]


# Name: what is tried, where it starts from, the bytes of the longest.
DOORS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]], int]] = {
    "records": (try_record, record_seeds, 2048),
    "trust": (try_trust, trust_seeds, 1024),
    "parts": (try_part, part_seeds, 2048),
    "keys": (try_key, key_seeds, 256),
    "topics": (try_topic, topic_seeds, 256),
    "proof": (try_proof, proof_seeds, 2048),
}


def changed(rng: random.Random, seeds: list[bytes]) -> bytes:
    """Return a seed that was changed: bits, bytes, pieces of another seed, or a value of its map when it is a record."""
    data = bytearray(rng.choice(seeds))
    if data.startswith(records.MAGIC) and rng.random() < 0.6:
        return _another_value(rng, bytes(data))
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(data) + 1)
        how = rng.randrange(6)
        if how == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1 and at < len(data):
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x3A))
        elif how == 2:
            data[at:at] = rng.randbytes(rng.choice((1, 2, 8, 32)))
        elif how == 3:
            del data[at : at + rng.choice((1, 2, 8, 32, 64))]
        elif how == 4:
            other = rng.choice(seeds)
            start = rng.randrange(len(other) + 1)
            data[at : at + 32] = other[start : start + 32]
        elif how == 5:
            data[at : at + 8] = struct.pack("<Q", rng.choice((0, 1, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)))
    return bytes(data)


def _another_value(rng: random.Random, data: bytes) -> bytes:
    values = cbor.decode(data[_HEAD:-64])
    assert isinstance(values, dict)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name = rng.choice([*values, "more", "number", "kind"])
        how = rng.randrange(4)
        if how == 0:
            values.pop(name, None)
        elif how == 1:
            values[rng.choice(("x", "!x", "more", name.upper()))] = rng.choice(_AWKWARD)
        else:
            values[name] = rng.choice(_AWKWARD)
    front = bytearray(data[:_HEAD])
    if rng.random() < 0.2:
        front[_ROLE_AT] = rng.randrange(8)
    return bytes(front) + cbor.encode(values) + bytes(64)


def inputs(door: str, runs: int, seed: int) -> Iterator[bytes]:
    """Yield the seeds of a door, and so many changed ones."""
    rng, seeds = random.Random(f"{door} {seed}"), DOORS[door][1]()
    yield from seeds
    for _ in range(runs):
        yield changed(rng, seeds)


def main() -> int:
    """Try every door, and say how often."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000, help="of each door")
    parser.add_argument("--seed", type=int, default=1, help="of the changes")
    asked = parser.parse_args()
    for door, (target, _, _) in DOORS.items():
        tried = 0
        for data in inputs(door, asked.runs, asked.seed):
            try:
                target(data)
            except Exception:
                print(f"{door}: {data.hex()}", file=sys.stderr)
                raise
            tried += 1
        print(f"{door:10} {tried:>9} inputs", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
