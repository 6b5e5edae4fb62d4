"""`edgecloud deploy`: a rollout of a variant is planned, shown, and sealed."""

from __future__ import annotations

import argparse

from edgecloud import keys
from edgecloud.registry import SqliteStore
from edgecloud.rollouts import choosing, group, planning
from edgecloud.rollouts.choosing import percent
from edgecloud.rollouts.group import Audience, RolloutGroup, named
from edgecloud.rollouts.planning import RolloutOutline, duration
from edgecloud.rollouts.power import CHANGED, SHARE
from edgecloud.rollouts.verbs import next_number
from edgecloud.versions import naming
from edgecommon.arguments import never_with, only_with, whole
from edgecommon.printing import Answer
from edgecommon.tables import Column
from modelwire.deploying.plans import (
    RolloutDecision,
    RolloutGates,
    RolloutPhase,
    RolloutPlan,
    RolloutVerb,
    seal_decision,
    seal_plan,
)
from modelwire.deploying.terms import URLS_MAX, Learned
from modelwire.deploying.variants import Variant
from modelwire.errors import BadArgument
from modelwire.names import check_name
from modelwire.planning import PROFILES
from modelwire.wire.signing import Role

from ..answer import Document, facts, now, progress, registry_of, sentences, table
from ..cohorts import add_cohort, cohort_of
from ..sealing import add_key, command_key
from ..sizes import of_bytes
from .answers import described, director_said, find_variant, read_variant
from .asking import add_person, fact_type, names_type, percent_type, person, phase_type, seconds_type, url_type, window_type

NAME = "deploy"
HELP = "Bring a variant to devices, phase by phase; --plan shows what it comes to, and seals nothing."
EXAMPLES = (
    "edgecloud deploy merged --all --plan",
    "edgecloud deploy merged --cohort 2 --url https://files.example.org/bases/{file}.tflite --start",
    "edgecloud deploy merged --where region=eu --canary pi-1,pi-2 --soak 48h --window 01:00-05:00",
    "edgecloud deploy merged --to pi-1,pi-2,pi-3 --phase 1:1h --phase all --margin 3%",
)
SOAK, DAY = 86_400, 86_400
USUAL = RolloutGates()
GATES = (
    ("--success", "success", percent_type(1), "share of a phase that must serve it before the next one"),
    ("--error", "error", percent_type(), "share of the devices which tried it that may fail"),
    ("--margin", "margin", percent_type(), "accuracy that it may lose on the devices' held-out samples; 100%%: not judged"),
)  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("variant", metavar="VARIANT", help="its name, or its commit: edgecloud variants lists them")
    _add_audience(parser)
    parser.add_argument("--plan", action="store_true", help="show groups, bytes, time, and what its gates can tell; seal nothing")
    parser.add_argument("--start", action="store_true", help="seal the decision to start it too (default: edgecloud rollout start)")
    parser.add_argument("--name", metavar="NAME", help="what to call the rollout (default: the variant's name and a number)")
    _add_pace(parser)
    for flag, field, kind, what in GATES:
        usual = percent(getattr(USUAL, field)).replace(" %", "%%")
        parser.add_argument(flag, type=kind, default=getattr(USUAL, field), metavar="PERCENT", help=f"{what} (default: {usual})")
    least = "failures below which nothing is halted; one is enough where a phase has fewer devices"
    parser.add_argument("--error-least", type=whole(1, 1000), default=USUAL.error_least, metavar="N", help=f"{least} (default: 3)")
    patience = "a phase in which nothing comes for so long is paused (default: it waits)"
    parser.add_argument("--patience", type=seconds_type("--patience"), default=0, metavar="TIME", help=patience)
    what = "auto: what a device has learned is kept or carried over where its guard finds that good; anew: the variant as it is"
    parser.add_argument("--learned", choices=Learned.WORDS, default=Learned.AUTO, help=what)
    parser.add_argument("--consent", action="store_true", help="each board's host must say yes before it is served")
    where = "address of the file; {file} and {commit} stand for its digests; may be given again (default: in parts, by MQTT)"
    parser.add_argument("--url", action="append", type=url_type, default=[], metavar="URL", help=where)
    parser.add_argument("--approvals", type=whole(0, 8), default=0, metavar="N", help="persons who must approve it, beside who makes it")
    parser.add_argument("--expires", type=seconds_type("--expires"), default=30 * DAY, metavar="TIME",
                        help="how long a device may take to begin, once it is offered (default: 30d)")  # fmt: skip
    parser.add_argument("--link", choices=sorted(PROFILES), default="lte", help="by which link the plan's time and energy are reckoned")
    add_person(parser)
    add_key(parser)
    never_with(parser, "--start", "--plan")
    never_with(parser, "--canary", "--phase")
    only_with(parser, "--no-follow", "--where", "--all")


