"""The file of a base goes down in parts to whom its desired names it, and to nobody else; a real download takes it."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeagent.fetching.download import Download
from edgeagent.fetching.tasks import task_of
from edgeagent.system.backoff import Backoff
from edgecloud.intake import decision, handing
from edgecloud.intake.decision import Result
from edgecloud.registry import Base as BaseRow
from edgecloud.registry import DesiredRow, VariantRow
from modelwire import merkle
from modelwire.deploying import variants
from modelwire.deploying.terms import DeployTerms
from modelwire.names import check_name
from modelwire.update.manifest import Manifest
from modelwire.wire import parts
from modelwire.wire.records import Transfer, Wanted
from tests.edgecloud import rollouts
from tests.edgecloud.centre import Centre
from tests.edgecloud.device import Base, ScriptedDevice
from tests.keys import FLEET_ID, ROOT

SIZE = 20 * merkle.LEAF_BYTES + 17
FILE = random.Random(7).randbytes(SIZE)


def add_variant(centre: Centre, base: Base, file: bytes = FILE, *, name: str = "night", put: bool = True) -> Manifest:
    """Register a base of these bytes, and a variant of it."""
    check_name("base", name)
    digest = hashlib.sha256(file).digest()
    manifest = replace(base.manifest, file_sha256=digest, file_size=len(file), file_tree=merkle.file_tree(file))
    store = centre.store
    if put:
        store.blobs.put(file)
    store.bases.add(BaseRow(manifest.commit, name, manifest.encode(), digest, len(file), 1))
    number = len(store.rollouts.variants()) + 1
    store.rollouts.add_variant(VariantRow(manifest.commit, "digits", number, name, rollouts.variant(manifest, number=number), 5))
    return manifest


def desire(centre: Centre, manifest: Manifest, device: str = "pi-7", expiry: int = 5000, **terms: Any) -> int:
    """Say that a device is to run a variant; return the number. terms: what is not usual."""
    store = centre.store
    lineage = store.lineages.get(device, "digits")
    assert lineage is not None
    said = rollouts.plan(variant=manifest.commit, rollout=bytes([len(store.rollouts.all())]) * 16, name=f"r{len(store.rollouts.all())}")
    row = store.rollouts.add(rollouts.sealed_plan(said), said, 5)
    store.rollouts.assign(row.id, [lineage.id], 0, 6)
    newest = store.rollouts.newest_desired(lineage.id)
    number = newest.number + 1 if newest is not None else 1
    full = replace(DeployTerms(said.rollout, rollouts.variant(manifest)), **terms)
    record = rollouts.desired(manifest.commit, number, device=device, terms=full, expiry=expiry)
    store.rollouts.put_desired(DesiredRow(lineage.id, number, row.id, manifest.commit, record, expiry, 7))
    return number


def word(device: ScriptedDevice, have: bytes, file: bytes = FILE) -> tuple[str, bytes]:
    return device.say("part", Wanted("orchard", device.name, "digits", 1, hashlib.sha256(file).digest(), have))


def handed(centre: Centre, device: ScriptedDevice, have: bytes = bytes(3), file: bytes = FILE) -> tuple[Result, int]:
    centre.replies.clear()
    return centre.take(word(device, have, file)).result, len(centre.replies)


def test_a_download_takes_a_base_part_by_part(centre: Centre, device: ScriptedDevice, base: Base, tmp_path: Path) -> None:
    manifest = add_variant(centre, base)
    desire(centre, manifest)
    variant = variants.read(rollouts.variant(manifest), ROOT.public, FLEET_ID)
    said: list[bytes] = []
    task = task_of(1, variant, DeployTerms(bytes(16), b"x"))
    words = 0

    def opened() -> Download:
        d = Download(tmp_path, task, source=lambda: pytest.fail("no address"), ask=said.append, backoff=Backoff(1, 9, random.Random(1)))
        d.tick(0)
        d.connected(0)
        return d

    now, d = 0.0, opened()
    while not d.settled:
        now += 10
        d.tick(now)
        while said:
            words += 1
            assert centre.take(word(device, said.pop())).result is Result.NOTED
            messages = [r.sealed for r in centre.replies]
            centre.replies.clear()
            assert len(messages) <= parts.BASES_AT_ONCE
            for data in messages:
                assert d.arrived(parts.parse(data), len(data), now)
            assert words > 3 or not d.arrived(parts.parse(messages[0]), len(messages[0]), now), "the same again"
            d.cancel()  # and a restart
            d = opened()
    assert d.failure is None and d.file is not None and d.file.read_bytes() == FILE
    assert words == parts.count(Transfer("", "", "", 0, task.file, SIZE, 65536, "base", task.tree, b""))


def test_the_base_that_is_desired_and_no_other_goes_to_its_device_alone(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    other = centre.meet(ScriptedDevice(base, name="pi-8"))
    manifest, second = add_variant(centre, base), b"other" * 30_000
    add_variant(centre, base, second, name="day")
    assert handed(centre, device) == (Result.DROPPED, 0)
    number = desire(centre, manifest)
    assert handed(centre, device) == (Result.NOTED, 1)
    assert handed(centre, other) == (Result.DROPPED, 0)
    assert handed(centre, device, bytes(1), second) == (Result.DROPPED, 0)
    assert handed(centre, device, b"\xff\xff\x1f") == (Result.NOTED, 0)
    assert handed(centre, device, b"\xff\xff\xff") == (Result.DROPPED, 0)
    centre.take(device.say("report", rollouts.report("refused", manifest.commit, number)))
    assert handed(centre, device) == (Result.DROPPED, 0), "it has come to its end"


@pytest.mark.parametrize("terms", [{"urls": ("http://files/x.tflite",)}, {"back": True}])
def test_what_comes_by_http_or_from_the_passive_slot_never_goes_over_the_link(
    centre: Centre, device: ScriptedDevice, base: Base, terms: dict[str, Any]
) -> None:
    desire(centre, add_variant(centre, base), **terms)
    assert handed(centre, device) == (Result.DROPPED, 0)


def test_it_ends_with_the_desired_s_time(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    desire(centre, add_variant(centre, base))
    centre.now = 5001
    assert handed(centre, device) == (Result.DROPPED, 0)


def test_who_has_another_cut_in_mind_is_told_this_one(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    manifest = add_variant(centre, base)
    desire(centre, manifest)
    assert handed(centre, device, bytes(6)) == (Result.NOTED, 1)
    (said,) = centre.said()
    assert isinstance(said, Transfer) and (said.what, said.size, said.part_size, said.tree) == ("base", SIZE, 65536, manifest.file_tree)


def test_no_device_is_handed_more_in_a_second_than_its_share(
    centre: Centre, device: ScriptedDevice, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision, "A_SECOND", 3)
    desire(centre, add_variant(centre, base))
    assert [handed(centre, device, bytes([2**n - 1, 0, 0]))[1] for n in range(5)] == [1, 1, 1, 0, 0]


def test_who_asked_several_times_is_answered_once(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    desire(centre, add_variant(centre, base))
    assert [handed(centre, device)[1] for _ in range(4)] == [1, 0, 0, 0]
    assert [handed(centre, device, b"\x01\0\0")[1] for _ in range(2)] == [1, 0]
    centre.now += 4
    assert handed(centre, device) == (Result.NOTED, 0)
    centre.now += 1  # they were lost
    assert handed(centre, device, b"\0\x01\x10") == (Result.NOTED, 1)


def test_a_large_base_is_read_a_little_at_each_word(
    centre: Centre, device: ScriptedDevice, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handing, "READ", 8 * merkle.LEAF_BYTES)
    desire(centre, add_variant(centre, base))
    assert [handed(centre, device) for _ in range(3)] == [(Result.NOTED, 0), (Result.NOTED, 0), (Result.NOTED, 1)]


def test_bytes_that_have_changed_or_gone_are_never_said(
    centre: Centre, device: ScriptedDevice, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    desire(centre, add_variant(centre, base, put=False))
    assert handed(centre, device) == (Result.DROPPED, 0), "gone"
    centre.store.blobs.put(FILE)
    read = centre.store.blobs.piece

    def changed(digest: bytes, start: int, size: int) -> bytes:
        return bytes(size) if start == 5 * size else read(digest, start, size)

    monkeypatch.setattr(centre.store.blobs, "piece", changed)
    assert handed(centre, device) == (Result.DROPPED, 0), "before its tree is known"
    monkeypatch.undo()
    assert handed(centre, device) == (Result.NOTED, 1)
    centre.now += 5
    monkeypatch.setattr(centre.store.blobs, "piece", changed)
    assert handed(centre, device, b"\x1f\0\0") == (Result.DROPPED, 0), "and after"
