"""A fleet at an operator's desk: keys beside the registry, devices that told cards, and a second base that is a variant."""

from __future__ import annotations

import time

from edgecloud.registry import SqliteStore, open_registry
from edgecloud.registry.rollout_rows import DesiredRow, RolloutRow
from modelwire.cards.card import card_of
from modelwire.deploying.reports import DeviceFigures
from modelwire.deploying.states import State
from tests.edgecloud import rollouts
from tests.edgecloud.centre import Centre, add_base
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice
from tests.edgecloud.searching.fleet import other_base

HELD_OUT = 120


def names(count: int) -> list[str]:
    return [f"pi-{n:02}" for n in range(1, count + 1)]


def fleet(desk: Desk, count: int, *, judged: int = HELD_OUT) -> SqliteStore:
    """Make a registry with so many devices on one base, and another base, tall. Every third device tells of region eu, the others of us."""
    desk.ok("init", "--fleet", "orchard")
    store = open_registry(desk.folder / "fleet.db", synchronous="OFF")
    base = Base(TINY.read_bytes())
    add_base(store, base)
    add_base(store, other_base(), "tall")
    centre = Centre(store, now=int(time.time()))
    for n, name in enumerate(names(count)):
        device = centre.meet(ScriptedDevice(base, name=name))
        tags = {"region": ["eu" if n % 3 == 0 else "us"]}
        card = card_of(8, tags=tags, judged=judged, loss_before=1.0, loss_after=0.9)
        centre.deliver(device, device.train(extension={"card": card.encode()}))
    centre.rebuild()
    return store


def variant(desk: Desk, *more: str) -> dict[str, object]:
    return desk.json("variants", "add", "tall", "--model", "digits", *more)


def offer(store: SqliteStore, row: RolloutRow, devices: list[str], phase: int = 0) -> None:
    """Do what a director does: take devices into a phase, and seal what they are to run."""
    lineages = [one.id for name in devices if (one := store.lineages.get(name, "digits")) is not None]
    assert len(lineages) == len(devices)
    store.rollouts.assign(row.id, lineages, phase, row.created_at)
    for lineage, device in zip(lineages, devices, strict=True):
        newest = store.rollouts.newest_desired(lineage)
        number = 1 if newest is None else newest.number + 1
        record = rollouts.desired(row.variant, number, device=device)
        store.rollouts.put_desired(DesiredRow(lineage, number, row.id, row.variant, record, 1 << 40, row.created_at))


def report(store: SqliteStore, row: RolloutRow, device: str, state: State, *, reason: str = "", **figures: object) -> None:
    """Keep what a device says of the newest that it is to run."""
    lineage = store.lineages.get(device, "digits")
    assert lineage is not None
    newest = store.rollouts.newest_desired(lineage.id)
    assert newest is not None
    said = rollouts.report(state.value, newest.variant, newest.number, device=device, reason=reason)
    data = b"%d %s" % (newest.number, state.value.encode())  # its seal is the ingester's matter
    store.rollouts.take_report(lineage.id, said, DeviceFigures(**figures), data, row.created_at + 1)  # type: ignore[arg-type]
