"""What befalls a board at this moment, by name, and what its agent got over alone: for `status` and `doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeagent.link.metered import Leaving
from edgeagent.spending import flash
from edgeagent.spending.flash import WrittenDays, WrittenToday
from edgeagent.spending.month import Month, MonthBytes, allowance, months
from edgeagent.state.folder import ousted
from edgeagent.state.history import KeylessBoard
from edgeagent.state.lineage import FORKED, welcomed_key
from edgeagent.state.looking import SPOOL_GONE, Glance
from edgeagent.troubles.noted import NotedTrouble, all_noted
from edgeagent.troubles.table import trouble
from edgeagent.troubles.told import told, told_by_system
from edgecommon import disk
from edgecommon.sqlite import Database
from modelwire.wire import topics

from .counting import clock_off


@dataclass(frozen=True, slots=True)
class Befallen:
    """One trouble that there is now. text: of this board, in words."""

    id: str
    text: str

    def document(self) -> dict[str, str]:
        """Return what machines read."""
        known = trouble(self.id)
        assert known is not None, self.id
        return {"id": self.id, "text": self.text, "does": known.does, "asks": known.asks}

    def lines(self) -> list[str]:
        """Return what people read."""
        known = trouble(self.id)
        assert known is not None, self.id
        asks = [f"  try: {known.asks}"] if known.asks else []
        return [f"trouble {self.id}: {self.text}; it {known.does}", *asks]


def befallen(device: Glance, now: float) -> list[Befallen]:
    """Return the troubles of a board whose folder can be looked into. now: Unix seconds."""
    of_system = (Befallen(name, text) for name, text in told_by_system().items())
    return [*_of_disk(device), *of_system, *_of_database(device, now)]


def _of_disk(device: Glance) -> Iterator[Befallen]:
    if device.waits is not None:
        name = str(device.waits.get("trouble", ""))
        yield Befallen(name if trouble(name) else "disk-full", str(device.waits.get("message", "")))
    elif device.disk is not None and device.disk.read_only:
        yield Befallen("disk-read-only", device.disk.told())
    elif device.disk is not None and device.disk.full:
        yield Befallen("disk-full", device.disk.told())
    for one in device.unseen:
        if one.why == SPOOL_GONE:
            yield Befallen("samples-gone", one.why)
        elif one.owner:
            yield Befallen("not-ours", f"{one.what}: {one.why}")


def _of_database(device: Glance, now: float) -> Iterator[Befallen]:
    if device.database is None:
        return
    if device.agent is not None and (why := ousted(device.database)):
        yield Befallen("two-boards", why)
    for name, lineage in device.lineages.items():
        if (why := lineage.head().blocked).startswith(FORKED):
            yield Befallen("older-copy", f"{name}: {why}")
    known = welcomed_key(device.database)
    if known and not isinstance(device.board, KeylessBoard) and known != device.board.key.public:
        yield Befallen("key-changed", "device.key is another key than the centre welcomed this folder with")
    if text := clock_off(device.database):
        yield Befallen("clock-off", text)
    for name, text in told(device.database).items():
        yield Befallen(name, text)
    for name in device.lineages:
        if (error := _spent(device, name, now)) is not None:
            yield Befallen("month-spent", f"{name}: {error}")
        if text := worn(device, name, now):
            yield Befallen("flash-spent", f"{name}: {text}")


def _spent(device: Glance, name: str, now: float) -> str | None:
    assert device.database is not None
    link, lineage = device.settings.link, device.lineages[name]
    month = Month.read(device.database, link.monthly_bytes, now)
    topic = topics.up(device.board.fleet, device.board.device, name, "update")
    leaving = Leaving(lineage.outbox, month, topic, _Largest(link.part_bytes))
    error = leaving.spent() or leaving.silenced()
    return error.message if error is not None else None


@dataclass(frozen=True, slots=True)
class _Largest:
    largest: int


# What is spent.


def month_document(device: Glance, now: float) -> dict[str, Any] | None:
    """Return what machines read of this month's bytes; None without the database."""
    if device.database is None:
        return None
    limit = device.settings.link.monthly_bytes
    month = Month.read(device.database, limit, now)
    before = [_month(one) for one in months(device.database)[1:]]
    counted = "messages, MQTT, TCP/IP and pings, as estimated; both ways"
    left = {"limit": limit or None, "left": month.left, "allowance": allowance(limit) if limit else None}
    return {**_month(month.now), **left, "counted": counted, "before": before}


