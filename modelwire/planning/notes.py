"""What of a decision travels with its update: a few bytes of CBOR, never needed to rebuild, and hostile until decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelwire.errors import Malformed
from modelwire.wire import cbor

from .candidates import Bar, Choice
from .conditions import Conditions
from .figures import Origin

NOTE_MOST = 48  # bytes
_VERSION = 1
_WHAT = "the plan of an update"
_PPM = 1_000_000
_UNIT = 1e-12  # of a coarse J: a millionth of a millionth of the currency
_DIGITS = 1000  # three decimal digits of a coarse J
_POWER_MOST = 40
_UPDATES_MOST = 65_535
# The figures whose origin is noted, two bits and a bit each: the order is the wire's, new ones are only added.
_NOTED = ("uplink", "encode_rate", "step_s", "watts", "joules_per_wakeup", "joules_per_byte", "interval_s")
_NONE = 7  # of an origin: the figure was not known


@dataclass(frozen=True, slots=True)
class PlanNote:
    """A decision as it travels: the choice, J of each kind to three digits, where the figures came from."""

    choice: Choice
    form: Choice | None  # the kind that goes or would go; None: nothing fitted
    density_ppm: int  # kept entries of a million, of that form
    costs: Mapping[Choice, int] = field(default_factory=dict)  # J of each kind that was allowed, coarse: see `totals`
    bars: Mapping[Choice, Bar] = field(default_factory=dict)  # why each other kind was not
    updates: int = 1  # that went in one
    origins: Mapping[str, Origin] = field(default_factory=dict)  # of the figures that were known

    @classmethod
    def of(
        cls, choice: Choice, form: Choice | None, density: float, totals: Mapping[Choice, tuple[float | None, Bar]], updates: int, bits: int
    ) -> PlanNote:
        """Return the note of a decision, its numbers as coarse as they travel: what is encoded is decoded to the same."""
        coarse = {kind: _coarse(total) for kind, (total, _) in totals.items() if total is not None}
        bars = {kind: bar for kind, (total, bar) in totals.items() if total is None and bar is not Bar.NOTHING}
        return cls(choice, form, coarse_density(density), coarse, bars, min(updates, _UPDATES_MOST), _origins(bits))

    @property
    def totals(self) -> dict[Choice, float]:
        """J of each kind that was allowed, rounded down to three digits."""
        return {kind: _fine(coarse) for kind, coarse in self.costs.items()}


def coarse_density(density: float) -> int:
    """Return a density in millionths, 0 to 1,000,000."""
    return min(_PPM, max(0, int(density * _PPM + 0.5)))


def source_bits(conditions: Conditions) -> int:
    """Return where the noted figures come from, three bits each, the first one lowest."""
    known = dict(conditions.figures())
    bits = 0
    for place, name in enumerate(_NOTED):
        bits |= (known[name].origin.value if name in known else _NONE) << 3 * place
    return bits


def encode(note: PlanNote) -> bytes:
    """Return the note as at most 48 bytes of CBOR: [1, choice, form, density, updates, sources, [J or -1 - reason of each kind]]."""
    cells: list[cbor.Value] = []
    for kind in Choice:
        if kind in note.costs:
            cells.append(note.costs[kind])
        else:
            cells.append(-1 - note.bars.get(kind, Bar.NOTHING).value)
    bits = 0
    for place, name in enumerate(_NOTED):
        bits |= (note.origins[name].value if name in note.origins else _NONE) << 3 * place
    form: cbor.Value = None if note.form is None else note.form.value
    return cbor.encode([_VERSION, note.choice.value, form, note.density_ppm, note.updates, bits, cells])


def decode(data: bytes) -> PlanNote:
    """Return the note that `data` holds. Raises Malformed for anything else; a later release's note says so."""
    if len(data) > NOTE_MOST:
        raise Malformed(what=_WHAT, reason=f"it has {len(data)} bytes, and {NOTE_MOST} are the most")
    value = cbor.decode(data, _WHAT)
    if not isinstance(value, list) or not value:
        raise Malformed(what=_WHAT, reason="it is no list")
    if value[0] != _VERSION or isinstance(value[0], bool):
        raise Malformed(what=_WHAT, reason="it is of a later release, or none")
    if len(value) != 7:
        raise Malformed(what=_WHAT, reason=f"it has {len(value)} fields, and 7 are needed")
    _, choice, form, density, updates, bits, cells = value
    if not isinstance(cells, list) or len(cells) != len(Choice):
        raise Malformed(what=_WHAT, reason="it has not one cell a kind")
    kind = _choice(choice)
    if form is not None and _choice(form) is Choice.WAIT:
        raise Malformed(what=_WHAT, reason="waiting is no form")
    of = None if form is None else _choice(form)
    if kind is not Choice.WAIT and kind is not of:
        raise Malformed(what=_WHAT, reason="what was chosen is not the form that goes")
    costs: dict[Choice, int] = {}
    bars: dict[Choice, Bar] = {}
    for each, cell in zip(Choice, cells, strict=True):
        number = _whole(cell, "a cost", -1 - max(Bar), _POWER_MOST * _DIGITS + _DIGITS - 1)
        if number < 0:
            if -1 - number != Bar.NOTHING:
                bars[each] = Bar(-1 - number)
        else:
            _canonical(number)
            costs[each] = number
    return PlanNote(
        kind, of, _whole(density, "a density", 0, _PPM), costs, bars, _whole(updates, "a count", 0, _UPDATES_MOST),
        _origins(_whole(bits, "the sources", 0, (1 << 3 * len(_NOTED)) - 1)),
    )  # fmt: skip


def _choice(value: cbor.Value) -> Choice:
    return Choice(_whole(value, "a choice", 0, max(Choice)))


def _whole(value: cbor.Value, what: str, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Malformed(what=_WHAT, reason=f"{what} is not a whole number of {least} to {most}")
    return value


def _origins(bits: int) -> dict[str, Origin]:
    found = {}
    for place, name in enumerate(_NOTED):
        number = bits >> 3 * place & 7
        if number == _NONE:
            continue
        if number > max(Origin):
            raise Malformed(what=_WHAT, reason=f"the source of {name} is of an unknown kind")
        found[name] = Origin(number)
    return found


def _coarse(total: float) -> int:
    """Return J as digits + 1000 * power, for digits * 10^power units of 1e-12; digits of 100 to 999 unless the power is 0. Rounds down."""
    units = int(max(total, 0.0) / _UNIT)
    power = 0
    while units >= _DIGITS:  # whole numbers: no float of any machine has a say
        units //= 10
        power += 1
    return min(power, _POWER_MOST) * _DIGITS + units


def _fine(coarse: int) -> float:
    power, digits = divmod(coarse, _DIGITS)
    return float(digits * 10**power) / 1e12


def _canonical(coarse: int) -> None:
    power, digits = divmod(coarse, _DIGITS)
    if power and digits < _DIGITS // 10:
        raise Malformed(what=_WHAT, reason="a cost is not written in its one form")
