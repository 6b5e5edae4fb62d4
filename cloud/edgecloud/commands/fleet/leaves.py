"""`edgecloud leaves`: where a device's model differs from the centre's, found without a snapshot."""

from __future__ import annotations

import argparse

from edgecloud.proving import repairing
from edgecloud.registry import LineageRow, Request, SqliteStore
from edgecloud.versions import comparing, materialise, naming
from edgecommon.arguments import whole
from edgecommon.printing import Answer, lines_of
from modelwire.errors import BadArgument
from modelwire.lattice.state import ModelState
from modelwire.merkle import LEAF_BYTES
from modelwire.tensors import Schema
from modelwire.wire import cbor
from modelwire.wire.commands import LEAVES_MAX, Leaves

from ..answer import Document, facts, registry_of, when
from ..sealing import add_expires, add_key, ask, command_key, parse_expires, sealed, unlock
from ..verb import Verb

NAME = "leaves"
HELP = "Ask a device for digests of a tensor, and say where its model is not the centre's."
EXAMPLES = ("edgecloud leaves request pi-7 --tensor output_kernel", "edgecloud leaves show pi-7")


def _request_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL]")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--tensor", metavar="NAME", help="a tensor of the model; edgecloud diff lists them")
    which.add_argument("--all", action="store_true", help="all tensors, as its head has them: what edgecloud repair goes by")
    parser.add_argument("--first", type=whole(0), default=0, metavar="LEAF", help="from which leaf on: 512 go into one answer (default: 0)")
    add_expires(parser)
    add_key(parser)


def request_leaves(args: argparse.Namespace) -> Answer:
    expires, named = parse_expires(args.expires), _named(args.name)
    with registry_of(args, readonly=False) as store, unlock(args, store), store.transaction():
        place = naming.find(store, naming.Name(*named, naming.LATEST))
        schema = materialise.LoadedBases(store)[place.base].manifest.schema
        if args.all:
            return _ask_all(args, store, place, schema, expires)
        names = [spec.name for spec in schema.tensors]
        if args.tensor not in names:
            raise BadArgument(reason=f"{place} has no tensor {args.tensor!r}", fix=f"one of: {', '.join(names[:20])}")
        body = {"tensor": names.index(args.tensor), "first": args.first}
        asked = ask(store, place.lineage, command_key(args, store), NAME, body, expires=expires)
    document: Document = {
        "number": asked.number, "model": str(place.lineage), "verb": NAME, "tensor": args.tensor, "first": args.first,
        "expires_at": asked.expiry,
    }  # fmt: skip
    said = f"{place.lineage}: leaves of {args.tensor} requested, number {asked.number}, until {when(asked.expiry)}"
    return Answer(document, lines_of([said, f"edgecloud leaves show {place.lineage} compares them"]))


def _ask_all(args: argparse.Namespace, store: SqliteStore, place: naming.Place, schema: Schema, expires: int) -> Answer:
    """Ask for all leaves of the head, and for those of no other version."""
    commit = place.version.commit if place.version is not None else place.base
    key, numbers, leaves = command_key(args, store), list[int](), 0
    for tensor, spec in enumerate(schema.tensors):
        count = -(-spec.size * spec.dtype.width // LEAF_BYTES)
        for first in range(0, count, LEAVES_MAX):
            numbers.append(ask(store, place.lineage, key, NAME, Leaves(tensor, first).body(), expires=expires, parent=commit).number)
        leaves += count
    document: Document = {"model": str(place.lineage), "version": str(place), "verb": NAME, "numbers": numbers, "leaves": leaves}
    said = f"{place}: {leaves} leaves of {len(schema.tensors)} tensors requested, in {len(numbers)} commands"
    return Answer(document, lines_of([said, f"edgecloud repair {place.lineage.device} goes on when they are answered"]))


def _fetch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL]")
    add_expires(parser)
    add_key(parser)


