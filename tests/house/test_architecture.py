"""The page of the architecture shows the rooms that are there, on the floors that the import contracts hold."""

from __future__ import annotations

import re

import pytest

from .imports import PACKAGES, rooms
from .pages import DOCS, PROJECT, ROOT, rows, section

PAGE = (DOCS / "architecture.md").read_text()
CONTRACTS = PROJECT["tool"]["importlinter"]["contracts"]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_floors_of_the_page_are_those_of_the_contract(package: str) -> None:
    (contract,) = [c for c in CONTRACTS if c.get("containers") == [package]]
    assert contract["exhaustive"], "every room stands on a floor"
    assert re.findall(r"^ {4}(.+)$", section(PAGE, package), re.M) == contract["layers"]


@pytest.mark.parametrize("package", ["modelwire", "edgeagent", "edgecloud"])
def test_the_table_of_the_page_has_each_room_once(package: str) -> None:
    told = [row[0].strip("`") for row in rows(section(PAGE, package))]
    outer = [room.replace(".", "/") for room in rooms() if room.startswith(f"{package}.") and room.count(".") == 1]
    assert sorted(told) == sorted(outer)


def test_every_room_has_a_contract_of_its_own() -> None:
    named = {c["source_modules"][0] for c in CONTRACTS if c["type"] == "forbidden" and len(c["source_modules"]) == 1}
    commands = {"edgeagent.commands"}  # it knows every room
    kernels = {"modelwire._core", "modelwire._reference"}  # theirs say who may come in
    assert {room for room in rooms() if room.count(".") == 1} - commands - kernels <= named | {"modelwire.*"}


def test_the_page_names_every_package_with_its_folder() -> None:
    told = {row[0].strip("`"): row[1].strip("`/") for row in rows(section(PAGE, "Four packages"))}
    assert told == {name: str(folder.relative_to(ROOT)) for name, folder in PACKAGES.items()}
