"""replay and forget: what can be asked of a version that came as a recipe, because its training can be done again."""

from __future__ import annotations

import argparse
import re
import secrets
from pathlib import Path

from edgecloud.intake.greeting import ADOPT
from edgecloud.registry import Request, SqliteStore
from edgecloud.versions import comparing, exporting, materialise, naming, replaying
from edgecloud.versions import unlearning as forgetting
from modelwire.errors import BadArgument, Malformed, ReplayMismatch, TooLarge
from modelwire.lattice.state import ModelState

from ..answer import Answer, Document, facts, now, opened, progress

ROWS_MAX = 1 << 20


def replay(args: argparse.Namespace) -> Answer:
    """Train a version's recipe again on its parent: does it come to that version; and with --set, what would other settings give."""
    settings = replaying.parse_settings(args.set)
    path = _output(args.output)
    with opened(args) as store:
        bases = materialise.Bases(store)
        place = naming.find(store, naming.parse(args.name))
        done = replaying.replay(store, place, bases, progress("steps"))
        version, recipe = done.version, done.recipe
        document: Document = {
            "name": str(place), "equal": done.equal, "root": version.root, "replayed_root": done.state.root, "status": version.status.value,
            "parent": version.parent, "rows": len(recipe.rows), "features": recipe.head.features, "outputs": recipe.head.outputs,
            "hidden": list(recipe.head.hidden), "loss_function": recipe.head.loss.name.lower(),
            "settings": replaying.settings_of(recipe.head), "seconds": round(done.seconds, 6),
            "loss": {"before": done.loss(done.parent), "stored": done.loss(done.state)},
        }  # fmt: skip
        head = recipe.head
        lines: list[tuple[str, object]] = [
            ("version", place), ("replayed", "equal, bit for bit" if done.equal else "NOT EQUAL: another root than the device's"),
            ("root", done.state.root.hex()), ("rows", f"{len(recipe.rows)} of {head.features} features, {head.loss.name.lower()}"),
            ("steps", f"{head.steps} of {min(head.batch, len(recipe.rows))} rows, {head.optimizer.name.lower()}, rate {head.rate:g}"),
            ("seconds", f"{done.seconds:.3f}"),
            ("loss of its rows", f"{document['loss']['before']:.6f} -> {document['loss']['stored']:.6f}"),
        ]  # fmt: skip
        state, title = done.state, str(place)
        if settings:
            state, title = replaying.what_if(done, settings, progress("steps")), f"{place} with {', '.join(args.set)}"
            named = replaying.settings_of(recipe.with_settings(**settings).head)
            chosen = {name: named[name] for name in settings}
            document["what_if"] = {**_distance(done.state, state), "set": chosen, "loss": done.loss(state)}
            lines += [
                ("with", ", ".join(args.set)), ("its root", state.root.hex()), ("differs in", _said(document["what_if"])),
                ("its loss", f"{document['what_if']['loss']:.6f}"),
            ]  # fmt: skip
        if path is not None:
            _write(path, state, bases[version.base], title, document)
            lines.append(("file", path))
    error = None if done.equal else ReplayMismatch(what=str(place), kind="root", device=str(place.lineage))
    return Answer(document, facts(lines), error)


