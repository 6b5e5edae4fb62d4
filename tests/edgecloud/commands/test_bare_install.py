"""The centre's commands where the wheel was installed without its extra `cloud`."""

from __future__ import annotations

import sys

import pytest

from edgecloud import program
from tests.edgecloud.desk import Desk


def test_what_the_centre_lacks_is_named_with_the_line_that_installs_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlite_utils", None)  # importing it then says that there is no such module
    said = desk.error("init", "--fleet", "orchard")
    assert "sqlite_utils" in said["message"] and said["hint"] == "pip install 'edgeagent[cloud]'" == program.INSTALL
    assert list(desk.folder.iterdir()) == []  # no key without a registry