def _add_audience(parser: argparse.ArgumentParser) -> None:
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--to", type=names_type, metavar="DEVICES", help="devices by name: pi-1,pi-2,pi-3")
    add_cohort(whom)
    what = "devices whose data cards tell this fact, as region=eu; given again, all of these facts"
    whom.add_argument("--where", type=fact_type, action="append", metavar="KEY=VALUE", help=what)
    whom.add_argument("--all", action="store_true", help="all devices that have the model")


def _add_pace(parser: argparse.ArgumentParser) -> None:
    what = "one phase, in order: 5, 25%%, pi-1,pi-2 or all; 5:48h soaks longer (default: 5, 5%%, 25%%, 50%%, all)"
    parser.add_argument("--phase", action="append", type=phase_type, default=[], metavar="PHASE", help=what)
    parser.add_argument("--canary", type=names_type, metavar="DEVICES", help="the devices of the first phase, in the place of 5 by chance")
    soak = "it is served for so long before it counts (default: 24h)"
    parser.add_argument("--soak", type=seconds_type("--soak"), default=SOAK, metavar="TIME", help=soak)
    parser.add_argument("--rate", type=whole(0, 1_000_000), default=60, metavar="N", help="devices a minute at most (default: 60); 0: any")
    spread = "offers of one step are spread over so long (default: 60s)"
    parser.add_argument("--jitter", type=seconds_type("--jitter", DAY), default=60, metavar="TIME", help=spread)
    hours = "hours (UTC): one that is offered it outside serves it when they begin, or once it has it; it is fetched before"
    parser.add_argument("--window", type=window_type, metavar="HH:MM-HH:MM", help=hours)
    parser.add_argument("--no-follow", action="store_true", help="devices that come to fit later get nothing")


def run(args: argparse.Namespace) -> Answer:
    _require_sense(args)
    with registry_of(args, readonly=args.plan) as store:
        _require_approvers(store, args.approvals)
        variant, speaks = read_variant(store, find_variant(store, args.variant))
        if not speaks:
            reason = f"{variant.name} was sealed by a root key that speaks no more: no board would take it"
            raise BadArgument(reason=reason, fix=f"edgecloud variants add {variant.name} --model {variant.model} seals it anew")
        audience, cohort = _audience(store, args, variant)
        found = group.gather(store, variant, audience, learned=args.learned, progress=progress("devices"))
        plan = _plan(store, args, variant, audience, cohort, found)
        drawn = planning.outline(store, plan, variant, found, args.link)
        state = "" if args.plan else _seal(args, store, plan)
        director = director_said(store)[1]
    document = {**_document(drawn, state), "started": args.start}
    return Answer(document, _text(drawn, _next(plan, state, director, started=args.start)))


def _require_sense(args: argparse.Namespace) -> None:
    if len(args.url) > URLS_MAX:
        raise BadArgument(reason=f"a plan has at most {URLS_MAX} addresses, and these are {len(args.url)}", fix="give fewer --url")
    if args.expires == 0:
        raise BadArgument(reason="--expires 0s: no device could take it", fix="--expires 30d")
    if args.name:
        check_name("rollout name", args.name)


def _require_approvers(store: SqliteStore, approvals: int) -> None:
    """Raise BadArgument where a plan could never be approved: each approval is by a command key of its own."""
    held = len(keys.named(keys.trusted(store.identity, [row.record for row in store.trusts.all()]), Role.COMMAND))
    if approvals and approvals >= held:
        raise BadArgument(
            reason=f"{approvals} approvals beside who makes it need {approvals + 1} command keys, and the trust record names {held}",
            fix="edgecloud trust rotate command --public KEY --public KEY names one for each person",
        )


def _audience(store: SqliteStore, args: argparse.Namespace, variant: Variant) -> tuple[Audience, str]:
    """Return whom the command line names, and the cohort in words where it is one."""
    if args.to is not None:
        return Audience(args.to), ""
    if args.cohort is None:
        return Audience((), tuple(sorted(args.where or ()))), ""
    cohort = cohort_of(store, args.cohort, variant.model)
    names = [naming.parse(text) for text in cohort.names]
    other = next((one for one in names if one.model not in (None, variant.model)), None)
    if other is not None or not names:
        what = f"{other} of the cohort is not of the model {variant.model}"
        reason = f"{args.cohort} has no device" if other is None else what
        raise BadArgument(reason=reason, fix="a variant goes to devices of its own model: edgecloud variants list")
    return Audience(tuple(dict.fromkeys(one.device for one in names))), cohort.words[:200]


