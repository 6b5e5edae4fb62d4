"""Measures what decisions stand on: how fast this board encodes, trains and writes, and what it draws. All is written at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgeagent.board import meters
from edgeagent.board.meters import Drawn, Meter
from edgeagent.planning.figures import DISK, ENCODE, MOST, PER_BYTE, RAM, STEP, WAKEUP, WATTS
from edgeagent.state.folder import DeviceFolder
from edgeagent.state.lineage import Lineage
from edgeagent.system.clock import Clock
from edgecommon import disk
from edgecommon.files import open_regular
from modelwire.errors import BadArgument, MissingFile, ModelWireError
from modelwire.lattice.snap import exactly, snap
from modelwire.tensors import Held
from modelwire.update.sections import Kind

from . import measuring
from .measuring import Measuring

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENCODES, ENCODE_S = 5, 2.0  # times that a model is encoded, or so many seconds of it
WRITTEN = 4 << 20  # bytes that are written and flushed
IDLE_S = 1.0  # seconds in which the board does nothing
NOISE = 1e-3  # of the largest weight: by how much a made-up round moves the others
METER_FILE_MAX = 64 * 1024  # bytes
# What a file of the user's own figures may say, in joules, joules and watts.
OWN = {"joules_per_wakeup": WAKEUP, "joules_per_byte": PER_BYTE, "watts": WATTS}


@dataclass
class Calibrated:
    """What was measured: of the board, and of each model. Figures by name, each with its source."""

    board: dict[str, tuple[float, str]] = field(default_factory=dict)
    models: dict[str, dict[str, tuple[float, str]]] = field(default_factory=dict)
    trouble: dict[str, str] = field(default_factory=dict)  # what could not be measured, and why
    meter: str = ""  # what said joules; empty: nothing did


def own_figures(path: Path) -> dict[str, tuple[float, str]]:
    """Return the figures of a user's file: TOML with any of joules_per_wakeup, joules_per_byte and watts.

    Raises MissingFile, or BadArgument for a file that says anything else.
    """
    try:
        with open_regular(path) as file:
            raw = file.read(METER_FILE_MAX + 1)
    except FileNotFoundError:
        raise MissingFile(path=path, what="the meter's file") from None
    except OSError as e:
        raise BadArgument(reason=f"{path}: {e.strerror}", fix="edgeagent calibrate --help") from None
    try:
        if len(raw) > METER_FILE_MAX:
            raise ValueError(f"it has more than {METER_FILE_MAX} bytes")
        said = tomllib.loads(raw.decode())
        out = {}
        for name, value in said.items():
            if name not in OWN:
                raise ValueError(f"it says {name[:60]!r}, and may say {', '.join(OWN)}")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST:
                raise ValueError(f"{name} is no finite number of 0 or more")
            out[OWN[name]] = (float(value), f"calibrated: {path.name}")
        if not out:
            raise ValueError(f"it says nothing; it may say {', '.join(OWN)}")
    except ValueError as e:  # TOML and UTF-8 are among them
        raise BadArgument(reason=f"{path}: {str(e)[:300]}", fix="a line such as joules_per_wakeup = 12.6") from None
    return out


def calibrate(
    device: DeviceFolder, lineages: Mapping[str, Lineage], keys: Mapping[str, str], *, own: Mapping[str, tuple[float, str]],
    meter: Meter | None, say: Callable[[str], None], clock: Clock,
) -> Calibrated:  # fmt: skip
    """Measure, and write all of it down in one transaction at the end. keys: of the runtimes by model; own: the user's figures.

    say: told what is being measured. An interrupt leaves everything as it was.
    """
    done = Calibrated(dict(own), meter="" if meter is None else meter.name)
    say("measuring how fast this disk writes")
    try:
        done.board[DISK] = (_disk_rate(device.database.path.parent, clock), "calibrated: 4 MiB written and flushed")
    except OSError as e:
        done.trouble["disk"] = e.strerror or str(e)
    idle = _idle(meter, clock, say)
    notes = []
    for name, lineage in lineages.items():
        say(f"{name}: measuring how fast this board encodes")
        rate = _encode_rate(lineage, device.settings.model(name).update.density, clock)
        done.models[name] = {ENCODE: (rate, "calibrated: made-up rounds")}
        notes.append(_steps(device, lineage, keys[name], done, meter, idle, say, clock))
    now = clock.wall()
    with device.database.transaction():
        for note in notes:
            note(int(now))
        for figure, (value, source) in done.board.items():
            next(iter(lineages.values())).link_figures.put(figure, value, source, now)
        for name, figures in done.models.items():
            for figure, (value, source) in figures.items():
                lineages[name].figures.put(figure, value, source, now)
    return done


def _steps(
    device: DeviceFolder, lineage: Lineage, key: str, done: Calibrated, meter: Meter | None, idle: float | None,
    say: Callable[[str], None], clock: Clock,
) -> Callable[[int], object]:  # fmt: skip
    """Measure every mode in processes of their own; return what writes that down. now: Unix seconds."""
    measurement = Measuring(
        device.path, lineage.name, measuring.modes(lineage), limit=device.settings.model(lineage.name).budget.max_ram, said=say
    )
    try:
        with meters.metering(meter, clock.monotonic) if meter is not None else nullcontext(Drawn()) as drawn:
            measurement.wait()
    finally:
        measurement.close()
    figures = done.models[lineage.name]
    for one in measurement.measured:
        if one.cost is None:
            done.trouble[f"{lineage.name} {one.mode}"] = one.trouble
        elif not one.cost.partial:
            figures[STEP + one.mode] = (one.cost.seconds, "calibrated: a round that was tried")
            figures[RAM + one.mode] = (float(one.cost.memory), "calibrated: a round that was tried")
    if meter is not None and drawn.watts is not None and idle is not None and WATTS not in done.board:
        done.board[WATTS] = (max(0.0, drawn.watts - idle), f"calibrated: {meter.name}, while it trained, less idle")
    return lambda now: measurement.note(lineage, key, now)


def _idle(meter: Meter | None, clock: Clock, say: Callable[[str], None]) -> float | None:
    """Return the watts of a board that does nothing; None without a meter."""
    if meter is None:
        return None
    say(f"measuring what the board draws while idle, by its {meter.name}")
    with meters.metering(meter, clock.monotonic) as drawn:
        clock.sleep(IDLE_S)
    return drawn.watts


def _disk_rate(folder: Path, clock: Clock) -> float:
    """Return bytes a second that are written and flushed. The file has no name: nothing is left of it whatever happens."""
    data = np.random.default_rng(0).bytes(WRITTEN)  # some cards compress
    path = folder / f"calibrate-{os.getpid()}"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        path.unlink()
        if os.fstatvfs(handle).f_bavail * os.fstatvfs(handle).f_frsize < WRITTEN + disk.TRIED:
            raise OSError(28, f"its disk has no {(WRITTEN + disk.TRIED) >> 20} MiB to spare")
        began = clock.monotonic()
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fdatasync(handle)
        return WRITTEN / max(clock.monotonic() - began, 1e-6)
    finally:
        os.close(handle)


def _encode_rate(lineage: Lineage, density: float, clock: Clock) -> float:
    """Return the weights a second that are snapped and sealed, as a delta and as a snapshot: of the served model, in memory alone."""
    head, rng = lineage.head(), np.random.default_rng(0)
    head = replace(head, epoch=head.epoch or 1)
    stored = lineage.load()
    state, weights, seconds = stored.state, 0, 0.0
    for _ in range(ENCODES):
        trained = [_moved(w, rng) for w in state.weights]
        began = clock.monotonic()
        try:
            exact = state.manifest.all_exact
            snapped = exactly(state, trained, stored.residual) if exact else snap(state, trained, stored.residual, density=density)
        except ModelWireError:
            snapped = None  # nothing of this model moves by steps: a snapshot says what encoding takes
        forms = {Kind.SNAPSHOT: state.snapshot()}
        if snapped is not None and snapped.sections:
            forms[snapped.kind] = snapped.sections
        lineage.seal_smallest(head, forms, state, {})
        seconds += clock.monotonic() - began
        weights += lineage.manifest.schema.size
        if snapped is not None:
            snapped.undo()
        if seconds >= ENCODE_S:
            break
    return weights / max(seconds, 1e-9)


def _moved(w: Held, rng: np.random.Generator) -> Held:
    """Return made-up trained weights: moved by a little noise, int8 ones by a code here and there."""
    if w.dtype == np.int8:
        moved = np.clip(w.astype(np.int16) + (rng.random(len(w)) < 0.01), -127, 127).astype(np.int8)
        return moved
    if w.dtype != np.float32 or not len(w):
        return w.copy()
    scale = np.float32(NOISE * max(float(np.abs(w).max()), 1e-6))
    return np.asarray(w + scale * rng.standard_normal(len(w), np.float32))
