"""`edgecloud stats` and `edgecloud whatif`: one screen each; and no first page looks at versions that it does not show."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from edgecloud.commands import sizes
from edgecloud.commands.registry import stats
from edgecloud.registry import SqliteStore, open_registry
from edgecommon.sqlite import Database
from tests.edgecloud.bulk import make
from tests.edgecloud.centre import Centre, damage
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice


@pytest.fixture
def fleet(desk: Desk, base: Base) -> Desk:
    """pi-1 has sent one version, pi-2 two of which one was refused, pi-3 three with a snapshot."""
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    store = open_registry(desk.folder / "fleet.db", synchronous="OFF")
    centre = Centre(store)
    for n in (1, 2, 3):
        device = centre.meet(ScriptedDevice(base, name=f"pi-{n}"))
        for k in range(n):
            lie = {"fingerprint": (1, 2)} if (n, k) == (2, 1) else {}
            centre.deliver(device, device.snapshot() if (n, k) == (3, 1) else device.train(**lie))
    centre.rebuild()
    store.close()
    return desk


def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands write as on a terminal of 80 columns."""
    for module in ("edgecommon.tables", "edgecloud.commands.answer"):
        monkeypatch.setattr(f"{module}.terminal_width", lambda: 80)


def fits(text: str) -> None:
    lines = text.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80, text


