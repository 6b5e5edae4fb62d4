"""`edgecloud claim`: lets boards in from the factory on, so many, for so long, each once; the registry holds nothing that would."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

from edgecloud.audit import entries
from edgecloud.audit.admissions import Admissions
from edgecloud.audit.claiming import Claim
from edgecloud.registry import SqliteStore, claims
from edgecloud.registry.claims import ID_BYTES, SERIALS_MAX, Statement, Withdrawal
from edgecommon.arguments import given, rule, whole
from edgecommon.files import open_regular, write_named
from edgecommon.printing import Answer, lines_of
from edgecommon.tables import Column, add_limit, most
from modelwire.errors import BadArgument, MissingFile
from modelwire.wire.claims import write_token
from modelwire.wire.keys import fingerprint
from modelwire.wire.signing import KEY_BYTES, PrivateKey

from ..answer import Document, now, registry_of, table, when
from ..sealing import EXPIRES, add_key, command_key, expires_type, parse_expires, unlock
from ..verb import Verb
from ..waiting import ADMITTED, PREAUTHORISED, waiting_keys

NAME = "claim"
HELP = "Tokens that let boards in by themselves; with --count or --serials a new one, else a list of those that were given."
EXAMPLES = ("edgecloud claim --count 100 --expires 30d -o line-3.claim", "edgecloud claim")
FILE_MAX = 1024 * 1024  # bytes of serial numbers
LONG = 2_000  # entries of a log, above which only what operators sealed is looked at for a list: all of it is for `verify`


def add(parser: argparse.ArgumentParser) -> None:
    _new_arguments(parser)
    add_limit(parser)


def _new_arguments(parser: argparse.ArgumentParser) -> None:
    what = "how many boards it lets in (default: one for each serial number)"
    parser.add_argument("--count", type=whole(1, claims.COUNT_MAX), metavar="N", help=what)
    parser.add_argument("--serials", metavar="FILE", help="lets in these boards alone, each once: a serial number a line")
    parser.add_argument(
        "--expires", type=expires_type("--expires"), metavar="TIME",
        help=f"for how long it lets boards in: 90s, 30m, 12h or 30d (default: {EXPIRES})"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write the token to a file of mode 600, and do not show it")
    add_key(parser)
    rule(parser, _sense)


def _sense(args: argparse.Namespace) -> str:
    """Return which option belongs to a new claim where none is made. It may stand before the verb."""
    if args.run is list_claims or args.run is withdraw_claim:
        own = ("--count", "--serials", "--output", "--expires")
        return next((f"{one} belongs to edgecloud claim new" for one in own if given(args, one)), "")
    wanted = given(args, "--count") or given(args, "--serials")
    if args.run is run:
        beside = next((one for one in ("--output", "--expires", "--key", "--passphrase-file") if given(args, one)), "")
        return f"{beside} does nothing without --count or --serials" if beside and not wanted else ""
    return "" if wanted else "--count or --serials is needed: for how many boards it is"


def run(args: argparse.Namespace) -> Answer:
    return list_claims(args) if args.count is None and not args.serials else new_claim(args)


def new_claim(args: argparse.Namespace) -> Answer:
    serials = _serials(Path(args.serials)) if args.serials else ()
    count = args.count if args.count is not None else len(serials)
    if not 1 <= count <= claims.COUNT_MAX or (serials and count > len(serials)):
        most = len(serials) if serials else claims.COUNT_MAX
        raise BadArgument(reason=f"a claim is for 1 to {most} boards, and --count says {count}", fix="say how many with --count")
    at = now()
    id, seed = secrets.token_bytes(ID_BYTES), secrets.token_bytes(KEY_BYTES)
    statement = Statement(id, PrivateKey(seed).public, count, at + parse_expires(args.expires), serials, at)
    token = write_token(id, seed)
    with registry_of(args, readonly=False) as store, unlock(args, store), store.transaction():
        store.log.append(entries.CLAIM, record=claims.seal(statement, command_key(args, store), store.identity.id))
        if args.output:  # last: a token without its statement lets nobody in, and a statement without its token neither
            write_named(Path(args.output), f"{token}\n".encode(), mode=0o600, replace=False)
    document: Document = {
        "claim": id.hex(), "count": count, "expires_at": statement.expiry, "serials": len(serials) or None,
        "token": None if args.output else token, "file": args.output,
    }  # fmt: skip
    boards = f"{count} of {len(serials)} listed boards" if serials else f"{count} boards"
    shown = [f"its token is in {args.output}"] if args.output else ["its token, which is shown this once and kept nowhere:", "", token, ""]
    until = f"the claim {id.hex()} lets in {boards}, each once, until {when(statement.expiry)}"
    use = "put it into their image as a file of mode 600, and give it to edgeagent init --claim"
    return Answer(document, lines_of([until, *shown, use]))


def list_claims(args: argparse.Namespace) -> Answer:
    with registry_of(args) as store:
        log, at = listed(store, args), now()
        refused = [one for one in waiting_keys(store, log, at) if one["claim"] and one["claim"]["refused"]]
        held = [_described(claim, at, refused) for claim in reversed(log.claims.by_id.values())]
    limit = most(args)
    page = held[:limit]
    rows = [(d["claim"], d["state"], d["count"], d["used"], d["left"], when(d["expires_at"]), _serials_of(d)) for d in held]
    text = table(_HEAD, rows, limit=limit) if rows else "no claim was given"
    for d in page:
        if d["boards"]:
            each = [(b["serial"] or "", b["state"], b["device"], b["fingerprint"], when(b["at"])) for b in d["boards"]]
            text += "\n\n" + table(_BOARDS, each, title=f"boards of {d['claim']}:", limit=limit)
        if d["refused"]:
            each = [(b["serial"] or "", b["device"], b["fingerprint"], when(b["at"]), b["reason"]) for b in d["refused"]]
            text += "\n\n" + table(_REFUSED, each, title=f"waiting, and not let in by {d['claim']}:", limit=limit)
            text += "\nlet such a board in by its fingerprint, as edgecloud devices says, or give its image the token of another claim"
    return Answer({"claims": page, "more": len(held) - len(page)}, text)


_HEAD = (
    Column("claim"), Column("state"), Column("boards", 2), Column("in", 1), Column("left", 1), Column("expires", 3), Column("serials", 4),
)  # fmt: skip
_BOARDS = (Column("serial"), Column("state"), Column("device"), Column("key", 1), Column("since", 2))

_REFUSED = (Column("serial", 2), Column("device"), Column("key"), Column("heard", 1), Column("why", words=True, wrapped=True))


def _serials_of(claim: Document) -> str:
    return "listed" if claim["serials"] else "any"


def _withdraw_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the claim's id, as edgecloud claim list shows it; its first 8 digits are enough")
    add_key(parser)


def withdraw_claim(args: argparse.Namespace) -> Answer:
    with registry_of(args, readonly=False) as store, unlock(args, store), store.transaction():
        claim = _named(replayed(store, args), args.id)
        if not claim.withdrawn:
            said = Withdrawal(claim.statement.id, now())
            store.log.append(entries.WITHDRAWAL, record=claims.withdraw(said, command_key(args, store), store.identity.id))
        used, id = len(claim.enrolled), claim.statement.id.hex()
    text = f"the claim {id} lets nobody in any more; the {used} boards that it let in stay"
    return Answer({"claim": id, "state": "withdrawn", "used": used}, text)


def replayed(store: SqliteStore, args: argparse.Namespace) -> Admissions:
    """Return what the log of a registry comes to. Raises RegistryDamaged."""
    held = Admissions(store.identity)
    held.catch_up(store.log, store.database.path)
    return held


def listed(store: SqliteStore, args: argparse.Namespace) -> Admissions:
    """Return what the log comes to as far as a list of claims needs it: of a long one, what operators sealed, and only if it has claims.

    Raises RegistryDamaged, and ModelWireError for what nobody sealed.
    """
    end = store.log.end()
    if end is None or end.number <= LONG:
        return replayed(store, args)
    held = Admissions(store.identity)
    if store.log.has_claims():
        for row in store.log.about_none():
            held.take(entries.parse(row))
    return held


def preauthorised(held: Admissions, at: int) -> list[Document]:
    """Return which boards would be let in by themselves now: by serial number where a claim lists them, else how many."""
    out: list[Document] = []
    for claim in held.claims.by_id.values():
        if claim.open(at):
            about = {"claim": claim.statement.id.hex(), "state": PREAUTHORISED, "expires_at": claim.statement.expiry}
            out += [{**about, "serial": s, "left": 1} for s in claim.statement.serials if s not in claim.serials]
            out += [] if claim.statement.serials else [{**about, "serial": None, "left": claim.left}]
    return out


def _described(claim: Claim, at: int, refused: list[Document]) -> Document:
    """refused: the keys that wait although they say a claim, of any."""
    statement, standing = claim.statement, claim.open(at)
    state = "withdrawn" if claim.withdrawn else "expired" if at > statement.expiry else "open" if standing else "used up"
    boards: list[Document] = [
        {"serial": one.serial or None, "state": ADMITTED, "device": one.device, "fingerprint": fingerprint(one.key), "at": one.at}
        for one in claim.enrolled.values()
    ]
    waiting = [s for s in statement.serials if s not in claim.serials] if standing else []
    boards += [{"serial": s, "state": PREAUTHORISED, "device": None, "fingerprint": None, "at": None} for s in waiting]
    return {
        "claim": statement.id.hex(), "state": state, "count": statement.count, "used": len(claim.enrolled), "left": claim.left,
        "given_at": statement.at, "expires_at": statement.expiry, "serials": list(statement.serials), "boards": boards,
        "refused": [
            {"serial": one["claim"]["serial"] or None, "device": one["device"], "fingerprint": one["fingerprint"], "at": one["last_at"],
             "reason": one["claim"]["refused"]} for one in refused if one["claim"]["id"] == statement.id.hex()
        ],
    }  # fmt: skip


def _named(held: Admissions, text: str) -> Claim:
    typed = text.strip().lower()
    found = [claim for id, claim in held.claims.by_id.items() if len(typed) >= 8 and id.hex().startswith(typed)]
    if len(found) != 1:
        raise BadArgument(reason=f"{text[:40]!r} names {len(found) or 'no'} claims", fix="edgecloud claim list shows their ids")
    return found[0]


def _serials(path: Path) -> tuple[str, ...]:
    """Return the serial numbers in a file, in order. Raises MissingFile or BadArgument, which names the line."""
    try:
        with open_regular(path) as file:
            data = file.read(FILE_MAX + 1)
        lines = data.decode().splitlines()
    except FileNotFoundError:
        raise MissingFile(path=path, what="the list of serial numbers") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BadArgument(reason=f"{path}: {why}", fix="a serial number a line, as plain text") from None
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        serial = line.strip()
        if not serial or serial.startswith("#"):
            continue
        if serial in seen:
            raise BadArgument(reason=f"{path}, line {number}: {serial[:64]!r} stands in line {seen[serial]} too", fix="each board once")
        if len(serial) > claims.SERIAL_MAX or not serial.isprintable():
            fix = f"1 to {claims.SERIAL_MAX} printable characters"
            raise BadArgument(reason=f"{path}, line {number}: {serial[:40]!r} is no serial number", fix=fix)
        seen[serial] = number
    if not 0 < len(seen) <= SERIALS_MAX or len(data) > FILE_MAX:
        raise BadArgument(reason=f"{path} lists {len(seen)} serial numbers", fix=f"list 1 to {SERIALS_MAX}; for more, give several claims")
    return tuple(sorted(seen))


VERBS = (
    Verb(
        "new", "Give a claim: its token lets so many boards in, each once, and can do nothing else.",
        ("edgecloud claim new --count 100 --expires 30d -o line-3.claim", "edgecloud claim new --serials serials.txt --expires 12h"),
        new_claim, _new_arguments,
    ),
    Verb(
        "list", "List claims, the newest first, with the boards that each let in, still would, and refused.",
        ("edgecloud claim list --json", "edgecloud claim list -n 5"), list_claims, add_limit,
    ),
    Verb(
        "withdraw", "Let nobody in by a claim any more; the boards that it let in stay.", ("edgecloud claim withdraw 1f2e3d4c",),
        withdraw_claim, _withdraw_arguments,
    ),
)  # fmt: skip
