"""`edgecloud show`: all that is known of a device or of one version."""

from __future__ import annotations

import argparse

from edgecloud.feasibility import fitness
from edgecloud.registry import SqliteStore
from edgecloud.versions import cards, naming
from edgecommon.printing import Answer, visible
from modelwire.errors import UnknownDevice, WireError

from .. import losses
from ..answer import Document, facts, now, registry_of, when
from ..fleet.overview import describe_some
from .card import as_document, summary
from .described import carried, describe, made_of, merged_into, notes_on, other_base, thinned, told_merges

NAME = "show"
HELP = "Show a device, or one version."
EXAMPLES = ("edgecloud show pi-7", "edgecloud show pi-7/digits@12", "edgecloud show pi-7@base")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL][@VERSION]", help="a device, or one version: a number, latest or base")


def run(args: argparse.Namespace) -> Answer:
    name = naming.parse(args.name)
    with registry_of(args) as store:
        if name.version is None and name.model is None:
            if not store.devices.keys(name.device):
                raise UnknownDevice(device=name.device)
            return _show_device(store, name.device)
        place = naming.find(store, name)
        if place.version is None:
            return _show_base(store, place)
        document = describe(store, place.lineage, place.version)
        document["annotations"] = notes_on(store, "version", str(place))
        document["merged_into"] = merged_into(store, place.version)
        found = fitness.unfit(store, [place.version.id]).get(place.version.id)
        document["unfit"] = None if found is None else found.words
        try:
            card = cards.card_of(store, place.version)
        except WireError:  # the ingester has left a note
            card = None
        document["card"] = None if card is None else as_document(card)
    v = document
    text = facts(
        (
            ("version", v["name"]), ("epoch", v["epoch"]), ("kind", v["kind"]), ("status", v["status"]), ("reason", v["reason"]),
            ("fitness", v["unfit"]),
            ("held", thinned(v)),
            ("commit", v["commit"].hex()), ("parent", v["parent"].hex()), ("base", v["base"].hex()), ("root", v["root"].hex()),
            ("bytes", v["bytes"]), ("received", when(v["received_at"])), ("carries", carried(v["skipped"])),
            ("base before", v["base_before"].hex() if other_base(v) else ""),
            *(("merged", said) for said in told_merges(v["merged_into"])),
            ("data card", "" if card is None else summary(card, v["name"])),
            *((key, value) for key, value in v["metrics"].items() if key != "skipped" and not isinstance(value, bytes)),
            *(("note", n["text"]) for n in v["annotations"]),
        )
    )  # fmt: skip
    return Answer(document, text)


def _show_device(store: SqliteStore, device: str) -> Answer:
    document = describe_some(store, [device])[device]
    document["annotations"] = notes_on(store, "device", device)
    said = (("key", ", ".join(document["keys"])), ("fingerprint", ", ".join(document["fingerprints"])))
    lines = [facts((("device", device), ("status", document["status"]), *said))]
    for model in document["models"]:
        lineage = store.lineages.get(device, model["model"])
        assert lineage is not None
        model["requests"] = [
            {
                "number": r.number, "verb": r.verb, "created_at": r.created_at, "expires_at": r.expiry,
                "expired": r.answered_at is None and not r.open(now()), "answered_at": r.answered_at, "ok": r.ok, "text": r.text,
            }
            for r in store.requests.of(lineage.id)
        ]  # fmt: skip
        model["annotations"] = notes_on(store, "model", str(lineage))
        answered = [r for r in model["requests"] if r["answered_at"] is not None][-1:]
        open_requests = [r["verb"] for r in model["requests"] if r["answered_at"] is None and not r["expired"]]
        expired = [f"{r['verb']}, {when(r['expires_at'])}" for r in model["requests"] if r["expired"]][-1:]
        lines.append(
            facts(
                (
                    ("model", model["model"]), ("fitness", model["unfit"]),
                    ("head", f"@{model['head']}"), ("verified", f"@{model['verified']}"),
                    ("epoch", model["epoch"]), ("versions", f"{model['versions']}, {model['bytes']} bytes in all"),
                    ("lost", losses.numbers(model["lost"])), ("link", model["state"]), ("seen", when(model["seen_at"])),
                    ("runtime", model["runtime"]), ("agent", model["agent"]), ("asked for", ", ".join(open_requests)),
                    *(("answered", _answered(r)) for r in answered), *(("expired", said) for said in expired),
                    *(("note", n["text"]) for n in model["annotations"]),
                )
            )
        )  # fmt: skip
    lines += [f"note  {visible(n['text'])}" for n in document["annotations"]]
    told = [losses.line(f"{device}/{m['model']}", m["lost"]) for m in document["models"]]
    lines += [visible(one) for one in (*told, *map(losses.witness_line, document["witness"])) if one]
    return Answer(document, "\n\n".join(lines))


def _show_base(store: SqliteStore, place: naming.Place) -> Answer:
    row = store.bases.get(place.base)
    assert row is not None  # the epoch refers to it
    document: Document = {
        "name": str(place), "base": row.name, "commit": row.commit, "file_sha256": row.file, "bytes": row.size,
        "annotations": notes_on(store, "version", str(place)) + notes_on(store, "base", row.name),
        "made_of": made_of(store, place.base),
    }  # fmt: skip
    pairs = (("version", document["name"]), ("base", row.name), ("commit", row.commit.hex()), ("file sha256", row.file.hex()))
    notes = tuple(("note", n["text"]) for n in document["annotations"])
    return Answer(document, facts((*pairs, ("bytes", row.size), ("made of", document["made_of"]), *notes)))


def _answered(request: Document) -> str:
    """Return what the device said to the last thing that it was asked for."""
    return f"{request['verb']} {'done' if request['ok'] else 'not done'}, {when(request['answered_at'])}: {request['text'][:200]}"
