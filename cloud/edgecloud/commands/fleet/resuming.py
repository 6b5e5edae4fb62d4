"""`edgecloud devices resume`: a board that was set up anew gets its last model back."""

from __future__ import annotations

import argparse

from edgecloud.audit.admissions import Admissions
from edgecloud.registry import Epoch, LineageRow, Request, SqliteStore
from edgecloud.versions import last_models, naming
from edgecloud.versions.last_models import WayBack
from edgecommon.printing import Answer, lines_of, visible
from modelwire.errors import BadArgument, TooLarge, UnknownDevice
from modelwire.update.sections import Kind
from modelwire.wire.commands import TAKE_MAX, Adopt, Take

from ..answer import Document, registry_of, when
from ..sealing import ask, command_key, open_request, parse_expires, sealed


def resume_device(args: argparse.Namespace) -> Answer:
    if args.decline:
        return _decline(args)
    expires, name = parse_expires(args.expires), naming.parse(args.name)
    asked, lines = [], []
    with registry_of(args, readonly=False) as store:
        key = command_key(args, store)
        # What takes long comes before the first write: an ingester waits for no rebuild.
        ways = [_way_back(store, lineage) for lineage in _chosen(store, name)]
        with store.transaction():
            for lineage, epoch, way in ways:
                if store.lineages.current(lineage.id) != epoch:
                    raise BadArgument(reason=f"{lineage} was set up anew meanwhile", fix="say the same again")
                task = _task(store, way)
                request = _open(store, lineage, task)
                if request is None:
                    request = ask(store, lineage, key, task.VERB, task.body(), expires=expires, parent=way.parent)
                asked.append(
                    {
                        "model": str(lineage), "version": way.last.version, "of_epoch": way.last.epoch, "epoch": epoch.epoch,
                        "root": way.last.root.hex(), "kind": way.kind.name.lower(), "bytes": len(way.update), "verb": request.verb,
                        "number": request.number, "expires_at": request.expiry,
                    }
                )  # fmt: skip
                how = f"{len(way.update)} bytes" + (" in parts" if task.VERB == Take.VERB else "")
                what = f"@{way.last.version} goes back, {how}, number {request.number}, until {when(request.expiry)}"
                lines.append(visible(f"{lineage}: {what}"))
    document: Document = {"resumed": asked, "declined": []}
    return Answer(document, lines_of(lines))


def wished(store: SqliteStore, lineage: LineageRow) -> int:
    """Return the version that a model would like back and may have; 0 when it does not ask, or there is none."""
    wish, epoch = store.lineages.wish(lineage.id), store.lineages.current(lineage.id)
    head = store.lineages.head(lineage.id, epoch.epoch) if epoch is not None else None
    if wish is None or epoch is None or head is None or wish.epoch != epoch.epoch or wish.declined:
        return 0
    last = last_models.offered(store, lineage, epoch, head)
    return last.version if last is not None else 0


def _decline(args: argparse.Namespace) -> Answer:
    """Let models go on from their base; the ingester offers them nothing more."""
    with registry_of(args, readonly=False) as store, store.transaction():
        declined = [lineage for lineage in _chosen(store, naming.parse(args.name)) if wished(store, lineage)]
        if not declined:
            raise BadArgument(reason=f"{args.name} asks for no last version", fix="edgecloud devices lists who does")
        for lineage in declined:
            store.lineages.decline_wish(lineage.id)
    document: Document = {"resumed": [], "declined": [str(lineage) for lineage in declined]}
    return Answer(document, lines_of(visible(f"{lineage} goes on from its base, from its next hello on") for lineage in declined))


def _chosen(store: SqliteStore, name: naming.Name) -> list[LineageRow]:
    """Return the model that a name stands for, or all of a device that would like their last version back. Raises BadArgument."""
    if name.version is not None:
        raise BadArgument(reason=f"{name} names a version", fix="leave it out: it is the last one that goes back")
    if not store.devices.keys(name.device):
        raise UnknownDevice(device=name.device)
    if name.model is not None:
        return [naming.find_lineage(store, name)]
    found = [lineage for lineage in store.lineages.of(name.device) if wished(store, lineage)]
    if not found:
        raise BadArgument(
            reason=f"no model of {name.device} asks for its last version",
            fix=f"edgeagent init --resume lets a board ask, once it says hello; or name one: edgecloud devices resume {name.device}/MODEL",
        )
    return found


def _way_back(store: SqliteStore, lineage: LineageRow) -> tuple[LineageRow, Epoch, WayBack]:
    epoch = store.lineages.current(lineage.id)
    head = store.lineages.head(lineage.id, epoch.epoch) if epoch is not None else None
    if epoch is None or head is None:
        raise BadArgument(reason=f"{lineage} has never said hello", fix="edgecloud devices list tells which have")
    sealed_by = Admissions(store.identity)
    sealed_by.catch_up(store.log, store.database.path)
    own = [known.key for known in sealed_by.of(lineage.device, store.devices.keys(lineage.device))]  # a row without a sealed act is none
    return lineage, epoch, last_models.way_back(store, lineage, epoch, head, own)


def _task(store: SqliteStore, way: WayBack) -> Adopt | Take:
    """Return what the device is asked for: the update itself where a record holds it, else its digest, and its bytes stay here."""
    if way.kind is not Kind.SNAPSHOT and len(way.update) <= last_models.RECORD_HOLDS:
        return Adopt(way.update)
    return Take(_kept(store, way), len(way.update))


def _kept(store: SqliteStore, way: WayBack) -> bytes:
    if len(way.update) > TAKE_MAX:
        raise TooLarge(what="the update", size=len(way.update), limit=TAKE_MAX)
    return store.blobs.put(way.update)


def _open(store: SqliteStore, lineage: LineageRow, task: Adopt | Take) -> Request | None:
    """Return the same request where it is open already. Raises BadArgument for another one that the device has not answered."""
    for verb in (Adopt.VERB, Take.VERB):
        request = open_request(store, lineage, verb)
        if request is None:
            continue
        if verb == task.VERB and sealed(request).body == task.body():
            return request
        raise BadArgument(
            reason=f"{lineage} has not answered number {request.number} yet, which asks it to take over another model",
            fix=f"edgecloud show {lineage.device} tells when it has",
        )
    return None
