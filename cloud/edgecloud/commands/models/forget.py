"""`edgecloud forget`: the model that never saw some samples."""

from __future__ import annotations

import argparse
import re

from edgecloud.registry import Request, SqliteStore
from edgecloud.versions import materialise, naming, unlearning
from edgecommon.arguments import only_with
from edgecommon.printing import Answer
from modelwire.errors import BadArgument, Malformed, TooLarge

from ..answer import Document, facts, progress, registry_of
from ..sealing import add_expires, add_key, ask, command_key, open_request, parse_expires, sealed, unlock
from .retrained import distance, in_words, output_path, write

NAME = "forget"
HELP = "Compute the model that never saw some rows of a recipe, bit for bit; with --send, have the device take it over as a new version."
EXAMPLES = (
    "edgecloud forget pi-7@12 --rows 3,8,10-20",
    "edgecloud forget pi-7/doorbell@12 --rows 3 -o without.tflite --json",
    "edgecloud forget pi-7@12 --rows 3,8 --send",
    "edgecloud forget pi-7@12 --rows 0-9 --at-version",
)

ROWS_MAX = 1 << 20
UPDATE = "update"  # of its body
ADOPT = "adopt"  # the verb that asks a device to take a model over


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL]@VERSION", help="a version that came as a recipe")
    parser.add_argument("--rows", required=True, metavar="ROWS", help="rows of that recipe, from 0: 3,8,10-20")
    parser.add_argument(
        "--at-version", action="store_true", help="only what this version would have been without them, on the parent that it has"
    )
    parser.add_argument(
        "--send", action="store_true", help="ask the device to drop these samples and to take the model over as a new version"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write the result: FILE.tflite, FILE.npz or FILE.safetensors; replaced whole"
    )
    add_expires(parser)
    add_key(parser)
    for option in ("--expires", "--key", "--passphrase-file"):
        only_with(parser, option, "--send")


def run(args: argparse.Namespace) -> Answer:
    rows = parse_rows(args.rows)
    path = output_path(args.output)
    if args.send and args.at_version:
        raise BadArgument(reason="--at-version asks what one version would have been", fix="leave it out to send what the head becomes")
    with registry_of(args, readonly=not args.send) as store:
        bases = materialise.LoadedBases(store)
        place = naming.find(store, naming.parse(args.name))
        if args.at_version:
            done = unlearning.at_version(store, place, rows, bases)
        else:
            done = unlearning.unlearn(store, place, rows, bases, progress("versions"))
        document: Document = {
            "name": str(place), "compared_with": str(done.place), "samples": list(done.without.samples),
            "rows": list(done.without.rows), "dropped": [{"version": d.version, "rows": d.rows, "of": d.of} for d in done.dropped],
            "replayed": done.replayed, "without_names": list(done.nameless), "before": list(done.before),
            **distance(done.head, done.state),
        }  # fmt: skip
        lines: list[tuple[str, object]] = [
            ("forgotten", done.without),
            ("in", _listed([f"@{d.version} ({d.rows} of {d.of} rows)" for d in done.dropped]) or "no recipe on the way"),
            ("replayed", f"{done.replayed} recipes"), ("root", done.state.root.hex()), (f"{done.place} differs in", in_words(document)),
        ]  # fmt: skip
        if done.nameless:
            which = _listed([f"@{n}" for n in done.nameless])
            lines.append(("replayed as they are", f"{which} say not which samples their rows are of"))
        if done.before:
            which = _listed([f"@{n}" for n in done.before])
            lines.append(("left as it is", f"{which} in front of them: no recipe tells whether it was trained on them, too"))
        if path is not None:
            write(path, done.state, bases[done.place.base], f"{done.place} without {done.without}", document)
            lines.append(("file", path))
        if args.send:
            request = _send(store, done, args)
            document["number"] = request.number
            told = f"edgecloud show {place.lineage.device} tells"
            lines.append(("asked", f"{done.place.lineage} to take it over, number {request.number}; {told}"))
    return Answer(document, facts(lines))


def parse_rows(text: str) -> list[int]:
    """Return the numbers of 3,8,10-20. Raises BadArgument."""
    out: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last - first >= ROWS_MAX:
            raise BadArgument(reason=f"--rows: {part.strip()[:60]!r} is no row and no range of rows", fix="--rows 3,8,10-20, from 0")
        out.update(range(first, last + 1))
    return sorted(out)


def _send(store: SqliteStore, done: unlearning.Unlearned, args: argparse.Namespace) -> Request:
    lineage, expires = done.place.lineage, parse_expires(args.expires)
    epoch = store.lineages.current(lineage.id)
    if epoch is None or epoch.epoch != done.place.epoch:
        raise BadArgument(reason=f"{lineage} has lost that state since", fix=f"edgecloud log {lineage} lists its epochs")
    try:
        content = unlearning.update_for(done)
    except (TooLarge, Malformed) as error:
        raise BadArgument(
            reason=f"what {lineage} would have to take over does not go into a message: {error.message}",
            fix="forget fewer samples at once, or write the model to a file with -o and deploy that",
        ) from None
    with unlock(args, store), store.transaction():
        asked = open_request(store, lineage, ADOPT)
        if asked is not None and sealed(asked).body != {UPDATE: content}:
            raise BadArgument(
                reason=f"{lineage} has not answered the last one yet, number {asked.number}",
                fix=f"edgecloud show {lineage.device} tells when it has",
            )
        if asked is not None:
            return asked
        head = done.place.version
        assert head is not None  # unlearning starts from a version
        return ask(
            store, lineage, command_key(args, store), ADOPT, {UPDATE: content}, expires=expires, parent=head.commit
        )


def _listed(what: list[str], most: int = 5) -> str:
    """Return a list as text, its middle left out where it is long."""
    if len(what) > most:
        what = [*what[: most - 1], f"{len(what) - most} more", what[-1]]
    return ", ".join(what)
