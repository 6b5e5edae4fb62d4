"""`edgeagent status`: what this device serves, and what of it the centre knows."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import Any

from edgeagent.deploying.telling import desired_here, document_of, line_of
from edgeagent.link import certificate, link_state, unread
from edgeagent.planning.conditions import longest_wait
from edgeagent.planning.telling import because
from edgeagent.rounds import journal
from edgeagent.service import befallen, counting
from edgeagent.settings.reading import Loaded
from edgeagent.settings.units import say_seconds
from edgeagent.state.folder import ousted
from edgeagent.state.history import OK, claim_refused
from edgeagent.state.lineage import FORKED, Lineage
from edgeagent.state.looking import Glance, look_at
from edgeagent.state.outcome import said as listed
from edgeagent.state.trust import SAME_FLEET
from edgecommon.printing import Answer, lines_of
from modelwire.errors import ModelWireError, SessionTaken, TwoHistories

from .answer import add_folder, disk_document, disk_lines, key_lines, load, local, unseen_lines

NAME = "status"
HELP = "Say what this device serves, what of it is known at the centre, and what waits. Works while the agent runs."
# The others have lines of their own.
TOLD_HERE = ("key-changed", "clock-off", "board-smaller", "system-refused", "system-left", "month-spent", "flash-spent")
EXAMPLES = ("edgeagent status", "edgeagent status --dir pi-7 --json")


def add(parser: argparse.ArgumentParser) -> None:
    add_folder(parser)


def run(args: argparse.Namespace) -> Answer:
    loaded = load(args)
    with look_at(loaded) as device:
        pid, held = device.agent, device.trust
        trust, link, fork = (held.held.number, held.link, held.fork_said) if held is not None else (0, None, "")
        models = [_model(device, m) for m in device.lineages.values()]
        if device.database is None and device.spool is not None:  # an application's user appends samples, and sees no more
            models = [{"name": m.name, "samples": device.spool.count(m.name)} for m in device.settings.models]
        said = link_state.noted(device.database) if device.database is not None else None
        large = unread.noted(device.database) if device.database is not None else None
        foreign = held.foreign_said if held is not None else ""
        for m in models:
            if foreign and not m.get("welcome", "ok"):
                m["hint"] = SAME_FLEET  # to let this board in is no remedy
        here = befallen.befallen(device, time.time())
        own = _certificate(loaded, device.board.device)
        document = {
            "device": device.board.device, "fleet": device.board.fleet, "broker": device.settings.link.broker,
            "public_key": device.board.public_key if device.keyed else None,
            "fingerprint": device.board.fingerprint if device.keyed else None,
            "fleet_id": device.board.identity.id.hex(), "trust": trust,
            "log": None if link is None else {"number": link.number, "link": link.digest.hex()}, "log_fork": fork,
            "agent_pid": pid, "models": models, "certificate": own, **disk_document(device),
            "ousted": ousted(device.database) if pid and device.database is not None else "",
            "troubles": [one.document() for one in here], "got_over": [asdict(one) for one in befallen.got_over(device)],
            "month": befallen.month_document(device, time.time()), "flash": befallen.flash_document(device, time.time()),
            "link": None if said is None else asdict(said), "unread": None if large is None else asdict(large),
            "other_fleet": held.foreign.hex() if held is not None else "", "heard": held.time if held is not None else 0,
            "answered_in_boot": counting.answered_in(device.database) if device.database is not None else "",
            "claim_refused": claim_refused(device.database) if device.database is not None else "",
        }  # fmt: skip
        lines = [*disk_lines(device), *unseen_lines(loaded, device)]
        keys = key_lines(device.board.public_key, device.board.fingerprint) if device.keyed else [""]
    running = f"running as process {pid}" if pid else "not running" if device.sees_agent else "not to be seen"
    lines.insert(0, f"{document['device']} of fleet {document['fleet']}, {document['broker']}; the agent is {running}")
    if trust:
        lines.append(f"trust record {trust} says who speaks for the centre" + (f"; its log ends at {link.number}" if link else ""))
    if said is not None:
        since = f"since {local(said.at)}"
        if pid:
            lines.append(f"connected {since}" if said.up else f"no link {since}: {said.reason}")
            lines += [said.reason] if said.up and said.is_taken(time.time()) else []
        else:
            how = "was connected" if said.up else f"had no link: {said.reason};"
            lines.append(f"the last agent {how} {since}")
    lines += [large.said(local(large.at))] if large is not None else []
    lines += [f"{foreign}; {SAME_FLEET}"] if foreign else []
    lines += [fork] if fork else []
    if document["ousted"]:
        lines.append(f"it waits, as two clients use its name at the broker: {document['ousted']}; {SessionTaken.hint}")
    if own is not None:
        lines.append(own["says"])
    lines += keys
    lines += _spent_lines(document) + _trouble_lines(here, document)
    for i, m in enumerate(models):
        lines += ["", *_lines(m)] if i else _lines(m)
    return Answer(document, lines_of(lines))


def _spent_lines(document: dict[str, Any]) -> list[str]:
    """Return what people read of bytes over the link and to the disk."""
    if document["month"] is None:
        return []
    lines = [befallen.month_line(document["month"])] if document["month"]["limit"] or document["month"]["sent"] else []
    return lines + befallen.flash_lines(document["flash"])


def _trouble_lines(here: list[befallen.Befallen], document: dict[str, Any]) -> list[str]:
    """Return what people read of the troubles that no other line tells of, and of those that the agent got over alone."""
    lines = [line for one in here if one.id in TOLD_HERE for line in one.lines()]
    for one in document["got_over"]:
        times = f", {one['count']} times" if one["count"] > 1 else ""
        lines.append(f"got over {one['id']}, {local(one['at'])}{times}: {one['text']}")
    return [*lines, ""] if lines else []


def _certificate(loaded: Loaded, device: str) -> dict[str, Any] | None:
    """Return how this device's certificate for the broker stands, None when its settings name none."""
    link, now = loaded.settings.link, time.time()
    try:
        life = certificate.own_life(link, loaded.folder)
    except ModelWireError as e:
        return {"file": link.tls_cert, "since": None, "until": None, "state": "missing", "says": f"{e.message}; {certificate.RENEW}"}
    if life is None:
        return None
    word = life.word(now)
    says = f"certificate of {device} for the broker {life.told(now)}" + ("" if word == "good" else f"; {certificate.RENEW}")
    return {"file": link.tls_cert, "since": life.since, "until": life.until, "state": word, "says": says}


