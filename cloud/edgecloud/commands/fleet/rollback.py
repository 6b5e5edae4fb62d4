"""`edgecloud rollback`: a device goes back to a version that it had, as a new one."""

from __future__ import annotations

import argparse
import time

from edgecloud.audit.admissions import Admissions
from edgecloud.feasibility import fitness
from edgecloud.registry import Epoch, HeadRow, LineageRow, Request, SqliteStore, Status
from edgecloud.versions import last_models, naming
from edgecloud.versions.last_models import Rollback
from edgecommon.printing import Answer
from modelwire.errors import BadArgument, LineageError, TooLarge, Unfit
from modelwire.update.sections import Kind
from modelwire.wire.commands import TAKE_MAX, Adopt, Take

from ..answer import Document, facts, progress, registry_of, when
from ..sealing import add_expires, add_key, ask, command_key, open_request, parse_expires, sealed, unlock

NAME = "rollback"
HELP = "Have a device take over a version that it had, bit for bit, as a new one."
EXAMPLES = (
    "edgecloud rollback pi-7@12",
    "edgecloud rollback pi-7/digits@12 --wait 10m --json",
)

LOOK = 0.5  # seconds between two looks for the answer


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL]@VERSION", help="an earlier version of the device, or its base: pi-7@base")
    parser.add_argument("--unfit", action="store_true", help="also to a version that says more than the centre finds: edgecloud matrix")
    parser.add_argument(
        "--wait", metavar="TIME", help="wait until the device has done so and the centre has proven it: 90s, 30m, 12h or 30d"
    )
    add_expires(parser)
    add_key(parser)


def run(args: argparse.Namespace) -> Answer:
    expires, patience = parse_expires(args.expires), None if args.wait is None else parse_expires(args.wait, "--wait")
    name = naming.parse(args.name)
    if name.version is None or name.version == naming.LATEST:
        raise BadArgument(reason=f"{args.name} names no version to go back to", fix="edgecloud log lists them; write pi-7@12 or pi-7@base")
    with registry_of(args, readonly=False) as store:
        place = naming.find(store, name)
        if place.version is not None and not args.unfit:
            _require_fit(store, place)
        epoch, head = _present(store, place.lineage)
        # What takes long comes before the first write: an ingester waits for no rebuild.
        way = last_models.rollback(store, place.lineage, epoch, head, place.version, _keys(store, place.lineage))
        document: Document = {
            "name": str(place), "from": head.version, "root": way.root.hex(), "kind": way.kind.name.lower(), "bytes": len(way.update),
            "file_bytes": _file_size(store, place), "already": not way.update, "verb": None, "number": None, "expires_at": None,
            "version": head.version if not way.update else None,
        }  # fmt: skip
        if not way.update:
            return Answer(document, facts([("version", place), ("root", way.root.hex()), ("nothing to do", f"@{head.version} is it")]))
        asked = _ask(args, store, place, epoch, way, expires)
        document |= {"verb": asked.verb, "number": asked.number, "expires_at": asked.expiry}
        if patience is not None:
            document["version"] = _wait(store, place, epoch, asked, way, patience)
    share = 100 * len(way.update) / document["file_bytes"]
    parts = " in parts" if asked.verb == Take.VERB else ""
    lines: list[tuple[str, object]] = [
        ("goes back to", place), ("root", way.root.hex()), ("update", f"{document['kind']}, {len(way.update)} bytes{parts}"),
        ("of the file", f"{share:.1f} % of {document['file_bytes']} bytes"),
    ]  # fmt: skip
    if document["version"] is None:
        lines.append(("asked", f"number {asked.number}, until {when(asked.expiry)}; edgecloud show {place.lineage} tells when it is done"))
    else:
        lines.append(("done", f"{place.lineage}@{document['version']} has this root, proven"))
    return Answer(document, facts(lines))


