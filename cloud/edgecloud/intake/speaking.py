"""The receipt key that the ingester signs with: changed under way when a newer trust record names another one.

Nobody believes a key that no record names: rather than sign with one, the ingester ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from edgecloud import keys
from edgecloud.registry import Store, TrustRow
from modelwire.errors import ModelWireError, RetiredKey
from modelwire.wire import records
from modelwire.wire.keys import fingerprint
from modelwire.wire.records import Trust, expect
from modelwire.wire.signing import KEY_BYTES, Role, Signer
from modelwire.wire.trust import Trusted

from .decision import Reply

log = logging.getLogger("edgecloud.ingester")
GRACE = 5  # seconds that a key file may be late
TOLD_AT_START = 2  # records: a device goes by the newest and the one before it


class Voice:
    """The ingester's key. read: reads its file again."""

    def __init__(self, key: Signer, read: Callable[[], Signer] | None = None) -> None:
        self.key = key
        self._read = read
        self._held: Trusted | None = None
        self._warned = 0  # number of the record that was warned of
        self._settled = False  # whether this key, or the one before, spoke once
        self._missed: int | None = None  # when it was first seen to speak no more

    def look(self, store: Store, now: int) -> tuple[Reply, ...]:
        """Take what the registry says of the fleet's keys, and return the trust records that devices on line have not heard of.

        Raises RetiredKey when this key speaks for the fleet no more and its file holds none that does, BadArgument when it never did.
        """
        news: list[TrustRow] = []
        if self._held is None or store.trusts.newest().number != self._held.number:
            rows = store.trusts.all()
            known = self._held.number if self._held is not None else rows[-1].number - TOLD_AT_START
            news = [row for row in rows if row.number > known and rows[-1].number > 1]
            self._held = keys.trusted(store.identity, [row.record for row in rows])
        self._settle(self._held, store, now)
        self._settled = True
        return tuple(Reply("trust", records.parse(row.record).record, row.record) for row in news)

    def key_now(self, store: Store, now: int) -> Signer:
        """Return the key to sign the log with, by the trust records that are in it. Raises as `look`."""
        if self._held is None or store.trusts.newest().number != self._held.number:  # `look` tells devices of it
            self._settle(keys.trusted(store.identity, [row.record for row in store.trusts.all()]), store, now)
        return self.key

    def _settle(self, held: Trusted, store: Store, now: int) -> None:
        if self.key.public in keys.named(held, Role.RECEIPT):
            return
        found = self._reread()
        if found is not None and found.public in keys.named(held, Role.RECEIPT):
            log.info("signing with the receipt key %s of trust record %d from now on", fingerprint(found.public), held.number)
            self.key, self._missed = found, None
            return
        if self.key.public not in held.keys(Role.RECEIPT, now):
            self._missed = now if self._missed is None else self._missed
            if self._settled and now - self._missed < GRACE:  # its file gets its name right after the record
                return
            if not any(self.key.public in _receipt_keys(row) for row in store.trusts.all()):
                keys.require_speaks(self.key, Role.RECEIPT, held, "the private key")
            raise RetiredKey(what="the ingester's receipt key", fingerprint=fingerprint(self.key.public), number=held.number)
        if self._warned != held.number:
            self._warned = held.number
            assert held.newest is not None
            log.warning(
                "trust record %d names another receipt key than the one here, good for %d s more: put the new receipt.key in its place",
                held.number, held.newest.since + held.newest.overlap - now,
            )  # fmt: skip

    def _reread(self) -> Signer | None:
        if self._read is None:
            return None
        try:
            return self._read()
        except ModelWireError as error:  # it may be about to be replaced
            log.debug("%s", error)
            return None


def _receipt_keys(row: TrustRow) -> list[bytes]:
    named = expect(records.parse(row.record), Trust).receipt
    return [named[i : i + KEY_BYTES] for i in range(0, len(named), KEY_BYTES)]
