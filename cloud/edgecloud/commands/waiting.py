"""Who waits for the operator: keys that say hello in a device's name, found and named by their fingerprints; and what else waits."""

from __future__ import annotations

import re

from edgecloud import keys
from edgecloud.audit.admissions import Admissions
from edgecloud.audit.refusing import why_not
from edgecloud.registry import SqliteStore, WaitingMessage
from edgecommon.printing import visible
from edgecommon.tables import Column, wrapped
from modelwire.errors import BadArgument, ModelWireError
from modelwire.wire import records
from modelwire.wire.claims import ID_BYTES, serial_in
from modelwire.wire.keys import FINGERPRINT_DIGITS, GROUP, KeyKind, fingerprint, write_key
from modelwire.wire.records import Hello, expect

from .answer import Document, table, when

PENDING, ADMITTED, REJECTED, REVOKED = "pending", "admitted", "rejected", "revoked"  # how a key stands to a name
PREAUTHORISED = "preauthorised"  # a board whose key nobody has seen yet: a claim lets it in

# What the operator goes by is on the board. So a line that could be copied from here is written nowhere, in no answer of the centre's.
COMPARE = "compare with the fingerprint that the board itself shows: edgeagent status"


def line(key: bytes) -> str:
    """Return a device's key as every command takes it."""
    return write_key(KeyKind.DEVICE, key)


