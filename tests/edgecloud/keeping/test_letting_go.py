"""What is let go beside an ingester: bounded pieces, by the seal alone, and cut-off erasures to their end."""

from __future__ import annotations

import pytest

from edgecloud.keeping import erasing
from edgecloud.keeping.letting_go import LettingGo
from edgecloud.registry import SqliteStore
from modelwire.errors import UnknownVersion
from tests.edgecloud.centre import Centre, sign
from tests.edgecloud.device import ScriptedDevice
from tests.keys import COMMAND

from .thinned import history, keep, number, recoverable, wrong


def all_of(work: LettingGo) -> int:
    """Do all there is, as the thread does, and return how many pieces that took."""
    count = 0
    while work.waiting() and work.run() is not None:
        count += 1
    return count


def test_a_policy_is_carried_out_once_enough_is_to_go(centre: Centre, device: ScriptedDevice) -> None:
    store, work = centre.store, LettingGo(centre.store)
    history(centre, device, "d" * 20)
    keep(store, "last 4")
    assert all_of(work) == 0 and not work.waiting()  # a few are not worth a squash
    history(centre, device, "d" * 40)
    assert work.waiting() and all_of(work) > 0 and not work.waiting()
    assert len(recoverable(store)) == 4 and wrong(store) == []
    sign(store)  # the ingester takes over what was entered beside it
    assert wrong(store) == []


def test_a_row_without_a_seal_lets_nothing_go(centre: Centre, device: ScriptedDevice) -> None:
    history(centre, device, "d" * 40)
    centre.store.database.run("INSERT INTO policy VALUES (1, '2 states', 'last 1', x'00', 1)")
    work = LettingGo(centre.store)
    assert all_of(work) == 0 and not work.waiting() and len(recoverable(centre.store)) == 40


def test_an_erasure_that_was_cut_off_is_ended(centre: Centre, device: ScriptedDevice) -> None:
    store: SqliteStore = centre.store
    history(centre, device, "dddd")
    erasing.begin(store, COMMAND, device.name, number(store), 1)
    work = LettingGo(store)
    assert work.waiting() and all_of(work) == 1 and wrong(store) == []
    with pytest.raises(UnknownVersion):
        erasing.held(store, device.name)
