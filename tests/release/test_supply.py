"""What is pinned covers what pyproject.toml asks for; what a release says of vulnerabilities is no guess."""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

from tests.house.pages import DOCS, ROOT
from tests.release.constraints import DEPLOYMENTS, FOLDER, Deployment, Pin, of_name, pins, requirements, worlds
from tests.release.place import NotReleasable
from tests.release.supply import judged

ONE = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one.name)


def pinned_in(all_pins: list[Pin], world: dict[str, str]) -> dict[str, Pin]:
    """Return the pin of each package in an environment. Each is there once."""
    there = [pin for pin in all_pins if not pin.marker or Marker(pin.marker).evaluate(world)]
    assert len({pin.name for pin in there}) == len(there), world
    return {pin.name: pin for pin in there}


@ONE
def test_each_release_is_pinned_with_the_digests_of_its_files(deployment: Deployment) -> None:
    assert all(pin.hashes for pin in pins(deployment.path))
    assert "://" not in deployment.path.read_text()  # whoever installs says from where


@ONE
def test_all_that_is_asked_for_is_pinned_on_each_python_and_processor(deployment: Deployment) -> None:
    all_pins = pins(deployment.path)
    assert worlds(deployment)
    for world in worlds(deployment):
        there = pinned_in(all_pins, world)
        for asked in map(Requirement, [*requirements(*deployment.extras), *deployment.also]):
            if asked.name in deployment.without or (asked.marker and not asked.marker.evaluate(world)):
                continue
            assert asked.specifier.contains(there[asked.name.lower().replace(".", "-")].version), (asked, world)


@ONE
def test_what_a_pinned_release_asks_for_is_pinned_too(deployment: Deployment) -> None:
    """Of those that are installed here in the very version; the others are held by the install of `make release`."""
    all_pins = pins(deployment.path)
    by_name = of_name(all_pins)
    for pin in all_pins:
        try:
            needs = requires(pin.name) or []
        except PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            if need.marker is None or any(need.marker.evaluate(world) for world in worlds(deployment)):
                name = need.name.lower().replace("_", "-").replace(".", "-")
                assert name in by_name or name in deployment.without, (pin.name, str(need))


def test_the_folder_holds_nothing_else_and_the_pages_name_each_file() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {one.path.name for one in DEPLOYMENTS}
    pages = "".join((DOCS / name).read_text() for name in ("board-setup.md", "centre.md", "release.md"))
    assert {f"{one.name}.txt" for one in DEPLOYMENTS} <= set(re.findall(r"constraints/([\w-]+\.txt)", pages))
    assert (ROOT / "deploy" / "constraints").samefile(FOLDER)


@pytest.mark.parametrize("line", ["numpy==2.0", "numpy>=2 --hash=sha256:" + "0" * 64, "numpy==2 --hash=md5:" + "0" * 32, "-r other.txt"])
def test_a_line_without_a_pin_or_a_digest_is_refused(line: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("pins") / "bad.txt"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match="no pin with SHA-256"):
        pins(path)


def test_no_answer_about_vulnerabilities_is_no_pass() -> None:
    clean = {"name": "numpy", "version": "2.4.6", "vulns": []}
    assert judged("cloud", json.dumps({"dependencies": [clean]}), "") == 1
    skipped = {"name": "lz4", "skip_reason": "not found"}
    for answer in ("", "[]", "{}", json.dumps({"dependencies": []}), json.dumps({"dependencies": [clean, skipped]})):
        with pytest.raises(NotReleasable, match=r"nobody knows about (lz4|any release) of cloud"):
            judged("cloud", answer, "no route")
    bad = {"name": "numpy", "version": "2.4.6", "vulns": [{"id": "X-1"}]}
    with pytest.raises(NotReleasable, match=r"numpy 2\.4\.6: X-1"):
        judged("cloud", json.dumps({"dependencies": [bad, skipped]}), "")