def _model(device: Glance, lineage: Lineage) -> dict[str, Any]:
    head, (verified, stored) = lineage.head(), lineage.known()
    settings = device.settings.model(lineage.name)
    longest = longest_wait(settings)
    waiting = lineage.outbox.waiting()
    last = next((r for r in lineage.versions(50) if r["samples"]), None)  # a snapshot has none
    spool = device.spool
    held, new = (None, None) if spool is None else (spool.count(lineage.name), spool.count(lineage.name, after=head.trained_id))
    wish, taking = lineage.wish(), lineage.takings.current()
    left, wait, quiet = journal.read(lineage.journal), lineage.waiting(), lineage.quiet()
    assert device.database is not None and device.trust is not None  # there are no lineages without
    desired = desired_here(device.database, device.trust, lineage.name)
    if left is not None and left.facts.round != head.rounds + 1:
        left = None  # of a round that is over
    return {
        "name": lineage.name, "version": head.version, "commit": head.commit.hex(), "base": lineage.base_commit.hex(),
        "served": str(lineage.store.served), "file_sha256": head.file_sha256.hex(), "epoch": head.epoch, "welcome": head.welcome,
        "why": "" if head.welcome == OK else lineage.why_unwelcome(head),
        "blocked": head.blocked, "hint": lineage.next_step(head), "verified": verified, "stored": stored,
        "queued": sum(w.state == "queued" for w in waiting), "offered": sum(w.state == "offered" for w in waiting),
        "unverified": sum(w.state == "stored" for w in waiting), "outbox_bytes": lineage.outbox.held_bytes(),
        "lost": lineage.doubts.lost(), "lost_there": lineage.doubts.lost(confirmed=True),
        "samples": held, "new_samples": new, "rounds": head.rounds, "runtime": head.runtime,
        "resume": None if wish is None else {
            "version": wish.version or None, "waited": wish.waited, "at_most": int(device.settings.link.resume_wait),
        },
        "taking": None if taking is None else {
            "number": taking.command.number, "parts": len(taking.held), "of": taking.count, "bytes": taking.bytes, "size": taking.task.size,
        },
        "waits": None if wait is None else {"reason": wait.reason, "until": wait.until},
        "under_way": None if left is None else {
            "round": left.facts.round, "mode": left.facts.mode, "done": left.done, "steps": left.facts.steps,
            "slots_kept": left.facts.whole,
        },
        "desired": document_of(desired, lineage, settings), "desired_says": "" if desired is None else line_of(desired, settings),
        "pays": head.look,
        "sends": None if (sends := lineage.plans.waits(time.time(), longest)) is None else {
            "updates": sends.count, "bytes": sends.size, "reason": because(sends.document), "until": sends.until,
        },
        "quiet": None if quiet.until <= time.time() else {"until": quiet.until, "reason": quiet.reason},
        "last_round": None if last is None else {
            "at": last["at"], "accepted": last["state"] != "rejected", "reason": last["reason"], "version": last["version"],
            "mode": last["mode"],
            "kind": last["kind"], "bytes": last["bytes"],
            "loss_before": last["loss_before"], "loss_after": last["loss_after"],
            "accuracy_before": last["accuracy_before"], "accuracy_after": last["accuracy_after"],
        },
    }  # fmt: skip


