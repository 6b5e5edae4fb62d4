"""`edgecloud devices`: who may send to this centre, and who waits for that."""

from __future__ import annotations

import argparse

from edgecloud.audit.admissions import Admissions
from edgecloud.registry import SqliteStore
from edgecommon.arguments import never_with
from edgecommon.printing import Answer, lines_of
from modelwire.errors import BadArgument, UnknownDevice
from modelwire.names import check_own_name
from modelwire.wire.keys import fingerprint

from .. import waiting
from ..alarms import ACKNOWLEDGE
from ..answer import Document, now, registry_of
from ..sealing import add_expires, add_key, command_key, decide, unlock
from ..verb import Verb
from ..waiting import ADMITTED, COMPARE, REJECTED, line
from .listing import add_listing, list_devices

NAME = "devices"
HELP = "Devices, their keys, and those that wait."
EXAMPLES = ("edgecloud devices", "edgecloud devices --stale 24h")


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


def _resume_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL]", help="one model, or all of the device that would like it")
    parser.add_argument("--decline", action="store_true", help="let it go on from its base: it hears so at its next hello")
    add_expires(parser)
    add_key(parser)
    for option in ("--expires", "--key", "--passphrase-file"):
        never_with(parser, option, "--decline")


def _resume(args: argparse.Namespace) -> Answer:
    from .resuming import resume_device  # the other verbs rebuild no model

    return resume_device(args)


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
        _resume, _resume_arguments,
    ),
    ACKNOWLEDGE,
    Verb(
        "list", "List devices with their models, every key that waits in a device's name, and what else waits in quarantine.",
        (
            "edgecloud devices list --json", "edgecloud devices list --name 'pi-*' --sort bytes -n 10",
            "edgecloud devices list --stale 24h",
        ),
        list_devices, add_listing,
    ),
)  # fmt: skip
run, add = list_devices, add_listing