def fetch_leaves(args: argparse.Namespace) -> Answer:
    """Ask a board for the bytes of those leaves of its lost head that are not those of what still is exact."""
    expires, named = parse_expires(args.expires), _named(args.name)
    with registry_of(args, readonly=False) as store, unlock(args, store), store.transaction():
        place = naming.find(store, naming.Name(*named, naming.LATEST))
        if place.version is None:
            raise BadArgument(reason=f"{place} is the base, which no board has to give", fix=f"edgecloud show {place.lineage.device}")
        mending = repairing.mend(store, place.lineage, place.version, materialise.LoadedBases(store))
        if mending.why_not:
            raise BadArgument(reason=f"{place}: {mending.why_not}", fix=f"edgecloud snapshot request {place.lineage}")
        if mending.ask:
            fix = f"edgecloud leaves request {place.lineage} --all"
            raise BadArgument(reason=f"{place}: its board has not told the digests of all leaves yet", fix=fix)
        key = command_key(args, store)
        numbers = [ask(store, place.lineage, key, one.VERB, one.body(), expires=expires).number for one in mending.fetch]
    document: Document = {"model": str(place.lineage), "version": str(place), "leaves": len(mending.bad), "numbers": numbers}
    said = f"{place}: {len(mending.bad)} leaves requested, in {len(numbers)} commands; {mending.near} has the others"
    return Answer(document, lines_of([said, f"edgecloud repair {place.lineage.device} goes on when they are answered"]))


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL]")


def show_leaves(args: argparse.Namespace) -> Answer:
    named = _named(args.name)
    with registry_of(args) as store:
        place = naming.find(store, naming.Name(*named, naming.LATEST))
        asked = _last(store, place.lineage)
        given, count = _answer(asked, place.lineage)
        body = sealed(asked).body
        tensor, first = body["tensor"], body["first"]
        assert isinstance(tensor, int) and isinstance(first, int)  # as it was asked above
        bases = materialise.LoadedBases(store)
        state = _state(store, place, bases)
        spec = state.manifest.schema.tensors[tensor]
        found = comparing.differing_leaves(state, tensor, first, given, count)
    last = first + len(given) // 32
    document: Document = {
        "model": str(place.lineage), "number": asked.number, "answered_at": asked.answered_at, "compared_with": str(place),
        "tensor": spec.name, "first": first, "compared": last - first, "of": count, "differ": list(found), "equal": not found,
    }  # fmt: skip
    where = ", ".join(str(n) for n in found[:20]) + (f" and {len(found) - 20} more" if len(found) > 20 else "")
    text = facts([
        ("tensor", spec.name), ("compared with", place), ("leaves", f"{first} to {last - 1} of {count}" if given else f"none of {count}"),
        ("answered", when(asked.answered_at)), ("differ", where or "none: equal, bit for bit"),
        ("next", f"edgecloud leaves request {place.lineage} --tensor {spec.name} --first {last}" if given and last < count else ""),
    ])
    return Answer(document, text)


def _named(text: str) -> tuple[str, str | None]:
    name = naming.parse(text)
    if name.version is not None:
        raise BadArgument(reason=f"{text}: a device is asked about its head", fix=f"edgecloud leaves show {name.device}")
    return name.device, name.model


def _last(store: SqliteStore, lineage: LineageRow) -> Request:
    answered = [r for r in store.requests.of(lineage.id) if r.verb == NAME and r.answered_at is not None]
    if not answered:
        raise BadArgument(
            reason=f"{lineage} has answered no request for leaves", fix=f"edgecloud leaves request {lineage} --tensor NAME; then wait"
        )
    return max(answered, key=lambda r: (r.answered_at, r.number))


def _answer(asked: Request, lineage: LineageRow) -> tuple[bytes, int]:
    """Return the leaves that a device gave, and how many its tensor has. Raises BadArgument where it gave none."""
    body = cbor.decode(asked.body, "the answer") if asked.body else {}
    given, count = (body.get("leaves"), body.get("of")) if isinstance(body, dict) else (None, None)
    if not asked.ok or not isinstance(given, bytes) or type(count) is not int or len(given) % 32 or len(given) > 32 * 512:
        raise BadArgument(
            reason=f"{lineage} gave no leaves for an answer: {asked.text[:200]}", fix=f"edgecloud show {lineage.device} tells what it said"
        )
    return given, count


def _state(store: SqliteStore, place: naming.Place, bases: materialise.LoadedBases) -> ModelState:
    return materialise.rebuild(store, place.version, bases) if place.version is not None else bases[place.base].state()


VERBS = (
    Verb(
        "request", "Ask a device for the leaves of one tensor of its head, the digests of its 64 KiB pieces.",
        ("edgecloud leaves request pi-7/digits --tensor output_kernel --expires 12h", "edgecloud leaves request pi-7 --all"),
        request_leaves, _request_arguments,
    ),
    Verb(
        "fetch", "Ask a device for the bytes of the leaves that a lost head needs.",
        ("edgecloud leaves fetch pi-7/digits",), fetch_leaves, _fetch_arguments,
    ),
    Verb(
        "show", "Compare the last leaves that a device gave with those of the centre's head, and say which differ.",
        ("edgecloud leaves show pi-7/digits --json",), show_leaves, _show_arguments,
    ),
)  # fmt: skip
