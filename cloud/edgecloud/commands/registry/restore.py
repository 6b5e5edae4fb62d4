"""`edgecloud restore`: a backup becomes the registry."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecloud import keys
from edgecloud.audit import anchors, carrying, tampering
from edgecloud.audit.carrying import Carried
from edgecloud.registry import SqliteStore, open_registry
from edgecloud.registry.backup import moved_aside, restore
from edgecloud.registry.encrypted import is_encrypted, read_identities, restore_encrypted
from edgecloud.settings import from_environment, registry_path
from edgecommon.printing import Answer
from modelwire.errors import BadArgument, ModelWireError, RegistryDamaged
from modelwire.wire.keys import TEXT_MAX, read_fleet
from modelwire.wire.log import Link

from ..answer import Document, now, problems, progress, registry_of, sentences

NAME = "restore"
HELP = "Put a backup in the place of the registry; what was revoked since stays revoked."
EXAMPLES = (
    "edgecloud restore monday.db --db fleet.db --force",
    "edgecloud restore monday.age --backup-key backup.key --db fleet.db --force",
    "edgecloud restore monday.db --db fleet.db --anchor /mnt/elsewhere/fleet.anchors",
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("backup", metavar="BACKUP", help="file that `edgecloud backup` wrote")
    parser.add_argument("--force", action="store_true", help="move a registry that is there aside")
    parser.add_argument(
        "--anchor", metavar="FILE",
        help="bring back from this file of anchors, too, what was admitted and revoked since the backup; needed where the registry is lost",
    )  # fmt: skip
    parser.add_argument("--backup-key", metavar="FILE", help="private key of an encrypted backup; EDGECLOUD_BACKUP_KEY")


def run(args: argparse.Namespace) -> Answer:
    source, target = Path(args.backup), registry_path(args.db)
    carried: list[Carried] = []
    anchored, held, unread = list[bytes](), list[bytes](), list[str]()

    def prepare(copy: Path) -> None:
        store = open_registry(copy)  # a copy of an older release's is brought to this one
        try:
            wrong = problems(store)
            if wrong:
                more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
                raise RegistryDamaged(path=source, reason=f"{wrong[0]}{more}", fix="name another backup")
            _require_same_fleet(store, source, target)
            end: Link | None = None
            if args.anchor is not None:  # first: whoever reaches the registry does not reach them
                for one in anchors.read(Path(args.anchor), store.identity.id, required=True):
                    anchored.extend(one.sealed)
                    end = one.link if end is None or one.link.number > end.number else end
            for path in [*moved_aside(target), target]:  # a restore that was cut off has left what was sealed in the one or the other
                found, last = _of_replaced(path, unread)
                held.extend(found)
                end = last if last is not None and (end is None or last.number > end.number) else end
            carried.append(carrying.carry(store, anchored, held, end, now()))
        finally:
            store.close()

    key = args.backup_key or from_environment("BACKUP_KEY", "")
    if is_encrypted(source):
        if not key:
            raise BadArgument(reason=f"{source} is an encrypted backup", fix="name its private key with --backup-key")
        identities = read_identities(Path(key))
        aside = restore_encrypted(source, target, identities, progress=progress("pages"), replace=args.force, prepare=prepare)
    elif args.backup_key:  # somebody may have put another one in its place
        raise BadArgument(reason=f"{source} is not encrypted, and --backup-key says that it is", fix="leave --backup-key out if that is so")
    else:
        aside = restore(source, target, progress=progress("pages"), replace=args.force, prepare=prepare)
    with registry_of(args) as store:
        return _answer(store, source, target, aside, carried[0], unread)


def _require_same_fleet(store: SqliteStore, source: Path, target: Path) -> None:
    """Raise BadArgument where the boards' fleet.pub beside the registry is of another fleet than the copy: somebody exchanged one."""
    public = target.parent / keys.PUBLIC
    if not public.is_file():
        return
    with public.open("rb") as file:
        fleet = read_fleet(file.read(TEXT_MAX).decode("ascii", errors="replace"), str(public))
    if fleet.id != store.identity.id:
        raise BadArgument(
            reason=f"{source} is of the fleet with the id {store.identity.id.hex()}, and {public} of the one with {fleet.id.hex()}",
            fix="name another backup, or restore this one in another folder with --db",
        )


def _of_replaced(path: Path, unread: list[str]) -> tuple[list[bytes], Link | None]:
    """Return what was sealed in a registry that is replaced, and its log's end; nothing where it is gone.

    unread: is told why it can't be read.
    """
    if not path.exists():
        return [], None
    try:
        store = open_registry(path, readonly=True)
        try:
            return carrying.sealed(store), store.log.end()
        finally:
            store.close()
    except (ModelWireError, *tampering.UNREADABLE) as error:  # it is replaced because of that
        unread.append(f"{path} can't be read ({error}): what was admitted and revoked since the backup did not come along from it")
        return [], None


def _answer(store: SqliteStore, source: Path, target: Path, aside: Path | None, carried: Carried, unread: list[str]) -> Answer:
    document: Document = {
        "registry": str(target), "backup": str(source), "fleet": store.fleet, "replaced": str(aside) if aside else None,
        "carried": {
            "trust": carried.trusts, "admitted": list(carried.admitted), "revoked": list(carried.revoked), "claims": carried.claims
        },
        "policies": carried.policies, "rollouts": carried.rollouts, "erased": list(carried.erased),
        "left_out": list(carried.left_out), "unread": unread,
    }  # fmt: skip
    lines = [f"{target}: restored from {source}, integrity ok"]
    if aside:
        lines.append(f"the registry before it lies in {aside}")
    lines += [f"{one}; if --anchor was not given, look through what you have revoked" for one in unread]
    if carried.revoked:
        lines.append(f"revoked since the backup, and still: {carrying.devices(carried.revoked)}")
    if carried.admitted:
        lines.append(f"admitted since the backup, and still: {carrying.devices(carried.admitted)}")
    if carried.left_out:
        names = carrying.devices(carried.left_out)
        lines.append(f"let in since the backup by a command key that is good no more, and not brought along: {names}")
        lines.append("if you did that, add them again: edgecloud devices add")
    if carried.claims:
        lines.append(f"{carried.claims} claims given or withdrawn since the backup were brought along")
    if carried.policies:
        lines.append("what is kept was decided anew since the backup, and holds; edgecloud thin carries it out again")
    if carried.rollouts:
        lines.append(f"{carried.rollouts} newer variants and decisions about rollouts were brought along; later rollouts were not")
    for device in carried.erased:
        lines.append(f"{device} was erased since the backup, and its bytes are in this copy again: edgecloud erase {device}")
    if carried.trusts:
        lines.append(f"{carried.trusts} newer trust records were brought along")
    lines.append("what boards have sent since this copy was made is not in it: each tells by number what is lost, when it says hello;")
    lines.append("edgecloud devices lists that, and a snapshot of what the board has now comes by itself")
    missing = [name for name in keys.SECRET if not (target.parent / name).exists()]
    document["keys_missing"] = missing
    if missing:
        fleet_id = store.identity.id.hex()
        lines.append(f"the fleet's keys are not in a backup: put {', '.join(missing)} to {target.parent} (fleet id {fleet_id})")
    return Answer(document, sentences(lines))