def _lines(m: dict[str, Any]) -> list[str]:
    if "version" not in m:
        return [f"{m['name']}: {m['samples']} samples"]
    out = [f"{m['name']}@{m['version']}   epoch {m['epoch'] or 'none yet'}   {m['rounds']} rounds   {m['served']}"]
    out.append(f"  known at the centre up to @{m['verified']} (verified), @{m['stored']} (stored)")
    if m["lost_there"]:
        out.append(f"  lost at the centre: {listed(m['lost_there'])}, which it once held; what they changed is in later versions")
    out.append(f"  waiting: {m['queued']} queued, {m['offered']} offered, {m['unverified']} to be verified; {m['outbox_bytes']} bytes")
    if m["samples"] is not None:
        out.append(f"  samples: {m['samples']}, {m['new_samples']} of them new")
    if (now := m["under_way"]) is not None:
        slots = "" if now["slots_kept"] else "; the file has no get_state: after an interruption the optimizer's slots start anew"
        out.append(f"  round {now['round']} under way ({now['mode']}): step {now['done']} of {now['steps']}{slots}")
    if (wish := m["resume"]) is not None:
        what = f"@{wish['version']}, which the centre holds" if wish["version"] else "the centre has not said whether it holds one"
        left = max(0, wish["at_most"] - wish["waited"])
        then = f"it waits for it {say_seconds(left)} more at most" if left else "it waits for it no more"
        out.append(f"  would like its last model back: {what}; {then}")
    if (coming := m["taking"]) is not None:
        out.append(f"  an update comes in parts: {coming['parts']} of {coming['of'] or '?'}, {coming['bytes']} of {coming['size']} bytes")
    if m["desired_says"]:
        out.append(f"  {m['desired_says']}")
    if m["waits"] is not None:
        out.append(f"  training waits: {m['waits']['reason']}; until {m['waits']['until']}")
    if (held := m["sends"]) is not None:
        many = f"{held['updates']} update{'s' if held['updates'] > 1 else ''}, {held['bytes']} bytes"
        out.append(f"  waits to send: {many}, because {held['reason'] or 'so it was decided'}; until {local(held['until'])} at most")
    if m["quiet"] is not None:
        why = f": {m['quiet']['reason']}" if m["quiet"]["reason"] else ""
        out.append(f"  the centre wants nothing sent until {local(m['quiet']['until'])}{why}")
    if (last := m["last_round"]) is not None:
        when = local(last["at"])
        if last["accepted"]:
            accuracy = "" if last["accuracy_after"] is None else f", accuracy {last['accuracy_before']:.3f} -> {last['accuracy_after']:.3f}"
            before, after = ("none" if last[k] is None else f"{last[k]:.4f}" for k in ("loss_before", "loss_after"))
            out.append(f"  last round {when}: held-out loss {before} -> {after}{accuracy}; {last['kind']} of {last['bytes']} bytes")
        else:
            out.append(f"  last round {when}: rejected: {last['reason']}")
    if m["pays"]:
        out.append(f"  no round pays yet: {m['pays']}")
    if m["blocked"].startswith(FORKED):
        out.append(f"  BLOCKED: {m['blocked']}; {TwoHistories.hint}")
    elif m["blocked"]:
        out.append(f"  BLOCKED: {m['blocked']}; move the state folder away and run edgeagent init with --key")
    elif m["hint"]:
        answer = f"says {m['welcome']}: {m['why']}" if m["welcome"] else "has not answered yet"
        out.append(f"  the centre {answer}; try: {m['hint']}")
    return out