def forget(args: argparse.Namespace) -> Answer:
    """Compute the model that never saw some rows of a recipe, bit for bit; with --send, have the device take it over as a new version."""
    rows = parse_rows(args.rows)
    path = _output(args.output)
    if args.send and args.at_version:
        raise BadArgument(reason="--at-version asks what one version would have been", fix="leave it out to send what the head becomes")
    with opened(args, readonly=not args.send) as store:
        bases = materialise.Bases(store)
        place = naming.find(store, naming.parse(args.name))
        if args.at_version:
            found = forgetting.at_version(store, place, rows, bases)
        else:
            found = forgetting.unlearn(store, place, rows, bases, progress("versions"))
        document: Document = {
            "name": str(place), "compared_with": str(found.place), "samples": list(found.forgotten.samples),
            "rows": list(found.forgotten.rows), "dropped": [{"version": d.version, "rows": d.rows, "of": d.of} for d in found.dropped],
            "replayed": found.replayed, "without_names": list(found.nameless), "before": list(found.before),
            **_distance(found.head, found.state),
        }  # fmt: skip
        lines: list[tuple[str, object]] = [
            ("forgotten", found.forgotten),
            ("in", _listed([f"@{d.version} ({d.rows} of {d.of} rows)" for d in found.dropped]) or "no recipe on the way"),
            ("replayed", f"{found.replayed} recipes"), ("root", found.state.root.hex()), (f"{found.place} differs in", _said(document)),
        ]  # fmt: skip
        if found.nameless:
            which = _listed([f"@{n}" for n in found.nameless])
            lines.append(("replayed as they are", f"{which} say not which samples their rows are of"))
        if found.before:
            which = _listed([f"@{n}" for n in found.before])
            lines.append(("left as it is", f"{which} in front of them: no recipe tells whether it was trained on them, too"))
        if path is not None:
            _write(path, found.state, bases[found.place.base], f"{found.place} without {found.forgotten}", document)
            lines.append(("file", path))
        if args.send:
            request = _send(store, found)
            document["id"] = request.id
            lines.append(("asked", f"{found.place.lineage} to take it over, id {request.id}; edgecloud show {place.lineage.device} tells"))
    return Answer(document, facts(lines))


def parse_rows(text: str) -> list[int]:
    """Return the numbers of 3,8,10-20. Raises BadArgument."""
    out: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last or last - first >= ROWS_MAX:
            raise BadArgument(reason=f"--rows: {part.strip()[:60]!r} is no row and no range of rows", fix="--rows 3,8,10-20, from 0")
        out.update(range(first, last + 1))
    return sorted(out)


def _send(store: SqliteStore, found: forgetting.Unlearned) -> Request:
    lineage = found.place.lineage
    epoch = store.lineages.current(lineage.id)
    if epoch is None or epoch.epoch != found.place.epoch:
        raise BadArgument(reason=f"{lineage} has lost that state since", fix=f"edgecloud log {lineage} lists its epochs")
    try:
        content = forgetting.update_for(found)
    except (TooLarge, Malformed) as error:
        raise BadArgument(
            reason=f"what {lineage} would have to take over does not go into a message: {error.message}",
            fix="forget fewer samples at once, or write the model to a file with -o and deploy that",
        ) from None
    with store.transaction():
        asked = [r for r in store.requests.open(lineage.id) if r.verb == ADOPT]
        if asked and asked[0].content != content:
            raise BadArgument(
                reason=f"{lineage} has not answered the last one yet, id {asked[0].id}",
                fix=f"edgecloud show {lineage.device} tells when it has",
            )
        if asked:
            return asked[0]
        # Random, not counted: a restored registry must not give a number again that a board has answered.
        request = Request(secrets.randbits(62), lineage.id, ADOPT, now(), None, None, "", content)
        store.requests.add(request)
        return request


def _distance(one: ModelState, other: ModelState) -> Document:
    found = comparing.distance(one, other)
    units = [t.units for t in found.tensors if t.units is not None]
    return {
        "root": other.root, "changed": found.changed, "entries": found.entries, "units": sum(units), "largest_units": found.largest_units,
        "max_abs": found.largest, "l2": found.l2,
    }  # fmt: skip


def _said(d: Document) -> str:
    if not d["changed"]:
        return "nothing: bit for bit the same"
    most = f", at most {d['largest_units']} units" if d["largest_units"] is not None else ""
    return f"{d['changed']} of {d['entries']} weights{most} ({d['max_abs']:.6g})"


def _listed(what: list[str], most: int = 5) -> str:
    """Return a list as text, its middle left out where it is long."""
    if len(what) > most:
        what = [*what[: most - 1], f"{len(what) - most} more", what[-1]]
    return ", ".join(what)


def _output(name: str | None) -> Path | None:
    path = None if name is None else Path(name)
    if path is not None and path.suffix not in exporting.FORMATS:
        raise BadArgument(reason=f"{path.name!r} names no format", fix="name the file FILE.tflite, FILE.npz or FILE.safetensors")
    return path


def _write(path: Path, state: ModelState, base: materialise.LoadedBase, name: str, document: Document) -> None:
    said = {"name": name, "root": state.root.hex(), "base": base.manifest.commit.hex()}
    document["file"], document["bytes"] = str(path), len(exporting.export(path, state, base, said))
