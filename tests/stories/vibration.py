"""Vibration of turbines, synthesised: what an accelerometer on the gearbox gives, healthy and with faults, and its spectrum in bands.

Each machine has its own resonances, so the same forces sound different on each; wind changes speed and load from window to window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]
Rng: TypeAlias = np.random.Generator

RATE = 1024  # samples a second
SECONDS = 4  # of a window; its spectrum is the mean of as many, so that a level is not mostly chance
SIZE = RATE * SECONDS
FAULTS = ("bearing", "imbalance", "looseness")
MESH = 23  # teeth of the gear: its tone is so many times the speed
OUTER_RACE = 3.58  # impulses of a spalled outer race in a turn of the shaft, as of a bearing of nine balls
# Borders of the bands in Hz: two Hz wide at the bottom, ever wider above.
EDGES = np.array([*range(4, 54, 2), *np.geomspace(54, RATE // 2, 24).round().astype(int)])
BANDS = len(EDGES) - 1
PART = 256  # windows that are computed at once: bounds the memory


@dataclass(frozen=True)
class Turbine:
    """One machine. resonances: rows of (Hz, damping, gain); tones: amplitudes of the shaft's harmonics."""

    name: str
    speed: float  # turns a second at full load
    resonances: F64
    tones: F64
    mesh: float
    noise: float
    floor: float

    def healthy(self, rng: Rng, n: int) -> F32:
        """Return the spectra of n windows of a day's wind."""
        return self._windows(rng, n, "", 0.0)

    def faulty(self, rng: Rng, n: int, fault: str, severity: float = 1.0) -> F32:
        """Return the spectra of n windows with one of FAULTS; severity 1 is what maintenance should hear of."""
        if fault not in FAULTS:
            raise ValueError(f"no fault is called {fault!r}")
        return self._windows(rng, n, fault, severity)

    def _windows(self, rng: Rng, n: int, fault: str, severity: float) -> F32:
        parts = [spectrum(self.signal(rng, min(PART, n - at), fault, severity)) for at in range(0, n, PART)]
        return np.concatenate(parts)

    def signal(self, rng: Rng, n: int, fault: str = "", severity: float = 0.0) -> F64:
        """Return n windows of acceleration, [n, SIZE]."""
        load = rng.beta(2.0, 2.0, n)
        speed = self.speed * (0.98 + 0.02 * load)  # the grid holds the generator; what is left is slip
        t = np.arange(SIZE) / RATE
        turn = 2 * np.pi * speed[:, None] * t + rng.uniform(0, 2 * np.pi, (n, 1))
        strength = (0.4 + 0.6 * load)[:, None]
        tones = np.tile(self.tones, (n, 1)) * rng.uniform(0.9, 1.1, (n, len(self.tones)))
        if fault == "imbalance":
            tones[:, 0] *= 1 + 2.5 * severity
        force = sum(a[:, None] * np.sin((k + 1) * turn + 0.7 * k) for k, a in enumerate(tones.T)) * strength
        force = force + self.mesh * load[:, None] * np.sin(MESH * turn) * (1 + 0.3 * np.sin(turn))
        if fault == "looseness":  # half turns and many harmonics
            halves = sum(np.sin(0.5 * k * turn + rng.uniform(0, 2 * np.pi, (n, 1))) / k for k in (1, 3, 5, 7, 9, 11))
            force = force + 0.35 * severity * strength * halves
        force = force + self.noise * (0.3 + 0.7 * load)[:, None] * rng.standard_normal((n, SIZE))
        if fault == "bearing":
            force = force + severity * 1.6 * strength * _impulses(rng, speed * OUTER_RACE, n)
        heard = np.fft.irfft(np.fft.rfft(force) * self.response(), SIZE)
        return np.asarray(heard + self.floor * rng.standard_normal(heard.shape))

    def response(self) -> NDArray[np.complex128]:
        """Return what the structure makes of a force, by frequency."""
        f = np.fft.rfftfreq(SIZE, 1 / RATE)[:, None]
        at, damping, gain = self.resonances.T
        peaks = gain * at**2 / (at**2 - f**2 + 2j * damping * at * f)
        return np.asarray(0.3 + peaks.sum(1))


def turbine(name: str, seed: int) -> Turbine:
    """Return the machine of this seed."""
    rng = np.random.default_rng([71, seed])
    resonances = np.stack([rng.uniform(40, 480, 5), rng.uniform(0.02, 0.08, 5), rng.uniform(0.2, 1.0, 5)], 1)
    tones = np.array([1.0, 0.5, 0.3, 0.15]) * rng.uniform(0.6, 1.6, 4)
    return Turbine(
        name, rng.uniform(8, 12), resonances, tones, rng.uniform(0.2, 0.6), rng.uniform(0.15, 0.4), rng.uniform(0.01, 0.03)
    )


def reference(seed: int) -> Turbine:
    """Return a machine of the test hall: of one make on one foundation, so their resonances lie close together."""
    hall, own = turbine("hall", 0), np.random.default_rng([72, seed])
    spread = own.uniform(0.97, 1.03, hall.resonances.shape)
    return Turbine(
        f"hall-{seed}", hall.speed * own.uniform(0.95, 1.05), hall.resonances * spread, hall.tones * own.uniform(0.9, 1.1, 4),
        hall.mesh * own.uniform(0.9, 1.1), hall.noise * own.uniform(0.9, 1.1), hall.floor,
    )  # fmt: skip


def _impulses(rng: Rng, rate: F64, n: int) -> F64:
    """Return the blows of a spalled race, [n, SIZE]: at `rate` a second, a little irregular, of changing strength."""
    count = int(rate.max() * SECONDS) + 2
    gaps = (1 + 0.02 * rng.standard_normal((n, count))) / rate[:, None]
    at = np.cumsum(gaps, 1) - gaps[:, :1] * rng.uniform(0, 1, (n, 1))
    rows, blows = np.nonzero(at < SECONDS)
    out = np.zeros((n, SIZE))
    np.add.at(out, (rows, (at[rows, blows] * RATE).astype(int)), rng.uniform(0.6, 1.4, len(rows)))
    return out


def spectrum(signal: F64) -> F32:
    """Return the level in each band of windows [n, SIZE], [n, BANDS], about -2 to 2: what the application gives the model."""
    seconds = signal.reshape(len(signal), SECONDS, RATE)
    power = (np.abs(np.fft.rfft(seconds * np.hanning(RATE))) ** 2).mean(1) / RATE
    sums = np.add.reduceat(power[:, : RATE // 2], EDGES[:-1], 1) / np.diff(EDGES)
    return ((np.log10(sums + 1e-9) + 1.0) / 1.5).astype(np.float32)
