"""The Python API in a notebook: what objects print and compare as, rows for a table of data, and nothing of a device's read as HTML."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

import edgeagent
import edgecloud
import modelwire
from edgecloud.registry import SqliteStore
from edgecloud.versions import listing
from modelwire.errors import BadArgument, UnknownVersion
from tests.edgecloud.centre import Centre, damage, fleet_of, make_registry
from tests.edgecloud.device import Base, ScriptedDevice, key_of

WHEN = datetime(1970, 1, 1, 0, 16, 40, tzinfo=timezone.utc)  # what the tests' centre says it is
HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e"


def objects(fleet: edgecloud.Registry) -> list[object]:
    """Return one object of each kind that the API gives."""
    model = fleet.device("pi-7").model()
    third = model.version(3)
    state = third.state()
    weighed = [third.header, third.container, state, state.manifest, state.manifest.schema, third.diff(model.latest)]
    return [fleet, fleet.device("pi-7"), model, third, model.base, fleet.versions(), fleet.overview(), fleet.silent(), *weighed]


def test_every_object_prints_as_one_short_line(grown: Centre) -> None:
    with fleet_of(grown.store) as fleet:
        for one in objects(fleet):
            assert len(repr(one)) < 300 and repr(one).isprintable(), type(one)
        model = fleet.device("pi-7").model()
        said = [repr(one) for one in (model.device, fleet.device("pi-7"), model, model.base)]
        assert said == ["'pi-7'", "<device pi-7>", "<model pi-7/digits>", "<version pi-7/digits@base: base, verified>"]
        third = model.version(3)
        assert repr(third) == f"<version pi-7/digits@3: delta, verified, {third.size} bytes>"
        assert repr(third.container) == f"<container pi-7/digits@3: delta, {third.size} bytes>"
        assert repr(fleet) == f"<registry orchard: {grown.store.database.path}>"
        assert repr(fleet.versions("pi-7")).startswith("<13 rows: id, name, device, ")


def test_objects_of_a_closed_registry_still_print_and_compare(grown: Centre) -> None:
    fleet = fleet_of(grown.store)
    version = fleet.find("pi-7@3")
    handles = [fleet, fleet.device("pi-7"), fleet.device("pi-7").model(), version]
    fleet.close()
    assert repr(fleet).endswith(", closed>") and repr(version).startswith("<version pi-7/digits@3: ")
    for handle in handles:
        assert handle == handle and hash(handle) == hash(handle)
        assert "closed database" in handle._repr_html_() or handle is version  # type: ignore[attr-defined]
    with pytest.raises(BadArgument):
        fleet.devices()


def test_two_handles_of_one_thing_are_equal_in_a_second_opening_too(tmp_path: Path, grown: Centre, base: Base) -> None:
    other_store = make_registry(tmp_path / "other.db", base)
    with fleet_of(grown.store) as one, fleet_of(grown.store) as two, fleet_of(other_store) as other:
        assert one == two != other and one.device("pi-7") == two.device("pi-7") and one.find("pi-7@3") == two.find("pi-7/digits@3")
        assert one.device("pi-7").model() == two.device("pi-7").model("digits") != one.device("pi-7")
        assert len({one.find("pi-7@latest"), two.find("pi-7@13"), two.find("pi-7@base"), one.find("pi-7@0")}) == 2
        assert {one.device("pi-7"): 1}[two.device("pi-7")] == 1
        versions = one.device("pi-7").versions()
        assert sorted([*versions[::-1], two.find("pi-7@base")]) == [one.find("pi-7@base"), *versions]
        with pytest.raises(TypeError):
            assert versions[0] < one.device("pi-7")  # type: ignore[operator]
        assert one.find("pi-7@3").state() == two.find("pi-7@3").state() != one.find("pi-7@2").state()
        assert one.find("pi-7@3").container == two.find("pi-7@3").container and hash(one.find("pi-7@3").container)
        assert one.find("pi-7@3").header == two.find("pi-7@3").header and hash(one.find("pi-7@3").header)
    other_store.close()


def test_times_are_of_a_zone(grown: Centre) -> None:
    with fleet_of(grown.store) as fleet:
        assert fleet.find("pi-7@3").received_at == WHEN and fleet.find("pi-7@base").received_at is None
    assert listing.time_of(1 << 60) is listing.time_of(None) is None


def test_rows_are_dicts_with_one_type_a_column(grown: Centre, device: ScriptedDevice) -> None:
    with fleet_of(grown.store) as fleet:
        rows = fleet.versions()
        assert isinstance(rows, list) and len(rows) == 13 and all(type(row) is dict and list(row) == list(rows[0]) for row in rows)
        assert {type(row["received"]) for row in rows} == {datetime} and rows[2]["received"] == WHEN
        assert {type(row["loss_after"]) for row in rows} == {type(row["accuracy_after"]) for row in rows} == {float}
        assert rows[2]["loss_after"] == 0.5 and math.isnan(rows[2]["accuracy_after"]) and rows[2]["commit"] == device.made[3].commit.hex()
        assert np.array([row["bytes"] for row in rows]).dtype == np.int64
        assert fleet.versions("pi-7", "digits") == rows == fleet.versions("pi-7") == fleet.versions(model="digits")
        for wrong in (("pi-8",), ("pi-7", "other"), (None, "other")):
            with pytest.raises(UnknownVersion):
                fleet.versions(*wrong)
        (one,) = fleet.overview()
        assert (one["device"], one["versions"], one["online"], one["last_message"]) == ("pi-7", 13, False, WHEN)
        assert [row["device"] for row in fleet.silent(24)] == ["pi-7"] and fleet.silent(1e9) == []
        assert fleet.silent(1e9).columns == list(fleet.silent(24)[0]) == fleet.silent(24).columns, "no rows, and the same columns"
        for odd in (math.nan, "24"):
            with pytest.raises(BadArgument):
                fleet.silent(odd)  # type: ignore[arg-type]


def test_what_a_device_wrote_is_no_html_and_no_escape_and_tables_are_bounded(grown: Centre) -> None:
    damage(grown.store, "UPDATE version SET reason = ? WHERE version = 9", HOSTILE)
    damage(grown.store, "UPDATE base SET name = ?", HOSTILE)
    with fleet_of(grown.store) as fleet:
        shown = [one._repr_html_() for one in (fleet, fleet.device("pi-7"), fleet.device("pi-7").model(), fleet.find("pi-7@9"))]  # type: ignore[attr-defined]
        shown += [fleet.versions()._repr_html_(), listing.table(["<b>"], [[HOSTILE]], 1)]
        for text in shown:
            assert "<script" not in text and "\x1b" not in text and "\u202e" not in text
        assert sum("&lt;script&gt;" in text for text in shown) == 5
        many = listing.Listing(fleet.versions() * 1000)
        assert many._repr_html_().count("<tr>") == listing.SHOWN + 1 and "the first 20 of 13000 rows" in many._repr_html_()
        assert len(repr(many)) < 300 and listing.Listing()._repr_html_() == "<p>no rows</p>" and repr(listing.Listing()) == "<0 rows>"


ODD: list[Callable[[SqliteStore], None]] = [
    lambda store: damage(store, "UPDATE version SET received_at = 1 << 60"),
    lambda store: damage(store, "UPDATE version SET extension = x'ff'"),
    lambda store: damage(store, "UPDATE version SET extension = 'text', size = 'many', reason = 7"),
    lambda store: damage(store, "UPDATE score SET loss_after = 'low'"),
]


@pytest.mark.parametrize("harm", ODD)
def test_rows_that_another_program_changed_still_show(grown: Centre, harm: Callable[[SqliteStore], None]) -> None:
    harm(grown.store)
    with fleet_of(grown.store) as fleet:
        version = fleet.find("pi-7@3")
        for one in (fleet, version, fleet.device("pi-7")):
            assert repr(one) and one._repr_html_().startswith("<p>")
        assert len(fleet.versions()) == 13


def test_an_error_in_a_notebook_is_one_line_with_what_to_do_next() -> None:
    (line,) = BadArgument(reason=HOSTILE, fix="name another")._render_traceback_()
    assert line == "BadArgument: <script>alert(1)</script>\\x1b[2J\\u202e (try: name another)"


def test_a_device_that_has_sent_nothing_is_no_wrong_name(grown: Centre) -> None:
    grown.store.devices.add("pi-8", key_of("pi-8").public, 1000)
    with fleet_of(grown.store) as fleet:
        silent = fleet.device("pi-8")
        assert silent.models() == silent.versions() == fleet.versions("pi-8") == []
        for ask in (silent.model, silent.version, lambda: fleet.find("pi-8")):
            with pytest.raises(UnknownVersion) as caught:
                ask()
            assert "pi-8 is let in and has sent no update yet" in caught.value.next_step
        with pytest.raises(UnknownVersion) as caught:
            fleet.find("pi-7/other")
        assert "edgecloud log DEVICE" in caught.value.next_step


def test_the_names_that_tab_offers_are_those_of_the_page() -> None:
    for package in (edgecloud, edgeagent, modelwire):
        assert set(dir(package)) == set(package.__all__), package
