"""What the operator decides about what is kept: sealed, entered in the log, and listed, in one transaction."""

from __future__ import annotations

from dataclasses import replace

from edgecloud.registry import SqliteStore, statements
from edgecloud.registry.statements import Policy, Purge
from modelwire.wire.signing import Signer

from .retention import parse_keep


def decide_keep(store: SqliteStore, key: Signer, keep: str, number: int, now: int) -> Policy:
    """Seal which versions stay recoverable, and keep it. number: above all that the operator gave before. Raises BadArgument."""
    policy = Policy(number, now, str(parse_keep(keep)))
    record = statements.seal(policy, key, store.identity.id)
    with store.transaction():
        store.log.append("policy", record=record)
        held = store.policies.current()
        row = replace(held, number=max(held.number + 1, number), keep=policy.keep, record=record, at=now)
        store.policies.add(row)
    return policy


def decide_purge(store: SqliteStore, key: Signer, device: str, number: int, now: int) -> Purge:
    """Seal that the rows of a device's recipes go, and keep it. number: as for `decide_keep`."""
    purge = Purge(number, now, device)
    store.log.append("purge", record=statements.seal(purge, key, store.identity.id))
    return purge
