"""`edgecloud devices`: who may send to this centre, and who waits for that."""

from __future__ import annotations

import argparse

from edgecloud.registry import SqliteStore
from edgecommon.printing import Answer, lines_of, visible
from modelwire.errors import BadArgument, UnknownDevice
from modelwire.tensors import check_own_name
from modelwire.wire.keys import fingerprint

from .. import losses, waiting
from ..answer import Document, now, registry_of, table, when
from ..sealing import add_key, command_key, decide
from ..verb import Verb
from ..waiting import ADMITTED, COMPARE, REJECTED, REVOKED, line

NAME = "devices"
HELP = "Devices, their keys, and those that wait."
EXAMPLES = ("edgecloud devices",)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the device's name")
    what = "the fingerprint that the board shows, of a key that waits; or the public key: edge-device-pub:..., or a file with that line"
    parser.add_argument("key_or_fingerprint", metavar="FINGERPRINT|PUBKEY", help=what)
    parser.add_argument("--replace", action="store_true", help="revoke the key that spoke for it until now")
    add_key(parser)


def add_device(args: argparse.Namespace) -> Answer:
    name = check_own_name("device name", args.name)
    given = waiting.parse_key(args.key_or_fingerprint)
    with registry_of(args, readonly=False) as store, store.transaction():
        key = waiting.find(store, name, given) if isinstance(given, str) else given
        owner = store.devices.owner(key)
        if owner not in (None, name):
            raise BadArgument(reason=f"this key speaks for {owner}", fix="each device has a key of its own: edgeagent init makes one")
        others = [k for k in store.devices.keys(name) if k.revoked_at is None and k.key != key]
        if others and not args.replace:
            raise BadArgument(
                reason=f"{name} has another key that speaks, {fingerprint(others[0].key)}",
                fix=f"{COMPARE}; only if the board was set up anew and shows this one, say the same with --replace",
            )
        if others or owner is None:
            sealer = command_key(args, store)
            for other in others:
                decide(store, sealer, name, "revoke", other.key)
            if others:  # a key that is the device's already goes with them, and comes again below
                store.devices.revoke(name, now())
            decide(store, sealer, name, "admit", key)
            store.devices.add(name, key, now())
        held = sum(m.kind == "update" or (m.kind == "hello" and m.mark == key) for m in store.inbox.held(name))
    document: Document = {
        "device": name, "key": line(key), "fingerprint": fingerprint(key), "state": ADMITTED,
        "replaced": [line(k.key) for k in others], "waiting": held,
    }  # fmt: skip
    lines = [f"{name} speaks with {fingerprint(key)}, {line(key)}"] + [f"revoked {fingerprint(k.key)}, {line(k.key)}" for k in others]
    if held:
        then = "a running ingester answers its hello now, and takes in the rest after that"
        lines.append(f"{held} of its messages wait in quarantine; {then}")
    return Answer(document, lines_of(lines))


def _reject_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the device's name")
    parser.add_argument("fingerprint", metavar="FINGERPRINT", help="of a key that waits, as edgecloud devices lists it; or its public key")


def reject_key(args: argparse.Namespace) -> Answer:
    name = check_own_name("device name", args.name)
    given = waiting.parse_key(args.fingerprint)
    with registry_of(args, readonly=False) as store, store.transaction():
        known = {fingerprint(r.key): r.key for r in store.devices.rejections(name)}
        key = given if isinstance(given, bytes) else known.get(given) or waiting.find(store, name, given)
        owner = store.devices.owner(key)
        if owner is not None:
            raise BadArgument(reason=f"the key {fingerprint(key)} speaks for {owner}", fix=f"edgecloud devices revoke {owner}")
        store.devices.reject(name, key, now())
    document: Document = {"device": name, "key": line(key), "fingerprint": fingerprint(key), "state": REJECTED}
    return Answer(document, f"{fingerprint(key)} is rejected: its hellos in the name of {name} are listed no more")


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
        keys, messages, rejected = waiting.waiting_keys(store), waiting.waiting_messages(store), waiting.rejected_keys(store)
    rows = [
        (d["device"], m.get("model"), m.get("head"), m.get("verified"), m.get("epoch"), m.get("state"), when(m.get("seen_at")), d["status"])
        for d in devices
        for m in d["models"] or [{}]
    ]
    text = table(("device", "model", "head", "verified", "epoch", "link", "seen", "key"), rows)
    told = [losses.line(f"{d['device']}/{m['model']}", m["lost"]) for d in devices for m in d["models"]]
    for said in (*told, *(losses.witness_line(seen) for d in devices for seen in d["witness"])):
        text += f"\n{visible(said)}" if said else ""
    for one in messages:
        what = f"{one['device']}/{one['model']} waits: {one['hellos']} hello, {one['updates']} updates"
        text += f"\n{visible(what)}; {one['what']}" + (f"\n  {visible(one['next'])}" if one["next"] else "")
    if keys:
        text += "\n\n" + waiting.waiting_keys_text(keys)
    if rejected:
        text += f"\n\n{len(rejected)} rejected {'key' if len(rejected) == 1 else 'keys'} not shown; --json lists them"
    return Answer({"devices": devices, "waiting": keys, "quarantine": messages, "rejected": rejected}, text)


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
                "lost": losses.lost_of(store, lineage),
                "state": ("on line" if seen.online else "off line") if seen and seen.boot else "",
                "seen_at": seen.received_at if seen else None,
                "runtime": seen.runtime if seen else "",
                "agent": seen.agent if seen else "",
            }
        )
    return {
        "device": name, "status": ADMITTED if active else REVOKED, "keys": [line(k.key) for k in active],
        "fingerprints": [fingerprint(k.key) for k in active], "models": models, "witness": losses.witnesses_of(store, name),
    }  # fmt: skip


VERBS = (
    Verb(
        "add", "Let a public key speak for a device; the ingester answers its hello at once, and takes in what waits in quarantine.",
        (
            "edgecloud devices add pi-7 21fe-31df-a154-a261-626b",
            "edgecloud devices add pi-7 edge-device-pub:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "edgecloud devices add pi-7 ./pi-7.pub --replace",
        ),
        add_device, _add_arguments,
    ),
    Verb(
        "reject", "Hear no more of a key that waits in a device's name: its hellos are listed no more.",
        ("edgecloud devices reject pi-7 21fe-31df-a154-a261-626b",), reject_key, _reject_arguments,
    ),
    Verb(
        "revoke", "Let no key speak for a device any more; its history stays.",
        ("edgecloud devices revoke pi-7",), revoke_device, _revoke_arguments,
    ),
    Verb(
        "list", "List devices with their models, every key that waits in a device's name, and what else waits in quarantine.",
        ("edgecloud devices list --json",), list_devices,
    ),
)  # fmt: skip
run = list_devices
