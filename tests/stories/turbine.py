"""Vibration: `make demo-turbine`. A machine learns how it sounds itself, and hears what is wrong sooner. Nobody labels anything.

The base, an auto-encoder, knows machines of a test hall. Three turbines in the field stand on foundations of their own and sound
otherwise, so its alarm never ends. Each learns from its own healthy days; then bearing damage, imbalance and looseness are put
in. A fourth device repeats it on real readings: a space shuttle's sensors, whose base knows the early part of the flights.

    python -m tests.stories.turbine [--folder build/demo-turbine] [--rounds 6]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecommon.runtime import Runtime, RuntimeModel, interpreter_for, load
from tests.charts import label_low_bars, legend_below
from tests.stories import shuttle, story, vibration
from tests.stories.story import F32, Actor, Base, Batch, Say, Told
from tests.system import telling

Alarms: TypeAlias = NDArray[np.bool_]
ROUNDS = 6
SAMPLES = 240  # windows of a round: four hours at one a minute
A_DAY = 1440  # windows, one a minute
DAYS = 2  # of calm, in which false alarms are counted
TRIED = 200  # windows with each fault
SEVERITY = 0.7  # of the faults: early ones
QUANTILE, MARGIN = 0.99, 1.5  # the threshold: so much above what all but one of a hundred calm windows score, as on the device
GRAFT = ("--train", "all", "--loss", "mse", "--score", "--optimizer", "adam", "--batch", "16")
BASES = (Base("vibration", story.STOCK / "turbine.tflite", GRAFT), Base("shuttle", story.STOCK / "shuttle.tflite", GRAFT))
SETTINGS = {
    "train.learning_rate": "0.002", "train.epochs": "20", "train.min_new_samples": str(SAMPLES), "train.margin": "0.001",
    "update.density": "0.5",
}  # fmt: skip
CAUGHT, FALSE = 0.20, 20.0  # so many more windows are caught than by the base with a threshold set here, at no more false alarms a day

BASE_HERE, OWN = "base, threshold set here", "own"


@dataclass(frozen=True)
class Machine:
    """What a device listens to. calm, odd: windows that no training has seen; odd by the kind of fault."""

    device: str
    base: str
    feed: Callable[[int], F32]
    known: Callable[[], F32]  # calm windows of those machines that the base knows: its threshold is theirs
    calm: F32
    odd: Mapping[str, F32]


@dataclass(frozen=True)
class Heard:
    """How well faults are told from calm by one model and one threshold. auc, caught: by the kind of fault, 0 to 1."""

    auc: Mapping[str, float]
    caught: Mapping[str, float]
    false_a_day: float

    @property
    def mean_auc(self) -> float:
        return float(np.mean(list(self.auc.values())))

    @property
    def mean_caught(self) -> float:
        return float(np.mean(list(self.caught.values())))


def main(argv: Sequence[str] | None = None) -> int:
    return story.run("turbine", __doc__ or "", ROUNDS, argv, tell)


def tell(folder: Path, rounds: int, say: Say) -> tuple[dict[str, object], list[str]]:
    """Play the story, and return its document and what of its claims failed."""
    say("synthesising vibration")
    machines = [_turbine(name, seed) for seed, name in enumerate(("ridge", "shore", "plain"), 1)] + [_orbiter(rounds)]
    actors = [_actor(machine) for machine in machines]
    told = story.play(folder, BASES, actors, rounds, say)
    say("listening to two days of calm, and to each fault")
    runtime = load()
    listened = story.counted(say, "listened", sum(3 * (1 + len(m.odd)) for m in machines))  # with three models, to calm and to each fault
    heard = {m.device: _judged(runtime, m, told[m.device], listened) for m in machines}
    failed = [claim for device, by in heard.items() for claim in _failed(device, by[BASE_HERE], by[OWN])]
    _show(heard, told)
    _draw(heard, told, folder.with_suffix(".png"))
    document: dict[str, object] = {**story.proof(told), "heard": {d: {k: _public(h) for k, h in by.items()} for d, by in heard.items()}}
    return document, failed


def _actor(machine: Machine) -> Actor:
    return Actor(machine.device, machine.base, lambda round: Batch(machine.feed(round)), SETTINGS)


def _turbine(name: str, seed: int) -> Machine:
    machine = vibration.turbine(name, seed)
    rng = np.random.default_rng([73, seed])
    return Machine(
        name, "vibration",
        lambda round: machine.healthy(np.random.default_rng([74, seed, round]), SAMPLES),
        lambda: np.concatenate([vibration.reference(50 + i).healthy(np.random.default_rng([75, i]), SAMPLES) for i in range(4)]),
        machine.healthy(rng, DAYS * A_DAY),
        {fault: machine.faulty(rng, TRIED, fault, SEVERITY) for fault in vibration.FAULTS},
    )  # fmt: skip


def _orbiter(rounds: int) -> Machine:
    late, seen = shuttle.readings("late"), rounds * SAMPLES
    calm = late[seen : seen + DAYS * A_DAY]
    early = shuttle.readings("early")
    return Machine(
        "orbiter", "shuttle", lambda round: late[round * SAMPLES : (round + 1) * SAMPLES], lambda: early, calm,
        {"other states": shuttle.readings("odd")},
    )  # fmt: skip


def _judged(runtime: Runtime, machine: Machine, told: Told, listened: Callable[[], None]) -> dict[str, Heard]:
    """Return what is heard with the base as it came, with the base and a threshold set here, and with the device's last version."""
    model = runtime.open(told.base)

    def with_base(calm: F32) -> Heard:
        threshold = MARGIN * float(np.quantile(_errors(model, calm), QUANTILE))

        def heard(x: F32) -> tuple[F32, Alarms]:
            scores = _errors(model, x)
            return scores, scores > threshold

        return _heard(machine, heard, listened)

    own_days = np.concatenate([machine.feed(round) for round in range(told.rounds)])
    return {
        "base": with_base(machine.known()),
        BASE_HERE: with_base(own_days),
        OWN: _heard(machine, lambda x: served(runtime, told.last, x), listened),
    }


