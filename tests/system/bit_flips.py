"""Every bit of what is signed, flipped one at a time, as a broker or a disk may flip it: none of it may be taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from modelwire.errors import WireError
from modelwire.update import container
from modelwire.wire import log, records
from modelwire.wire.trust import Trusted
from tests import keys
from tests.modelwire import golden
from tests.modelwire.models import KEY
from tests.modelwire.wire.examples import EXAMPLES, KEYS

Read = Callable[[bytes], object]  # raises WireError for what is not as it was signed


def signed() -> Iterator[tuple[str, bytes, Read]]:
    """Yield what is signed, of every kind: its name, its bytes, and the reader that believes them."""
    for folder, name in golden.CASES:
        data = golden.data(folder, name)
        if len(data) < 1500:
            yield f"container {folder}/{name}", data, _container
    for record in EXAMPLES:
        for role in record.ROLES:
            data = records.encode(record, KEYS[role], keys.FLEET_ID, role=role)
            yield f"{record.KIND} as {role.name.lower()}", data, _record(KEYS[role].public, role)
    trust = records.encode(keys.trust("demo"), keys.ROOT, keys.FLEET_ID)
    yield "trust, by a device", trust, lambda data: Trusted(keys.FLEET).take(records.parse(data))
    link = log.next_link(None, b"entry")
    yield "link and its signature", link.encode() + link.sign(keys.RECEIPT, keys.FLEET_ID), _link


def taken(what: bytes, read: Read) -> int:
    """Return how many of the flips of one bit are taken. Raises what the reader raises beside WireError."""
    read(what)  # as it is, it is good
    count = 0
    for bit in range(8 * len(what)):
        changed = bytearray(what)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            read(bytes(changed))
        except WireError:
            continue
        count += 1
    return count


def _container(data: bytes) -> None:
    container.parse(data).verify(KEY.public, keys.FLEET_ID)


def _record(public: bytes, role: records.Role) -> Read:
    return lambda data: records.parse(data).verify(public, keys.FLEET_ID, "the sender", role)


def _link(data: bytes) -> None:
    log.parse_link(data[:40]).verify(keys.RECEIPT.public, keys.FLEET_ID, data[40:])
