"""The ingester's word on where the log ends: it signs what it entered itself, and of others only what a seal proves."""

from __future__ import annotations

from edgecloud.registry import SignedEnd, Store
from modelwire.errors import BadSignature, ModelWireError, RegistryDamaged
from modelwire.wire.log import Link
from modelwire.wire.signing import Signer

from . import entries
from .admissions import Admissions


def require_signed(store: Store, admissions: Admissions, path: object) -> None:
    """Raise RegistryDamaged unless the signed end is one that a receipt key of its time has signed. admissions: caught up."""
    signed = store.log.signed()
    if signed is None:
        return
    row = next(store.log.after(signed.number - 1), None)
    if row is None or (row.number, row.link) != (signed.number, signed.link):
        raise RegistryDamaged(path=path, reason=f"its log was cut off or changed: it was signed up to entry {signed.number}")
    link = Link(signed.number, signed.link)
    for key in admissions.receipt_keys(signed.number, entries.parse(row).at):
        try:
            link.verify(key, admissions.fleet.id, signed.signature)
            return
        except BadSignature:
            continue
    raise RegistryDamaged(path=path, reason=f"the end of its log, entry {signed.number}, is signed by no receipt key of the fleet")


def sign_end(store: Store, key: Signer, path: object) -> None:
    """Sign up to the newest entry, within the transaction that made it. The entries' seals and links are looked at by Admissions.

    key: the receipt key. Raises RegistryDamaged for entries that neither this store nor an operator's command has made.
    """
    log = store.log
    end, signed = log.end(), log.signed()
    if end is None or (signed is not None and signed.number == end.number and signed.link == end.digest):
        return
    if signed is not None and log.link(signed.number) != signed.link:
        raise RegistryDamaged(path=path, reason=f"its log no longer holds entry {signed.number} as it was signed")
    for row in log.after(signed.number if signed is not None else 0):
        if row.link in log.appended:
            continue
        try:
            kind = entries.parse(row).kind
        except ModelWireError as error:
            raise RegistryDamaged(path=path, reason=f"its log was changed: {error.message}") from None
        if kind not in entries.BY_OPERATOR:
            raise RegistryDamaged(path=path, reason=f"its log was changed: entry {row.number} ({kind}) was made by no ingester")
    log.sign(SignedEnd(end.number, end.digest, Link(end.number, end.digest).sign(key, store.identity.id)))
