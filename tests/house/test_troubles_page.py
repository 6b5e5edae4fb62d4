"""The page of a board's troubles says what the table says, row by row."""

from __future__ import annotations

import re

from edgeagent.link import mqtt
from edgeagent.spending import month
from edgeagent.troubles.table import PAGE, TABLE
from modelwire.errors import MonthSpent
from tests.house.pages import DOCS

TEXT = (DOCS / "troubles.md").read_text()


def test_the_page_has_each_trouble_in_the_table_s_own_words() -> None:
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in TEXT.splitlines() if line.startswith("| `")]
    assert rows == [(f"`{t.id}`", t.seen, t.does, t.asks) for t in TABLE]
    assert PAGE == "docs/troubles.md"


def test_ids_are_plain_and_unique() -> None:
    ids = [t.id for t in TABLE]
    assert len(set(ids)) == len(ids) >= 12 and all(re.fullmatch("[a-z]+(-[a-z]+)*", one) for one in ids)


def test_the_figures_of_a_month_are_those_of_the_code() -> None:
    assert f"{month.MQTT} bytes of MQTT" in TEXT and f"{2 * month.PACKET} bytes of TCP/IP" in TEXT
    assert f"{month.PING} bytes for each `link.keepalive`" in TEXT
    assert f"{month.CONNECTING} bytes for each connection, and {month.TLS:,} more with TLS" in TEXT
    assert f"by {month.ALLOWANCE_LEAST // 1024} KiB, or by a {month.ALLOWANCE_SHARE}th" in TEXT
    assert f"up to {month.LEASE // 1024} KiB too much" in TEXT and f"errors.md#{MonthSpent.code}-monthspent" in TEXT
    assert 30 * 86_400 / 60 * month.PING == 7_084_800 and mqtt.FRAME == month.MQTT
