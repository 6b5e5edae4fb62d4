"""How the fleet's keys change: new key files first, then the record that names them, then each file gets its name.

A kill in between leaves files named `receipt.key.next-7`: the same rotation goes on with them, or gives them their names when the
registry holds record 7 already. What spoke before is kept as `receipt.key.before-7`.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgecloud import keys
from edgecloud.keys import KeyFile, Passphrase
from edgecommon.files import TEMPORARY, flush_folder, open_regular, write, write_named
from modelwire.errors import BadArgument, BadSignature, Malformed
from modelwire.names import ALL
from modelwire.wire import records
from modelwire.wire.keys import TEXT_MAX, KeyKind, read_fleet, write_fleet
from modelwire.wire.records import Signed, Trust, expect
from modelwire.wire.signing import KEY_BYTES, Fleet, PrivateKey, Role, Signer
from modelwire.wire.trust import Trusted

from ..answer import when

WORDS = ("root", "receipt", "command", "director")  # keys that can be changed, as they are typed
ROLES = {"root": Role.ROOT, "receipt": Role.RECEIPT, "command": Role.COMMAND, "director": Role.DIRECTOR}
LINE = "edge-trust:"  # in front of a record in a file, in hexadecimal
FILE_MAX = 1024 * 1024  # bytes of a file of records
_NEXT = re.compile(r"(root|receipt|command|director)\.key\.next-([0-9]{1,19})")


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Where the files of a fleet's keys are."""

    folder: Path
    root: Path  # the root key's file, which may be elsewhere

    def file(self, word: str) -> Path:
        return self.root if word == "root" else self.folder / f"{word}.key"

    def following(self, word: str, number: int) -> Path:
        """Return where a key waits for the record that names it."""
        return self.file(word).with_name(f"{word}.key.next-{number}")


@dataclass(frozen=True, slots=True)
class Change:
    """What is to change."""

    words: tuple[str, ...]
    publics: Mapping[str, bytes]  # of keys that are kept elsewhere, by word
    overlap: int  # seconds
    cut: bool  # end the overlap that still runs

    def number(self, held: Trusted) -> int:
        """Return the number of the record that ends the change: a new root key takes one that the old signs, and one of its own."""
        return held.number + 1 + ("root" in self.words)


def check(change: Change, held: Trusted, place: KeyPlace, at: int) -> None:
    """Raise BadArgument for a change that can't be made now."""
    newest, before, number = held.newest, held.before, change.number(held)
    if newest is None:
        raise BadArgument(reason="there is no trust record to follow", fix="edgecloud init makes the first one")
    if at < newest.at:
        raise BadArgument(reason=f"this clock stands before record {newest.number} was made", fix="set the clock right")
    for word, given in change.publics.items():
        new = {given[i : i + KEY_BYTES] for i in range(0, len(given), KEY_BYTES)}
        for other in WORDS:
            if other != word and not new.isdisjoint(keys.named(held, ROLES[other])):
                raise BadArgument(reason=f"--public: this is the {other} key", fix=f"make another one: the {word} key has no other role")
    others = before is not None and any(getattr(before, w) != getattr(newest, w) for w in WORDS[1:])
    if others and newest.overlap and at <= newest.since + newest.overlap and not change.cut:
        until = when(newest.since + newest.overlap)
        raise BadArgument(
            reason=f"the keys before record {newest.number} are good until {until}, and a record after it ends that at once",
            fix="wait, or say --end-overlap; change several keys with one command: edgecloud trust rotate receipt command",
        )
    mine = {place.following(word, number) for word in change.words}
    for path in sorted({*place.folder.glob("*.key.next-*"), *place.root.parent.glob("root.key.next-*")} - mine):
        match = _NEXT.fullmatch(path.name)
        if match is not None and int(match[2]) > held.number:
            raise BadArgument(
                reason=f"{path} waits for trust record {match[2]}, of a change that was not finished",
                fix=f"edgecloud trust import its record, or rotate {match[1]} again; a key that no record names can be removed",
            )