def _plan(
    store: SqliteStore, args: argparse.Namespace, variant: Variant, audience: Audience, cohort: str, found: RolloutGroup
) -> RolloutPlan:
    gates = RolloutGates(args.success, args.error, args.error_least, args.margin, USUAL.surely, args.patience)
    phases = tuple(args.phase) or choosing.usual_for((_canary(args), *choosing.USUAL[1:]), len(found.names))
    told_apart = any(one.why in group.UNFIT for one in found.left_out) and planning.listable(found.names)
    devices = tuple(found.names) if audience.devices or told_apart else ()
    plan = RolloutPlan(
        store.fleet, variant.model, bytes(16), args.name or _free_name(store, variant.name), variant.commit, devices, cohort,
        audience.where, not devices and not args.no_follow, phases, gates, args.soak, args.rate, args.jitter, args.window or (0, 0),
        args.learned, args.consent, tuple(args.url), args.expires, args.approvals, person(args), now(),
    )  # fmt: skip
    if store.rollouts.named(plan.name) is not None:
        raise BadArgument(reason=f"a rollout is called {plan.name} already", fix=f"edgecloud rollout show {plan.name}, or another --name")
    return planning.identified(plan)


def _canary(args: argparse.Namespace) -> RolloutPhase:
    return RolloutPhase(args.canary) if args.canary else choosing.USUAL[0]


def _free_name(store: SqliteStore, variant: str) -> str:
    """Return the variant's name with the first number that no rollout has."""
    taken = {row.name for row in store.rollouts.all()}
    return next(name for n in range(1, len(taken) + 2) if (name := f"{variant[:56]}-{n}") not in taken)


def _seal(args: argparse.Namespace, store: SqliteStore, plan: RolloutPlan) -> str:
    """Seal the plan, and the decision to start it where that is asked for; return the state that the rollout is in then."""
    if args.start and plan.approvals:
        reason = f"{plan.name} needs {plan.approvals} approvals before it starts"
        raise BadArgument(reason=reason, fix="leave out --start; then edgecloud rollout approve NAME, and edgecloud rollout start NAME")
    key = command_key(args, store)  # its passphrase is typed before the transaction, for which the ingester would wait
    sealed = seal_plan(plan, key, store.identity.id)
    with store.transaction():
        row = store.rollouts.add(sealed, plan, plan.at)
        if args.start:
            number = next_number((), plan.at)
            said = RolloutDecision(store.fleet, plan.rollout, number, RolloutVerb.START, plan.made_by, "", plan.at)
            store.rollouts.decide(row.id, number, seal_decision(said, key, store.identity.id), plan.at)
    return row.state


def _document(drawn: RolloutOutline, state: str) -> Document:
    plan, told = drawn.plan, drawn.power
    return {
        "rollout": plan.name, "id": plan.rollout, "sealed": bool(state), "state": state or None, "model": plan.model,
        "variant": described(drawn.variant), "devices": len(drawn.group.lineages), "cohort": plan.cohort or None,
        "where": dict(plan.where), "follow": plan.follow,
        "phases": [
            {"phase": n, "says": choosing.said(one.phase), "devices": list(one.devices), "total": one.total, "bytes": one.bytes,
             "soak": one.phase.soak or plan.soak, "seconds": one.seconds}
            for n, one in enumerate(drawn.phases, 1)
        ],
        "each_bytes": drawn.each, "bytes": drawn.bytes, "by": "http" if plan.urls else "parts", "urls": list(plan.urls),
        "seconds": drawn.seconds, "link": drawn.link.name, "bytes_per_s": drawn.rate, "joules_each": drawn.joules,
        "window": list(plan.window), "rate": plan.rate, "jitter": plan.jitter, "consent": plan.consent, "learned": plan.learned,
        "approvals": plan.approvals, "made_by": plan.made_by,
        "gates": {"success": plan.gates.success, "error": plan.gates.error, "error_least": plan.gates.error_least,
                  "margin": plan.gates.margin, "surely": plan.gates.surely, "patience": plan.gates.patience},
        "power": {"devices": told.devices, "known": told.known, "rows": told.rows, "halted": told.halted, "passes": told.passes,
                  "enough": told.enough},
        "left_out": [{"device": one.device, "why": one.why, "detail": one.detail} for one in drawn.group.left_out],
        "warnings": list(drawn.warnings),
    }  # fmt: skip


