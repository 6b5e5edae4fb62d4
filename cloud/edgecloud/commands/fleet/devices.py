"""bases, devices, snapshot and annotate: what the operator adds."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

from edgecloud import keys
from edgecloud.registry import Base, Request, SqliteStore
from edgecloud.versions import naming
from modelwire.errors import BadArgument, MissingFile, TooLarge, UnknownDevice
from modelwire.limits import DEFAULT
from modelwire.tensors import check_name
from modelwire.tflite.file import check_trainable, read_head
from modelwire.update.manifest import manifest_of

from .. import int8_heads
from ..answer import Answer, Document, facts, now, opened, table, when


def add_base(args: argparse.Namespace) -> Answer:
    """Register a trainable .tflite, or a stock int8 classifier, as a base that devices start from."""
    path = Path(args.file)
    name = check_name("base name", args.name or path.stem.lower())
    if not path.is_file():
        raise MissingFile(path=path, what="the model file")
    if path.stat().st_size > DEFAULT.model_file:
        raise TooLarge(what=str(path), size=path.stat().st_size, limit=DEFAULT.model_file)
    file = path.read_bytes()
    check_trainable(file, model=name)
    head = read_head(file, model=name)
    manifest = manifest_of(file, exact=args.exact)
    with opened(args, readonly=False) as store, store.transaction():
        known = store.bases.get(manifest.commit)
        if known is None:
            if store.bases.named(name) is not None:
                raise BadArgument(reason=f"another base is named {name!r}", fix=f"give this one a name: --name {name}-2")
            known = Base(manifest.commit, name, manifest.encode(), store.blobs.put(file), len(file), now())
            store.bases.add(known)
    document = {
        **_base(known), "weights": manifest.schema.size, "tensors": len(manifest.schema.tensors), "exact": manifest.all_exact,
        "int8_head": int8_heads.describe(head),
    }  # fmt: skip
    text = facts(
        (
            ("base", known.name), ("commit", known.commit.hex()), ("weights", manifest.schema.size), ("file", f"{known.size} bytes"),
            ("int8 head", "" if head is None else int8_heads.say(head)),
        )
    )  # fmt: skip
    return Answer(document, text)


def list_bases(args: argparse.Namespace) -> Answer:
    """List the bases."""
    with opened(args) as store:
        rows = store.bases.all()
    text = table(("base", "commit", "bytes", "added"), [(b.name, b.commit.hex()[:16], b.size, when(b.added_at)) for b in rows])
    return Answer({"bases": [_base(b) for b in rows]}, text)


def add_device(args: argparse.Namespace) -> Answer:
    """Let a public key speak for a device; what waits in quarantine for it is taken in by the ingester at once."""
    name = check_name("device name", args.name)
    key = keys.read_public(args.key)
    with opened(args, readonly=False) as store, store.transaction():
        owner = store.devices.owner(key)
        if owner not in (None, name):
            raise BadArgument(reason=f"this key speaks for {owner}", fix="each device has a key of its own: edgeagent init makes one")
        others = [k for k in store.devices.keys(name) if k.revoked_at is None and k.key != key]
        if others and not args.replace:
            raise BadArgument(
                reason=f"{name} has another key, {others[0].key.hex()[:16]}",
                fix=f"if the board was set up anew: edgecloud devices add {name} {key.hex()} --replace",
            )
        if others:
            store.devices.revoke(name, now())
        if store.devices.owner(key) is None:
            store.devices.add(name, key, now())
        waiting = sum(m.kind != "state" for m in store.inbox.held(name))
    document: Document = {"device": name, "key": key, "replaced": [k.key for k in others], "waiting": waiting}
    lines = [f"{name} speaks with {key.hex()}"] + [f"revoked {k.key.hex()}" for k in others]
    if waiting:
        lines.append(f"{waiting} of its messages wait in quarantine; a running ingester takes them in now")
    return Answer(document, "\n".join(lines))


def revoke_device(args: argparse.Namespace) -> Answer:
    """Let no key speak for a device any more; its history stays."""
    with opened(args, readonly=False) as store, store.transaction():
        if not store.devices.keys(args.name):
            raise UnknownDevice(device=args.name)
        count = store.devices.revoke(args.name, now())
    return Answer({"device": args.name, "revoked": count}, f"{args.name}: {count} keys revoked")


def list_devices(args: argparse.Namespace) -> Answer:
    """List devices with their models, and those that wait in quarantine."""
    with opened(args) as store:
        devices = [_device(store, name) for name in store.devices.names()]
        waiting = _waiting(store)
    rows = [
        (d["device"], m.get("model"), m.get("head"), m.get("verified"), m.get("epoch"), m.get("state"), when(m.get("seen_at")), d["status"])
        for d in devices
        for m in d["models"] or [{}]
    ]
    text = table(("device", "model", "head", "verified", "epoch", "link", "seen", "key"), rows)
    for one in waiting:
        what = f"{one['device']}/{one['model']} waits: {one['hellos']} hello, {one['updates']} updates"
        text += f"\n{what}; {one['what']}" + (f"\n  {one['next']}" if one["next"] else "")
    return Answer({"devices": devices, "quarantine": waiting}, text)


def request_snapshot(args: argparse.Namespace) -> Answer:
    """Ask a device for its whole state; the running ingester passes it on until the device has answered."""
    with opened(args, readonly=False) as store, store.transaction():
        lineage = naming.find_lineage(store, naming.parse(args.name))
        asked = [r for r in store.requests.open(lineage.id) if r.verb == "snapshot"]
        if not asked:
            # Random, not counted: a restored registry must not give a number again that a board has answered.
            request = Request(secrets.randbits(62), lineage.id, "snapshot", now(), None, None, "")
            store.requests.add(request)
            asked = [request]
    document: Document = {"id": asked[0].id, "model": str(lineage), "verb": "snapshot", "created_at": asked[0].created_at}
    return Answer(document, f"{lineage}: snapshot requested, id {asked[0].id}")


def annotate(args: argparse.Namespace) -> Answer:
    """Keep a free note on a device, a model, a version or a base."""
    if not args.text.strip() or len(args.text) > 4000:
        raise BadArgument(reason="a note has 1 to 4000 characters", fix="put longer ones elsewhere and note where")
    if any("\ud800" <= c <= "\udfff" for c in args.text):  # what a command line gives for bytes that are no UTF-8
        raise BadArgument(reason="a note is text", fix="write it in UTF-8")
    with opened(args, readonly=False) as store, store.transaction():
        kind, object = _object(store, args.name)
        note = store.annotations.add(kind, object, args.text, now())
    return Answer({"id": note.id, "kind": kind, "object": object, "text": note.text, "at": note.at}, f"{kind} {object}: {note.text}")


def _object(store: SqliteStore, text: str) -> tuple[str, str]:
    if text.startswith("base:"):
        if store.bases.named(text[5:]) is None:
            raise BadArgument(reason=f"there is no base {text[5:]!r}", fix="edgecloud bases list")
        return "base", text[5:]
    name = naming.parse(text)
    if name.version is not None:
        return "version", str(naming.find(store, name))
    if name.model is not None:
        return "model", str(naming.find_lineage(store, name))
    if name.device not in store.devices.names():
        raise UnknownDevice(device=name.device)
    return "device", name.device


def _base(base: Base) -> Document:
    return {"base": base.name, "commit": base.commit, "file_sha256": base.file, "bytes": base.size, "added_at": base.added_at}


def _device(store: SqliteStore, name: str) -> Document:
    known = store.devices.keys(name)
    active = [k for k in known if k.revoked_at is None]
    models = []
    for lineage in store.lineages.of(name):
        epoch = store.lineages.current(lineage.id)
        head = store.lineages.head(lineage.id, epoch.epoch) if epoch else None
        seen = store.lineages.presence(lineage.id)
        models.append(
            {
                "model": lineage.model,
                "epoch": epoch.epoch if epoch else 0,
                "head": head.version if head else 0,
                "verified": store.versions.verified(lineage.id, epoch.epoch) if epoch else 0,
                "last_version": lineage.last_version,
                "state": ("on line" if seen.online else "off line") if seen and seen.boot else "",
                "seen_at": seen.received_at if seen else None,
                "runtime": seen.runtime if seen else "",
                "agent": seen.agent if seen else "",
            }
        )
    return {"device": name, "status": "active" if active else "revoked", "keys": [k.key for k in active], "models": models}


def _waiting(store: SqliteStore) -> list[Document]:
    out: dict[tuple[str, str], Document] = {}
    for message in (m for m in store.inbox.held() if m.kind != "state"):
        one = out.setdefault(
            (message.device, message.model),
            {
                "device": message.device, "model": message.model, "hellos": 0, "updates": 0, "since": message.received_at,
                "key": None, "what": "its updates are signed by a key that is not registered", "next": "",
            },
        )  # fmt: skip
        one["hellos" if message.kind == "hello" else "updates"] += 1
        one["since"] = min(one["since"], message.received_at)
        if message.kind != "hello":
            continue
        one["key"] = message.mark
        if message.reason == "unknown-base":
            one["what"], one["next"] = f"its base {message.base.hex()[:16]} is not registered", "edgecloud bases add FILE.tflite"
            continue
        known = store.devices.keys(message.device)
        one["what"] = "its key was revoked" if any(k.key == message.mark for k in known) else "its key is not registered"
        replace = " --replace" if any(k.revoked_at is None for k in known) else ""
        one["next"] = f"edgecloud devices add {message.device} {message.mark.hex()}{replace}"
    return list(out.values())
