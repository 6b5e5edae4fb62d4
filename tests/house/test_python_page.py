"""The page of the Python API: it names every public name, and a notebook that types it gets the answers that stand there."""

from __future__ import annotations

import doctest
import re
import shutil
from pathlib import Path

import pytest

import edgeagent
import edgecloud
import modelwire
from edgeagent.samples.spool import Spool
from edgecloud import api
from edgecloud.registry import open_registry
from edgecloud.versions import listing
from tests.edgecloud.centre import Centre, admit, make_registry
from tests.edgecloud.device import Base, ScriptedDevice, key_of
from tests.house.pages import DOCS, ROOT

PAGE = DOCS / "python-api.md"
DIGITS = ROOT / "tests" / "models" / "digits.tflite"
NOON = 1_795_867_200  # 2026-11-28T12:00:00Z


def blocks() -> str:
    return "\n".join(re.findall(r"^```pycon\n(.*?)^```", PAGE.read_text(), re.M | re.S))


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a registry, a device's folder and a base, as the page has them."""
    base = Base.of(DIGITS)
    store = make_registry(tmp_path / "fleet.db", base)
    centre = Centre(store, now=NOON)
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, *[device.train() for _ in range(3)])
    centre.rebuild()
    admit(store, "pi-8", key_of("pi-8").public, NOON + 60)
    store.close()
    open_registry(tmp_path / "fleet.db").close()
    shutil.copy(DIGITS, tmp_path / "digits.tflite")
    state = tmp_path / "agent"
    state.mkdir()
    Spool.create(state)
    with Spool(state) as spool:
        spool.register("digits", (64,), (10,), max_samples=100, max_bytes=1 << 20)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_the_page_shows_is_what_a_notebook_gets(notebook: Path) -> None:
    test = doctest.DocTestParser().get_doctest(blocks(), {}, PAGE.name, str(PAGE), 0)
    assert len(test.examples) > 60
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


def test_the_page_names_every_public_name() -> None:
    shown = blocks()
    missing = [f"{package.__name__}.{name}" for package in (edgecloud, edgeagent, modelwire) for name in package.__all__
               if not re.search(rf"\b{name}\b", PAGE.read_text())]  # fmt: skip
    for kind in (api.Registry, api.Device, api.Model, api.Version):
        missing += [f"{kind.__name__}.{name}" for name in vars(kind) if not name.startswith("_") and not re.search(rf"\.{name}\b", shown)]
    of_spool = ("append", "extend", "drop", "count", "classes", "shape", "close")
    missing += [f"Spool.{name}" for name in of_spool if f"spool.{name}" not in shown]
    assert missing == []


def test_the_page_says_how_many_rows_a_notebook_shows() -> None:
    assert listing.SHOWN == 20 and "the first twenty" in PAGE.read_text()
