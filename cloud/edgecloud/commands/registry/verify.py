"""`edgecloud verify`: every version is what its device published, or is named."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from edgecloud.registry import LineageRow, SqliteStore, Status
from edgecloud.settings import registry_path
from edgecloud.versions import materialise, naming
from edgecommon.printing import Answer
from modelwire.errors import ModelWireError, RegistryDamaged

from ..answer import Document, progress, registry_of

NAME = "verify"
HELP = "Prove versions: bytes, signature, commit, fingerprint and root."
EXAMPLES = ("edgecloud verify --all", "edgecloud verify pi-7", "edgecloud verify pi-7/digits@12 --json")


def add(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("name", nargs="?", metavar="DEVICE[/MODEL][@VERSION]", help="one version, or all of a device or model")
    which.add_argument("--all", action="store_true", help="every version of every device (the default)")


def run(args: argparse.Namespace) -> Answer:
    started = time.monotonic()
    with registry_of(args) as store:
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


def _to_verify(store: SqliteStore, text: str | None) -> tuple[int, Iterator[materialise.Checked]]:
    bases = materialise.LoadedBases(store)
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


def _count(store: SqliteStore, lineages: list[LineageRow], *, refused: bool) -> int:
    return sum((v.status is Status.REFUSED) == refused for line in lineages for v in store.versions.of(line.id))


def _wrong_bases(store: SqliteStore) -> list[Document]:
    wrong: list[Document] = []
    for base in store.bases.all():
        try:
            materialise.LoadedBases(store)[base.commit].state()
        except ModelWireError as error:
            wrong.append({"name": f"base {base.name}", "error": type(error).__name__, "message": str(error)})
    return wrong
