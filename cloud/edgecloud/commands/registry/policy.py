"""`edgecloud policy`: within what any version comes back."""

from __future__ import annotations

import argparse
from dataclasses import replace

from edgecloud.keeping.promise import parse_promise
from edgecloud.registry import PolicyRow, SqliteStore
from edgecommon.printing import Answer

from ..answer import Document, facts, now, registry_of, when

NAME = "policy"
HELP = "Show or set the store policy: within what any version comes back."
EXAMPLES = ("edgecloud policy", "edgecloud policy --recover-within '2 states'", "edgecloud policy --recover-within '200 ms'")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recover-within", metavar="PROMISE", help="'2 states' (the default), or a time such as '200 ms'")


def run(args: argparse.Namespace) -> Answer:
    if args.recover_within is None:
        with registry_of(args) as store:
            return _answer(store, store.policies.current())
    wanted = str(parse_promise(args.recover_within))
    with registry_of(args, readonly=False) as store, store.transaction():
        held = store.policies.current()
        if held.recover_within != wanted or not held.number:
            held = replace(held, number=held.number + 1, recover_within=wanted, at=now())
            store.policies.add(held)
        return _answer(store, held)


def _answer(store: SqliteStore, policy: PolicyRow) -> Answer:
    states, size = store.states.totals()
    document: Document = {
        "number": policy.number, "recover_within": policy.recover_within, "keep": policy.keep, "at": policy.at or None,
        "states": states, "state_bytes": size,
    }  # fmt: skip
    since = f"policy {policy.number}, set {when(policy.at)}" if policy.number else "the default: nobody has set one"
    kept = f"{states}, {size} bytes together"
    return Answer(document, facts((("recover within", policy.recover_within), ("keep", policy.keep), ("since", since), ("states", kept))))
