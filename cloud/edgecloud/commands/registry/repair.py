"""`edgecloud repair`: what is lost, what comes back without anybody, and what a board still has to give."""

from __future__ import annotations

import argparse

from edgecloud.proving import repairing
from edgecloud.proving.repairing import LostVersion, Mending
from edgecloud.registry import LineageRow, SqliteStore
from edgecloud.settings import registry_path
from edgecloud.versions import materialise, naming
from edgecommon.printing import Answer
from modelwire.errors import BadArgument, ModelWireError, RegistryDamaged

from ..answer import Document, now, progress, registry_of, sentences

NAME = "repair"
HELP = "Name what is lost, rebuild what is derived, and mend a head by what its board gives."
EXAMPLES = ("edgecloud repair", "edgecloud repair pi-7 --json")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="DEVICE[/MODEL]", help="one device or model (default: all)")


def run(args: argparse.Namespace) -> Answer:
    lost: list[Document] = []
    mended: list[Document] = []
    states, lines, whole = list[str](), list[str](), 0
    thinned = 0
    with registry_of(args, readonly=False) as store:
        bases = materialise.LoadedBases(store)
        lineages = _lineages(store, args.name)
        counted = store.tallies.recount()
        say = progress("models")
        for done, lineage in enumerate(lineages, 1):
            found, exact = _repair(store, lineage, bases, states, mended)
            gone = sum(store.thinnings.of(lineage.id).values())
            whole, thinned = whole + max(0, exact - gone), thinned + gone
            lost += [_told(one) for one in found]
            say(done, len(lineages))
    lines += [f"COUNTED anew: the counters of {counted} models were not what their versions come to"] if counted else []
    lines += [f"REBUILT the kept state of {name}: it was damaged" for name in states]
    lines += [line for one in mended for line in _said(one)]
    lines += [f"LOST {one['name']}: {one['message']}" for one in lost]
    still = [one for one in lost if not one["recoverable"]]
    lines.append(f"{whole} versions are exact, {len(lost)} have lost something, of {len(still)} of them the weights are gone")
    if thinned:
        lines.append(f"{thinned} more were thinned by the policy: what their devices signed is kept, and nothing of them is lost")
    document: Document = {"exact": whole, "thinned": thinned, "lost": lost, "states": states, "heads": mended, "counters": counted}
    error = RegistryDamaged(path=registry_path(args.db), reason=f"the weights of {len(still)} versions are lost") if still else None
    return Answer(document, sentences(lines), error=error)


def _lineages(store: SqliteStore, text: str | None) -> list[LineageRow]:
    if text is None:
        return store.lineages.all()
    name = naming.parse(text)
    if name.version is not None:
        raise BadArgument(reason=f"{text}: a model is repaired as a whole", fix=f"edgecloud repair {name.device}")
    models = [] if name.model else store.lineages.of(name.device)
    return models or [naming.find_lineage(store, name)]


def _repair(
    store: SqliteStore, lineage: LineageRow, bases: materialise.LoadedBases, states: list[str], mended: list[Document]
) -> tuple[list[LostVersion], int]:
    """Drop and make again what is derived, mend the head if it is lost, and return what is lost then, and how many versions are exact."""
    for version in repairing.damaged_states(store, lineage, bases):
        with store.transaction():
            store.states.drop([version.id])
            states.append(f"{lineage}@{version.version}")
            try:
                state = materialise.rebuild(store, version, bases)
            except ModelWireError:
                continue  # it is named among what is lost
            repairing.keep(store, Mending(lineage, version, "", state=state), now())
    found = list(repairing.losses(store, lineage, bases))
    head = repairing.head_of(store, lineage)
    if head is not None and any(one is not None and one.version.id == head.id and one.weights is not None for one in found):
        mending = repairing.mend(store, lineage, head, bases)
        if mending.state is not None:
            with store.transaction():
                repairing.keep(store, mending, now())
            found = list(repairing.losses(store, lineage, bases))
        mended.append(_step(mending))
    return [one for one in found if one is not None], sum(one is None for one in found)


def _step(mending: Mending) -> Document:
    """Return how far a head has come back, and what the operator does next."""
    model = str(mending.lineage)
    if mending.state is not None:
        next_step = ""
    elif mending.why_not:
        next_step = f"edgecloud snapshot request {model}"
    else:
        next_step = f"edgecloud leaves request {model} --all" if mending.ask else f"edgecloud leaves fetch {model}"
    return {
        "name": f"{model}@{mending.version.version}", "mended": mending.state is not None, "near": mending.near, "leaves": len(mending.bad),
        "asks": len(mending.ask), "fetches": len(mending.fetch), "why_not": mending.why_not, "next": next_step,
    }  # fmt: skip


def _said(one: Document) -> list[str]:
    if one["mended"]:
        return [f"MENDED {one['name']}: {one['leaves']} leaves that its board gave and {one['near']} make its root, and the state is kept"]
    if one["why_not"]:
        return [f"{one['name']} can't be mended by leaves: {one['why_not']}", f"{one['next']} asks its board for a whole model"]
    if one["asks"]:
        return [f"{one['name']}: its board can say which leaves are bad: {one['next']}, then wait and repair again"]
    return [f"{one['name']}: {one['leaves']} leaves are not those of {one['near']}: {one['next']}, then wait and repair again"]


def _told(loss: LostVersion) -> Document:
    """Return what is lost of a version, in words."""
    why = loss.bytes or loss.weights
    assert why is not None
    what = "its update is lost, its weights come back by another way" if loss.weights is None else "its weights can't be rebuilt"
    return {"name": str(loss), "bytes": loss.bytes is None, "recoverable": loss.weights is None, "message": f"{what}: {why.message}"}
