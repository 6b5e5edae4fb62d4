"""log, show, diff and materialise: what the registry knows of models."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from edgecloud.registry import Lineage, SqliteStore, Version
from edgecloud.versions import cards, comparing, exporting, materialise, naming
from modelwire.errors import BadArgument, UnknownDevice, WireError
from modelwire.wire import cbor

from ..answer import Answer, Document, facts, opened, table, when
from ..fleet.devices import _device
from .card import as_document, summary


def log(args: argparse.Namespace) -> Answer:
    """List a model's versions, refused ones too, and what else its device sent that was refused."""
    with opened(args) as store:
        lineage = naming.find_lineage(store, naming.parse(args.name))
        versions = [_version(store, lineage, v) for v in store.versions.of(lineage.id)]
        refusals: list[Document] = [
            {"version": r.version, "epoch": r.epoch, "error": r.error, "reason": r.reason, "at": r.at, "commit": r.commit,
             "repeats": r.repeats}
            for r in store.refusals.last(50, lineage.device, lineage.model)
        ]  # fmt: skip
        parked = [{"version": o.version, "parent": o.parent} for o in store.inbox.orphans(lineage.device) if o.lineage == lineage.id]
    rows = [
        (f"@{v['version']}", v["epoch"], v["kind"], v["status"], v["bytes"], _change(v, "loss"), _change(v, "accuracy"),
         when(v["received_at"]), v["commit"].hex()[:12], _note(v))
        for v in versions
    ]  # fmt: skip
    columns = ("version", "epoch", "kind", "status", "bytes", "loss", "accuracy", "received", "commit", "note")
    text = table(columns, rows, title=str(lineage))
    if parked:
        text += f"\n{len(parked)} updates wait for the one before them: " + ", ".join(f"@{p['version']}" for p in parked)
    if refusals:
        text += "\n" + table(
            ("refused", "error", "reason", "at"),
            [(f"@{r['version']}" if r["version"] else "a message", r["error"], r["reason"], when(r["at"])) for r in refusals],
        )
    return Answer({"device": lineage.device, "model": lineage.model, "versions": versions, "refusals": refusals, "parked": parked}, text)


def show(args: argparse.Namespace) -> Answer:
    """Show a device, or one version."""
    name = naming.parse(args.name)
    with opened(args) as store:
        if name.version is None and name.model is None:
            if name.device not in store.devices.names():
                raise UnknownDevice(device=name.device)
            return _show_device(store, name.device)
        place = naming.find(store, name)
        if place.version is None:
            return _show_base(store, place)
        document = _version(store, place.lineage, place.version)
        document["annotations"] = _notes(store, "version", str(place))
        try:
            card = cards.card_of(store, place.version)
        except WireError:  # the ingester has left a note
            card = None
        document["card"] = None if card is None else as_document(card)
    v = document
    text = facts(
        (
            ("version", v["name"]), ("epoch", v["epoch"]), ("kind", v["kind"]), ("status", v["status"]), ("reason", v["reason"]),
            ("commit", v["commit"].hex()), ("parent", v["parent"].hex()), ("base", v["base"].hex()), ("root", v["root"].hex()),
            ("bytes", v["bytes"]), ("received", when(v["received_at"])), ("carries", _ranges(v["skipped"])),
            ("data card", "" if card is None else summary(card, v["name"])),
            *((key, value) for key, value in v["metrics"].items() if key != "skipped" and not isinstance(value, bytes)),
            *(("note", n["text"]) for n in v["annotations"]),
        )
    )  # fmt: skip
    return Answer(document, text)


def diff(args: argparse.Namespace) -> Answer:
    """Say how far two versions are from each other, tensor by tensor."""
    with opened(args) as store:
        bases = materialise.Bases(store)
        places = [naming.find(store, naming.parse(n)) for n in (args.first, args.second)]
        states = [materialise.rebuild(store, p.version, bases) if p.version else bases[p.base].state() for p in places]
    found = comparing.distance(states[0], states[1])
    tensors: list[Document] = [
        {"tensor": t.name, "entries": t.entries, "changed": t.changed, "units": t.units, "exponent": t.exponent,
         "max_abs": t.largest, "l2": t.l2}
        for t in found.tensors
    ]  # fmt: skip
    document: Document = {
        "first": str(places[0]), "second": str(places[1]), "same_base": found.same_base, "entries": found.entries,
        "changed": found.changed, "max_abs": found.largest, "l2": found.l2, "tensors": tensors,
    }  # fmt: skip
    rows = [(t.name, t.entries, t.changed, _units(t), f"{t.largest:.6g}", f"{t.l2:.6g}") for t in found.tensors]
    rows.append(("all", found.entries, found.changed, "", f"{found.largest:.6g}", f"{found.l2:.6g}"))
    title = f"{places[0]} -> {places[1]}"
    return Answer(document, table(("tensor", "entries", "changed", "lattice units", "max |dw|", "l2"), rows, title=title))


