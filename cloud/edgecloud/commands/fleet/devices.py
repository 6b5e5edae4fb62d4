"""`edgecloud devices`: who may send to this centre, and who waits for that."""

from __future__ import annotations

import argparse

from edgecloud import keys
from edgecloud.registry import SqliteStore
from edgecommon.printing import Answer, lines_of, visible
from modelwire.errors import BadArgument, UnknownDevice
from modelwire.tensors import check_own_name
from modelwire.wire.keys import KeyKind, write_key

from ..answer import Document, now, registry_of, table, when
from ..sealing import add_key, command_key, decide
from ..verb import Verb

NAME = "devices"
HELP = "Devices, their keys, and those that wait."
EXAMPLES = ("edgecloud devices",)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the device's name")
    parser.add_argument("pubkey", metavar="PUBKEY", help="its public key: edge-device-pub:..., or a file that holds that line")
    parser.add_argument("--replace", action="store_true", help="revoke the key that spoke for it until now")
    add_key(parser)


def add_device(args: argparse.Namespace) -> Answer:
    name = check_own_name("device name", args.name)
    key = keys.read_device_key(args.pubkey)
    with registry_of(args, readonly=False) as store, store.transaction():
        owner = store.devices.owner(key)
        if owner not in (None, name):
            raise BadArgument(reason=f"this key speaks for {owner}", fix="each device has a key of its own: edgeagent init makes one")
        others = [k for k in store.devices.keys(name) if k.revoked_at is None and k.key != key]
        if others and not args.replace:
            raise BadArgument(
                reason=f"{name} has another key, {others[0].key.hex()[:16]}",
                fix=f"if the board was set up anew: edgecloud devices add {name} {_line(key)} --replace",
            )
        if others or owner is None:
            sealer = command_key(args, store)
            for other in others:
                decide(store, sealer, name, "revoke", other.key)
            if others:  # a key that is the device's already goes with them, and comes again below
                store.devices.revoke(name, now())
            decide(store, sealer, name, "admit", key)
            store.devices.add(name, key, now())
        waiting = sum(m.kind != "state" for m in store.inbox.held(name))
    document: Document = {"device": name, "key": _line(key), "replaced": [_line(k.key) for k in others], "waiting": waiting}
    lines = [f"{name} speaks with {_line(key)}"] + [f"revoked {_line(k.key)}" for k in others]
    if waiting:
        then = "a running ingester answers its hello now, and takes in the rest after that"
        lines.append(f"{waiting} of its messages wait in quarantine; {then}")
    return Answer(document, lines_of(lines))


def _revoke_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the device's name")
    add_key(parser)


def revoke_device(args: argparse.Namespace) -> Answer:
    with registry_of(args, readonly=False) as store, store.transaction():
        known = store.devices.keys(args.name)
        if not known:
            raise UnknownDevice(device=args.name)
        sealer = command_key(args, store)
        for one in known:
            if one.revoked_at is None:
                decide(store, sealer, args.name, "revoke", one.key)
        count = store.devices.revoke(args.name, now())
    return Answer({"device": args.name, "revoked": count}, f"{args.name}: {count} keys revoked")


def list_devices(args: argparse.Namespace) -> Answer:
    with registry_of(args) as store:
        devices = [describe(store, name) for name in store.devices.names()]
        waiting = _waiting(store)
    rows = [
        (d["device"], m.get("model"), m.get("head"), m.get("verified"), m.get("epoch"), m.get("state"), when(m.get("seen_at")), d["status"])
        for d in devices
        for m in d["models"] or [{}]
    ]
    text = table(("device", "model", "head", "verified", "epoch", "link", "seen", "key"), rows)
    for one in waiting:
        what = f"{one['device']}/{one['model']} waits: {one['hellos']} hello, {one['updates']} updates"
        text += f"\n{visible(what)}; {one['what']}" + (f"\n  {visible(one['next'])}" if one["next"] else "")
    return Answer({"devices": devices, "quarantine": waiting}, text)


def describe(store: SqliteStore, name: str) -> Document:
    """Return what a document says of a device and its models."""
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
    return {"device": name, "status": "active" if active else "revoked", "keys": [_line(k.key) for k in active], "models": models}


def _line(key: bytes) -> str:
    """Return a device's key as every command takes it."""
    return write_key(KeyKind.DEVICE, key)


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
            newer = any(k.id > message.looked and k.revoked_at is None for k in store.devices.keys(message.device))
            if newer and not one["hellos"]:
                one["what"] = "its updates are looked at when it has said hello, and answered its challenge"
            continue
        one["key"] = _line(message.mark)
        if message.reason == "unknown-base":
            one["what"], one["next"] = f"its base {message.base.hex()[:16]} is not registered", "edgecloud bases add FILE.tflite"
            continue
        known = store.devices.keys(message.device)
        one["what"] = "its key was revoked" if any(k.key == message.mark for k in known) else "its key is not registered"
        replace = " --replace" if any(k.revoked_at is None for k in known) else ""
        one["next"] = f"edgecloud devices add {message.device} {one['key']}{replace}"
    return list(out.values())


VERBS = (
    Verb(
        "add", "Let a public key speak for a device; the ingester answers its hello at once, and takes in what waits in quarantine.",
        (
            "edgecloud devices add pi-7 edge-device-pub:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "edgecloud devices add pi-7 ./pi-7.pub --replace",
        ),
        add_device, _add_arguments,
    ),
    Verb(
        "revoke", "Let no key speak for a device any more; its history stays.",
        ("edgecloud devices revoke pi-7",), revoke_device, _revoke_arguments,
    ),
    Verb(
        "list", "List devices with their models, and those that wait in quarantine.",
        ("edgecloud devices list --json",), list_devices,
    ),
)  # fmt: skip
run = list_devices