def _text(drawn: RolloutOutline, then: str) -> str:
    plan, variant = drawn.plan, drawn.variant
    where = " and ".join(f"{key}={value}" for key, value in plan.where)
    whom = plan.cohort or where or ("by name" if plan.devices else "all that have the model")
    columns = (
        Column("phase"), Column("goes to", words=True), Column("devices"), Column("in all"), Column("bytes", 2), Column("takes", 1),
        Column("such as", 3, words=True),
    )  # fmt: skip
    rows = [
        (n, choosing.said(one.phase), len(one.devices), one.total, of_bytes(one.bytes), duration(one.seconds), named(one.devices))
        for n, one in enumerate(drawn.phases, 1)
    ]  # fmt: skip
    how = f"by HTTP from {len(plan.urls)} address{'es' * (len(plan.urls) != 1)}" if plan.urls else "in parts by MQTT"
    window = "" if plan.window == (0, 0) else f"{_clock(plan.window[0])}-{_clock(plan.window[1])} UTC: up to a day more for each phase"
    head = facts([
        ("rollout", plan.name), ("variant", f"{variant.name} of {variant.model}, {variant.commit.hex()[:16]}, {of_bytes(variant.size)}"),
        ("for", f"{len(drawn.group.lineages)} devices: {whom}" + (", and those that come to fit later" if plan.follow else "")),
    ])  # fmt: skip
    rest = facts([
        ("bytes", f"{of_bytes(drawn.phases[0].bytes)} in phase 1, {of_bytes(drawn.bytes)} in all: {of_bytes(drawn.each)} each, {how}"),
        ("time", f"{duration(drawn.seconds)} at least over {drawn.link.name} ({of_bytes(drawn.rate)}/s)"),
        ("window", window),
        ("energy", f"{drawn.joules:.3g} J a device to fetch it" if drawn.joules else ""),
        ("learned", "begun anew" if plan.learned == Learned.ANEW else "kept or carried over, where each device's guard finds that good"),
    ])  # fmt: skip
    left = [f"Left out, {line}." for line in planning.left_out_said(drawn.group)]
    notes = [*left, *_gates_said(drawn), *(f"Warning: {one}." for one in drawn.warnings), then]
    return f"{head}\n\n{table(columns, rows)}\n\n{rest}\n\n{sentences(notes)}"


def _gates_said(drawn: RolloutOutline) -> list[str]:
    gates, told, plan = drawn.plan.gates, drawn.power, drawn.plan
    out = [
        f"Next phase: when {percent(gates.success)} of a phase serve it, after a soak of {duration(plan.soak)}. Halt: when more than"
        f" {percent(gates.error)} of those that tried it fail, {gates.error_least} at least."
    ]
    if gates.margin >= 10_000:
        return [*out, "Quality is not judged: the margin is all."]
    quality = f"Quality: it may lose {percent(gates.margin)} of accuracy, paired on each device's own held-out samples."
    if told.known:
        seen = "no loss is sure enough to halt it" if told.halted is None else (
            f"a loss of {told.halted / 100:g} points is halted in {_share(SHARE)} of rollouts"
        )  # fmt: skip
        quality += (
            f" With the {told.rows} samples of {told.known} of {told.devices} canaries {seen}; an equal variant passes phase 1 in"
            f" {_share(told.passes)}, and waits for a person else (where {percent(CHANGED)} of the answers change)."
        )  # fmt: skip
    return [*out, quality]


def _next(plan: RolloutPlan, state: str, director: str, *, started: bool) -> str:
    """Return what was done, and what is to be done then."""
    name = plan.name
    if not state:
        return "Nothing is sealed: leave out --plan to seal this plan."
    if started:
        return f"Sealed and started: the director offers it to the first phase; {director}. Next: edgecloud rollout show {name} --watch."
    if plan.approvals:
        return f"Sealed as a draft. Next: edgecloud rollout approve {name}, by {plan.approvals} more; then edgecloud rollout start {name}."
    return f"Sealed as a draft; nothing goes out before edgecloud rollout start {name}."


def _share(part: float) -> str:
    return f"{100 * part:.0f} %"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds % 3600 // 60:02}"
