"""`edgecloud trust`: which keys speak for the fleet, and how they change."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecloud import keys
from edgecloud.keys import KeyFile
from edgecloud.registry import SqliteStore, TrustRow
from edgecloud.settings import registry_path
from edgecommon.arguments import never_with, only_with
from edgecommon.files import open_regular, write_named
from edgecommon.printing import Answer, lines_of
from modelwire.errors import BadArgument, LineageError, WrongKeyKind
from modelwire.wire import records
from modelwire.wire.keys import TEXT_MAX, KeyKind, fingerprint, read_fleet, read_key
from modelwire.wire.records import Trust, expect
from modelwire.wire.signing import KEY_BYTES, Fleet, PrivateKey, Role, Signer
from modelwire.wire.trust import Trusted

from .. import ssh_agent
from ..answer import Document, now, registry_of, table, when
from ..passphrases import add_passphrase, new_passphrase, passphrase_of
from ..sealing import expires_type, parse_expires
from ..verb import Verb
from . import rotating
from .rotating import ROLES, WORDS, Change, KeyPlace

NAME = "trust"
HELP = "Which keys speak for the fleet, and how they change."
EXAMPLES = ("edgecloud trust show",)
OVERLAP = "30d"
KEYS_OF_A_ROLE = 4  # in one record


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root-key", metavar="FILE", help="the fleet's root key, or ssh-agent (default: root.key beside the registry)")


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    _add_place(parser)
    parser.add_argument("-o", "--out", metavar="FILE", help="write the records to a file too, for the machine that has the root key")


def show(args: argparse.Namespace) -> Answer:
    with registry_of(args) as store:
        held, rows = _held(store), store.trusts.all()
        place, at = _place(args), now()
    if args.out:
        write_named(Path(args.out), rotating.write_records([row.record for row in rows]), replace=False)
    told = [expect(records.parse(row.record), Trust) for row in rows]
    listed = [_told(record, before) for record, before in zip(told, [None, *told], strict=False)]
    files = [_file(one, held, told, at) for one in rotating.found(place)]
    document: Document = {
        "fleet": told[-1].fleet, "fleet_id": held.fleet.id, "number": held.number, "records": listed, "keys": files, "out": args.out,
    }  # fmt: skip
    text = table(
        ("record", "made", "overlap until", *WORDS, "new"),
        [
            (r["number"], when(r["at"]), when(r["overlap_until"]), *(" ".join(f[:9] for f in r[w]) for w in WORDS), ", ".join(r["new"]))
            for r in listed
        ],
    )
    kept = table(
        ("file", "key", "fingerprint", "passphrase", "is"),
        [(f["file"], f["kind"], f["fingerprint"], {None: "", True: "yes", False: "no"}[f["protected"]], f["state"]) for f in files],
    )
    return Answer(document, f"fleet {document['fleet']}, with the id {held.fleet.id.hex()}\n{text}\n\n{kept}")


def _rotate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", nargs="+", choices=WORDS, metavar="KEY", help=f"which change: {', '.join(WORDS)}")
    parser.add_argument(
        "--overlap", type=expires_type("--overlap", 0), metavar="TIME",
        help=f"for how long the keys of before are good too: 12h, 30d or 0s (default: {OVERLAP})",
    )  # fmt: skip
    parser.add_argument("--now", action="store_true", help="a key was stolen: it is good no more as soon as a device hears of it")
    parser.add_argument("--end-overlap", action="store_true", help="go on although the keys before the last change are still good")
    parser.add_argument(
        "--public", action="append", default=[], metavar="KEY",
        help="edge-command-pub:... of a key that is kept elsewhere, in an ssh-agent say, or a file with that line; no file is made for it",
    )  # fmt: skip
    _add_place(parser)
    parser.add_argument("-o", "--out", metavar="RECORD", help="write the record to a file, for `edgecloud trust import`")
    parser.add_argument("--records", metavar="FILE", help="what `edgecloud trust show --out` wrote, in the place of the registry")
    parser.add_argument("--fleet-key", metavar="FILE", help="fleet.pub, with --records (default: fleet.pub beside RECORD)")
    add_passphrase(parser)
    never_with(parser, "--overlap", "--now")
    only_with(parser, "--fleet-key", "--records")


def rotate(args: argparse.Namespace) -> Answer:
    if args.records and not args.out:
        raise BadArgument(reason="--records has no registry to write to", fix="name a file for the new record with --out")
    publics = _publics(args)
    words = tuple(word for word in WORDS if word in {*args.keys, *publics})
    change = Change(words, publics, 0 if args.now else parse_expires(args.overlap or OVERLAP, "--overlap", 0), args.now or args.end_overlap)
    place = _place(args)
    if args.records:
        given = rotating.read_records(Path(args.records))
        file = Path(args.fleet_key) if args.fleet_key else Path(args.out).parent / keys.PUBLIC
        made = _make(args, change, rotating.chain(_fleet(file), given), place)
        write_named(Path(args.out), rotating.write_records(made), replace=False)
        return _rotated(change, rotating.chain(_fleet(file), [*given, *made]), args.out, [])
    with registry_of(args, readonly=False) as store:
        held = _held(store)
        finished = rotating.settle(place, held)
        if finished:
            return _rotated(change, held, None, finished, finished=True)
        made = _make(args, change, held, place)
        if args.out:
            write_named(Path(args.out), rotating.write_records(made), replace=False)
            return _rotated(change, held, args.out, [], made=made)
        return _rotated(change, _take(store, held, made), None, rotating.settle(place, _held(store)))


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", metavar="RECORD", help="file that `edgecloud trust rotate --out` wrote")
    _add_place(parser)


def import_record(args: argparse.Namespace) -> Answer:
    place, given = _place(args), rotating.read_records(Path(args.record))
    with registry_of(args, readonly=False) as store:
        held, rows = _held(store), [row.record for row in store.trusts.all()]
        fresh = [record for record in given if record not in rows]
        if not fresh and given[-1] == rows[-1]:
            said = rotating.settle(place, held)
        else:
            made = [data for _, data in rotating.news(held, fresh or given)]
            held = _take(store, held, made)
            said = rotating.settle(place, held)
    document: Document = {"number": held.number, "taken": len(fresh), "done": said}
    return Answer(document, lines_of([f"trust record {held.number} holds" + ("" if fresh else "; it was here already"), *said]))


def _make(args: argparse.Namespace, change: Change, held: Trusted, place: KeyPlace) -> list[bytes]:
    """Make the new keys and the records that name them. Keys are on disk before a record is."""
    at = now()
    rotating.check(change, held, place, at)
    passphrase = passphrase_of(args)
    root: Signer
    if args.root_key == ssh_agent.NAME:
        root = ssh_agent.agent_key([held.root], f"the root key that trust record {held.number} names")
    else:
        root = rotating.opened(place.root, passphrase)
    keys.require_speaks(root, Role.ROOT, held, args.root_key or place.root)
    named = rotating.prepare(change, held, place, lambda what: new_passphrase(args, what))

    def new_root() -> PrivateKey:
        return keys.load_key(place.following("root", change.number(held)), KeyKind.ROOT_PRIVATE, passphrase)

    return rotating.seal(change, held, named, root, new_root, at)


def _take(store: SqliteStore, held: Trusted, made: list[bytes]) -> Trusted:
    """Keep records, all or none, and return what holds then. Raises LineageError when another change came first."""
    with store.transaction():
        if store.trusts.newest().number != held.number:
            raise LineageError(reason=f"trust record {held.number} is the newest no more: somebody else changed the keys meanwhile")
        for data in made:
            signed = records.parse(data)
            held = held.take(signed)
            store.trusts.add(TrustRow(held.number, data))
    return held


def _rotated(
    change: Change, held: Trusted, out: str | None, said: list[str], *, finished: bool = False, made: list[bytes] | None = None
) -> Answer:
    newest = held.newest if made is None else expect(records.parse(made[-1]), Trust)
    assert newest is not None
    until = newest.since + newest.overlap if newest.overlap else None
    document: Document = {
        "number": newest.number, "changed": [] if finished else list(change.words), "overlap_until": until, "finished": finished,
        "out": out,
        "fingerprints": {w: [fingerprint(k) for k in _split(getattr(newest, w))] for w in WORDS}, "done": said,
    }  # fmt: skip
    if finished:
        lines = [f"the change to trust record {newest.number} was cut off, and is finished now; nothing new was made", *said]
    elif out:
        lines = [f"trust record {newest.number} is in {out}: edgecloud trust import {out} where the registry is", *said]
        lines.append("the new key files wait beside it; the receipt key belongs to the ingester, the command key to the operator")
    else:
        lines = [f"trust record {newest.number} names the new {', '.join(change.words)} key", *said]
        lines.append(f"the keys of before are good until {when(until)}" if newest.overlap else "the keys of before are good no more")
        lines.append("a running ingester tells the devices that are on line; the others hear of it when they come back")
    return Answer(document, lines_of(lines))


def _publics(args: argparse.Namespace) -> dict[str, bytes]:
    kinds = {"receipt": KeyKind.RECEIPT, "command": KeyKind.COMMAND, "director": KeyKind.DIRECTOR}
    out: dict[str, bytes] = {}
    for said in args.public:
        path = Path(said)
        text = _start(path) if ":" not in said and path.is_file() else said
        prefix = text.strip().partition(":")[0]
        word = next((word for word, kind in kinds.items() if kind.prefix == prefix), None)
        if word is None or word not in args.keys:
            needed = " or ".join(f"{kinds[w].prefix}:..." for w in args.keys if w in kinds) or "no public key"
            raise WrongKeyKind(where="--public", got=f"it begins with {prefix[:40]!r}", needed=needed)
        out[word] = out.get(word, b"") + read_key(text, kinds[word], "--public")
        if len(out[word]) > KEYS_OF_A_ROLE * KEY_BYTES:
            raise BadArgument(reason=f"a record names at most {KEYS_OF_A_ROLE} {word} keys", fix="name fewer with --public")
    return out


def _start(path: Path) -> str:
    with open_regular(path) as file:
        return file.read(TEXT_MAX).decode("ascii", errors="replace")


def _place(args: argparse.Namespace) -> KeyPlace:
    folder = Path(args.out).parent if getattr(args, "records", None) else registry_path(args.db).parent
    named = args.root_key if args.root_key and args.root_key != ssh_agent.NAME else None
    return KeyPlace(folder, Path(named) if named else folder / keys.ROOT)


def _held(store: SqliteStore) -> Trusted:
    return keys.trusted(store.identity, [row.record for row in store.trusts.all()])


def _fleet(file: Path) -> Fleet:
    try:
        with open_regular(file) as opened:
            return read_fleet(opened.read(TEXT_MAX).decode("ascii", errors="replace"), str(file))
    except OSError as error:
        raise BadArgument(reason=f"{file}: {error.strerror}", fix="name the fleet's fleet.pub with --fleet-key") from None


def _told(record: Trust, before: Trust | None) -> Document:
    ends = record.since + record.overlap if record.overlap else None
    new = [word for word in WORDS if before is not None and getattr(record, word) != getattr(before, word)]
    named = {word: [fingerprint(key) for key in _split(getattr(record, word))] for word in WORDS}
    times = {"at": record.at, "since": record.since, "until": record.until, "overlap_until": ends}
    return {"number": record.number, **times, **named, "new": new}


def _file(one: KeyFile | Path, held: Trusted, told: list[Trust], at: int) -> Document:
    if isinstance(one, Path):
        unread: Document = dict.fromkeys(("kind", "public", "fingerprint", "protected"))
        return {"file": str(one), **unread, "state": "no private key, or open to others"}
    word = next(word for word in WORDS if keys.SECRET[f"{word}.key"] is one.kind)
    if one.public in keys.named(held, ROLES[word]):
        state = "speaks"
    elif one.public in held.keys(ROLES[word], at):
        assert held.newest is not None
        state = f"is good until {when(held.newest.since + held.newest.overlap)}"
    elif any(one.public in _split(getattr(record, word)) for record in told):
        state = "spoke before"
    else:
        state = "named by no record"
    said: Document = {"file": str(one.path), "kind": word, "public": one.public.hex(), "fingerprint": fingerprint(one.public)}
    return {**said, "protected": not one.seed, "state": state}


def _split(named: bytes) -> list[bytes]:
    return [named[i : i + KEY_BYTES] for i in range(0, len(named), KEY_BYTES)]


VERBS = (
    Verb("show", "List the trust records, and which key file here is which.", ("edgecloud trust show",), show, _show_arguments),
    Verb(
        "rotate", "Make new keys and the trust record that names them; the old root key signs it.",
        (
            "edgecloud trust rotate receipt", "edgecloud trust rotate receipt command --overlap 7d", "edgecloud trust rotate command --now",
            "edgecloud trust rotate root --root-key /media/usb/root.key",
            "edgecloud trust rotate receipt --records records.txt --fleet-key fleet.pub --out next.txt",
        ),
        rotate, _rotate_arguments,
    ),
    Verb(
        "import", "Take a trust record that was made where the root key is.", ("edgecloud trust import next.txt",),
        import_record, _import_arguments,
    ),
)  # fmt: skip