def parse_key(text: str) -> bytes | str:
    """Return a device's public key, or the fingerprint that was typed. Raises BadArgument for a piece of one, and as `read_device_key`."""
    typed = text.strip().lower()
    if re.fullmatch("-?".join([f"[0-9a-f]{{{GROUP}}}"] * (FINGERPRINT_DIGITS // GROUP)), typed):
        digits = typed.replace("-", "")
        return "-".join(digits[i : i + GROUP] for i in range(0, FINGERPRINT_DIGITS, GROUP))
    if re.fullmatch(f"[0-9a-f]+(-[0-9a-f]*)+|[0-9a-f]{{1,{FINGERPRINT_DIGITS}}}", typed):
        raise BadArgument(
            reason=f"{text[:40]!r} is no whole fingerprint: it has {FINGERPRINT_DIGITS} hexadecimal digits",
            fix=f"type it as the board shows it (edgeagent status), in groups of {GROUP}",
        )
    return keys.read_device_key(text)


def find(store: SqliteStore, name: str, wanted: str) -> bytes:
    """Return the key with this fingerprint that waits for `name`, or that speaks for it already.

    Raises BadArgument when there is none, when it was rejected, or when two keys have this fingerprint.
    """
    found = {m.mark for m in store.inbox.held(name, "hello") if m.reason == "unknown-key"}
    found |= {k.key for k in store.devices.keys(name)}  # a revoked one is refused by name, where it would be let in
    matching = [key for key in found if fingerprint(key) == wanted]
    if len(matching) > 1:
        raise BadArgument(
            reason=f"{len(matching)} keys that wait for {name} have the fingerprint {wanted}",
            fix="someone has made a key for that: give the board's whole public key, edge-device-pub:..., as edgeagent status shows it",
        )
    if matching:
        return matching[0]
    rejected = next((r for r in store.devices.rejections(name) if fingerprint(r.key) == wanted), None)
    if rejected is not None:
        raise BadArgument(
            reason=f"the key {wanted} was rejected for {name}, {when(rejected.at)}",
            fix="if that was a mistake, give the whole public key, edge-device-pub:..., as the board shows it: edgeagent status",
        )
    raise BadArgument(
        reason=f"no key with the fingerprint {wanted} waits for {name}",
        fix=f"edgecloud devices lists who waits, once the board's agent has run; {COMPARE}",
    )


def waiting_keys(store: SqliteStore, held: Admissions | None = None, at: int = 0) -> list[Document]:
    """Return every key that says hello in a device's name and speaks not for it: by name, the first that came first.

    held: what the log comes to, where it is to be said why the claims of those keys do not let them in at this time.
    """
    out: dict[tuple[str, bytes], Document] = {}
    for message in store.inbox.held(kind="hello"):
        if message.reason != "unknown-key":
            continue
        place = message.device, message.mark
        if place not in out:
            known = store.devices.keys(message.device)
            if any(k.key == message.mark and k.revoked_at is None for k in known):
                continue  # the ingester answers it at its next look
            out[place] = {
                "device": message.device, "fingerprint": fingerprint(message.mark), "key": line(message.mark),
                "state": REVOKED if any(k.key == message.mark for k in known) else PENDING,
                "first_at": message.first_at, "last_at": message.received_at, "hellos": 0, "models": [],
                "speaks": [fingerprint(k.key) for k in known if k.revoked_at is None], "claim": None,
            }  # fmt: skip
        one = out[place]
        one["hellos"] += message.times
        one["models"].append(message.model)
        if held is not None and one["claim"] is None:
            one["claim"] = _claim_of(message, held, at)
        one["first_at"], one["last_at"] = min(one["first_at"], message.first_at), max(one["last_at"], message.received_at)
    return sorted(out.values(), key=lambda one: (one["device"], one["first_at"]))


def _claim_of(message: WaitingMessage, held: Admissions, at: int) -> Document | None:
    """Return by which claim a hello that waits would come, and why that does not let it in; None where it says none.

    All of it is the sender's word, but for what refuses it.
    """
    try:
        said = expect(records.parse(message.bytes), Hello)
    except ModelWireError:
        return None
    if not said.claim:
        return None
    return {"id": said.claim[:ID_BYTES].hex(), "serial": serial_in(said.more), "refused": why_not(held, said, at)}


def claim_line(one: Document) -> str:
    """Return what is said of the claim of a key that waits; empty where it has none, or none that is refused."""
    claim = one["claim"]
    if claim is None or not claim["refused"]:
        return ""
    serial = f", the board {claim['serial']}" if claim["serial"] else ""
    return f"{one['device']}, {one['fingerprint']}{serial}: its claim {claim['id']} was refused: {claim['refused']}"


def waiting_keys_text(waiting: list[Document], limit: int | None = None) -> str:
    """Return them as people read them, the first `limit` of them, with what to do; empty when there are none."""
    if not waiting:
        return ""
    rows = []
    for one in waiting:
        beside = sum(other["device"] == one["device"] for other in waiting) - 1
        said = [f"another key speaks for {one['device']}"] if one["speaks"] else []
        said += [f"{beside} more {'key waits' if beside == 1 else 'keys wait'} in this name"] if beside else []
        times = when(one["first_at"]), when(one["last_at"])
        rows.append((one["device"], one["fingerprint"], one["state"], one["hellos"], *times, "; ".join(said)))
    columns = (
        Column("device"), Column("fingerprint"), Column("key"), Column("hellos", 3), Column("first", 2), Column("last", 4),
        Column("beside it", 1, words=True),
    )  # fmt: skip
    then = wrapped("then `edgecloud devices add` or `edgecloud devices reject` with the name and the fingerprint")
    refused = "".join(f"\n{visible(why)}" for one in waiting[:limit] if (why := claim_line(one)))
    return table(columns, rows, title="keys that wait:", limit=limit) + f"{refused}\n{COMPARE};\n{then}"


def waiting_messages(store: SqliteStore) -> list[Document]:
    """Return what else waits, by device and model: hellos on a base that is not registered, and updates of keys that speak not."""
    out: dict[tuple[str, str], Document] = {}
    greeted = set()
    for message in (m for m in store.inbox.held() if m.kind != "state"):
        place = message.device, message.model
        if message.kind == "hello":
            greeted.add(place)
            if message.reason == "unknown-key":
                continue
        one = out.setdefault(
            place,
            {
                "device": message.device, "model": message.model, "hellos": 0, "updates": 0, "since": message.first_at,
                "what": "its updates are signed by a key that is not registered", "next": "",
            },
        )  # fmt: skip
        one["since"] = min(one["since"], message.first_at)
        if message.kind == "hello":
            one["hellos"] += 1
            one["what"], one["next"] = f"its base {message.base.hex()[:16]} is not registered", "edgecloud bases add FILE.tflite"
            continue
        one["updates"] += 1
        newer = any(k.id > message.looked and k.revoked_at is None for k in store.devices.keys(message.device))
        if newer and place not in greeted:
            one["what"] = "its updates are looked at when it has said hello, and answered its challenge"
    return list(out.values())


def rejected_keys(store: SqliteStore) -> list[Document]:
    """Return the keys that were rejected and were not admitted after that."""
    out = []
    for one in store.devices.rejections():
        if all(k.key != one.key or k.revoked_at is not None for k in store.devices.keys(one.device)):
            out.append({"device": one.device, "fingerprint": fingerprint(one.key), "key": line(one.key), "state": REJECTED, "at": one.at})
    return out
