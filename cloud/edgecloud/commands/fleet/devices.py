"""`edgecloud devices`: who may send to this centre, and who waits for that."""

from __future__ import annotations

import argparse

from edgecloud.audit.admissions import Admissions
from edgecloud.intake import epochs
from edgecloud.intake.decision import Bounds
from edgecloud.registry import DeviceKey, SqliteStore
from edgecommon.printing import Answer, lines_of, visible
from modelwire.errors import BadArgument, RegistryDamaged, UnknownDevice
from modelwire.tensors import check_own_name
from modelwire.wire import records
from modelwire.wire.keys import fingerprint

from .. import losses, waiting
from ..answer import Document, now, registry_of, table, when
from ..sealing import add_key, command_key, decide, unlock
from ..verb import Verb
from ..waiting import ADMITTED, COMPARE, REJECTED, REVOKED, line
from .claim import preauthorised, replayed
from .resuming import add_resume_arguments, resume_device, wished

SUSPICIOUS = 3  # epochs of a model in a day, above which the list says so: a board is rarely set up anew more often
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
    with registry_of(args, readonly=False) as store, unlock(args, store), store.transaction():
        key = waiting.find(store, name, given) if isinstance(given, str) else given
        owner = store.devices.owner(key)
        if owner not in (None, name):
            raise BadArgument(reason=f"this key speaks for {owner}", fix="each device has a key of its own: edgeagent init makes one")
        _refuse_revoked(store, name, key)
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
                store.devices.revoke(name, now(), other.key)
            if owner is None:
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


def _refuse_revoked(store: SqliteStore, name: str, key: bytes) -> None:
    """Raise BadArgument for a key that was revoked once, of whichever device, in this registry or in the one that it was restored from."""
    known = Admissions(store.identity)
    known.catch_up(store.log, store.database.path)
    before = known.by_key.get(key)
    if before is not None and before.revoked:
        raise BadArgument(
            reason=f"the key {fingerprint(key)} of {before.device} was revoked (entry {before.revoked} of the log), and that is for good",
            fix=f"set the board up anew, with a key of its own: edgeagent init; then edgecloud devices add {name} with the new fingerprint",
        )


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
    with registry_of(args, readonly=False) as store, unlock(args, store), store.transaction():
        known = store.devices.keys(args.name)
        if not known:
            raise UnknownDevice(device=args.name)
        sealer = command_key(args, store)
        for one in known:
            if one.revoked_at is None:
                decide(store, sealer, args.name, "revoke", one.key)
        count = store.devices.revoke(args.name, now())
    return Answer({"device": args.name, "revoked": count}, f"{args.name}: {count} keys revoked")


def _reset_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the device's name")
    add_key(parser)


def reset_device(args: argparse.Namespace) -> Answer:
    with registry_of(args, readonly=False) as store, unlock(args, store), store.transaction():
        speaking = [k for k in store.devices.keys(args.name) if k.revoked_at is None]
        if not speaking:
            raise UnknownDevice(device=args.name)
        sealer = command_key(args, store)
        for one in speaking:
            decide(store, sealer, args.name, "admit", one.key)
    shorts = [fingerprint(k.key) for k in speaking]
    text = f"{args.name}: its epochs of the last day count no more; {', '.join(shorts)} speaks for it as before"
    return Answer({"device": args.name, "fingerprints": shorts, "reset_at": now()}, text)


def list_devices(args: argparse.Namespace) -> Answer:
    with registry_of(args) as store:
        devices = [describe(store, name) for name in store.devices.names()]
        expected, fault = _expected(store, args)
        namesakes = losses.namesakes_of(store, now())
        keys, messages, rejected = waiting.waiting_keys(store), waiting.waiting_messages(store), waiting.rejected_keys(store)
    rows = [
        (d["device"], m.get("model"), m.get("head"), m.get("verified"), m.get("epoch"), m.get("state"), when(m.get("seen_at")), d["status"])
        for d in devices
        for m in d["models"] or [{}]
    ]
    text = table(("device", "model", "head", "verified", "epoch", "link", "seen", "key"), rows)
    for model, version in ((f"{d['device']}/{m['model']}", m["would_resume"]) for d in devices for m in d["models"]):
        if version is not None:
            text += f"\n{visible(model)} would like its last model @{version} back; `edgecloud devices resume` with its name allows it"
    told = [losses.line(f"{d['device']}/{m['model']}", m["lost"]) for d in devices for m in d["models"]]
    for words in (*told, *(losses.witness_line(seen) for d in devices for seen in d["witness"])):
        text += f"\n{visible(words)}" if words else ""
    text += "".join(f"\n{visible(losses.namesake_line(one))}" for one in namesakes)
    for one in messages:
        what = f"{one['device']}/{one['model']} waits: {one['hellos']} hello, {one['updates']} updates"
        text += f"\n{visible(what)}; {one['what']}" + (f"\n  {visible(one['next'])}" if one["next"] else "")
    for d in devices:
        text += "".join(f"\n{visible(words)}" for m in d["models"] if (words := _burning(d["device"], m)))
    if keys:
        text += "\n\n" + waiting.waiting_keys_text(keys)
    if fault:
        text += f"\n\n{visible(fault)}: edgecloud verify"
    if expected:
        text += f"\n\n{sum(one['left'] for one in expected)} boards are preauthorised by claims: edgecloud claim list"
    if rejected:
        text += f"\n\n{len(rejected)} rejected {'key' if len(rejected) == 1 else 'keys'} not shown; --json lists them"
    said: Document = {"preauthorised": expected, "fault": fault or None, "of_another_fleet": namesakes}
    return Answer({"devices": devices, "waiting": keys, "quarantine": messages, "rejected": rejected, **said}, text)


