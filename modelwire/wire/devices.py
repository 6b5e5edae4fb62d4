"""Which key speaks for a device: the one that it names when it says who it is, else one that the reader holds for it."""

from __future__ import annotations

from collections.abc import Iterable

from modelwire.errors import BadSignature, UnknownDevice

from .records import Enrol, Hello, Signed
from .signing import Role


def verify(signed: Signed, keys: Iterable[bytes], fleet: bytes) -> None:
    """Raise unless a device has signed this itself. keys: those that speak for it now; fleet: the fleet's id.

    Raises WrongRole, WrongFleet, BadSignature where it names its own key and another has signed, or UnknownDevice when none of `keys` has.
    """
    record = signed.record
    signed.check(fleet, Role.DEVICE)
    if isinstance(record, (Hello, Enrol)):
        signed.verify(record.key, fleet, record.device)
    elif not any(_signed_by(signed, key, fleet) for key in keys):
        raise UnknownDevice(device=record.device)


def _signed_by(signed: Signed, key: bytes, fleet: bytes) -> bool:
    try:
        signed.verify(key, fleet, signed.record.device)
    except BadSignature:
        return False
    return True
