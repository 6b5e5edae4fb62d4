"""Writes what docs/bias.md shows: the planted fleet by commands, and slices of real sets; python -m tests.evidence.compare.bias --page."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecloud import cli
from edgecloud.bias.skew import Judgement
from edgecloud.registry import open_registry
from edgecommon.runtime import Runtime, RuntimeModel, load
from modelwire.cards.card import Card, card_of
from modelwire.cards.sketch import Channel
from modelwire.errors import TrainingDiverged
from tests.evidence.compare.bias import judgement, say
from tests.planted import WORLDS, Plan, fleet, probes
from tests.stories import shuttle, story, wearers
from tests.stories.wearers import ACTIVITIES, PERSONS, Wearer, usual
from tests.worlds import F32

PAGE = Path(__file__).parents[3] / "docs" / "bias.md"
TAGS = ("light", "weather", "region")
ROWS = 300  # of a world in the probe set
Labels = NDArray[np.int64]


def write() -> None:
    """Run everything and put it between the page's marks."""
    text = PAGE.read_text()
    with tempfile.TemporaryDirectory() as folder:
        blocks = {**planted_fleet(Path(folder)), **motion(Path(folder)), **shuttles(Path(folder))}
    for name, block in blocks.items():
        before, mark, rest = text.partition(f"<!-- measured: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert mark and end, f"{PAGE}: {name} has no place"
        text = f"{before}{mark}{block}\n{end}{after}"
    PAGE.write_text(text)


def planted_fleet(folder: Path) -> dict[str, str]:
    """Return what the commands say of the planted fleet, and how the models of each world do in each."""
    say("training the planted fleet")
    made = fleet(folder / "planted", Plan())
    some = {world: probes(world, ROWS) for world in WORLDS}
    file = folder / "worlds.npz"
    held: dict[str, Any] = {f"tag.{name}": np.concatenate([rows.tags[name] for rows in some.values()]) for name in TAGS}
    held |= {name: np.concatenate([getattr(rows, name) for rows in some.values()]) for name in ("x", "y")}
    held["tag.world"] = np.repeat(list(some), ROWS)
    np.savez(file, **held)
    command(made.path, "probes", "add", "worlds", str(file))
    command(made.path, "matrix", "--update")
    said = command(made.path, "cards", "--biased", "-n", "20")
    return {"planted": fenced(said), "worlds": _by_world(made.path, made.worlds)}


def _by_world(path: Path, worlds: Mapping[str, str]) -> str:
    store = open_registry(path, readonly=True)
    try:
        digest = store.evaluations.probes()[0]
        subjects: dict[int | bytes, str] = {}
        for lineage in store.lineages.all():
            head = store.versions.of(lineage.id)[-1]
            subjects[head.id] = worlds[lineage.device]
            subjects[head.base] = "the base"
        scores = store.evaluations.matrix(digest, list(subjects))
    finally:
        store.close()
    rows = []
    for world in [*WORLDS, "the base"]:
        of = [scores[subject] for subject, name in subjects.items() if name == world]
        rows.append((world, *(np.mean([one[f"world={seen}"].score for one in of]) for seen in WORLDS)))
    return matrix("models of", list(WORLDS), rows)


def motion(folder: Path) -> dict[str, str]:
    """Return whose motion data are biased, and whose model serves whom: real windows, worn in the ways of the story."""
    names = [f"usual-{n}" for n in range(8)]
    people = {name: usual(n) for n, name in enumerate(names)} | {one.name: one for one in PERSONS}
    people["dora"] = replace(usual(20), name="dora")
    seen = {name: [_evening(person, name, round) for round in range(6)] for name, person in people.items()}
    found = judgement({name: [motion_card(x, y) for x, y in evenings] for name, evenings in seen.items()})
    held = {name: person.held_out() for name, person in people.items()}
    file, runtime = graft(folder, "har"), load()

    def score(model: RuntimeModel, of: str) -> float:
        x, y = held[of]
        return float((model.evaluate(x).argmax(-1) == y).mean())

    shown = ["usual-0", "anna", "bela", "cleo", "dora"]
    rows: list[tuple[object, ...]] = []
    base = runtime.open(file)
    for name in shown:
        say(f"motion: training {name}")
        x, y = (np.concatenate(parts) for parts in zip(*seen[name], strict=True))
        model = trained(runtime, file, x, np.eye(len(ACTIVITIES), dtype=np.float32)[y], rate=0.001, epochs=8)
        rows.append((name, *(score(model, other) for other in shown)))
    rows.append(("the base", *(score(base, other) for other in shown)))
    return {"motion": findings(found), "motion-models": matrix("model of", shown, rows)}


def _evening(person: Wearer, name: str, round: int) -> tuple[F32, Labels]:
    x, y = person.stream(round, 64)
    some = y < 2 if name == "dora" else y >= 0  # dora stands and runs, and does nothing else
    return x[some], y[some]


def motion_card(x: F32, y: Labels) -> Card:
    """Return the card of windows [n, 100, 6]: mean of each axis of the accelerometer and of its strength, in m/s^2."""
    force = x[:, :, :3].astype(np.float64)
    values = np.concatenate([force.mean(1), np.linalg.norm(force, axis=2).std(1)[:, None]], 1)
    axes = [Channel(name, scale=3) for name in ("across", "along", "through", "strength")]
    return card_of(len(y), labels=y, channels=axes, values=values)


def shuttles(folder: Path) -> dict[str, str]:
    """Return which stretches of the shuttle's readings are unlike the others, and whether a model of one does for another."""
    slices: dict[str, F32] = {}
    for part, many in (("early", 3), ("late", 8)):
        whole = shuttle.readings(part)
        slices |= {f"{part}-{n + 1}": whole[1000 * n : 1000 * (n + 1)] for n in range(many)}
    axes = [Channel(f"sensor.{n}") for n in range(shuttle.SENSORS)]
    found = judgement({
        name: [card_of(100, channels=axes, values=x[at : at + 100]) for at in range(0, len(x), 100)] for name, x in slices.items()
    })
    file, runtime = graft(folder, "shuttle"), load()
    train = {name: x[:700] for name, x in slices.items()}
    held = {name: x[700:] for name, x in slices.items()}

    def error(model: RuntimeModel, of: str) -> float:
        return float(np.median(((model.evaluate(held[of]) - held[of]) ** 2).mean(1)))

    base = runtime.open(file)
    models = {}
    for name, x in train.items():
        say(f"shuttle: training {name}")
        models[name] = trained(runtime, file, x, x, rate=0.002, epochs=10)
    errors = {name: {other: error(model, other) for other in slices} for name, model in models.items()}
    rows = []
    for name in slices:
        others = {other: errors[other][name] for other in slices if other != name}
        best = min(others, key=lambda one: others[one])
        rows.append((
            name, f"{error(base, name):.4f}", f"{errors[name][name]:.4f}", f"{np.median(list(others.values())):.4f}",
            f"{max(others.values()):.4f}", f"{others[best]:.4f} {best}",
        ))
    head = ("slice", "base", "own model", "another's, median", "another's, worst", "another's, best")
    return {"shuttle": findings(found), "shuttle-models": laid(head, rows)}


def trained(runtime: Runtime, file: bytes, x: F32, y: F32, *, rate: float, epochs: int) -> RuntimeModel:
    """Return the model of a file after so many epochs on these samples."""
    model, rng = runtime.open(file), np.random.default_rng(3)
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for at in range(0, len(x) - model.batch + 1, model.batch):
            part = order[at : at + model.batch]
            with contextlib.suppress(TrainingDiverged):
                model.train(x[part], y[part], rate)
    return model


def graft(folder: Path, name: str) -> bytes:
    """Return a story's stock file with what trains all of it."""
    out = folder / f"{name}.tflite"
    loss = ["--loss", "mse"] if name == "shuttle" else []
    options = ["--train", "all", *loss, "--optimizer", "adam", "--batch", "16", "--no-rehearse"]
    command(None, "graft", str(story.STOCK / f"{name}.tflite"), *options, "-o", str(out))
    return out.read_bytes()


def command(registry: Path | None, *words: str) -> str:
    """Return what a command of `edgecloud` prints."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([*(["--db", str(registry)] if registry else []), *words])
    assert code == 0, f"edgecloud {' '.join(words)} ended with {code}: {err.getvalue()}"
    return out.getvalue().rstrip()


def findings(found: Judgement) -> str:
    """Return who is biased as a table, a device and field a row."""
    rows = [
        (one.device, one.field, f"{one.psi:.2f}", f"{one.by_chance:.2f}", "<0.0001" if one.p < 1e-4 else f"{one.p:.4f}",
         f"{one.event}: {one.share:.0%}, others {one.fleet_share:.0%}", ", ".join(one.lacks) or "-")
        for one in found.biased
    ]  # fmt: skip
    told = laid(("device", "field", "psi", "chance", "p", "where", "lacks"), rows) if rows else "No device is named."
    common = [f"`{field}`: {n} devices differ beyond chance: the fleet differs in it as a rule." for field, n in found.common.items()]
    return "\n\n".join([f"{found.tests} pairs of device and field were judged.", told, *common])


def matrix(head: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> str:
    shown: Callable[[object], str] = lambda cell: cell if isinstance(cell, str) else f"{cell:.3f}"  # noqa: E731
    return laid((head, *columns), [tuple(shown(cell) for cell in row) for row in rows])


def laid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in ([*head], ["---"] * len(head), *rows)]
    return "\n".join(lines)


def fenced(text: str) -> str:
    return f"```text\n{text}\n```"


assert wearers.ACTIVITIES == ACTIVITIES
