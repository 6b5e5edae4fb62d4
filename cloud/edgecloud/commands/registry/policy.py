"""`edgecloud policy`: within what any version comes back, and which versions do."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from edgecloud.keeping import deciding, retention
from edgecloud.keeping.measuring import measured
from edgecloud.keeping.promise import parse_promise, require_possible, unkept
from edgecloud.registry import PolicyRow, SqliteStore
from edgecloud.versions.route import rates_of
from edgecommon.arguments import only_with
from edgecommon.printing import Answer

from ..answer import Document, facts, now, registry_of, when
from ..sealing import add_key, command_key, decided_number, unlock

NAME = "policy"
HELP = "Show or set the store policy: within what any version comes back, and which versions do at all."
EXAMPLES = (
    "edgecloud policy", "edgecloud policy --recover-within '2 states'", "edgecloud policy --recover-within '200 ms'",
    "edgecloud policy --keep 'daily + last 50 + tagged'", "edgecloud policy --keep all",
)  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recover-within", metavar="PROMISE", help="'2 states' (the default), or a time such as '200 ms'")
    parser.add_argument(
        "--keep", metavar="WHICH", help="all (the default), daily, 'last N', tagged, or some joined by +; sealed with the command key"
    )
    add_key(parser)
    for option in ("--key", "--passphrase-file"):
        only_with(parser, option, "--keep")


def run(args: argparse.Namespace) -> Answer:
    if args.keep is not None:
        retention.parse_keep(args.keep)  # before anybody types a passphrase
    if args.recover_within is None and args.keep is None:
        with registry_of(args) as store:
            return _answer(store, store.policies.current())
    promise = None if args.recover_within is None else parse_promise(args.recover_within)
    with registry_of(args, readonly=False) as store, _unlocked(args, store):
        if promise is not None and promise.seconds:
            require_possible(store, promise, measured(store, now()))
        with store.transaction():
            if args.keep is not None:
                _keep(args, store)
            if promise is not None:
                _set(store, str(promise))
            return _answer(store, store.policies.current())


def _set(store: SqliteStore, wanted: str) -> None:
    held = store.policies.current()
    if held.recover_within != wanted or not held.number:
        store.policies.add(replace(held, number=held.number + 1, recover_within=wanted, at=now()))


def _keep(args: argparse.Namespace, store: SqliteStore) -> None:
    deciding.decide_keep(store, command_key(args, store), args.keep, decided_number(store), now())


def _unlocked(args: argparse.Namespace, store: SqliteStore) -> AbstractContextManager[None]:
    return nullcontext() if args.keep is None else unlock(args, store)


def _answer(store: SqliteStore, policy: PolicyRow) -> Answer:
    states, size = store.states.totals()
    broken = unkept(store, policy.recover_within, rates_of(store))
    document: Document = {
        "number": policy.number, "recover_within": policy.recover_within, "keep": policy.keep, "at": policy.at or None,
        "states": states, "state_bytes": size, "unkept": None if broken is None else broken.message,
    }  # fmt: skip
    since = f"policy {policy.number}, set {when(policy.at)}" if policy.number else "the default: nobody has set one"
    kept = f"{states}, {size} bytes together"
    rows = [("recover within", policy.recover_within), ("keep", policy.keep), ("since", since), ("states", kept)]
    rows += [("broken", f"{broken.message}; {broken.next_step}")] if broken is not None else []
    return Answer(document, facts(rows))
