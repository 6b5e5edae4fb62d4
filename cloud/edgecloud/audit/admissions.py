"""Who speaks for which device: what the operator sealed, replayed from the log. A row of a table alone lets nobody in."""

from __future__ import annotations

from dataclasses import dataclass

from edgecloud.registry import DeviceKey, Log, claims, statements
from edgecloud.registry.statements import Erasure, Policy
from modelwire.errors import BadSignature, ClaimRefused, Malformed, ModelWireError, RegistryDamaged
from modelwire.names import ALL
from modelwire.wire import records
from modelwire.wire.keys import fingerprint
from modelwire.wire.log import Link
from modelwire.wire.records import Act, Command, Enrol, Signed, Trust, expect
from modelwire.wire.signing import Fleet, Role
from modelwire.wire.trust import Trusted

from . import entries, erased
from .claiming import Claim, Claims
from .deploying import SealedDeployments
from .entries import Decided


@dataclass
class Admitted:
    """A key that speaks, or spoke, for a device: by the operator's act, or by a claim that he gave."""

    device: str
    key: bytes
    entry: int  # of the log, that let it in
    at: int
    revoked: int = 0  # entry that ended it; 0: it speaks


class Admissions:
    """What the trust records, acts and commands of a log come to. `take` moves it on by one entry, `catch_up` by all that came."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.trusted = Trusted(fleet)
        self.by_key: dict[bytes, Admitted] = {}  # a key is let in once, for one device
        self.names: set[str] = set()  # of devices that a key was ever decided about
        self.claims = Claims()
        self.deployments = SealedDeployments()
        self.end: Link | None = None
        self.act = 0  # number of the newest act, policy, purge or erasure
        self.policy: Policy | None = None  # which versions stay recoverable; None: all
        self.purges: dict[int, str] = {}  # devices whose rows were purged, by the number of the word on it
        self.erasures: dict[int, Erasure] = {}
        self.erased_keys: set[bytes] = set()
        self._covers: dict[tuple[int, int, bytes], int] = {}  # what erased entries say must be in an erasure, and one that says so
        self.commands: dict[tuple[str, str], int] = {}  # number of the newest, by device and model
        self.records: list[bytes] = []  # of trust
        self._latest = 0  # time that any entry was made at: who writes one can set it back, but not those before it
        self._trusts: list[tuple[int, int, Trusted]] = [(0, 0, self.trusted)]  # by the entry from which on they held, and its time

    def catch_up(self, log: Log, path: object) -> None:
        """Take what was entered since the last call. Raises RegistryDamaged when the log went back, or holds what nobody sealed."""
        end = log.end()
        if end == self.end:
            return
        try:
            if self.end is not None and log.link(self.end.number) != self.end.digest:
                raise Malformed(what="the log", reason=f"it no longer holds entry {self.end.number} as it was")
            for row in log.after(self.end.number if self.end else 0):
                link = entries.follow(self.end, row)
                made = log.remembered.get(row)
                if made is not None and made.kind in entries.LETS_NOBODY_IN:
                    self._latest = max(self._latest, made.at)  # all that `take` would do with it
                else:
                    self.take(entries.parse(row))
                self.end = link
            if uncovered := self.uncovered():
                raise Malformed(what="the log", reason=uncovered[0])
        except ModelWireError as error:
            if isinstance(error, RegistryDamaged):
                raise
            raise RegistryDamaged(path=path, reason=f"its log was changed: {error.message}") from None

    def take(self, entry: Decided) -> None:
        """Move on by an entry that follows. Raises WireError for one that the right key did not seal, or that can't be."""
        self._latest = max(self._latest, entry.at)
        if entry.kind == entries.TRUST:
            signed = records.parse(entry.bytes("record"))
            expect(signed, Trust)
            self.trusted = self.trusted.take(signed)
            self.records.append(entry.bytes("record"))
            self._trusts.append((entry.number, entry.at, self.trusted))
        elif entry.kind == entries.ACT:
            self._act(entry)
        elif entry.kind == entries.CLAIM:
            self.claims.give(claims.read(entry.bytes("record"), self.fleet.id, self._command_keys(entry)), entry.number)
        elif entry.kind == entries.WITHDRAWAL:
            self.claims.withdraw(claims.read_withdrawal(entry.bytes("record"), self.fleet.id, self._command_keys(entry)), entry.number)
        elif entry.kind == entries.ENROL:
            self._enrol(entry)
        elif entry.kind == entries.COMMAND:
            signed = records.parse(entry.bytes("record"))
            command = expect(signed, Command)
            self._sealed(signed, Role.COMMAND, entry)
            place = command.device, command.model
            self.commands[place] = max(command.number, self.commands.get(place, 0))
        elif entry.kind in entries.DEPLOYING:
            self.deployments.take(entry, self.fleet, lambda role: self._command_keys(entry, role))
        else:
            self._keeping(entry)

    def uncovered(self) -> list[str]:
        """Return which entries are erased without the operator's word, once all that follows them was taken."""
        known = {(number, said.count, said.root) for number, said in self.erasures.items()}
        return [f"entry {number} is erased, and by no erasure that the operator sealed" for cover, number in self._covers.items()
                if cover not in known]  # fmt: skip

    def receipt_keys(self, number: int, at: int) -> tuple[bytes, ...]:
        """Return the keys that may have signed the log when this entry, made at this time, was its last."""
        began, held = next((began, held) for since, began, held in reversed(self._trusts) if since <= number)
        return held.keys(Role.RECEIPT, max(at, began))  # an entry that says it is older than the record before it lies

    def speaks(self, device: str, key: bytes) -> bool:
        """Return whether a key speaks for this device now."""
        known = self.by_key.get(key)
        return known is not None and known.device == device and not known.revoked

    def of(self, device: str, rows: list[DeviceKey]) -> list[DeviceKey]:
        """Return those keys of a device that were let in, and as revoked where either the log or the row says so."""
        out = []
        for row in rows:
            known = self.by_key.get(row.key)
            if known is None or known.device != device:
                continue
            ended = row.revoked_at is None and known.revoked
            out.append(DeviceKey(row.id, row.device, row.key, row.added_at, known.at) if ended else row)
        return out

    def require_enrollable(self, said: Enrol, at: int) -> Claim:
        """Return the claim by which this board may come at this time. Raises ClaimRefused, or Malformed for what is no claim.

        A claim takes nothing from anybody: neither the name of a device that has, or had, a key, nor a key that was decided about.
        """
        claim = self.claims.require(said, self.fleet.id, at)
        if decided := self.decided(said.device, said.key):
            raise ClaimRefused(device=said.device, claim=claim.statement.id.hex(), reason=decided)
        return claim

    def decided(self, device: str, key: bytes) -> str:
        """Return what was decided before about a key or a device's name, which no claim changes; empty for nothing."""
        known = self.by_key.get(key)
        if known is not None:
            what = "was revoked" if known.revoked else f"speaks for {known.device}"
            return f"its key {fingerprint(key)} {what}"
        return "a device of this name has, or had, another key, which the operator alone replaces" if device in self.names else ""

    def _act(self, entry: Decided) -> None:
        signed = records.parse(entry.bytes("record"))
        act = expect(signed, Act)
        self._sealed(signed, Role.ACT, entry)
        what = f"entry {entry.number} of the log"
        if act.number <= self.act:
            raise Malformed(what=what, reason=f"act {act.number} comes after act {self.act}: it was entered before, or again")
        known, short = self.by_key.get(act.key), fingerprint(act.key)
        if act.verb == "admit":
            if known is not None and known.revoked:
                raise Malformed(what=what, reason=f"it lets the key {short} in again, which entry {known.revoked} revoked")
            if known is not None and known.device != act.device:
                raise Malformed(what=what, reason=f"it lets the key {short} speak for {act.device}: it speaks for {known.device}")
            self._admit(act.device, act.key, entry)
        else:
            if known is None or known.device != act.device:
                known = self._admit(act.device, act.key, entry)
            known.revoked = known.revoked or entry.number
        self.act = act.number

    def _keeping(self, entry: Decided) -> None:
        """Take what is said about what the registry keeps."""
        fleet, what = self.fleet.id, f"entry {entry.number} of the log"
        if entry.kind == entries.POLICY:
            policy = statements.read_policy(entry.bytes("record"), fleet, self._command_keys(entry))
            self._numbered(policy.number, what)
            self.policy = policy
        elif entry.kind == entries.PURGE:
            purge = statements.read_purge(entry.bytes("record"), fleet, self._command_keys(entry))
            self._numbered(purge.number, what)
            self.purges[purge.number] = purge.device
        elif entry.kind == entries.ERASE:
            erasure = statements.read_erasure(entry.bytes("record"), fleet, self._command_keys(entry))
            self._numbered(erasure.number, what)
            self._erase(erasure, entry)
        elif entry.kind == entries.ERASED:
            self._covers.setdefault(erased.root_of(entry), entry.number)
        elif entry.kind == entries.THIN:
            gone, _ = entries.commits_of(entry)
            by = entry.integer("by")
            if not (by in self.purges and not gone) and (self.policy is None or self.policy.number != by or self.policy.keep == "all"):
                raise Malformed(what=what, reason=f"it thins by the word {by}, and no policy of the operator's with that number holds")

    def _erase(self, erasure: Erasure, entry: Decided) -> None:
        self.erasures[erasure.number] = erasure
        self.erased_keys |= {erasure.keys[start : start + 32] for start in range(0, len(erasure.keys), 32)}
        for start in range(0, len(erasure.keys), 32):
            key = erasure.keys[start : start + 32]
            known = self.by_key.get(key)
            if known is None:  # what let it in is erased
                known = self.by_key[key] = Admitted("", key, entry.number, entry.at)
            self.names.discard(known.device)  # another board may have the name
            self.deployments.forget(known.device)
            known.revoked = known.revoked or entry.number
        for start in range(0, len(erasure.claims), claims.ID_BYTES):
            self.claims.erase(erasure.claims[start : start + claims.ID_BYTES], erasure.keys)

    def _numbered(self, number: int, what: str) -> None:
        if number <= self.act:
            raise Malformed(what=what, reason=f"word {number} of the operator comes after word {self.act}: it was entered before, or again")
        self.act = number

    def _enrol(self, entry: Decided) -> None:
        signed = records.parse(entry.bytes("record"))
        said = expect(signed, Enrol)
        signed.verify(said.key, self.fleet.id, said.device)
        claim = self.require_enrollable(said, entry.at)
        if claim.statement.id != entry.bytes("claim"):
            raise Malformed(what=f"entry {entry.number} of the log", reason="it names another claim than its record")
        self.claims.note(claim, said, entry.at, entry.number)
        self._admit(said.device, said.key, entry)

    def _admit(self, device: str, key: bytes, entry: Decided) -> Admitted:
        made = self.by_key[key] = Admitted(device, key, entry.number, entry.at)
        self.names.add(device)
        return made

    def _command_keys(self, entry: Decided, role: Role = Role.COMMAND) -> tuple[bytes, ...]:
        """Return what may have sealed an entry: a key that is named no more, for as long as no entry was made after its time."""
        lasting = self.trusted.keys(role, max(self._latest, entry.at))
        newest = Trusted(self.fleet, self.trusted.newest).keys(role, entry.at)
        return tuple(key for key in self.trusted.keys(role, entry.at) if key in newest or key in lasting)

    def _sealed(self, signed: Signed, role: Role, entry: Decided) -> None:
        """Raise unless a command key that spoke when the entry was made has sealed the record."""
        signed.check(self.fleet.id, role)
        for key in self._command_keys(entry, role):
            try:
                signed.verify(key, self.fleet.id, "the operator's command key", role)
                return
            except BadSignature:
                continue
        about = signed.record.device if signed.record.device != ALL else "the fleet"
        raise BadSignature(what=f"entry {entry.number} of the log, about {about},", signer="the operator's command key")
