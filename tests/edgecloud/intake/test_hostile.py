"""A device that signs lies: each is refused by name, nothing of it is kept but a row, and time and memory stay bounded."""

from __future__ import annotations

import hashlib
import resource
import struct
import time

import numpy as np
import pytest

from edgecloud.intake.decision import Result
from modelwire import _core
from modelwire.update.container import _SECTION
from modelwire.update.header import _HEADER, _PREAMBLE, TRAILER, commit_from
from modelwire.update.sections import Kind, Section
from modelwire.wire import signing
from modelwire.wire.records import Level, Receipt
from tests.edgecloud.centre import Centre
from tests.edgecloud.device import Base, ScriptedDevice
from tests.keys import FLEET_ID


def reseal(front: bytes, key: signing.PrivateKey) -> bytes:
    """Return a container's bytes with a true crc, digest and signature, whatever they say."""
    total = len(front) + TRAILER
    preamble = bytearray(front[: _PREAMBLE.size])
    struct.pack_into("<I", preamble, _PREAMBLE.size - 8, total)
    struct.pack_into("<I", preamble, _PREAMBLE.size - 4, _core.crc32c(bytes(preamble[:-4])))
    body = bytes(preamble) + front[_PREAMBLE.size :]
    at_ext, at_table = places(body)
    commit = commit_from(body[:at_ext], hashlib.sha256(body[at_ext:at_table]).digest(), hashlib.sha256(body[at_table:]).digest())
    return body + commit + key.sign(signing.UPDATE, FLEET_ID, commit)


def places(data: bytes) -> tuple[int, int]:
    """Return where a container's extension and its section table begin, as far as there are so many bytes."""
    _, _, header, extension, *_ = _PREAMBLE.unpack_from(data)
    return min(_PREAMBLE.size + header, len(data)), min(_PREAMBLE.size + header + extension, len(data))


def section_table(data: bytes) -> int:
    return places(data)[1]


def lie_about_sections(data: bytes, key: signing.PrivateKey, **changes: int) -> bytes:
    """Return the container with fields of its first section changed, sealed again."""
    front = bytearray(data[:-TRAILER])
    at = section_table(data)
    names = ("tensor", "codec", "m", "j", "exponent", "reserved", "count")
    row = dict(zip(names, _SECTION.unpack_from(front, at), strict=True)) | changes
    _SECTION.pack_into(front, at, *row.values())
    return reseal(bytes(front), key)


CONTENT = {
    "a tensor that is not there": ({"tensor": 4000}, "is outside"),
    "more entries than the tensor has": ({"count": 1 << 30}, "is outside"),
    "entries that do not fit its bytes": ({"count": 60_000}, ""),
}


@pytest.mark.parametrize("what", CONTENT)
def test_a_signed_update_that_does_not_decode_is_refused_with_a_receipt_and_nothing_of_it_is_kept(
    centre: Centre, device: ScriptedDevice, what: str
) -> None:
    changes, reason = CONTENT[what]
    honest = device.train()
    centre.deliver(device, honest)
    blobs = centre.store.database.number("SELECT count(*) FROM blob")
    lie = lie_about_sections(device.train().data, device.key, **changes)
    for _ in range(3):
        assert centre.take((device.topic("update"), lie)).result is Result.REFUSED
    assert centre.statuses(device) == {1: "stored"} and centre.store.database.number("SELECT count(*) FROM blob") == blobs
    refusal = next(r for r in centre.said() if isinstance(r, Receipt) and r.level is Level.REFUSED)
    assert (refusal.good, refusal.good_version) == (honest.commit, 1) and reason in refusal.reason
    (row,) = centre.store.refusals.last(9)
    assert (row.size, row.repeats, row.version) == (len(lie), 2, 2)
    again = device.snapshot(honest.commit)
    assert centre.deliver(device, again)[0].result is Result.STORED


STRUCTURE = {
    "one entry more than there are": ({"count": 3}, ""),
    "another unit": ({"exponent": 5}, "another unit"),
    "a step that takes it out of range": ({"m": 255, "j": 22}, "range of +-2^22"),
}


@pytest.mark.parametrize("what", STRUCTURE)
def test_a_signed_lie_in_the_section_table_is_stored_then_refused_and_never_served(
    centre: Centre, device: ScriptedDevice, what: str
) -> None:
    changes, reason = STRUCTURE[what]
    honest = device.train()
    centre.deliver(device, honest)
    sent = device.train()
    lie = lie_about_sections(sent.data, device.key, **changes)
    assert centre.take((device.topic("update"), lie)).result is Result.STORED
    centre.rebuild()
    assert centre.statuses(device) == {1: "verified", 2: "refused"}
    refusal = next(r for r in centre.said() if isinstance(r, Receipt) and r.level is Level.REFUSED)
    assert (refusal.good, refusal.good_version) == (honest.commit, 1)
    assert reason in refusal.reason
    assert centre.head(device) == 1