def _month(one: MonthBytes) -> dict[str, Any]:
    return {"month": str(one), "sent": one.sent, "received": one.received}


def month_line(document: dict[str, Any]) -> str:
    """Return what people read of it."""
    spent = disk.said(document["sent"] + document["received"])
    of = f" of {disk.said(document['limit'])}, {disk.said(document['left'])} left" if document["limit"] else ""
    return f"link in {document['month']}: {spent}{of} ({disk.said(document['sent'])} sent, {disk.said(document['received'])} received)"


def worn(device: Glance, name: str, now: float) -> str:
    """Return why a model's rounds wait for the next day; empty where they do not."""
    limit = device.settings.model(name).budget.flash_bytes_a_day
    if not limit or device.database is None:
        return ""
    return flash.spent(limit, flash.today(device.database, now, agent=device.agent).bytes)


def flash_document(device: Glance, now: float) -> dict[str, Any] | None:
    """Return what machines read of what is written to the disk; None without the database. now: Unix seconds."""
    if device.database is None:
        return None
    known, since = flash.written(device.database), None
    if device.agent is not None:
        since = flash.of_process(Path("/proc") / str(device.agent))
    day = flash.today(device.database, now, agent=device.agent)
    limits = [limit for m in device.settings.models if (limit := m.budget.flash_bytes_a_day)]
    return {
        "bytes": known.bytes, "seconds": round(known.seconds), "bytes_a_day": _whole(known), "source": flash.SAID[known.source],
        "since_start": since, "today": day.bytes, "limit": min(limits, default=None), "parts": _parts(device.database, day),
        "bytes_a_year": None if known.a_day is None else round(365 * known.a_day),
    }  # fmt: skip


def _parts(database: Database, day: WrittenToday) -> dict[str, dict[str, float]]:
    """Return of each part what is noted of today, and its share of all that is noted of the last days."""
    days = flash.noted(database).days.values()
    whole = sum(sum(parts.values()) for parts in days)
    names = sorted({name for parts in days for name in parts})
    return {
        name: {"today": day.parts.get(name, 0), "share": round(sum(parts.get(name, 0) for parts in days) / max(whole, 1), 3)}
        for name in names
    }


def _whole(known: WrittenDays) -> int | None:
    return None if known.a_day is None else round(known.a_day)


def flash_lines(document: dict[str, Any]) -> list[str]:
    """Return what people read of it; nothing before anything is known."""
    a_day, now = document["bytes_a_day"], document["since_start"]
    if a_day is None and now is None and not document["limit"]:
        return []
    of = f" of {disk.said(document['limit'])}" if document["limit"] else ""
    rate = f"about {disk.said(a_day)} in a day of running" if a_day is not None else "a day's figure comes after an hour of running"
    year = f", {disk.said(document['bytes_a_year'])} in a year" if a_day is not None else ""
    since = f", {disk.said(now)} since the agent started" if now is not None else ""
    lines = [f"written to the disk: {disk.said(document['today'])}{of} today (UTC){since}; {rate}{year} ({document['source']})"]
    shares = sorted(((one["share"], name) for name, one in document["parts"].items() if one["share"] >= 0.005), reverse=True)
    if shares:
        lines.append("  of it " + ", ".join(f"{name} {share:.0%}" for share, name in shares))
    return lines


# What was got over.


def got_over(device: Glance) -> list[NotedTrouble]:
    """Return what the agent got over alone, the newest first."""
    return [] if device.database is None else all_noted(device.database)

