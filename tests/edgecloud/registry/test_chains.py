"""The versions' rows as arrays: all verified ones, in order; and a row that holds no number is named."""

from __future__ import annotations

import pytest

from edgecloud.registry.sqlite import chains
from modelwire.errors import RegistryDamaged
from tests.edgecloud.centre import Centre, damage
from tests.edgecloud.device import Base, ScriptedDevice

KINDS = ("delta", "exact", "recipe", "snapshot")


def test_the_arrays_hold_the_rows(grown: Centre, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    other = grown.meet(ScriptedDevice(base, name="pi-8"))
    grown.deliver(other, other.train(), other.train())
    grown.rebuild()
    monkeypatch.setattr(chains, "AT_ONCE", 4)
    store = grown.store
    wanted = [
        (v.id, v.lineage, v.size, KINDS.index(v.kind), int(v.parent_id is None), v.received_at)
        for line in store.lineages.all() for v in store.versions.of(line.id) if v.status.value == "verified"
    ]  # fmt: skip
    assert list(zip(*(column.tolist() for column in chains.verified(store.database)), strict=True)) == wanted and len(wanted) == 14
    mine = chains.verified(store.database, "pi-8", times=False)
    assert [len(column) for column in mine] == [2] * 6 and mine[5].tolist() == [0, 0]
    assert [len(column) for column in chains.verified(store.database, "nobody")] == [0] * 6


@pytest.mark.parametrize("value", ["'many'", "1.5", "x'00ff'", "-5", "9223372036854775807"])
def test_a_row_without_a_number_is_named(grown: Centre, value: str) -> None:
    store = grown.store
    damage(store, f"UPDATE version SET size = {value} WHERE version = 3")
    with pytest.raises(RegistryDamaged):
        chains.verified(store.database)