def materialise_to(args: argparse.Namespace) -> Answer:
    """Write a version's weights to a file: exact and proven, or nothing."""
    path = Path(args.output)
    if path.suffix not in exporting.FORMATS:
        raise BadArgument(reason=f"{path.name!r} names no format", fix="name the file FILE.tflite, FILE.npz or FILE.safetensors")
    with opened(args) as store:
        bases = materialise.Bases(store)
        place = naming.find(store, naming.parse(args.name))
        base = bases[place.base]
        state = materialise.rebuild(store, place.version, bases) if place.version else base.state()
        commit = place.version.commit if place.version else place.base
        root = state.root
        said = {"name": str(place), "commit": commit.hex(), "root": root.hex(), "base": place.base.hex()}
        data = exporting.export(path, state, base, said)
    digest = hashlib.sha256(data).digest()
    document: Document = {
        "name": str(place), "file": str(path), "format": path.suffix[1:], "bytes": len(data), "sha256": digest, "root": root,
        "commit": commit,
    }  # fmt: skip
    pairs = (("version", place), ("file", path), ("bytes", len(data)), ("sha256", digest.hex()), ("root", root.hex()))
    return Answer(document, facts(pairs))


def _show_device(store: SqliteStore, device: str) -> Answer:
    document = _device(store, device)
    document["annotations"] = _notes(store, "device", device)
    lines = [facts((("device", device), ("status", document["status"]), ("key", ", ".join(k.hex() for k in document["keys"]))))]
    for model in document["models"]:
        lineage = store.lineages.get(device, model["model"])
        assert lineage is not None
        rows = store.versions.of(lineage.id)
        model["versions"] = len(rows)
        model["bytes"] = sum(v.size for v in rows)
        model["requests"] = [
            {"id": r.id, "verb": r.verb, "created_at": r.created_at, "answered_at": r.answered_at, "ok": r.ok, "text": r.text}
            for r in store.requests.of(lineage.id)
        ]
        model["annotations"] = _notes(store, "model", str(lineage))
        answered = [r for r in model["requests"] if r["answered_at"] is not None][-1:]
        open_requests = [r["verb"] for r in model["requests"] if r["answered_at"] is None]
        lines.append(
            facts(
                (
                    ("model", model["model"]), ("head", f"@{model['head']}"), ("verified", f"@{model['verified']}"),
                    ("epoch", model["epoch"]), ("versions", f"{len(rows)}, {model['bytes']} bytes in all"),
                    ("link", model["state"]), ("seen", when(model["seen_at"])),
                    ("runtime", model["runtime"]), ("agent", model["agent"]), ("asked for", ", ".join(open_requests)),
                    *(("answered", _answered(r)) for r in answered),
                    *(("note", n["text"]) for n in model["annotations"]),
                )
            )
        )  # fmt: skip
    lines += [f"note  {n['text']}" for n in document["annotations"]]
    return Answer(document, "\n\n".join(lines))


def _show_base(store: SqliteStore, place: naming.Place) -> Answer:
    row = store.bases.get(place.base)
    assert row is not None  # the epoch refers to it
    document: Document = {
        "name": str(place), "base": row.name, "commit": row.commit, "file_sha256": row.file, "bytes": row.size,
        "annotations": _notes(store, "version", str(place)) + _notes(store, "base", row.name),
    }  # fmt: skip
    pairs = (("version", document["name"]), ("base", row.name), ("commit", row.commit.hex()), ("file sha256", row.file.hex()))
    notes = tuple(("note", n["text"]) for n in document["annotations"])
    return Answer(document, facts((*pairs, ("bytes", row.size), *notes)))


def _version(store: SqliteStore, lineage: Lineage, v: Version) -> Document:
    metrics = cbor.decode(v.extension, "extension") if v.extension else {}
    assert isinstance(metrics, dict)  # ingest has parsed it
    metrics.pop(cards.KEY, None)
    return {
        "name": f"{lineage}@{v.version}", "version": v.version, "epoch": v.epoch, "kind": v.kind, "status": v.status.value,
        "reason": v.reason, "commit": v.commit, "parent": v.parent, "base": v.base, "root": v.root, "bytes": v.size,
        "received_at": v.received_at, "metrics": metrics, "skipped": store.versions.skipped(v.id),
    }  # fmt: skip


def _notes(store: SqliteStore, kind: str, object: str) -> list[Document]:
    return [{"text": n.text, "at": n.at} for n in store.annotations.of(kind, object)]


def _change(version: Document, what: str) -> str:
    before, after = (version["metrics"].get(f"{what}_{end}") for end in ("before", "after"))
    if not isinstance(before, float) or not isinstance(after, float):
        return ""
    return f"{before:.3f} -> {after:.3f}"


def _note(version: Document) -> str:
    """Return why a version was refused, or what it carries and what the device says of it."""
    said = version["metrics"].get("note")
    words = [_ranges(version["skipped"]), said[:80] if isinstance(said, str) else ""]
    return version["reason"] or "; ".join(word for word in words if word)


def _answered(request: Document) -> str:
    """Return what the device said to the last thing that it was asked for."""
    return f"{request['verb']} {'done' if request['ok'] else 'not done'}, {when(request['answered_at'])}: {request['text'][:200]}"


def _ranges(skipped: list[tuple[int, int]]) -> str:
    return "carries " + ", ".join(f"@{a}" if a == b else f"@{a}..{b}" for a, b in skipped) if skipped else ""


def _units(t: comparing.TensorDistance) -> str:
    return "" if t.units is None else f"{t.units} * 2^{t.exponent}"