def _require_fit(store: SqliteStore, place: naming.Place) -> None:
    assert place.version is not None
    found = fitness.unfit(store, [place.version.id]).get(place.version.id)
    if found is not None:
        near = fitness.nearest_fit(store, place.lineage, place.version)
        fix = f"edgecloud rollback {place.lineage}@{near.version}: the nearest that is fit; or add --unfit" if near else "add --unfit"
        raise Unfit(name=str(place), reason=found.words.removeprefix("unfit: "), fix=fix)


def _present(store: SqliteStore, lineage: LineageRow) -> tuple[Epoch, HeadRow]:
    epoch = store.lineages.current(lineage.id)
    head = store.lineages.head(lineage.id, epoch.epoch) if epoch is not None else None
    if epoch is None or head is None:
        raise BadArgument(reason=f"{lineage} has never said hello", fix="edgecloud devices list tells which have")
    return epoch, head


def _keys(store: SqliteStore, lineage: LineageRow) -> list[bytes]:
    """Return the keys that speak, or spoke, for a device by a sealed act."""
    sealed_by = Admissions(store.identity)
    sealed_by.catch_up(store.log, store.database.path)
    return [known.key for known in sealed_by.of(lineage.device, store.devices.keys(lineage.device))]


def _file_size(store: SqliteStore, place: naming.Place) -> int:
    base = store.bases.get(place.base)
    assert base is not None  # its version's row refers to it
    return base.size


def _ask(args: argparse.Namespace, store: SqliteStore, place: naming.Place, epoch: Epoch, way: Rollback, expires: int) -> Request:
    """Seal what leads back, or return the same where the device was asked for it before and has not answered."""
    lineage = place.lineage
    with unlock(args, store), store.transaction():
        if _present(store, lineage) != (epoch, way.head):
            raise BadArgument(reason=f"{lineage} has moved on meanwhile", fix="say the same again")
        task: Adopt | Take
        if way.kind is not Kind.SNAPSHOT and len(way.update) <= last_models.RECORD_HOLDS:
            task = Adopt(way.update)
        elif len(way.update) > TAKE_MAX:
            raise TooLarge(what="the update", size=len(way.update), limit=TAKE_MAX)
        else:
            task = Take(store.blobs.put(way.update), len(way.update))
        for verb in (Adopt.VERB, Take.VERB):
            request = open_request(store, lineage, verb)
            if request is None or sealed(request).parent != way.head.commit:  # of a head that it has left: it refuses that
                continue
            if verb == task.VERB and sealed(request).body == task.body():
                return request
            raise BadArgument(
                reason=f"{lineage} has not answered number {request.number} yet, which asks it to take over another model",
                fix=f"edgecloud show {lineage.device} tells when it has",
            )
        return ask(store, lineage, command_key(args, store), task.VERB, task.body(), expires=expires, parent=way.head.commit)


def _wait(store: SqliteStore, place: naming.Place, epoch: Epoch, asked: Request, way: Rollback, patience: int) -> int:
    """Return the new version, once it is proven. Raises LineageError when the device could not, or its time is over."""
    lineage, began, told = place.lineage, time.monotonic(), progress("of the device: asked, answered, stored, proven")
    while True:
        row = next((r for r in store.requests.of(lineage.id) if r.number == asked.number), None)
        if row is None:
            raise LineageError(reason=f"number {asked.number} for {lineage} is gone from the registry")
        if row.ok is False:
            raise LineageError(reason=f"{lineage} did not go back to {place}: {row.text}", fix="say the same again")
        new = store.versions.served_on(lineage.id, epoch.epoch, way.head.commit)
        told(1 + (row.ok is True) + (new is not None), 4)
        if new is not None and row.ok:
            if new.root != way.root:
                raise LineageError(reason=f"{lineage}@{new.version} came in its place", fix="say the same again")
            if new.status is Status.VERIFIED:
                told(4, 4)
                return new.version
        if time.monotonic() - began > patience:
            reason = f"{lineage} has not gone back to {place} within {patience} s"
            raise LineageError(reason=reason, fix=f"it is still asked to, number {asked.number}: edgecloud show {lineage.device}")
        time.sleep(LOOK)
