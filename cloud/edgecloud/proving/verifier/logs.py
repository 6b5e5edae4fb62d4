"""The centre's log: each entry's link is over all entries before it, and a receipt key of the fleet has signed the last one.

What is about other devices stands there by its digest alone: the links hold all the same.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .encoding import fail, from_hex, from_line, is_signed, map_of, plain, same_line, sha, signed_by_one

# What a signature is over begins with who made it, and why: so one is never taken for another.
LINK, RECORD = b"modelwire link 1\0", "modelwire %s 1\0"
CLAIMED = b"edgecloud claimed 1\0"
# What the command key seals without a record's envelope.
STATEMENTS = {
    "claim": b"edgecloud claim 1\0", "withdrawal": b"edgecloud claim withdrawn 1\0", "policy": b"edgecloud policy 1\0",
    "purge": b"edgecloud purge 1\0",
}  # fmt: skip
ROLES = {"trust": ("root", 6), "act": ("act", 4), "command": ("command", 3), "enrol": ("device", 1)}  # and their number in a record
Entry = dict[str, Any]


@dataclass(frozen=True)
class LoggedUpdate:
    """An update as the log entered it."""

    entry: int
    model: str
    version: int
    epoch: int
    commit: bytes


@dataclass
class ReadLog:
    """What the entries come to, up to the last one taken."""

    fleet: bytes  # root key and id
    device: str  # that it is about
    number: int = 0
    link: bytes = bytes(32)
    latest: int = 0  # time that an entry was made at
    trusts: list[Entry] = field(default_factory=list)
    admitted: dict[bytes, int] = field(default_factory=dict)  # entry, by the device's key
    revoked: dict[bytes, int] = field(default_factory=dict)  # likewise
    how: dict[bytes, str] = field(default_factory=dict)  # a key came in
    claims: dict[bytes, Entry] = field(default_factory=dict)
    epochs: dict[tuple[str, int], bytes] = field(default_factory=dict)  # base, by model and epoch
    heads: dict[bytes, LoggedUpdate] = field(default_factory=dict)  # by commit
    verdicts: dict[bytes, bool] = field(default_factory=dict)
    thinned: set[bytes] = field(default_factory=set)  # commits whose content is gone for good
    kept_by: set[int] = field(default_factory=set)  # numbers of the operator's words by which content goes
    hidden: int = 0  # entries that are shown by digest alone
    act: int = 0

    def limits(self) -> list[str]:
        """Return what the end of the log proves, and what nothing here proves."""
        return [
            f"The log has {self.number} entries; their last link is signed by a receipt key that trust record "
            f"{self.trusts[-1]['number']} names, for which the root key of fleet.pub has signed.",
            f"Not proven: times, which are the centre's word, and what the {self.hidden} entries say that are shown by digest alone.",
        ]

    def add(self, digest: bytes) -> None:
        """Move on by one entry, known by its digest."""
        self.number += 1
        self.link = sha(b"\x06", struct.pack("<Q", self.number), self.link, digest)

    def keys(self, role: str, at: int, trusts: Sequence[Entry]) -> list[bytes]:
        """Return the keys that speak in a role: those of the newest record, and for its overlap those of the one before."""
        if not trusts:
            fail(f"log, entry {self.number}", "no trust record comes before it")
        newest, out = trusts[-1], b""
        if not newest["until"] or at <= newest["until"]:
            out += newest[role]
        for before in trusts[-2:-1]:
            overlaps = before["number"] + 1 == newest["number"] and at <= newest["since"] + newest["overlap"]
            if overlaps and (not before["until"] or at <= before["until"]):
                out += before[role]
        return [out[i : i + 32] for i in range(0, len(out), 32)]

    def command_keys(self, at: int) -> list[bytes]:
        """Return what may have sealed an entry: a key that is named no more, for as long as no entry was made after its time."""
        lasting = self.keys("command", max(self.latest, at), self.trusts) + self.keys("command", at, self.trusts[-1:])
        return [key for key in self.keys("command", at, self.trusts) if key in lasting]

    def take(self, entry: bytes) -> Entry:
        """Move on by an entry that is shown, and return what it says."""
        self.add(sha(entry))
        what = f"log, entry {self.number}"
        says = map_of(entry, what)
        kind, at = says["kind"], says["at"]
        self.latest = max(self.latest, at)
        if kind in ROLES:
            says["record"] = self.take_record(kind, says["record"], at, what)
        elif kind in STATEMENTS:
            says["record"] = self.take_statement(kind, says["record"], at, what)
        elif kind == "thin":
            if says["by"] not in self.kept_by or len(says["gone"]) % 32:
                fail(what, "it drops content by no word that the operator is shown to have sealed")
            self.thinned |= {says["gone"][i : i + 32] for i in range(0, len(says["gone"]), 32)}
        elif kind == "epoch":
            self.epochs[says["model"], says["epoch"]] = says["base"]
        elif kind == "head" and says["version"]:
            seen = LoggedUpdate(self.number, says["model"], says["version"], says["epoch"], says["commit"])
            self.heads.setdefault(seen.commit, seen)
        elif kind == "verdict":
            self.verdicts[says["commit"]] = says["ok"]
        record = says.get("record")
        about = record if isinstance(record, dict) else says
        if about.get("device", "all") not in (self.device, "all"):
            fail(what, f"it is about another device than {self.device}")
        return says

    def take_record(self, kind: str, data: bytes, at: int, what: str) -> Entry:
        """Return what a signed record says, once it is made sure that a key which may say it has signed it."""
        magic, version, role, size, fleet = struct.unpack_from("<4sBBH16s", data)
        body, signature = data[: 24 + size], data[24 + size :]
        says = map_of(body[24:], what)
        signer, number = ROLES[kind]
        if (magic, version, says["kind"], role) != (b"\x89MWR", 1, kind, number):
            fail(what, f"its record is no {kind} of release 1")
        if fleet != self.fleet[32:]:
            fail(what, f"its record is of the fleet {fleet.hex()}, and fleet.pub is of {self.fleet[32:].hex()}")
        if kind == "trust":
            keys = [self.trusts[-1]["root"] if self.trusts else self.fleet[:32]]
        else:
            keys = [says["key"]] if kind == "enrol" else self.command_keys(at)
        if not signed_by_one(keys, (RECORD % signer).encode() + fleet + body, signature):
            fail(what, f"its record, a {kind}, is signed by no key that may say it")
        if kind == "trust":
            self.take_trust(says, what)
        elif kind == "act":
            self.take_act(says, what)
        elif kind == "enrol":
            self.take_enrol(says, at, what)
        return says

    def take_trust(self, says: Entry, what: str) -> None:
        if (self.trusts and says["number"] <= self.trusts[-1]["number"]) or 0 < says["until"] <= says["since"]:
            fail(what, "its trust record does not follow the one before it")
        self.trusts.append(says)

    def take_act(self, act: Entry, what: str) -> None:
        key, verb = act["key"], act["verb"]
        if act["number"] <= self.act or verb not in ("admit", "revoke") or (verb == "admit" and key in self.revoked):
            fail(what, "an act that can't come here: it was entered before, or lets in a key that was revoked")
        self.act = act["number"]
        self.admitted.setdefault(key, self.number)
        self.how.setdefault(key, "an act that the operator sealed")
        if verb == "revoke":
            self.revoked.setdefault(key, self.number)

    def take_statement(self, kind: str, data: bytes, at: int, what: str) -> Entry:
        """Return what the operator said of claims, or of what is kept, once it is made sure that a command key has sealed it."""
        body = data[:-64]
        if not signed_by_one(self.command_keys(at), STATEMENTS[kind] + self.fleet[32:] + body, data[-64:]):
            fail(what, f"its {kind} is sealed by no command key")
        says = map_of(body, what)
        if kind == "claim":
            self.claims.setdefault(says["id"], says)
        elif kind == "withdrawal":
            self.claims.pop(says["id"], None)
        else:
            self.kept_by.add(says["number"])
        return says

    def take_enrol(self, says: Entry, at: int, what: str) -> None:
        claim, key, name = says["claim"], says["key"], says["device"].encode()
        given = self.claims.get(claim[:16])
        message = CLAIMED + self.fleet[32:] + claim[:16] + key + bytes([len(name)]) + name + says["serial"].encode()
        if given is None or at > given["expiry"] or (given["serials"] and says["serial"] not in given["serials"]):
            fail(what, "the board enrolled by no claim that the operator gave for it then")
        if key in self.admitted or not is_signed(given["public"], message, claim[16:]):
            fail(what, "the board enrolled without the token of its claim, or twice")
        self.admitted[key], self.how[key] = self.number, "a claim that the operator sealed and the board's token proved"

    def take_line(self, text: str, what: str) -> bool:
        """Move on by one line of a log. Return whether it was its signed end."""
        line = from_line(text, what)
        if line.keys() == {"entry", "cbor", "says"}:
            entry = from_hex(line["cbor"], what)
            says = plain(self.take(entry))
            same_line(text, {"entry": self.number, "cbor": entry.hex(), "says": says}, what)
            return False
        if line.keys() == {"after", "digests"}:
            digests = from_hex(line["digests"], what)
            same_line(text, {"after": self.number, "digests": digests.hex()}, what)
            if not digests or len(digests) % 32:
                fail(what, "it holds no digests")
            for i in range(0, len(digests), 32):
                self.add(digests[i : i + 32])
            self.hidden += len(digests) // 32
            return False
        signature = from_hex(line.get("signature"), what)
        same_line(text, {"end": self.number, "link": self.link.hex(), "signature": signature.hex()}, what)
        message = LINK + self.fleet[32:] + struct.pack("<Q", self.number) + self.link
        keys = self.keys("receipt", max(self.latest, self.trusts[-1]["since"] if self.trusts else 0), self.trusts)
        if not signed_by_one(keys, message, signature):
            fail(what, "the end of the log is not what a receipt key of the fleet has signed")
        return True


def read_log(lines: Sequence[str], fleet: bytes, device: str, what: str = "log.jsonl") -> tuple[ReadLog, int]:
    """Return a log and how many lines it took: up to its signed end, which must be there."""
    log = ReadLog(fleet, device)
    for n, text in enumerate(lines, 1):
        if log.take_line(text, f"{what}, line {n}"):
            return log, n
    fail(what, "it does not come to its signed end")
