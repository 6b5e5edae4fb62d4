"""The Python API: its names, its answers, and that it can not write."""

from __future__ import annotations

import numpy as np
import pytest

from tests.edgecloud.centre import Centre, fleet_of
from tests.edgecloud.device import Base, ScriptedDevice


def test_the_api_names_what_the_design_names(grown: Centre, device: ScriptedDevice, base: Base) -> None:
    with fleet_of(grown.store) as fleet:
        pi = fleet.device("pi-7")
        assert fleet.name == "orchard" and [d.name for d in fleet.devices()] == ["pi-7"]
        assert [m.name for m in pi.models()] == ["digits"]
        assert pi.version().number == pi.model().latest.number == fleet.find("pi-7").number == fleet.find("pi-7/digits@latest").number == 13
        assert pi.version("base").file() == fleet.find("pi-7@base").file() == pi.model("digits").base.file() == base.file
        three = pi.version(3)
        assert (three.kind, three.status, three.epoch, three.name) == ("delta", "verified", 1, "pi-7/digits@3")
        assert three.parent == pi.version(2).commit == device.made[2].commit
        assert three.metrics["loss_after"] == 0.5 and three.size == len(device.made[3].data)
        assert (pi.version(0).number, pi.version(0).header, pi.version(0).parent, pi.version(0).kind) == (0, None, None, "base")
        assert sorted(three.weights()) == [t.name for t in base.manifest.schema.tensors]
        assert all(w.dtype == np.float32 for w in three.weights().values())


def test_what_the_api_gives_may_be_changed_without_changing_the_next_answer(grown: Centre) -> None:
    with fleet_of(grown.store) as fleet:
        for version in (3, "base"):
            first = fleet.device("pi-7").version(version).weights()
            kept = {name: w.copy() for name, w in first.items()}
            for w in first.values():
                w[:] = 9
            again = fleet.device("pi-7").version(version).weights()
            assert all(np.array_equal(kept[n].view(np.uint32), again[n].view(np.uint32)) for n in kept)


def test_the_api_can_not_write(grown: Centre) -> None:
    with fleet_of(grown.store) as fleet, pytest.raises(Exception, match="readonly"):
        fleet._store.devices.add("pi-9", b"k" * 32, 1)
