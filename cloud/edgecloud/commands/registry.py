"""init, backup, restore, verify, doctor and version: the registry as a whole."""

from __future__ import annotations

import argparse
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from edgecloud import keys
from edgecloud.intake import mqtt as link
from edgecloud.registry import Lineage, SqliteStore, Status, create_registry, open_registry
from edgecloud.registry.backup import backup, restore
from edgecloud.registry.database import problems
from edgecloud.settings import BROKER, from_environment, registry_path
from edgecloud.versions import materialise, naming
from edgecommon.printing import Answer
from modelwire import kernels
from modelwire.errors import BadArgument, ModelWireError, RegistryDamaged

from .answer import Document, now, opened, progress, table

ROOM = 512 * 1024 * 1024  # bytes of free disk below which doctor warns


def init(args: argparse.Namespace) -> Answer:
    """Make a registry and the fleet's keys beside it."""
    path = registry_path(args.db)
    if path.exists():
        raise BadArgument(reason=f"{path} is there already", fix="a registry is never overwritten; name another with --db")
    if not path.absolute().parent.is_dir():
        raise BadArgument(reason=f"{path.parent} is no folder", fix=f"mkdir -p {path.parent}")
    if args.files_from < 0:
        raise BadArgument(reason=f"{args.files_from} is no number of bytes", fix="write 0 or more after --files-from")
    key = keys.make_keys(path.absolute().parent)
    create_registry(path, fleet=args.fleet, public_key=key.public, now=now(), files_from=args.files_from)
    private, public = path.parent / keys.PRIVATE, path.parent / keys.PUBLIC
    document: Document = {
        "registry": str(path), "fleet": args.fleet, "private_key": str(private), "public_key_file": str(public), "public_key": key.public,
    }  # fmt: skip
    text = (
        f"registry     {path}\nfleet        {args.fleet}\nprivate key  {private}  (keep it secret, and keep a copy elsewhere)\n"
        f"public key   {public}  (give it to every board: edgeagent init --fleet-key {public.name})"
    )
    return Answer(document, text)


def back_up(args: argparse.Namespace) -> Answer:
    """Copy the registry as of one moment while it is in use."""
    source, target = registry_path(args.db), Path(args.out)
    size = backup(source, target, progress=progress("pages"), replace=args.force)
    document: Document = {"registry": str(source), "backup": str(target), "bytes": size, "integrity": "ok", "keys_included": False}
    secret = source.parent / keys.PRIVATE
    return Answer(document, f"{target}: {size} bytes, integrity ok\nThe fleet's keys are not in it: keep a copy of {secret} apart.")


def put_back(args: argparse.Namespace) -> Answer:
    """Put a backup in the place of the registry."""
    source, target = Path(args.backup), registry_path(args.db)
    aside = restore(source, target, progress=progress("pages"), replace=args.force)
    with opened(args, readonly=False) as store:  # a copy of an older release's is brought to this one
        fleet, public = store.fleet, store.public_key
    document: Document = {"registry": str(target), "backup": str(source), "fleet": fleet, "replaced": str(aside) if aside else None}
    lines = [f"{target}: restored from {source}, integrity ok"]
    if aside:
        lines.append(f"the registry before it lies in {aside}")
    secret = target.parent / keys.PRIVATE
    document["key_present"] = secret.exists()
    if not secret.exists():
        lines.append(f"the fleet's private key is not in a backup: put it to {secret} (its public half is {public.hex()})")
    return Answer(document, "\n".join(lines))


def verify(args: argparse.Namespace) -> Answer:
    """Prove versions: bytes, signature, commit, fingerprint and root."""
    started = time.monotonic()
    with opened(args) as store:
        checked, exact, total = 0, 0, 0
        wrong: list[Document] = []
        say = progress("versions")
        total, results = _to_verify(store, args.name)
        for one in results:
            checked += 1
            say(checked, total)
            if one.error is None:
                exact += 1
            else:
                wrong.append({"name": str(one), "error": type(one.error).__name__, "message": str(one.error)})
        refused, bases = (0, []) if args.name else (_count(store, store.lineages.all(), refused=True), _wrong_bases(store))
    took = round(time.monotonic() - started, 3)
    document: Document = {"checked": checked, "exact": exact, "wrong": wrong + bases, "refused": refused, "seconds": took}
    aside = f", {refused} refused ones are never served" if refused else ""
    lines = [f"{exact} of {checked} versions exact{aside} ({took:.1f} s)"]
    lines += [f"NOT EXACT {w['name']}: {w['message']}" for w in document["wrong"]]
    error: ModelWireError | None = None
    if document["wrong"]:
        error = RegistryDamaged(path=registry_path(args.db), reason=f"{len(document['wrong'])} of its versions or bases are not exact")
    return Answer(document, "\n".join(lines), error=error)


