"""A decision travels in at most 48 bytes; what is read back is what was written, and nothing else is read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire import planning
from modelwire.errors import Malformed, WireError
from modelwire.planning import Bar, Candidate, Choice, Conditions, Figure, Forecast, Origin, PlanNote, Prices, decide, decode, encode
from modelwire.wire import cbor

from . import drawn


@pytest.mark.slow("decides 100 times")
@settings(max_examples=100, deadline=None)
@given(st.lists(drawn.candidates, max_size=6), drawn.conditions, drawn.prices)
def test_whatever_was_decided_fits_and_reads_back(candidates: list[Candidate], conditions: Conditions, prices: Prices) -> None:
    plan = decide(candidates, conditions, prices)
    data = encode(plan.note)
    assert len(data) <= planning.NOTE_MOST
    assert decode(data) == plan.note
    for kind, total in plan.note.totals.items():
        true = [row.total for row in plan.rows if row.choice is kind and row.bytes >= 0]
        assert any((total <= max(t, 0) * (1 + 1e-12) and max(t, 0) <= total * 1.0101 + 2e-12) or t >= 1e30 for t in true)


def example() -> PlanNote:
    conditions = Conditions(
        planning.profile_of("lte-sleeping"), uplink=Figure(5e4, Origin.MEASURED, "41 receipts"), window_left_s=Figure(1.0),
        forecast=Forecast(Figure(3600.0, Origin.SETTINGS), waiting=3),
    )  # fmt: skip
    candidates = [Candidate(Choice.DELTA, 1000, 0.003, alone=1000.0), Candidate(Choice.SNAPSHOT, 1e5), Candidate(Choice.RECIPE, 1e4)]
    return decide(candidates, conditions, Prices()).note


def test_a_note_tells_the_choice_the_costs_the_reasons_and_the_sources() -> None:
    note = decode(encode(example()))
    assert note.choice is Choice.WAIT and note.form is Choice.DELTA and note.density_ppm == 3000 and note.updates == 3
    assert note.bars == {Choice.SNAPSHOT: Bar.WINDOW, Choice.RECIPE: Bar.RECIPES_OFF}
    assert set(note.totals) == {Choice.DELTA, Choice.WAIT} and note.totals[Choice.WAIT] < note.totals[Choice.DELTA]
    assert note.origins["uplink"] is Origin.MEASURED and note.origins["joules_per_wakeup"] is Origin.PROFILE
    assert note.origins["interval_s"] is Origin.SETTINGS and "watts" not in note.origins


def test_every_cut_and_every_changed_byte_is_refused_or_another_note_in_its_one_form() -> None:
    data = encode(example())
    for length in range(len(data)):
        with pytest.raises(WireError):
            decode(data[:length])
    for place in range(len(data)):
        for value in range(256):
            changed = data[:place] + bytes([value]) + data[place + 1 :]
            try:
                note = decode(changed)
            except WireError as error:
                assert error.message
            else:
                assert encode(note) == changed


@pytest.mark.slow("draws 500 times")
@settings(max_examples=500)
@given(st.binary(max_size=60))
def test_random_bytes_are_refused_or_one_form(data: bytes) -> None:
    try:
        note = decode(data)
    except WireError:
        return
    assert encode(note) == data


good = [1, 1, 1, 3000, 1, 0, [5, 105, -1 - int(Bar.NOTHING), -5, 0]]


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, 2), (0, True), (0, None), (1, 5), (1, -1), (1, True), (1, 0), (1, 1.0), (2, 4), (2, None), (2, "1"), (3, -1), (3, 1_000_001),
     (4, 65_536), (4, -1), (5, 1 << 21), (5, 5), (5, -1), (6, []), (6, [0] * 6), (6, [0, 0, 0, 0, -13]), (6, [0, 0, 0, 0, 1099]),
     (6, [0, 0, 0, 0, 41_000]), (6, [0, 0, 0, 0, None]), (6, [0, 0, 0, 0, False]), (6, 0)],
)  # fmt: skip
def test_a_note_with_a_field_out_of_range_is_refused(place: int, value: cbor.Value) -> None:
    assert decode(cbor.encode(good))  # type: ignore[arg-type]
    fields: list[cbor.Value] = [*good]
    fields[place] = value
    with pytest.raises(Malformed, match="the plan of an update"):
        decode(cbor.encode(fields))


@pytest.mark.parametrize("value", [None, 1, {}, [], [1], [1] * 8, {"v": 1}, b"", [[[[1]]]]])
def test_what_is_no_note_is_refused(value: cbor.Value) -> None:
    with pytest.raises(WireError):
        decode(cbor.encode(value))


def test_a_note_longer_than_any_is_not_even_parsed() -> None:
    with pytest.raises(Malformed, match="49 bytes"):
        decode(bytes(49))