def _errors(model: RuntimeModel, x: F32) -> F32:
    return np.asarray(((model.evaluate(x) - x) ** 2).mean(1))


def served(runtime: Runtime, file: bytes, x: F32) -> tuple[F32, Alarms]:
    """Return each window's score and alarm as the served file gives them by itself, called as an application calls it."""
    score = interpreter_for(runtime.interpreter, file, delegates=True).get_signature_runner("score")
    said = [score(x=window[None]) for window in x]
    return np.array([s["score"].item() for s in said], np.float32), np.array([s["alarm"].item() > 0 for s in said])


def _heard(machine: Machine, listen: Callable[[F32], tuple[F32, Alarms]], listened: Callable[[], None]) -> Heard:
    def heard(x: F32) -> tuple[F32, Alarms]:
        got = listen(x)
        listened()
        return got

    calm, false = heard(machine.calm)
    odd = {fault: heard(x) for fault, x in machine.odd.items()}
    return Heard(
        {fault: auc(calm, scores) for fault, (scores, _) in odd.items()},
        {fault: float(alarms.mean()) for fault, (_, alarms) in odd.items()},
        float(false.mean()) * A_DAY,
    )


def _failed(device: str, base: Heard, own: Heard) -> list[str]:
    """Return what of the story's claims failed for a device."""
    claims = {
        f"{device}'s own model gives {own.false_a_day:.1f} false alarms a day": own.false_a_day <= FALSE,
        f"{device} catches {base.mean_caught:.3f} with the base and {own.mean_caught:.3f} with its own": own.mean_caught
        >= base.mean_caught + CAUGHT,
        f"the AUC of {device} went from {base.mean_auc:.4f} to {own.mean_auc:.4f}": own.mean_auc > base.mean_auc,
    }
    return [claim for claim, holds in claims.items() if not holds]


def auc(calm: F32, odd: F32) -> float:
    """Return the chance that an odd window scores above a calm one; equal scores count half."""
    order = np.sort(calm)
    below, upto = np.searchsorted(order, odd, "left"), np.searchsorted(order, odd, "right")
    return float((below + upto).mean() / (2 * len(calm)))


def _public(heard: Heard) -> dict[str, object]:
    return {
        "auc": {k: round(v, 4) for k, v in heard.auc.items()}, "caught": {k: round(v, 4) for k, v in heard.caught.items()},
        "false_alarms_a_day": round(heard.false_a_day, 1),
    }  # fmt: skip


def _show(heard: Mapping[str, Mapping[str, Heard]], told: Mapping[str, Told]) -> None:
    rows = [
        (device, model, fault, f"{h.auc[fault]:.3f}", f"{100 * h.caught[fault]:.0f} %", f"{h.false_a_day:.1f}")
        for device, by in heard.items()
        for model, h in by.items()
        for fault in h.auc
    ]
    names = ("device", "model", "fault", "AUC", "windows\ncaught", "false alarms\na day")
    title = "faults told from calm, and alarms when nothing is wrong (a window a minute)"
    telling.show(telling.table(title, names, rows, left=3), story.travelled(told), story.cards(told))


def _draw(heard: Mapping[str, Mapping[str, Heard]], told: Mapping[str, Told], path: Path) -> None:
    devices = list(heard)
    figures: dict[str, Callable[[Heard], float]] = {
        "AUC, mean over the faults": lambda h: h.mean_auc, "share of faulty windows caught": lambda h: h.mean_caught,
        "false alarms a day": lambda h: h.false_a_day,
    }  # fmt: skip
    with story.figure(path, 4, width=4.5) as charts:
        for axes, (title, of) in zip(charts, figures.items(), strict=False):
            for k, model in enumerate(next(iter(heard.values()))):
                axes.bar(np.arange(len(devices)) + 0.27 * (k - 1), [of(heard[d][model]) for d in devices], 0.25, label=model)
            axes.set(title=title)
            axes.set_xticks(range(len(devices)), devices)
            axes.grid(alpha=0.3, axis="y")
        charts[0].set_ylim(0, 1.05)
        charts[1].set_ylim(0, 1.05)
        charts[2].set_yscale("symlog", linthresh=1)  # from less than one to all 1,440
        charts[2].set_ylim(0, 2 * max(h.false_a_day for by in heard.values() for h in by.values()) + 1)
        legend_below(charts[1])
        story.draw_bytes(charts[3], told)
        for axes in charts[:3]:
            label_low_bars(axes)



if __name__ == "__main__":
    raise SystemExit(main())
