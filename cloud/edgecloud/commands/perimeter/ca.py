"""`edgecloud ca`: the fleet's own CA: who gets a certificate for the broker, for how long, and whose is taken back."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from edgecloud.certificates import CENTRE, CertificateFolder, Holder, Issue, building, public_key_of_request
from edgecloud.settings import registry_path
from edgecommon import files
from edgecommon.arguments import only_with, rule, shown, whole
from edgecommon.certificates import day, key_fingerprint, read_file
from edgecommon.printing import Answer
from edgecommon.tables import Column, add_limit, most
from modelwire.errors import BadArgument

from ..answer import facts, now, table
from ..authority_folder import add_authority, authority_folder, fleet_of, issue_document, revoked_devices, state_of
from ..verb import Verb

NAME = "ca"
HELP = "The fleet's own CA: issue, renew and revoke the certificates by which boards, centre and broker know each other."
EXAMPLES = ("edgecloud ca init", "edgecloud ca issue pi-7 --request pi-7.csr", "edgecloud ca renew", "edgecloud ca list")
DAY = 24 * 3600
YEARS = 10


def _init_arguments(parser: argparse.ArgumentParser) -> None:
    add_authority(parser)
    parser.add_argument("--fleet", metavar="NAME", help="the fleet (default: the registry's)")
    parser.add_argument("--years", type=whole(1, 50), default=10, metavar="N", help="how long the CA is good (default: 10)")


def init(args: argparse.Namespace) -> Answer:
    folder = authority_folder(args)
    made = CertificateFolder.create(folder, fleet_of(args, args.fleet), now(), years=args.years)
    document = {"ca": str(folder), "fleet": made.ledger.fleet, "bundle": str(folder / "ca.pem"), "revoked": str(folder / "crl.pem")}
    text = facts([
        ("CA", f"{folder}  (keep it, and a copy elsewhere: who has its key lets anyone connect)"),
        ("ca.pem", f"{folder / 'ca.pem'}  (give it to every board, and to the broker)"),
    ])
    return Answer(document, text)


def _issue_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="the device")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--request", metavar="FILE", help="what the board wrote: edgeagent certificate request")
    what.add_argument("--make-key", metavar="FILE", help="make the private key here, into FILE: for boards that are flashed with it")
    what.add_argument("--server", nargs="+", metavar="HOST", help="a broker's, by the names and addresses at which it is reached")
    what.add_argument("--centre", action="store_true", help="the ingester's")
    parser.add_argument("--days", type=whole(1, 3650), default=365, metavar="N", help="how long it is good (default: 365)")
    parser.add_argument("--now", action="store_true", help="revoke the one that it supersedes at once, not after 7 days")
    add_authority(parser)


def issue(args: argparse.Namespace) -> Answer:
    if bool(args.name) == bool(args.server or args.centre) or (args.name and not (args.request or args.make_key)):
        fix = "edgecloud ca issue NAME --request FILE, or --make-key FILE; edgecloud ca issue --server HOST; edgecloud ca issue --centre"
        raise BadArgument(reason="it is not said what the certificate is for", fix=fix)
    at = now()
    with CertificateFolder.open(authority_folder(args)) as authority:
        overlap = 0 if args.now else 7 * DAY
        if args.server:
            made, files_made = issue_server(authority, args.server, at, days=args.days, overlap=overlap)
        elif args.centre:
            path = authority.folder / "issued" / f"{CENTRE}.key"
            made, files_made = _with_key(authority, CENTRE, Holder.CENTRE, path, args.days, overlap)
        else:
            made, files_made = _issue_device(args, authority, at, overlap)
        path = authority.folder / ("servers" if args.server else "issued") / f"{made.name}.pem"
        same = [one for one in authority.ledger.issues if (one.name, one.kind) == (made.name, made.kind)]
        waits = [one.revoke_at for one in same if one.revoke_at > at and not one.revoked]
    document = {**issue_document(made, at), "certificate": str(path), "key": str(files_made) if files_made else None}
    fingerprint = key_fingerprint(building.public_key_of(made.certificate))
    pairs = [("certificate", f"{path}  ({made.name}, good until {day(made.until)})"), ("of the key", fingerprint)]
    if files_made:
        pairs.append(("private key", f"{files_made}  (mode 600; move it to where it is used)"))
    if waits:
        pairs.append(("supersedes", f"{len(waits)}, revoked from {day(min(waits))} on by edgecloud ca renew; --now: at once"))
    return Answer({**document, "fingerprint": fingerprint}, facts(pairs))


def issue_server(
    authority: CertificateFolder, hosts: list[str], at: int, *, days: int = 365, overlap: int = 7 * DAY
) -> tuple[Issue, Path | None]:
    """Issue a broker's certificate, for the key that it has or for a new one, and return it with the key's file when that is new."""
    return _with_key(authority, hosts[0], Holder.SERVER, authority.server_key(hosts[0]), days, overlap, hosts, at)


def _with_key(
    authority: CertificateFolder, name: str, kind: Holder, path: Path, days: int, overlap: int, hosts: list[str] | None = None, at: int = 0
) -> tuple[Issue, Path | None]:
    at = at or now()
    if kind is Holder.SERVER and not all(building.valid_host(one) for one in hosts or ()):
        fix = "write broker.example or 192.0.2.10, in small letters"
        raise BadArgument(reason=f"{' '.join(hosts or ())!r}: not all are names or addresses of a host", fix=fix)
    if path.exists():
        held = authority.ledger.newest(name, kind)
        if held is None or held.revoked:
            raise BadArgument(reason=f"{path} is there, and no certificate holds for it", fix=f"rm {path}, and again: a new key is made")
        known = building.public_key_of(held.certificate)
        return authority.issue(name, kind, known, at, days=days, hosts=hosts or (), overlap=overlap), None
    key = building.new_key()
    files.write_named(path, building.key_text(key), mode=0o600, replace=False)
    try:
        return authority.issue(name, kind, key.public_key(), at, days=days, hosts=hosts or (), overlap=overlap), path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _issue_device(args: argparse.Namespace, authority: CertificateFolder, at: int, overlap: int) -> tuple[Issue, Path | None]:
    if (why := revoked_devices(args, [args.name]).get(args.name)) is not None:
        fix = f"edgecloud devices add {args.name} FINGERPRINT, then again"
        raise BadArgument(reason=f"{args.name} gets no certificate: {why}", fix=fix)
    if args.make_key:
        return _with_key(authority, args.name, Holder.DEVICE, Path(args.make_key), args.days, overlap)
    data = read_file(Path(args.request), "the board's request")
    key = public_key_of_request(data[: building.REQUEST_MAX], args.name, args.request)
    return authority.issue(args.name, Holder.DEVICE, key, at, days=args.days, overlap=overlap), None


def _renew_arguments(parser: argparse.ArgumentParser) -> None:
    what = "renew what ended up to so many days ago (default: 30)"
    parser.add_argument("--grace", type=whole(0, 36500), default=30, metavar="DAYS", help=what)
    what = "how long the new ones are good (default: as those before)"
    parser.add_argument("--days", type=whole(1, 3650), default=0, metavar="N", help=what)
    add_authority(parser)


def renew(args: argparse.Namespace) -> Answer:
    at = now()
    with CertificateFolder.open(authority_folder(args)) as authority:
        names = [one.name for one in authority.ledger.all_newest() if one.kind is Holder.DEVICE]
        out = revoked_devices(args, names)
        done = authority.renew(at, grace=args.grace * DAY, days=args.days, out=lambda name: out.get(name, ""))
        folder = authority.folder
    document = {
        "renewed": [issue_document(one, at) for one in done.renewed], "revoked": [issue_document(one, at) for one in done.revoked],
        "left": [{"name": name, "why": why} for name, why in done.left], "registry_asked": registry_path(args.db).exists(),
    }  # fmt: skip
    lines = [f"renewed {one.name}, good until {day(one.until)}" for one in done.renewed]
    lines += [f"revoked {one.serial} of {one.name}, which was superseded" for one in done.revoked]
    lines += [f"left {name}: {why}" for name, why in done.left]
    if done.renewed:
        lines.append(f"they lie in {folder / 'issued'} and {folder / 'servers'}; on a board: edgeagent certificate install FILE")
    if not registry_path(args.db).exists():
        lines.append(f"there is no registry {registry_path(args.db)} here: whether a device was revoked in it was not looked at")
    if done.revoked:
        lines.append("give the broker the new list: edgecloud broker refresh")
    if not (done.renewed or done.revoked or done.left):
        lines.insert(0, "nothing is due")
    return Answer(document, "\n".join(lines))


def _revoke_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the device; CENTRE; or the first name of a broker")
    parser.add_argument("--serial", type=_serial, metavar="HEX", help="this certificate of it alone")
    add_authority(parser)


def _serial(text: str) -> str:
    if re.fullmatch(r"[0-9a-fA-F]{1,40}", text) is None:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a serial number in hexadecimal digits: edgecloud ca list")
    return text


def revoke(args: argparse.Namespace) -> Answer:
    at = now()
    with CertificateFolder.open(authority_folder(args)) as authority:
        gone = authority.revoke(args.name, at, serial=(args.serial or "").lower().lstrip("0"))
        path = authority.folder / "crl.pem"
    lines = [f"{args.name}: {len(gone)} certificates revoked, in {path}"]
    lines += ["so that it can't connect any more:", "  edgecloud broker refresh -o FOLDER, then reload the broker",
              f"  edgecloud broker kick {args.name}    (a connection that is open stays open)",
              f"  edgecloud devices revoke {args.name}    (its signature counts until then)"]  # fmt: skip
    return Answer({"name": args.name, "revoked": [issue_document(one, at) for one in gone], "crl": str(path)}, "\n".join(lines))


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="those that were superseded or revoked, too")
    add_limit(parser)
    add_authority(parser)


def list_issued(args: argparse.Namespace) -> Answer:
    at = now()
    with CertificateFolder.open(authority_folder(args), readonly=True) as authority:
        held = authority.ledger
    found = sorted(held.issues if args.all else held.all_newest(), key=lambda one: one.since, reverse=True)
    rows = [(one.name, one.kind.value, state_of(one, at), day(one.since), day(one.until), one.authority, one.serial) for one in found]
    text = table(_HEAD, rows, limit=most(args))
    listed = found[: most(args)]
    document = {"fleet": held.fleet, "current": held.current, "trusted": list(held.trusted)}
    return Answer({**document, "certificates": [issue_document(one, at) for one in listed], "more": len(found) - len(listed)}, text)


_HEAD = (
    Column("name"), Column("kind", 1), Column("state"), Column("since", 3), Column("until"), Column("CA", 4), Column("serial", 2),
)  # fmt: skip


def _rotate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--years", type=whole(1, 50), metavar="N", help=f"how long the new CA is good (default: {YEARS})")
    parser.add_argument("--retire", action="store_true", help="make none: trust the older ones no more, once all has been renewed")
    parser.add_argument("--anyway", action="store_true", help="with --retire: although certificates of an older one are still good")
    add_authority(parser)
    only_with(parser, "--anyway", "--retire")
    rule(parser, lambda args: "--years does nothing beside --retire" if args.retire and args.years is not None else "")


def rotate(args: argparse.Namespace) -> Answer:
    with CertificateFolder.open(authority_folder(args)) as authority:
        retired = authority.retire(now(), anyway=args.anyway) if args.retire else []
        number = authority.ledger.current if args.retire else authority.rotate(now(), years=args.years or YEARS)
        trusted = list(authority.ledger.trusted)
    if args.retire:
        said = f"{len(retired)} retired; CA {number} alone is trusted" if retired else f"CA {number} alone is trusted already"
        lines = [said, "edgecloud broker refresh -o FOLDER, then restart the broker"]
    else:
        lines = [f"CA {number} signs from now on; trusted: {', '.join(f'CA {n}' for n in trusted)}", "next, in this order:",
                 "  edgecloud broker refresh -o FOLDER, then restart the broker: it believes both",
                 "  edgecloud ca renew, and put the new certificates and ca.pem in place",
                 "  edgecloud ca rotate --retire"]  # fmt: skip
    return Answer({"current": number, "trusted": trusted, "retired": retired}, "\n".join(lines))


VERBS = (
    Verb(
        "init", "Make a CA in a folder of its own.",
        ("edgecloud ca init", "edgecloud ca init --ca-dir /media/key/ca"), init, _init_arguments,
    ),
    Verb(
        "issue", "Issue a certificate to a device, a broker, or the centre. Another key for a name supersedes the one before it.",
        ("edgecloud ca issue pi-7 --request pi-7.csr", "edgecloud ca issue pi-7 --make-key pi-7.key",
         "edgecloud ca issue --server broker.example 192.0.2.10", "edgecloud ca issue --centre"),
        issue, _issue_arguments,
    ),
    Verb(
        "renew", "Renew what is past two thirds of its life, for the same key; for a timer. What was superseded long enough is revoked.",
        ("edgecloud ca renew", "edgecloud ca renew --grace 90"), renew, _renew_arguments,
    ),
    Verb(
        "revoke", "Take back all certificates of a name.",
        ("edgecloud ca revoke pi-7", "edgecloud ca revoke pi-7 --serial 5f3a9c"), revoke, _revoke_arguments,
    ),
    Verb(
        "list", "List what was issued, the newest first, and how it stands.",
        ("edgecloud ca list", "edgecloud ca list --all --json"), list_issued, _list_arguments,
    ),
    Verb(
        "rotate", "Make the next CA: both are trusted until the older one is retired.",
        ("edgecloud ca rotate", "edgecloud ca rotate --retire"), rotate, _rotate_arguments,
    ),
)  # fmt: skip