def prepare(change: Change, held: Trusted, place: KeyPlace, new_passphrase: Callable[[object], bytes]) -> dict[str, bytes]:
    """Write the files of the new keys, durably, and return the public keys that the record is to name. A file that is there is used."""
    number, out = change.number(held), dict(change.publics)
    for word in change.words:
        if word in out:
            continue
        path, old, kind = place.following(word, number), place.file(word), keys.SECRET[f"{word}.key"]
        if not path.exists():
            kept = old.exists() and not keys.read_key_file(old, kind).seed
            text = keys.key_text(kind, secrets.token_bytes(KEY_BYTES), new_passphrase(old) if kept else b"")
            write(path, text.encode(), mode=0o600, replace=False)  # what a kill leaves of it has one name, and goes with the next try
        if old.exists():
            keys.give_to_owner(path, old.stat())
        path.with_name(path.name + TEMPORARY).unlink(missing_ok=True)  # a second name that a kill has left
        out[word] = keys.read_key_file(path, kind).public
    return out


def seal(
    change: Change, held: Trusted, named: Mapping[str, bytes], root: Signer, new_root: Callable[[], PrivateKey], at: int
) -> list[bytes]:
    """Return the records that say it, oldest first. root: the key that signs now; new_root: asked for when it changes."""
    newest = held.newest
    assert newest is not None  # `check` was asked
    if root.public != held.root:
        raise BadArgument(
            reason=f"this root key is not the one that trust record {held.number} names: nobody would believe what it signs",
            fix="edgecloud trust show tells which file holds it; name that with --root-key",
        )
    # Without an overlap it holds from the beginning of time: a device compares with the newest welcome, which is older than this record.
    out, last = [], replace(newest, device=ALL, model=ALL, at=at, since=0, until=0, overlap=0, more={})
    if "root" in change.words:
        last = replace(last, number=held.number + 1, root=named["root"])
        out.append(records.encode(last, root, held.fleet.id))
        root = new_root()
    rest = {word: key for word, key in named.items() if word != "root"}
    last = replace(last, number=change.number(held), since=at if change.overlap else 0, overlap=change.overlap)
    for word in rest:
        last = replace(last, **{word: rest[word]})  # type: ignore[arg-type]  # a word is a field that holds bytes
    return [*out, records.encode(last, root, held.fleet.id)]


def settle(place: KeyPlace, held: Trusted) -> list[str]:
    """Give the key files that the newest record names their names, and return what was done. Nothing is lost by a kill in between."""
    said = []
    for word in WORDS:
        waits, path = place.following(word, held.number), place.file(word)
        if not waits.exists():
            continue
        if keys.read_key_file(waits, keys.SECRET[f"{word}.key"]).public not in keys.named(held, ROLES[word]):
            raise BadArgument(
                reason=f"{waits} is not the {word} key that trust record {held.number} names",
                fix="another change came before: remove the file, and rotate again",
            )
        if path.exists():
            before = path.with_name(f"{word}.key.before-{held.number}")
            _keep(path, before)
            said.append(f"{before.name} is what {path.name} was")
        os.replace(waits, path)  # never without a file of this name: an ingester may be reading it
        flush_folder(path.parent)
        said.append(f"{path} is the new {word} key")
    public = place.folder / keys.PUBLIC
    if public.exists():
        with public.open("rb") as file:
            fleet = read_fleet(file.read(TEXT_MAX).decode("ascii", errors="replace"), str(public))
        if fleet.id == held.fleet.id and fleet.root != held.root and held.newest is not None:
            _keep(public, public.with_name(f"{keys.PUBLIC}.before-{held.number}"), mode=0o644)
            write_named(public, (write_fleet(Fleet(held.root, fleet.id)) + "\n").encode(), mode=0o644)
            said.append(f"{public} is what boards are given from now on; those that have the old one go on")
    return said