def test_stats_counts_what_was_sent_and_is_stored(fleet: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    said = fleet.json("stats")
    assert (said["versions"], said["containers"]) == (6, said["sent"]) and said["states"] == said["squashes"] == 0
    kinds = {k["kind"]: k for k in said["kinds"]}
    assert (kinds["delta"]["versions"], kinds["delta"]["refused"], kinds["snapshot"]["versions"]) == (5, 1, 1)
    assert said["stored"] == said["sent"] + said["base_bytes"] and said["base_bytes"] == TINY.stat().st_size
    assert sorted(d["device"] for d in said["devices"]) == ["pi-1", "pi-2", "pi-3"] and said["more"] == 0
    assert said["recovery"]["versions"] == 5 and said["recovery"]["worst_s"] >= said["recovery"]["mean_s"] > 0
    assert fleet.json("stats", "pi-2")["versions"] == 2 and "devices" not in fleet.json("stats", "pi-2")
    assert fleet.json("stats", "-n", "1")["more"] == 2
    terminal(monkeypatch)
    for words in ((), ("pi-3",)):
        fits(fleet.ok("stats", *words))
    assert "usual rates" in re.sub(r"\s+", " ", fleet.ok("stats"))


def test_what_was_measured_is_shown_when_there_is_too_much_to_count(fleet: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "LIVE", 0)
    assert "not counted yet: edgecloud stats --measure" in fleet.ok("stats") and fleet.json("stats")["recovery"] is None
    told = fleet.json("stats", "--measure")["recovery"]
    assert told["sample"] == 5 and told["sample_worst_s"] > 0 and told["sample_errors"] == 0 and told["rates_from"]
    assert fleet.json("stats")["recovery"] == told
    text = re.sub(r"\s+", " ", fleet.ok("stats"))
    assert "measured: 5 versions recovered and proven" in text and "rates of this machine, measured" in text
    assert "not counted yet: edgecloud stats pi-1 --measure" in re.sub(r"\s+", " ", fleet.ok("stats", "pi-1"))
    store = open_registry(fleet.folder / "fleet.db")
    for said in ("{}", "no JSON", "[1]"):
        store.tallies.set_measured(stats.RECOVERY, said, 5)
        assert fleet.json("stats")["recovery"] is None, "another program wrote it"
    store.close()


def test_stats_of_an_empty_registry_and_of_nobody(desk: Desk) -> None:
    desk.ok("init", "--fleet", "orchard")
    assert "nothing was sent yet" in desk.ok("stats") and desk.json("stats")["kinds"] == []
    assert desk.json("stats", "--measure")["recovery"]["versions"] == 0
    assert desk.run("stats", "nobody")[0] != 0
    assert len(desk.json("whatif")["policies"]) == 2  # type: ignore[arg-type]


def test_whatif_compares_policies_with_today(fleet: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--policy", "recover_within=1 state", "--policy", "keep=last 1", "--price", "storage=1/MB-month", "--link", "lte-sleeping")
    said = fleet.json("whatif", *words)
    now, today, one, last = said["policies"]
    assert (now["policy"], today["policy"]) == ("as it is now", "2 states, keep all") and now["stored"] == now["updates"]
    assert now["stored"] + said["beside"]["bases"] + said["beside"]["unverified"] == fleet.json("stats")["stored"]
    assert one["policy"] == "1 state, keep all" and one["states"] >= today["states"] and one["worst_s"] <= now["worst_s"]
    assert last["recoverable"] == 3 and last["storage_a_month"] == pytest.approx(last["stored"] / 1e6)
    assert said["sent"]["joules"] == pytest.approx(6 * 12.6 + said["sent"]["bytes"] * 5.6e-6)
    terminal(monkeypatch)
    fits(fleet.ok("whatif", *words))
    assert "versions" in fleet.ok("whatif", *words).split("\n")[0] and "recovery" in fleet.ok("whatif", *words).split("\n")[0]
    text = re.sub(r"\s+", " ", fleet.ok("whatif", "--policy", "recover_within=0.001 ms"))
    assert "can't be kept: to read and prove one state of pi-" in text


def test_counters_that_were_changed_are_named_and_repair_counts_anew(fleet: Desk) -> None:
    store = open_registry(fleet.folder / "fleet.db")
    damage(store, "UPDATE tally SET bytes = 0")
    store.close()
    code, out, error = fleet.run("verify", "--all")
    assert code and "the counters of pi-1/digits are not what its versions come to" in out + error and fleet.json("stats")["sent"] == 0
    assert fleet.json("repair")["counters"] == 3
    assert fleet.run("verify", "--all")[0] == 0 and fleet.json("stats")["sent"] != 0 and fleet.json("repair")["counters"] == 0


@pytest.mark.parametrize(("words", "told"), [
    (("--price", "storage=-1/GB-month"), "can't be -1"), (("--price", "storage=nan/GB-month"), "can't be nan"),
    (("--price", "storage=1e308/GB-month"), "the price of storage can't be 1e308/GB-month"),
    (("--recoveries", "-0.5"), "is not a number of 0 or more"),
    (("--price", "gold=1/g"), "storage, sent, energy, recovery have one"), (("--policy", "keep=some"), "does not say what is kept"),
    (("--policy", "hold=all"), "no part of a policy"), (("--link", "pigeon"), "there is no link profile"),
])  # fmt: skip
def test_what_whatif_does_not_know_is_named(fleet: Desk, words: tuple[str, ...], told: str) -> None:
    code, _, error = fleet.run("whatif", *words)
    assert code not in (0, 1) and told in re.sub(r"\s+", " ", error)


@pytest.mark.parametrize("words", [
    ("log", "pi-00001", "-n", "5"), ("devices", "-n", "5"), ("devices", "-n", "5", "--stale", "1h"),
    ("devices", "-n", "5", "--sort", "head"),
    ("show", "pi-00001"), ("show", "pi-00001@7"), ("why", "pi-00001@7"), ("claim",), ("stats",), ("stats", "pi-00002"),
])  # fmt: skip
def test_a_first_page_looks_at_no_version_that_it_does_not_show(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    path = tmp_path / "bulk.db"
    make(path, 12, 30).close()
    monkeypatch.setattr(stats, "LIVE", 0)
    monkeypatch.setattr("edgecloud.commands.fleet.claim.LONG", 3)
    asked: list[str] = []
    for name in ("all", "maybe"):
        plain = getattr(Database, name)

        def noted(self: Database, sql: str, *values: object, plain: object = plain) -> object:
            asked.append(sql)
            return plain(self, sql, *values)  # type: ignore[operator]

        monkeypatch.setattr(Database, name, noted)
    desk.run(*words, "--db", str(path))
    assert asked
    monkeypatch.undo()
    store = open_registry(path)
    for sql in dict.fromkeys(asked):
        for row in plan_of(store, sql):
            assert sql.endswith("LIMIT 1") or not re.search(r"SCAN (version|v|log|score|s|blob|thinned)\b", row), (row, sql)
    store.close()


def plan_of(store: SqliteStore, sql: str) -> list[str]:
    """Return how SQLite would go about a statement."""
    wanted = max([int(n) for n in re.findall(r"\?(\d+)", sql)], default=sql.count("?"))
    try:
        return [str(row[3]) for row in store.database.connection.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * wanted)]
    except sqlite3.Error as error:  # a pragma has no plan
        assert sql.startswith("PRAGMA"), (sql, error)
        return []


def test_sizes_have_three_figures() -> None:
    assert [sizes.of_bytes(n) for n in (0, 999, 1000, 1_380_000_000, 999_960)] == ["0 B", "999 B", "1 kB", "1.38 GB", "1 MB"]
    assert [sizes.of_seconds(s) for s in (0.0123, 0.99999, 12.345, 1234.5)] == ["12.3 ms", "1 s", "12.3 s", "1,234 s"]
    assert [sizes.of_money(a) for a in (0, 0.00123, 1234.5)] == ["0.00", "0.0012", "1,234.50"]


@pytest.mark.parametrize("words", ["compact", "thin --dry-run", "thin", "verify --sample 3", "repair", "backup b.db"])
def test_sentences_fit_the_terminal(fleet: Desk, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    fleet.ok("policy", "--keep", "last 1")
    terminal(monkeypatch)
    fits(fleet.ok(*words.split()))