def describe(store: SqliteStore, name: str) -> Document:
    """Return what a document says of a device and its models."""
    known = store.devices.keys(name)
    active = [k for k in known if k.revoked_at is None]
    models = []
    admitted = _admitted_at(store, name, active)
    for lineage in store.lineages.of(name):
        epoch = store.lineages.current(lineage.id)
        head = store.lineages.head(lineage.id, epoch.epoch) if epoch else None
        seen = store.lineages.presence(lineage.id)
        opened = epochs.rate(store, lineage.id, admitted, now(), Bounds())
        models.append(
            {
                "model": lineage.model,
                "epoch": epoch.epoch if epoch else 0,
                "epochs_of_a_day": opened.opened,
                "epochs_free_at": opened.free_at or None,
                "head": head.version if head else 0,
                "verified": store.versions.verified(lineage.id, epoch.epoch) if epoch else 0,
                "last_version": lineage.last_version,
                "lost": losses.lost_of(store, lineage),
                "state": ("on line" if seen.online else "off line") if seen and seen.boot else "",
                "seen_at": seen.received_at if seen else None,
                "runtime": seen.runtime if seen else "",
                "agent": seen.agent if seen else "",
                "would_resume": wished(store, lineage) or None,
            }
        )
    return {
        "device": name, "status": ADMITTED if active else REVOKED, "keys": [line(k.key) for k in active],
        "fingerprints": [fingerprint(k.key) for k in active], "models": models, "witness": losses.witnesses_of(store, name),
    }  # fmt: skip


def _expected(store: SqliteStore, args: argparse.Namespace) -> tuple[list[Document], str]:
    """Return which boards claims let in, or what is wrong with the log: the other lists are of use all the same."""
    try:
        return preauthorised(replayed(store, args), now()), ""
    except RegistryDamaged as error:
        return [], error.message


def _admitted_at(store: SqliteStore, name: str, active: list[DeviceKey]) -> int:
    """Return when a key that speaks was last admitted, or the operator reset the device."""
    speaking = {k.key for k in active}
    acts = [records.parse(act.record).record.at for act in store.acts.of(name) if act.verb == "admit" and act.key in speaking]
    return max((*acts, *(k.added_at for k in active)), default=0)


def _burning(device: str, model: Document) -> str:
    """Return what is to be said of a model that opens epochs as no sound board does; empty for the others."""
    opened, free_at = model["epochs_of_a_day"], model["epochs_free_at"]
    if opened <= SUSPICIOUS:
        return ""
    until = f", and opens no more before {when(free_at)}" if free_at else ""
    way = "edgecloud devices reset, or revoke where its key may be in other hands" if free_at else "is it sound, or has somebody its key?"
    return f"{device}/{model['model']} has opened {opened} epochs in a day{until}: {way}"


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
        "reset", "Let a device open new epochs again, which is bounded to 24 a day for each model; its key stays the same.",
        ("edgecloud devices reset pi-7",), reset_device, _reset_arguments,
    ),
    Verb(
        "resume", "Let a board that was set up anew have its last model back; the running ingester passes it on until it is answered.",
        ("edgecloud devices resume pi-7", "edgecloud devices resume pi-7/digits --expires 7d", "edgecloud devices resume pi-7 --decline"),
        resume_device, add_resume_arguments,
    ),
    Verb(
        "list", "List devices with their models, every key that waits in a device's name, and what else waits in quarantine.",
        ("edgecloud devices list --json",), list_devices,
    ),
)  # fmt: skip
run = list_devices