DOOR = {
    "a codec of another release": ({"codec": 9}, "UnsupportedWire"),
    "a step in two forms": ({"m": 2}, "Malformed"),
    "a shift beyond the range": ({"j": 200}, "Malformed"),
    "a unit beyond the range": ({"exponent": 101}, "Malformed"),
    "an empty section": ({"count": 0}, "Malformed"),
    "flags of another release": ({"reserved": 1}, "UnsupportedWire"),
}


@pytest.mark.parametrize("what", DOOR)
def test_a_signed_lie_that_the_envelope_shows_is_dropped_at_the_door(centre: Centre, device: ScriptedDevice, what: str) -> None:
    changes, error = DOOR[what]
    lie = lie_about_sections(device.train().data, device.key, **changes)
    assert centre.take((device.topic("update"), lie)).result is Result.DROPPED
    assert [r.error for r in centre.store.refusals.last(9)] == [error]
    assert centre.statuses(device) == {}


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [("head", 5000, "TooLarge"), ("extension", 1 << 30, "TooLarge"), ("sections", 1 << 31, "TooLarge"), ("version", 2, "UnsupportedWire"),
     ("head", 10, "Malformed"), ("sections", 4000, "Malformed")],
)  # fmt: skip
def test_a_signed_lie_in_the_preamble_is_dropped_at_the_door(
    centre: Centre, device: ScriptedDevice, field: str, value: int, error: str
) -> None:
    data = bytearray(device.train().data[:-TRAILER])
    names = ("magic", "version", "head", "extension", "sections", "total", "crc")
    row = dict(zip(names, _PREAMBLE.unpack_from(data), strict=True)) | {field: value}
    _PREAMBLE.pack_into(data, 0, *row.values())
    assert centre.take((device.topic("update"), reseal(bytes(data), device.key))).result is Result.DROPPED
    assert [r.error for r in centre.store.refusals.last(9)] == [error]


def test_a_device_can_not_speak_for_another_not_even_with_a_true_signature(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    mallory = centre.meet(ScriptedDevice(base, name="mallory"))
    device.key = mallory.key
    forged = device.train()
    assert centre.take(device.update(forged)).result is Result.QUARANTINED
    assert centre.take((mallory.topic("update"), forged.data)).result is Result.DROPPED
    victim = ScriptedDevice(base)
    victim.key = mallory.key
    assert centre.take(victim.hello()).result is Result.QUARANTINED
    assert centre.statuses(device) == {} and centre.store.lineages.current(1).epoch == 1


def test_the_update_of_one_device_replayed_under_anothers_name_is_not_linked(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    sent = device.train()
    centre.deliver(device, sent)
    other = centre.meet(ScriptedDevice(base, name="pi-8"))
    assert centre.take((other.topic("update"), sent.data)).result is Result.DROPPED
    assert centre.statuses(other) == {}


def test_a_parent_of_another_device_is_stale_not_adopted(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    sent = device.train()
    centre.deliver(device, sent)
    other = centre.meet(ScriptedDevice(base, name="pi-8"))
    (outcome,) = centre.deliver(other, other.train(parent=sent.commit))
    assert outcome.result is Result.REFUSED and centre.statuses(other) == {}


def test_a_snapshot_beyond_the_lattice_is_refused(centre: Centre, device: ScriptedDevice) -> None:
    beyond = Section(1, np.array([0], np.uint32), np.array([(1 << 22) + 1], np.int32), 1, 100)
    assert centre.deliver(device, device.seal(Kind.SNAPSHOT, (beyond,)))[0].result is Result.STORED
    (judged,) = centre.rebuild()
    assert not judged.ok and "range of +-2^22" in judged.reason and "hidden1_kernel" in judged.reason


def test_two_hundred_random_mutations_resealed_by_the_device_are_refused_in_bounded_time_and_memory(
    centre: Centre, device: ScriptedDevice
) -> None:
    rng = np.random.default_rng(7)
    honest = device.train()
    names: set[str] = set()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    for n in range(200):
        data = bytearray(honest.data[:-TRAILER])
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(_PREAMBLE.size, len(data)))] ^= int(rng.integers(1, 256))
        if n % 3 == 0:
            data = data[: int(rng.integers(_PREAMBLE.size + _HEADER.size, len(data)))]
        message = reseal(bytes(data), device.key)
        if message == honest.data:
            continue
        names.add(centre.take((device.topic("update"), message)).result.value)
        centre.rebuild()
    assert time.process_time() - started < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB
    # A changed extension alone is no lie: it is information. All other mutations are refused, dropped, parked or condemned.
    rows = centre.store.versions.of(centre.store.lineages.get("pi-7", "digits").id)
    for row in rows:
        if row.status.value == "verified":
            assert row.root == honest.root
    assert {"dropped"} <= names
    assert centre.store.refusals.count() > 50


def test_a_refused_flood_from_a_known_device_leaves_others_alone(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    other = centre.meet(ScriptedDevice(base, name="pi-8"))
    rng = np.random.default_rng(1)
    for _ in range(100):
        centre.take((device.topic("update"), rng.bytes(200)))
    assert centre.deliver(other, other.train())[0].result is Result.STORED
    centre.rebuild()
    assert centre.statuses(other) == {1: "verified"}