def chain(fleet: Fleet, given: Sequence[bytes]) -> Trusted:
    """Return what records come to for who was given this fleet.pub, as a board that was set up anew takes them.

    Raises BadSignature when its root key signed none of them.
    """
    held, refused = Trusted(fleet), None
    for record in given:
        try:
            held = held.take(records.parse(record))
        except BadSignature as error:
            if held.newest is not None:
                raise
            refused = error
    if held.newest is None and refused is not None:
        raise refused
    return held


def news(held: Trusted, given: Sequence[bytes]) -> list[tuple[Signed, bytes]]:
    """Return the records of a file that follow the ones held. Raises BadSignature, WrongFleet or Malformed, also for what is older."""
    out, now = [], held
    for data in given:
        signed = records.parse(data)
        record = expect(signed, Trust)
        if record.fleet != held.newest.fleet if held.newest else False:
            raise Malformed(what="trust", reason=f"it is of the fleet {record.fleet!r}")
        now = now.take(signed)
        out.append((signed, data))
    return out


def write_records(given: Sequence[bytes]) -> bytes:
    """Return records as a file holds them, a line each."""
    return "".join(f"{LINE}{record.hex()}\n" for record in given).encode()


def read_records(path: Path) -> list[bytes]:
    """Return the records in a file. Raises Malformed or BadArgument."""
    try:
        with open_regular(path) as file:
            data = file.read(FILE_MAX + 1)
    except OSError as error:
        raise BadArgument(reason=f"{path}: {error.strerror}", fix="name a file that edgecloud trust wrote with --out") from None
    out = []
    for line in data.decode("ascii", errors="replace").split("\n"):
        digits = line.strip().removeprefix(LINE)
        try:
            record = bytes.fromhex(digits)
        except ValueError:
            record = b""
        if line.strip() and (not line.startswith(LINE) or record.hex() != digits or not digits):
            raise Malformed(what=str(path), reason=f"a line of it is not {LINE} and a trust record in hexadecimal")
        out += [record] if record else []
    if not out or len(data) > FILE_MAX:
        raise Malformed(what=str(path), reason=f"{len(out)} trust records in {len(data)} bytes")
    return out


def found(place: KeyPlace) -> list[KeyFile | Path]:
    """Return the files of private keys here, in the order of names; a path alone where it can't be read as one."""
    pattern = re.compile(r"(root|receipt|command|director)\.key(\.(next|before)-[0-9]{1,19})?")
    folders = [folder for folder in {place.folder, place.root.parent} if folder.is_dir()]
    names = {p for folder in folders for p in folder.iterdir() if pattern.fullmatch(p.name)}
    out: list[KeyFile | Path] = []
    for path in sorted(names | ({place.root} if place.root.exists() else set())):
        try:
            out.append(keys.read_key_file(path))
        except (BadArgument, Malformed):
            out.append(path)
    return out


def opened(file: Path, passphrase: Passphrase) -> PrivateKey:
    """Return the root key in a file. Raises BadArgument that says what to do where it is not kept here."""
    if not file.exists():
        away = "edgecloud trust rotate KEY --records FILE --out RECORD where it is, and edgecloud trust import RECORD here"
        raise BadArgument(reason=f"{file}: the root key is not here", fix=f"name it with --root-key, or {away}")
    return keys.load_key(file, KeyKind.ROOT_PRIVATE, passphrase)


def _keep(path: Path, before: Path, mode: int = 0o600) -> None:
    """Give what is at `path` a second name that stays. One that is there holds the same, or nothing is done."""
    data = path.read_bytes()
    if before.exists():
        if before.read_bytes() != data:
            raise BadArgument(reason=f"{before} is there already, and holds something else", fix="move it away, and do the same again")
        return
    try:
        os.link(path, before)
    except OSError:
        write_named(before, data, mode=mode, replace=False)
    flush_folder(before.parent)
