"""Datasette shows a registry that an ingester writes to, and changes nothing in it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.broker import free_port
from tests.edgecloud.centre import Centre
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import ScriptedDevice

pytestmark = [
    pytest.mark.slow("starts Datasette", seconds=8),
    pytest.mark.skipif(importlib.util.find_spec("datasette") is None, reason="datasette is not installed: pip install datasette"),
]


@contextmanager
def datasette(*words: str) -> Iterator[str]:
    """Serve a file, and give the address."""
    port = free_port()
    command = [sys.executable, "-m", "datasette", "serve", *words, "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/-/versions.json", timeout=30).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, "Datasette does not start"
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def page(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def rows(address: str) -> list[dict[str, Any]]:
    status, text = page(address)
    assert status == 200, text
    document: dict[str, Any] = json.loads(text)
    out: list[dict[str, Any]] = document["rows"]
    return out


def test_each_view_is_a_page_while_versions_come_in_and_nothing_can_be_written(grown: Centre, device: ScriptedDevice) -> None:
    path = grown.store.database.path
    with datasette(str(path)) as address:
        status, html = page(f"{address}/fleet/v_fleet")
        assert status == 200 and "pi-7" in html and "digits@13" in html
        (before,) = rows(f"{address}/fleet/v_fleet.json?_shape=objects")
        assert before["versions"] == 13 and before["last_message"] == "1970-01-01T00:16:40Z"
        assert [row["device"] for row in rows(f"{address}/fleet/v_stale.json?_shape=objects&silent_hours__gt=24")] == ["pi-7"]
        assert len(rows(f"{address}/fleet/v_versions.json?_shape=objects&status=verified")) == 12
        grown.deliver(device, device.train())
        grown.rebuild()
        (after,) = rows(f"{address}/fleet/v_fleet.json?_shape=objects")
        assert (after["versions"], after["last_verified"]) == (14, "digits@14")
        for statement in ("DELETE FROM score", "INSERT INTO device VALUES ('pi-9', 1)", "PRAGMA user_version = 1"):
            assert page(f"{address}/fleet.json?sql={quote(statement)}")[0] in (400, 403)
    assert grown.store.problems() == [] and grown.statuses(device)[14] == "verified"


def test_a_report_is_served_as_it_is(desk: Desk, grown: Centre) -> None:
    desk.ok("export", "--sqlite", "-o", "report.db")
    report = desk.folder / "report.db"
    before = digest(report)
    with datasette("--immutable", str(report)) as address:
        assert len(rows(f"{address}/report/versions.json?_shape=objects&_size=max")) == 13
        assert page(f"{address}/report/device_key")[0] == page(f"{address}/report/blob")[0] == 404
    assert digest(report) == before


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
