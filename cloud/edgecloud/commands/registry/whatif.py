"""`edgecloud whatif`: what the store of the fleet would cost under other policies and prices."""

from __future__ import annotations

import argparse
import time

from edgecloud.keeping import chains, whatif
from edgecloud.keeping.prices import POLICY_FORM, PRICE_FORMS, StorePolicy, parse_policy, parse_prices
from edgecloud.keeping.promise import parse_promise
from edgecloud.keeping.retention import parse_keep
from edgecloud.keeping.whatif import StoreForecast
from edgecloud.registry import SqliteStore
from edgecloud.versions.route import Rates, rates_of
from edgecommon.arguments import number
from edgecommon.printing import Answer, visible
from edgecommon.tables import Column, wrapped
from modelwire.planning import LinkProfile, Prices, profile_of, recovery_cost, storage_cost

from ..answer import Document, registry_of, table
from ..sizes import of_bytes, of_money, of_seconds

NAME = "whatif"
HELP = "Plan the fleet's store anew under other policies and prices, from the rows alone; nothing is changed."
EXAMPLES = (
    "edgecloud whatif",
    "edgecloud whatif --policy 'recover_within=3 states' --policy 'recover_within=200 ms, keep=last 50'",
    "edgecloud whatif --policy 'keep=daily' --price storage=0.023/GB-month --price sent=0.40/MB --link lte-sleeping",
)
TODAY = "as it is now"


def add(parser: argparse.ArgumentParser) -> None:
    what = f"a policy to plan, what it leaves out being as it is today; several are compared: {POLICY_FORM.partition(' ')[2]}"
    parser.add_argument("--policy", action="append", default=[], metavar="POLICY", help=what)
    parser.add_argument("--price", action="append", default=[], metavar="PRICE", help=f"{PRICE_FORMS}; in any one currency")
    parser.add_argument("--link", default="ethernet", metavar="PROFILE", help="link of the boards, for the energy that sending took")
    what = "versions that are recovered a month, of the whole fleet (default: one for each model)"
    parser.add_argument("--recoveries", type=number(above=-1.0, most=1e12), metavar="N", help=what)


def run(args: argparse.Namespace) -> Answer:
    prices, link = parse_prices(args.price), profile_of(args.link)
    started = time.monotonic()
    with registry_of(args) as store:
        rates = rates_of(store)
        held = store.policies.current()
        today = StorePolicy(parse_promise(held.recover_within), parse_keep(held.keep))
        policies = [today, *(parse_policy(text, today) for text in args.policy)]
        read = chains.read(store, times=any(policy.keep.daily for policy in policies))
        models = int(read.chains.new_lineage.sum())
        recoveries = models if args.recoveries is None else args.recoveries
        now, _ = whatif.as_it_is(read.chains, rates)
        heads = whatif.ends_of_epochs(read.chains)
        planned = [(str(policy), whatif.forecast(read.chains, policy.promise, policy.keep, rates, heads)[0]) for policy in policies]
        rows = [_document(store, name, one, prices, recoveries) for name, one in [(TODAY, now), *planned]]
        notes = [*read.notes, *_least(store, policies, read.chains, rates)]
        sent, beside = _sent(store, link, prices), _beside(store, now.stored)
    took = time.monotonic() - started
    document: Document = {
        "policies": rows, "beside": beside, "sent": sent, "models": models, "recoveries": recoveries, "notes": notes,
        "prices": {name: getattr(prices, name) for name in ("per_byte_month", "per_byte", "per_joule", "per_second")}, "seconds": took,
    }  # fmt: skip
    return Answer(document, _text(document, took))


