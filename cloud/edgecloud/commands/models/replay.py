"""`edgecloud replay`: a version that came as a recipe, trained again."""

from __future__ import annotations

import argparse

from edgecloud.versions import materialise, naming, replaying
from edgecommon.printing import Answer
from modelwire.errors import ReplayMismatch

from ..answer import Document, facts, progress, registry_of
from .retrained import distance, in_words, output_path, write

NAME = "replay"
HELP = "Train a version's recipe again on its parent: does it come to that version; and with --set, what would other settings give."
EXAMPLES = (
    "edgecloud replay pi-7@12",
    "edgecloud replay pi-7/doorbell@12 --set rate=0.01 --set steps=200 --json",
    "edgecloud replay pi-7@12 --set optimizer=adam -o adam.tflite",
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL]@VERSION", help="a version that came as a recipe")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE",
        help="train with another setting instead, such as rate (or lr), steps, batch, optimizer, decay, seed; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write the result: FILE.tflite, FILE.npz or FILE.safetensors; replaced whole"
    )


def run(args: argparse.Namespace) -> Answer:
    settings = replaying.parse_settings(args.set)
    path = output_path(args.output)
    with registry_of(args) as store:
        bases = materialise.LoadedBases(store)
        place = naming.find(store, naming.parse(args.name))
        done = replaying.replay(store, place, bases, progress("steps"))
        version, recipe = done.version, done.recipe
        document: Document = {
            "name": str(place), "equal": done.equal, "root": version.root, "replayed_root": done.state.root, "status": version.status.value,
            "parent": version.parent, "rows": len(recipe.rows), "features": recipe.head.features, "outputs": recipe.head.outputs,
            "hidden": list(recipe.head.hidden), "loss_function": recipe.head.loss.name.lower(),
            "settings": replaying.settings_of(recipe.head), "seconds": round(done.seconds, 6),
            "checkpoints": done.checkpoints, "apart_at_step": done.apart or None,
            "loss": {"before": done.loss(done.parent), "stored": done.loss(done.state)},
        }  # fmt: skip
        head = recipe.head
        lines: list[tuple[str, object]] = [
            ("version", place), ("replayed", "equal, bit for bit" if done.equal else "NOT EQUAL: another root than the device's"),
            ("checkpoints", _checkpoints(done)), ("root", done.state.root.hex()),
            ("rows", f"{len(recipe.rows)} of {head.features} features, {head.loss.name.lower()}"),
            ("steps", f"{head.steps} of {min(head.batch, len(recipe.rows))} rows, {head.optimizer.name.lower()}, rate {head.rate:g}"),
            ("seconds", f"{done.seconds:.3f}"),
            ("loss of its rows", f"{document['loss']['before']:.6f} -> {document['loss']['stored']:.6f}"),
        ]  # fmt: skip
        state, title = done.state, str(place)
        if settings:
            state, title = replaying.what_if(done, settings, progress("steps")), f"{place} with {', '.join(args.set)}"
            named = replaying.settings_of(recipe.with_settings(**settings).head)
            chosen = {name: named[name] for name in settings}
            document["what_if"] = {**distance(done.state, state), "set": chosen, "loss": done.loss(state)}
            lines += [
                ("with", ", ".join(args.set)), ("its root", state.root.hex()), ("differs in", in_words(document["what_if"])),
                ("its loss", f"{document['what_if']['loss']:.6f}"),
            ]  # fmt: skip
        if path is not None:
            write(path, state, bases[version.base], title, document)
            lines.append(("file", path))
    return Answer(document, facts(lines), error=_mismatch(done, place))


def _checkpoints(done: replaying.Replayed) -> str:
    """Return how many roots on the way are the device's, or the first step at which one is not."""
    if not done.checkpoints:
        return ""
    return f"NOT EQUAL from step {done.apart} on" if done.apart else f"{done.checkpoints} of {done.checkpoints} equal"


def _mismatch(done: replaying.Replayed, place: naming.Place) -> ReplayMismatch | None:
    if done.equal and not done.apart:
        return None
    error = ReplayMismatch(what=str(place), kind="root", device=str(place.lineage))
    return materialise.at_checkpoint(error, done.apart) if done.checkpoints else error
