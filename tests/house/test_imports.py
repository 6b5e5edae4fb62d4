"""What the rules for rooms are measured with sees what there is: arrows of every form of import, and circles."""

from __future__ import annotations

import pytest

from .imports import Arrow, arrows, circles, modules, room_of, rooms


@pytest.mark.slow("reads the source of all packages")
def test_arrows_are_seen_whichever_way_an_import_is_written() -> None:
    assert {"edgeagent.rounds", "edgecloud.graft.rules", "modelwire._core"} <= set(rooms()) <= set(modules())
    assert Arrow("edgeagent", "edgeagent.samples.spool", "Spool") in arrows()  # from .samples.spool import Spool
    assert Arrow("edgeagent.commands.version", "edgeagent", "__version__") in arrows()  # from edgeagent import __version__
    assert Arrow("modelwire.kernels", "modelwire._core", "") in arrows()  # from . import _core
    assert len(arrows()) > len(modules())


def test_a_module_stands_in_its_outer_room_or_in_none() -> None:
    assert room_of("edgecloud.graft.rules.conv") == room_of("edgecloud.graft.tape") == "edgecloud.graft"
    assert room_of("edgeagent.cli") == "edgeagent.cli"


def test_circles_are_the_sets_that_lead_back_to_themselves() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"e"}, "f": {"g"}, "g": {"f"}}
    assert circles(graph) == [["a", "b", "c"], ["f", "g"]]