def _document(store: SqliteStore, name: str, one: StoreForecast, prices: Prices, recoveries: float) -> Document:
    storage, recovering = storage_cost(one.stored, 1.0, prices), recovery_cost(recoveries, one.mean_s, prices)
    return {
        "policy": name, "versions": one.versions, "recoverable": one.recoverable, "stored": one.stored,
        "updates": one.containers + one.squashes, "states": one.states, "state_bytes": one.state_bytes, "worst_s": one.worst_s,
        "worst_bytes": one.worst_bytes, "worst": named(store, one.worst_id), "mean_s": one.mean_s, "mean_bytes": one.mean_bytes,
        "storage_a_month": storage, "recovery_a_month": recovering, "a_month": storage + recovering,
    }  # fmt: skip


def named(store: SqliteStore, version: int) -> str | None:
    """Return the name of a version by its row, None where there is none."""
    row = store.versions.by_id(version)
    return None if row is None else f"{store.lineages.by_id(row.lineage)}@{row.version}"


def _beside(store: SqliteStore, planned: int) -> Document:
    """Return the bytes of the store that no policy changes. planned: those that one does, as it is now."""
    kept, kinds = store.tallies.kept(), store.tallies.by_kind()
    updates = sum(one.size - one.thinned_size for one in kinds)
    return {"bases": kept.base_size, "unverified": max(0, updates + kept.squash_size + kept.state_size - planned)}


def _sent(store: SqliteStore, link: LinkProfile, prices: Prices) -> Document:
    """Return what sending has cost until now: no policy of the store changes it."""
    kinds = store.tallies.by_kind()
    versions, size = sum(one.versions for one in kinds), sum(one.size for one in kinds)
    # A frame that is not full is paid for whole: half of one, on the mean, for each version.
    on_air = size + (versions * link.frame / 2 if link.frame else 0)
    joules = versions * link.joules_per_wakeup + on_air * link.joules_per_byte
    cost = size * prices.per_byte + joules * prices.per_joule
    return {"versions": versions, "bytes": size, "joules": joules, "cost": cost, "link": link.name, "link_source": link.source}


def _least(store: SqliteStore, policies: list[StorePolicy], all_of_it: whatif.Chains, rates: Rates) -> list[str]:
    """Return which of the policies can't be kept, each with the least that can be promised."""
    if not len(all_of_it):
        return []
    least = whatif.least_seconds(all_of_it, rates)
    at = int(least.argmax())
    out = []
    for policy in policies:
        if policy.promise.seconds and policy.promise.seconds < least[at]:
            who = (named(store, int(all_of_it.ids[at])) or "").partition("@")[0]
            out.append(f"{policy.promise} can't be kept: to read and prove one state of {who} takes {of_seconds(float(least[at]))}")
    return out


def _text(document: Document, took: float) -> str:
    rows = [
        (
            d["policy"], d["recoverable"], of_bytes(d["stored"]), of_bytes(d["state_bytes"]), of_seconds(d["worst_s"]),
            of_seconds(d["mean_s"]), of_money(d["storage_a_month"]), of_money(d["recovery_a_month"]),
        )
        for d in document["policies"]
    ]  # fmt: skip
    columns = (
        Column("policy", words=True, wrapped=True), Column("versions"), Column("stored"), Column("states", 2), Column("worst"),
        Column("mean", 1), Column("storage"), Column("recovery"),
    )  # fmt: skip
    sent, beside = document["sent"], document["beside"]
    lines = [
        table(columns, rows),
        "versions: those that come back; worst and mean: what recovering one takes; storage and recovery: what they cost a month, at"
        f" {document['recoveries']:,.0f} recoveries",
        f"beside that, whatever the policy: bases of {of_bytes(beside['bases'])}, and {of_bytes(beside['unverified'])} of updates that are"
        " not verified",
        f"sent until now, whatever the policy: {sent['versions']:,} versions, {of_bytes(sent['bytes'])}, {sent['joules']:,.0f} J on"
        f" {sent['link']} ({sent['link_source']}); {of_money(sent['cost'])} together",
        f"{document['models']:,} models planned in {took:.1f} s; nothing was changed",
        *document["notes"],
    ]
    return "\n".join([lines[0], *(wrapped(visible(line)) for line in lines[1:])])
