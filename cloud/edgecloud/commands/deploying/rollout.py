"""`edgecloud rollout`: one rollout, what was decided about it, and what is decided now."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from edgecloud.registry import SqliteStore
from edgecloud.registry.rollout_rows import DRAFT
from edgecloud.rollouts import statements
from edgecloud.rollouts.rows import served
from edgecloud.rollouts.verbs import follows, next_number, standing, then, wanted
from edgecommon.arguments import never_with, number, only_with
from edgecommon.printing import Answer, visible
from edgecommon.tables import add_limit
from modelwire.deploying.plans import RolloutDecision, RolloutVerb, seal_decision
from modelwire.errors import BadArgument

from ..answer import Document, registry_of, sentences
from ..comparing.plots import add_plot, plot_of
from ..sealing import add_key, command_key, unlock
from ..verb import Verb
from . import showing
from .answers import OVER, director_said, find_rollout
from .asking import REASON_MAX, add_person, person, plain_type

NAME = "rollout"
HELP = "Show one rollout, and decide about it; each decision is sealed by the command key."
EXAMPLES = ("edgecloud rollout show merged-1",)


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="its name, or the beginning of its id")
    parser.add_argument("--watch", action="store_true", help="show it again whenever it has changed, until it is through or Ctrl-C")
    parser.add_argument("--every", type=number(most=3600), metavar="SECONDS", help="with --watch: how often it is looked at (default: 2)")
    add_plot(parser, "its phases: how many devices are in which state")
    add_limit(parser, "the first N devices that failed or refused")
    never_with(parser, "--watch", "--json", "--plot")
    only_with(parser, "--every", "--watch")


def show_rollout(args: argparse.Namespace) -> Answer:
    plot = plot_of(args)
    if args.watch:
        return _watched(args)
    with registry_of(args) as store:
        row = find_rollout(store, args.name)
        if plot is not None:
            showing.draw(plot, store, row)
        return showing.shown(store, row, args)


def _watched(args: argparse.Namespace) -> Answer:
    """Print a rollout whenever it has changed; the last time is the answer."""
    before = ""
    while True:
        with registry_of(args) as store:
            row = find_rollout(store, args.name)
            answer, mark = showing.shown(store, row, args), showing.mark(store, row)
        if row.state in OVER or follows(row):
            return answer
        if mark != before:
            print(answer.text, end="\n\n", flush=True)
            before = mark
        time.sleep(args.every or 2)


def _decide_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="its name, or the beginning of its id")
    parser.add_argument("--reason", type=plain_type(REASON_MAX), metavar="TEXT", help="why, for who reads it later")
    add_person(parser)
    add_key(parser)


def _deciding(verb: RolloutVerb) -> Callable[[argparse.Namespace], Answer]:
    """Return what seals a verb."""

    def decide(args: argparse.Namespace) -> Answer:
        with registry_of(args, readonly=False) as store:
            find_rollout(store, args.name)  # before anybody types a passphrase
            with unlock(args, store), store.transaction():
                document, lines = _decided(args, store, verb)
            seen, director = director_said(store)
        document["director_seen_at"] = seen
        return Answer(document, sentences([*lines, *([f"{director[0].upper()}{director[1:]}."] if document["sealed"] else [])]))

    return decide


def _decided(args: argparse.Namespace, store: SqliteStore, verb: RolloutVerb) -> tuple[Document, list[str]]:
    row = find_rollout(store, args.name)
    if not row.plan:
        fix = "a device that it named was erased; what it was sealed with is gone, and nothing can be decided about it"
        raise BadArgument(reason=f"the plan of {row.name} is not kept any more", fix=fix)
    plan, before = statements.plan_of(store, row), statements.decisions_of(store, row)
    key = command_key(args, store)
    reached = served(store.rollouts.tallies(row.id))
    fresh = wanted(row, plan, before, verb, key.public, reached)
    document: Document = {
        "rollout": row.name, "id": row.rollout, "verb": verb.value, "sealed": fresh, "state": row.state, "number": None,
    }  # fmt: skip
    if not fresh:
        by_it = verb is RolloutVerb.APPROVE and row.state == DRAFT
        said = "approved by this key already" if by_it else f"{standing(row, before)} already"
        return {**document, "then": ""}, [visible(f"{row.name} is {said}; nothing was sealed.")]
    at = time.time()
    odd = set(statements.unproven(store, row))  # who writes to the registry may plant the last number there is
    number_ = next_number([one for one in store.rollouts.decisions(row.id) if one.number not in odd], at)
    while number_ in odd:
        number_ += 1
    decision = RolloutDecision(store.fleet, row.rollout, number_, verb, person(args), args.reason or "", int(at))
    store.rollouts.decide(row.id, number_, seal_decision(decision, key, store.identity.id), int(at), beside=odd)
    document |= {"number": number_, "then": then(row, verb)}
    lines = [visible(f"{row.name}: {verb.value} is sealed. Then {then(row, verb)}.")]
    if verb is RolloutVerb.APPROVE:
        have = len(statements.approvers(plan, before)) + 1
        document["approvals"] = {"have": have, "of": plan.plan.approvals}
        ready = f"Next: edgecloud rollout start {row.name}." if have >= plan.plan.approvals else "It can't be started before all are there."
        lines.append(f"{have} of {plan.plan.approvals} approvals. {ready}")
    return document, lines


def _verb(name: str, verb: RolloutVerb, help: str, *examples: str) -> Verb:
    return Verb(name, help, examples or (f"edgecloud rollout {name} merged-1",), _deciding(verb), _decide_arguments)


VERBS = (
    Verb(
        "show", "Show a rollout: its phases and gates, devices by state and error, who failed and why, and what was decided.",
        (
            "edgecloud rollout show merged-1", "edgecloud rollout show merged-1 --watch",
            "edgecloud rollout show merged-1 --plot merged-1.svg",
        ),
        show_rollout, _show_arguments,
    ),
    _verb("approve", RolloutVerb.APPROVE, "Approve a plan, as another person than who made it: with a command key of one's own.",
          "edgecloud rollout approve merged-1 --key anna.key"),
    _verb("start", RolloutVerb.START, "Start a rollout: the director offers it to the first phase."),
    _verb("pause", RolloutVerb.PAUSE, "Offer it to nobody new for now; devices that are under way go on.",
          "edgecloud rollout pause merged-1 --reason 'the file server moves'"),
    _verb("resume", RolloutVerb.RESUME, "Go on with a rollout that is paused, by a person or by a gate."),
    _verb("halt", RolloutVerb.HALT, "Offer it to nobody new, for good; devices that have it keep it."),
    _verb("rollback", RolloutVerb.ROLL_BACK, "Take it back: devices that have it go to the base in their passive slot, without a download.",
          "edgecloud rollout rollback merged-1 --reason 'worse at night'"),
    _verb("abort", RolloutVerb.ABORT, "End a rollout that nobody has been served yet, as if it had never begun."),
)  # fmt: skip