def doctor(args: argparse.Namespace) -> Answer:
    """Look at everything that an ingester needs."""
    path = registry_path(args.db)
    checks = [
        _check("kernel", kernels.describe, "rounds to nearest even"),
        _check("registry", lambda: _look_at(path), "opens, and is whole"),
        _check("key", lambda: _key_fits(path, args.key), "is the fleet's, and nobody else may read it"),
        _check("disk", lambda: _room(path), "has room"),
        _check("broker", lambda: _reach(args.broker), "answers"),
    ]
    bad = [c for c in checks if not c["ok"]]
    text = table(("", "what", "", "what to do"), [("ok" if c["ok"] else "FIX", c["what"], c["found"], c["fix"]) for c in checks])
    return Answer({"checks": checks, "ok": not bad}, text, code=1 if bad else 0)


def version(args: argparse.Namespace) -> Answer:
    """Say which release this is."""
    from edgecloud import __version__
    from edgecloud.registry.schema import SCHEMA
    from modelwire.update import container

    document: Document = {"edgecloud": __version__, "wire": f"{container.MAJOR}.{container.MINOR}", "registry_schema": SCHEMA}
    return Answer(document, f"edgecloud {__version__}, wire {document['wire']}, registry schema {SCHEMA}")


def _to_verify(store: SqliteStore, text: str | None) -> tuple[int, Iterator[materialise.Checked]]:
    bases = materialise.Bases(store)
    if text is not None and naming.parse(text).version is not None:
        place = naming.find(store, naming.parse(text))
        if place.version is None:
            bases[place.base].state()
            return 1, iter([materialise.Checked(place.lineage, None, None)])
        return 1, iter([materialise.check_version(store, place.version, bases)])
    if text is None:
        lineages = store.lineages.all()
    else:
        name = naming.parse(text)
        all_models = [] if name.model else store.lineages.of(name.device)
        lineages = all_models or [naming.find_lineage(store, name)]
    return _count(store, lineages, refused=False), (one for line in lineages for one in materialise.check_lineage(store, line, bases))


def _count(store: SqliteStore, lineages: list[Lineage], *, refused: bool) -> int:
    return sum((v.status is Status.REFUSED) == refused for line in lineages for v in store.versions.of(line.id))


def _wrong_bases(store: SqliteStore) -> list[Document]:
    wrong: list[Document] = []
    for base in store.bases.all():
        try:
            materialise.Bases(store)[base.commit].state()
        except ModelWireError as error:
            wrong.append({"name": f"base {base.name}", "error": type(error).__name__, "message": str(error)})
    return wrong


def _check(what: str, look: object, fine: str) -> Document:
    assert callable(look)
    try:
        look()
    except ModelWireError as error:
        return {"what": what, "ok": False, "found": str(error), "fix": error.next_step}
    except OSError as error:
        return {"what": what, "ok": False, "found": str(error), "fix": "check the path and who may use it"}
    return {"what": what, "ok": True, "found": fine, "fix": ""}


def _look_at(path: Path) -> None:
    store = open_registry(path)
    try:
        wrong = problems(store.database)
    finally:
        store.close()
    if wrong:
        raise RegistryDamaged(path=path, reason=wrong[0])


def _key_fits(path: Path, key: str | None) -> None:
    store = open_registry(path, readonly=True)
    try:
        public = store.public_key
    finally:
        store.close()
    if keys.load_key(Path(key) if key else path.parent / keys.PRIVATE).public != public:
        raise BadArgument(reason="the private key is not the one of this registry's fleet", fix="name the right one with --key")


def _room(path: Path) -> None:
    free = shutil.disk_usage(path.absolute().parent).free
    if free < ROOM:
        raise BadArgument(reason=f"{free // 1024 // 1024} MiB are free beside {path}", fix="make room")


def _reach(url: str | None) -> None:
    broker = link.parse_broker(url or from_environment("BROKER", BROKER))
    try:
        socket.create_connection((broker.host, broker.port), timeout=3.0).close()
    except OSError as error:
        raise BadArgument(reason=f"{broker.url}: {error}", fix="start the broker, or name another one with --broker") from error
