"""The folder of a fleet's CA: issues, renews and revokes; its ledger, and beside it the files that brokers and boards are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from edgecommon import files
from edgecommon.certificates import Life, public_bytes
from modelwire.errors import BadArgument, MissingFile
from modelwire.names import check_own_name

from . import building, ledger
from .building import AuthorityKey
from .ledger import Holder, Issue, Ledger, Revocations

CENTRE = "CENTRE"  # the centre's name at the broker: capitals, which no device's name has
BUNDLE, LIST, ISSUED, SERVERS, LOCK = "ca.pem", "crl.pem", "issued", "servers", "lock"
DAY = 24 * 3600
YEARS, DAYS, GRACE_DAYS, OVERLAP_DAYS = 10, 365, 30, 7
EARLY = 3600  # seconds by which all that is signed is dated back: not every clock is right
KEY_MAX = 16 * 1024


@dataclass(frozen=True, slots=True)
class Renewal:
    """What `renew` did. left: names that it did not renew, and why."""

    renewed: tuple[Issue, ...]
    revoked: tuple[Issue, ...]
    left: tuple[tuple[str, str], ...]


class CertificateFolder:
    """One CA, opened. What is asked of it is in its ledger before anybody sees it; a kill leaves the one state or the other."""

    def __init__(self, folder: Path, held: Ledger) -> None:
        self.folder, self.ledger = folder, held

    @classmethod
    def create(cls, folder: Path, fleet: str, now: int, *, years: int = YEARS) -> CertificateFolder:
        """Make a CA in a folder of its own. Raises BadArgument when there is one."""
        check_own_name("fleet name", fleet)
        if (folder / ledger.FILE).exists():
            raise BadArgument(reason=f"{folder} holds a CA already, and it is never overwritten", fix="name another folder with --ca-dir")
        if not folder.absolute().parent.is_dir():
            raise BadArgument(reason=f"{folder.parent} is no folder", fix=f"mkdir -p {folder.parent}")
        files.make_private_folder(folder)
        _require_private(folder)
        with files.locked(folder / LOCK):
            key = building.new_key()
            made = building.authority(f"{fleet} CA 1", key, now - EARLY, now + years * 365 * DAY)
            files.write(_key_file(folder, 1), building.key_text(key), mode=0o600)
            out = cls(folder, Ledger(fleet, (building.pem(made),)))
            out._settle(out.ledger, now, lists=True)
        return out

    @classmethod
    @contextmanager
    def open(cls, folder: Path, *, readonly: bool = False) -> Iterator[CertificateFolder]:
        """Open the CA in a folder, alone unless it is only looked at. Raises MissingFile, BadArgument, StateBusy."""
        if not (folder / ledger.FILE).is_file():
            raise MissingFile(path=folder, what="a CA", fix="edgecloud ca init makes one; --ca-dir names another folder")
        _require_private(folder)
        if readonly:
            yield cls(folder, ledger.load(folder))
            return
        with files.locked(folder / LOCK):
            out = cls(folder, ledger.load(folder))
            out._publish()  # what a kill kept from being written
            yield out

    @property
    def bundle(self) -> str:
        """The certificates of all CAs that are trusted, the newest first."""
        return "".join(self.ledger.authorities[n - 1] for n in reversed(self.ledger.trusted))

    def chain(self, issue: Issue) -> str:
        """Return a certificate as a file has it: with those by which who knows an older CA alone believes it."""
        return issue.certificate + "".join(reversed(self.ledger.crosses[: issue.authority - 1]))

    def server_key(self, host: str) -> Path:
        return self.folder / SERVERS / f"{host}.key"

    def issue(
        self, name: str, kind: Holder, key: CertificatePublicKeyTypes, now: int,
        *, days: int = DAYS, hosts: Sequence[str] = (), overlap: int = OVERLAP_DAYS * DAY,
    ) -> Issue:  # fmt: skip
        """Issue a certificate. One for another key supersedes the one before it, which is revoked after `overlap` seconds.

        Raises BadArgument for a name that can't have one, and for a key that was revoked.
        """
        self._check_name(name, kind, hosts)
        digest = building.key_digest(key)
        for one in self.ledger.issues:
            if one.key == digest and one.revoked:
                fix = "make a new key on the board: remove the file of link.tls_key"
                raise BadArgument(reason=f"the key asked for was revoked, as {one.name}'s", fix=fix)
            if one.key == digest and (one.name, one.kind) != (name, kind):
                raise BadArgument(reason=f"the key asked for is {one.name}'s", fix="each board has a key of its own")
        made = self._made(name, kind, key, now, days=days, hosts=hosts)
        before = [one for one in self.ledger.issues if (one.name, one.kind) == (name, kind) and not one.revoked and one.until >= now]
        gone = []
        for one in before:
            if one.key != digest:
                at = min(one.revoke_at or now + overlap, now + overlap)
                marked = replace(one, superseded=one.superseded or now, revoke_at=at)
                gone.append(replace(marked, revoked=now, reason="superseded") if at <= now else marked)
            else:  # the same key has the same rights by either certificate: the older one ends by itself
                gone.append(replace(one, superseded=one.superseded or now))
        held = self.ledger.changed(*gone)
        self._settle(replace(held, issues=(*held.issues, made)), now, lists=any(one.revoked for one in gone))
        return made

    def renew(self, now: int, *, grace: int = GRACE_DAYS * DAY, days: int = 0, out: Callable[[str], str] = lambda _: "") -> Renewal:
        """Issue anew, for the same key, what is past two thirds of its life or was signed by an older CA; and revoke what is superseded.

        grace: seconds after its end within which a certificate is still renewed. days: 0 for as long as the one before it was good.
        out: why a device is out, empty when it is not. Done twice it does nothing the second time.
        """
        renewed: list[Issue] = []
        left: list[tuple[str, str]] = []
        held = self.ledger
        for one in held.all_newest():
            if one.revoked or not (now >= Life(one.since, one.until).renew_from or one.authority != held.current):
                continue
            if now > one.until + grace:
                left.append((one.name, "ended longer ago than the grace lasts: edgecloud ca issue"))
            elif one.kind is Holder.DEVICE and (why := out(one.name)):
                left.append((one.name, why))
            else:
                key = building.public_key_of(one.certificate)
                before = max(1, round((one.until - one.since) / DAY))
                renewed.append(self._made(one.name, one.kind, key, now, days=days or before, hosts=one.hosts))
                held = held.changed(replace(one, superseded=now))
        due = [one for one in held.issues if one.revoke_at and one.revoke_at <= now and not one.revoked]
        revoked = [replace(one, revoked=now, reason="superseded") for one in due]
        held = held.changed(*revoked)
        if renewed or revoked:
            self._settle(replace(held, issues=(*held.issues, *renewed)), now, lists=bool(revoked))
        return Renewal(tuple(renewed), tuple(revoked), tuple(left))

    def revoke(self, name: str, now: int, *, serial: str = "", reason: str = "revoked") -> list[Issue]:
        """Revoke what a name has, or one serial of it, and return what was revoked. Raises BadArgument when it has none."""
        mine = [one for one in self.ledger.issues if one.name == name and (not serial or one.serial == serial)]
        if not mine:
            raise BadArgument(reason=f"no certificate was issued for {name!r}", fix="edgecloud ca list")
        gone = [replace(one, revoked=now, reason=reason) for one in mine if not one.revoked]
        if gone:
            self._settle(self.ledger.changed(*gone), now, lists=True)
        return gone

    def rotate(self, now: int, *, years: int = YEARS) -> int:
        """Make the next CA, and return its number: it signs from now on, and the older one is trusted until it is retired."""
        before, number = self._signer(self.ledger.current), self.ledger.current + 1
        key = building.new_key()
        name, until = f"{self.ledger.fleet} CA {number}", now + years * 365 * DAY
        ends = int(before.certificate.not_valid_after_utc.timestamp())
        made = building.authority(name, key, now - EARLY, until)
        cross = building.authority(name, key, now - EARLY, min(until, ends), by=before)
        files.write(_key_file(self.folder, number), building.key_text(key), mode=0o600)  # first: a ledger without its key signs nothing
        held = self.ledger
        held = replace(held, authorities=(*held.authorities, building.pem(made)), crosses=(*held.crosses, building.pem(cross)))
        self._settle(held, now, lists=True)
        return number

    def retire(self, now: int, *, anyway: bool = False) -> list[int]:
        """Trust the current CA alone from now on, and return the numbers of the others. Raises BadArgument while somebody needs one."""
        old = [n for n in self.ledger.trusted if n != self.ledger.current]
        needed = [one.name for one in self.ledger.all_newest() if one.authority in old and not one.revoked and one.until >= now]
        if needed and not anyway:
            more = f" and {len(needed) - 5} more" if len(needed) > 5 else ""
            raise BadArgument(
                reason=f"{', '.join(needed[:5])}{more}: their certificates are signed by a CA that would be retired",
                fix="edgecloud ca renew, and put the new ones in place; --anyway shuts them out",
            )
        if old:
            self._settle(replace(self.ledger, retired=(*self.ledger.retired, *old)), now, lists=True)
        return old

    def passing(self, name: str, now: int, seconds: int) -> tuple[bytes, bytes]:
        """Return the private key and the certificate of a client, both in PEM, for the moment in which it is put off a broker.

        It is not in the ledger: it is never written where it stays, and it ends by itself.
        """
        by, key = self._signer(self.ledger.current), building.new_key()
        made = building.leaf(name, key.public_key(), now - EARLY, now + seconds, by=by)
        return building.key_text(key), building.pem(made).encode()

    def _check_name(self, name: str, kind: Holder, hosts: Sequence[str]) -> None:
        if kind is Holder.DEVICE:
            check_own_name("device name", name)
        elif kind is Holder.CENTRE and name != CENTRE:
            raise BadArgument(reason=f"the centre's name at the broker is {CENTRE}", fix="edgecloud ca issue --centre")
        elif kind is Holder.SERVER:
            bad = [one for one in hosts if not building.valid_host(one)]
            if bad or not 1 <= len(hosts) <= building.HOSTS_MAX or name != hosts[0]:
                what = f"{bad[0]!r} is no name or address of a host" if bad else f"a server has 1 to {building.HOSTS_MAX} names"
                raise BadArgument(reason=what, fix="write broker.example or 192.0.2.10, in small letters")

    def _made(
        self, name: str, kind: Holder, key: CertificatePublicKeyTypes, now: int, *, days: int, hosts: Sequence[str]
    ) -> Issue:
        if not 1 <= days <= 3650:
            raise BadArgument(reason=f"{days} is no number of days that a certificate may be good", fix="write 1 to 3650")
        by = self._signer(self.ledger.current)
        ends = int(by.certificate.not_valid_after_utc.timestamp())
        until = min(now + days * DAY, ends)
        if until <= now:
            raise BadArgument(reason="the CA's own time is over", fix="edgecloud ca rotate")
        made = building.leaf(name, key, now - EARLY, until, by=by, hosts=hosts)
        return Issue(
            f"{made.serial_number:x}", name, kind, self.ledger.current, now - EARLY, until, building.key_digest(key), building.pem(made),
            tuple(hosts),
        )  # fmt: skip

    def _signer(self, number: int, held: Ledger | None = None) -> AuthorityKey:
        """Return the CA of a number. held: what names its certificate, if not the ledger of before."""
        path = _key_file(self.folder, number)
        fix = "put the file back from a copy; without it: edgecloud ca rotate is of no use, and a new CA is needed"
        try:
            key = serialization.load_pem_private_key(files.read_private(path, KEY_MAX), None)
        except FileNotFoundError:
            raise MissingFile(path=path, what="the CA's private key") from None
        except files.NotPrivateError as error:
            raise BadArgument(reason=str(error), fix=error.fix) from None
        except (OSError, ValueError, TypeError):
            raise BadArgument(reason=f"{path} holds no private key that can be used", fix=fix) from None
        certificate = x509.load_pem_x509_certificate((held or self.ledger).authorities[number - 1].encode())
        if not isinstance(key, ec.EllipticCurvePrivateKey) or public_bytes(key.public_key()) != public_bytes(certificate.public_key()):
            raise BadArgument(reason=f"{path} is not the key of this CA", fix=fix)
        return AuthorityKey(key, certificate)

    def _settle(self, held: Ledger, now: int, *, lists: bool) -> None:
        """Write down what holds from now on, then the files that follow from it. lists: those of revoked ones are signed anew."""
        if lists:
            said = held.revocations
            # Of two lists a broker goes by the one with the later date, and takes none of the future.
            at, number = max(said.at + 1, now - EARLY), said.number + 1
            made = []
            for one in held.trusted:
                by = self._signer(one, held)
                revoked = [(int(i.serial, 16), i.revoked) for i in held.issues if i.authority == one and i.revoked]
                until = int(by.certificate.not_valid_after_utc.timestamp())
                made.append(building.pem(building.revocation_list(revoked, number, at, until, by=by)))
            held = replace(held, revocations=Revocations(number, at, tuple(made)))
        ledger.save(self.folder, held)
        self.ledger = held
        self._publish()

    def _publish(self) -> None:
        """Write every file that follows from the ledger and is not as it should be."""
        _put(self.folder / BUNDLE, self.bundle)
        _put(self.folder / LIST, "".join(self.ledger.revocations.lists))
        for folder in (ISSUED, SERVERS):
            files.make_private_folder(self.folder / folder)
        for one in self.ledger.all_newest():
            path = self.folder / (SERVERS if one.kind is Holder.SERVER else ISSUED) / f"{one.name}.pem"
            if one.revoked:
                path.unlink(missing_ok=True)
            else:
                _put(path, self.chain(one))


def _put(path: Path, text: str) -> None:
    try:
        if path.read_text() == text:
            return
    except (OSError, UnicodeDecodeError):
        pass  # it is written anew
    files.write(path, text.encode())


def _key_file(folder: Path, number: int) -> Path:
    return folder / f"ca-{number}.key"


def _require_private(folder: Path) -> None:
    mode = folder.stat().st_mode & 0o777
    if mode & 0o077:
        raise BadArgument(reason=f"{folder} may be looked into by others (mode {mode:o})", fix=files.close_line(folder, 0o700))
