"""`edgeagent doctor`: looks for what would keep the agent from working, and says what to do about it."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edgeagent import boards
from edgeagent.board.budget import mib
from edgeagent.board.sensors import Sensors
from edgeagent.deploying.telling import desired_here, line_of
from edgeagent.link import certificate, link_state, looking, unread
from edgeagent.service import befallen
from edgeagent.settings.reading import Loaded
from edgeagent.state.agent_tables import FILE
from edgeagent.state.claim import read_claim
from edgeagent.state.history import EPOCHS, OK, QUARANTINE, Board
from edgeagent.state.keys import read_board, read_fleet
from edgeagent.state.lineage import FORKED
from edgeagent.state.looking import KEY, SPOOL_GONE, Glance, look_at
from edgeagent.state.trust import SAME_FLEET
from edgeagent.troubles import naming, places
from edgecommon import access, disk
from edgecommon.printing import Answer, lines_of
from modelwire import kernels
from modelwire.errors import ConfigError, ModelWireError, RuntimeUnusable, StateDamaged, TwoHistories
from modelwire.wire.keys import fingerprint, write_fleet

from .answer import add_folder, asked_as, load, local, unseen_hint

NAME = "doctor"
HELP = "Check settings, keys, state, clock, disk, kernels, runtime and broker; say ok or what to do. Exits 1 when something is wrong."
EXAMPLES = ("edgeagent doctor", "edgeagent doctor --dir pi-7 --json")
LONG_AGO = 1_700_000_000  # Unix seconds, November 2023: a clock before it was never set
MARKS = {True: "ok ", False: "FIX", None: "-- "}
BACK = 3600  # seconds: a clock that is so far behind what was written by it was set back, as on boards without a battery
SOON = 5  # seconds in which a centre that is there has answered
SPARE = 64 * 1024 * 1024  # bytes that should be free besides what the models take


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. hint: what to do; empty when it is well."""

    what: str
    ok: bool | None  # None: it was not tried, and the text says why
    text: str
    hint: str = ""
    trouble: str = ""  # which one of a board's
    key: str = ""  # in --json, where `what` is a model's name, or stands several times
    model: str = ""

    def document(self) -> dict[str, object]:
        key = self.key or self.what.replace(" ", "-").lower()
        said = {"what": self.what, "ok": self.ok, "text": self.text, "hint": self.hint, "trouble": self.trouble}
        return {"key": key, "model": self.model, **said}


def add(parser: argparse.ArgumentParser) -> None:
    add_folder(parser)


def run(args: argparse.Namespace) -> Answer:
    checks = list(examine(args))
    document = {
        "ok": all(f.ok is not False for f in checks),
        "checks": [f.document() for f in checks],
    }
    lines = []
    for f in checks:
        lines.append(f"{MARKS[f.ok]}  {f.what:<13} {f.text}")
        if f.hint:
            lines.append(f"       try: {f.hint}")
    return Answer(document, lines_of(lines), 0 if document["ok"] else 1)


def examine(args: argparse.Namespace) -> Iterator[Finding]:
    """Yield the findings in the order in which a person would look."""
    yield _check("kernels", lambda: f"{kernels.describe()}, rounds to nearest even")
    yield _check("runtime", lambda: _runtime(args))
    try:
        loaded = load(args)
    except ModelWireError as e:
        yield Finding("settings", False, e.message, e.next_step)
        return
    yield Finding("settings", True, str(loaded.path))
    yield from _of_board(loaded)
    yield _check("clock", lambda: _clock(loaded))
    yield _check("key", lambda: _key(loaded), loaded)
    yield _check("fingerprint", lambda: f"{_board(loaded).fingerprint}   (of this key: what the operator compares)")
    if _has_claim(loaded):
        yield _check("claim", lambda: _claim(loaded))
    yield _check("fleet key", lambda: _fleet_key(loaded))
    yield _check("certificate", lambda: _certificate(loaded))
    try:
        with look_at(loaded, open_key=True) as device:  # what the key's check said is said
            yield from _broker(loaded, device)
            for one in device.unseen:
                if one.what != KEY and one.why != SPOOL_GONE:  # the one was said above, the other is said below
                    yield Finding("unseen", False, f"{one.what}: {one.why}", unseen_hint(loaded, one))
            if device.database is not None:
                yield _check("state", lambda: _state(loaded, device), loaded)
                yield _check("centre", lambda: _centre(device))
            yield from _others(device)
            yield _check("disk", lambda: _disk(loaded, device), loaded)
            for name in device.lineages:
                welcome = partial(_welcome, loaded)
                for what, key, check in ((name, "model", _model), ("centre", "welcome", welcome), ("budget", "budget", _budget)):
                    found = _check(what, partial(check, device, name), loaded)
                    yield replace(found, key=key, model=name)
                if (desired := _desired(device, name)) is not None:
                    yield desired
    except ModelWireError as e:
        yield from _broker(loaded, None)
        yield Finding("state", False, e.message, e.next_step, naming.name_in(e, loaded))


def _of_board(loaded: Loaded) -> Iterator[Finding]:
    """Yield what the board is beside the profile that its settings name."""
    try:
        for one in boards.compare(loaded.settings, loaded.folder):
            yield Finding(one.what, one.ok, one.text, one.hint, one.trouble)
    except ModelWireError as e:
        yield Finding("board", False, e.message, e.next_step)


def _check(what: str, look: Callable[[], str | Finding], loaded: Loaded | None = None) -> Finding:
    """Return what `look` found: a text when it is well, a Finding when it isn't. loaded: of the board whose trouble it may be."""
    try:
        said = look()
        return said if isinstance(said, Finding) else Finding(what, True, said)
    except ModelWireError as e:
        return Finding(what, False, e.message, e.next_step, naming.name_in(e, loaded) if loaded is not None else naming.name_of(e))


def _runtime(args: argparse.Namespace) -> str:
    from edgecommon import runtime

    try:
        usable = runtime.load()
    except RuntimeUnusable:
        if _wanted(args):
            raise
        return "none; the heads of int8 files learn without one"
    return f"{usable.package} {usable.version}, {usable.delegate}"


def _wanted(args: argparse.Namespace) -> bool:
    """Return whether a model needs a runtime, as far as can be told."""
    from edgeagent.training import int8_head

    try:
        loaded = load(args)
        bases = {m.name: places.base_of(loaded.state / "models" / m.name) for m in loaded.settings.models}
        return not all(int8_head.trains(path.read_bytes(), model=name) for name, path in bases.items())
    except (ModelWireError, OSError):
        return True


def _clock(loaded: Loaded) -> str | Finding:
    now, fix = time.time(), "set it, or let NTP: timedatectl"
    day = time.strftime("%Y-%m-%d", time.gmtime(now))
    if now < LONG_AGO:
        return Finding("clock", False, f"it says {day}: certificates will be refused and logs wrong", fix, "clock-off")
    written = max(_written(loaded.path), _written(loaded.state / FILE))
    if written - now > BACK:
        before = time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(written))
        return Finding("clock", False, f"it says {day}, and this folder was written {before}: it was set back", fix, "clock-off")
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())


def _written(path: Path) -> float:
    """Return when a file was written, in Unix seconds; 0 for one that is not there, or not for this user to see."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _board(loaded: Loaded) -> Board:
    """Return names and keys; who may not read the key is told who may."""
    try:
        return read_board(loaded)
    except ConfigError as e:
        why, owner = access.shut(loaded.resolve(loaded.settings.device.key))
        if owner:
            named = ConfigError(reason=why)
            named.hint = asked_as(owner, "doctor", loaded)
            raise named from e
        raise


def _key(loaded: Loaded) -> str:
    board = _board(loaded)
    return f"{board.public_key}, readable by its owner alone"


def _has_claim(loaded: Loaded) -> bool:
    file = loaded.settings.device.claim
    return bool(file) and os.path.lexists(loaded.resolve(file))


def _claim(loaded: Loaded) -> str:
    claim = read_claim(loaded, read_board(loaded, open_key=True))
    assert claim is not None  # its file is there
    return f"{claim.id}, for the board with {f'the serial number {claim.serial}' if claim.serial else 'no serial number'}"


def _welcome(loaded: Loaded, device: Glance, name: str) -> str | Finding:
    """Say how the centre stands to a model. That it waits to be let in is no fault of this board, and is not well either."""
    lineage = device.lineages[name]
    head = lineage.head()
    if head.blocked:
        fix = TwoHistories.hint if head.blocked.startswith(FORKED) else "move the state folder away and run edgeagent init with --key"
        return Finding("centre", False, f"{name}: BLOCKED, nothing is sent: {head.blocked}", fix, _forked(head.blocked))
    if head.welcome == OK:
        return f"{name}: welcome, epoch {head.epoch}"
    why, fix = f"{name}: {lineage.why_unwelcome(head)}", lineage.next_step(head)
    if not head.welcome:
        return _unanswered(device, name, fix)
    if head.welcome == QUARANTINE and _has_claim(loaded):
        fix = f"edgecloud claim list: what became of its claim; or {fix}"
    return Finding("centre", False if head.welcome == EPOCHS else None, why, fix)


def _others(device: Glance) -> Iterator[Finding]:
    """Yield the troubles that no other check tells of."""
    for one in befallen.befallen(device, time.time()):
        if one.id in ("key-changed", "clock-off", "month-spent", "flash-spent"):
            said = one.document()
            no_fault = one.id in ("month-spent", "flash-spent")
            yield Finding("trouble", None if no_fault else False, f"{one.id}: {one.text}", said["asks"], one.id, one.id)


def _forked(blocked: str) -> str:
    return "older-copy" if blocked.startswith(FORKED) else ""


def _unanswered(device: Glance, name: str, fix: str) -> Finding:
    """Return what to say of a centre that never spoke to this model: well before the first start, and a fault after it."""
    assert device.database is not None and device.trust is not None  # there are no lineages without
    said, fleet, link = link_state.noted(device.database), device.board.fleet, device.settings.link
    if said is None or not said.up or said.broker != link.broker or time.time() - said.at < SOON or device.trust.time:
        return Finding("centre", None, f"{name}: it has not answered yet", fix)
    if device.trust.foreign_said:
        return Finding("centre", None, f"{name}: its own centre has not answered: the one that answers is another fleet's")
    if any(one.id == "month-spent" for one in befallen.befallen(device, time.time())):  # what asks for an answer may not have left
        return Finding("centre", None, f"{name}: it has not answered, and the bytes of this month are spent")
    why = f"{name}: nobody answered as the centre of the fleet {fleet!r}, though the agent was at the broker, {local(said.at)}"
    fix = f"see that edgecloud ingest runs, at this broker, and that its fleet is called {fleet!r}; then edgeagent run"
    return Finding("centre", False, why, fix)


def _certificate(loaded: Loaded) -> str | Finding:
    link, now = loaded.settings.link, time.time()
    life = certificate.own_life(link, loaded.folder)
    if life is None:
        return "none is set"
    text = f"{link.tls_cert} of {loaded.settings.device.name} {life.told(now)}"
    if life.word(now) in ("ended", "early"):
        return Finding("certificate", False, text, certificate.RENEW)
    return text + (f"; {certificate.RENEW}" if life.word(now) == "due" else "")


def _fleet_key(loaded: Loaded) -> str:
    fleet = read_fleet(loaded.resolve(loaded.settings.device.fleet_key))
    return f"{write_fleet(fleet)}, of the fleet with the id {fleet.id.hex()}; its root key is {fingerprint(fleet.root)}"


def _broker(loaded: Loaded, device: Glance | None) -> Iterator[Finding]:
    """Yield how the broker is set, what each step to it comes to, and what the agent met there last."""
    settings, said = loaded.settings, link_state.noted(device.database) if device is not None and device.database is not None else None
    pid = device.agent if device is not None else None
    up = pid is not None and said is not None and said.up and said.broker == settings.link.broker
    busy = f"the agent, process {pid}, is let in: connected since {local(said.at)}" if up and said else ""
    try:
        model = settings.models[0].name if settings.models else "none"
        names = settings.device.fleet, settings.device.name, model
        found = looking.look(settings.link, loaded.folder, *names, busy=busy, heard=_heard(device), free=pid is None)
    except ModelWireError as e:
        yield Finding("broker", False, e.message, e.next_step)
        return
    yield Finding("broker", True, settings.link.broker + (f", as {settings.link.user}" if settings.link.user else ""))
    for one in found:
        yield Finding(f"broker {one.step}", one.ok, one.text, one.fix)
    if device is not None and device.database is not None and (large := unread.noted(device.database)) is not None:
        yield Finding("messages", None, large.said(local(large.at)), unread.REMEDY)
    if said is None or said.broker != settings.link.broker:
        return
    # What an agent that ended has met was tried above; not so that another client takes its session, which no look can see.
    if (taken := said.is_taken(time.time())) or not said.up:
        yield Finding("link", False if pid or taken else None, f"the agent's last word, {local(said.at)}: {said.reason}")


def _heard(device: Glance | None) -> str:
    time_said = device.trust.time if device is not None and device.trust is not None else 0
    if not time_said:
        return "; the centre was not heard yet"
    return f"; the centre's newest word is of {time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime(time_said))}, by its clock"


def _state(loaded: Loaded, device: Glance) -> str | Finding:
    assert device.database is not None
    device.database.check()
    if not os.access(loaded.state, os.W_OK | os.X_OK) and not (device.disk and device.disk.read_only):
        owner = access.name_of(loaded.state.stat().st_uid)
        return Finding("state", False, f"{loaded.state} may not be written by {access.me()}", asked_as(owner, "doctor", loaded), "not-ours")
    if any(one.why == SPOOL_GONE for one in device.unseen):
        return Finding("state", False, f"{loaded.state}: {SPOOL_GONE}", "edgeagent run; who took it away has the samples", "samples-gone")
    if device.spool is not None:
        device.spool.check()
    pid = device.agent
    return f"{loaded.state} is whole; the agent is {f'running as process {pid}' if pid else 'not running'}"


def _centre(device: Glance) -> str | Finding:
    """Say who speaks for the centre here, and what this board has seen of its log, of which nothing is to be mended on a board."""
    assert device.trust is not None
    if foreign := device.trust.foreign_said:
        return Finding("centre", False, foreign, SAME_FLEET)
    if odd := device.trust.fork_said:
        return odd
    link = device.trust.link
    return f"its log has {link.number} entries, and only ever grew" if link else "no end of its log was seen yet"


def _base_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as e:
        raise StateDamaged(path=path, reason=e.strerror) from None


def _disk(loaded: Loaded, device: Glance) -> str | Finding:
    if device.waits is not None:
        message, hint, name = (str(device.waits.get(key, "")) for key in ("message", "hint", "trouble"))
        return Finding("disk", False, f"the agent waits: {message}", hint, name)
    if (full := disk.refusal(loaded.state)) is not None:
        return Finding("disk", False, full.message, full.next_step, naming.name_of(full))
    need = SPARE + sum(3 * _base_bytes(m.store.base_file) for m in device.lineages.values())
    free = shutil.disk_usage(loaded.state).free
    if free < need:
        text = f"{free // 2**20} MiB are free at {loaded.state}, {need // 2**20} should be"
        return Finding("disk", False, text, "make room, or lower store.history and spool.max_bytes")
    return f"{free // 2**20} MiB free"


def _model(device: Glance, name: str) -> str | Finding:
    from edgeagent.training import int8_head
    from edgecommon import runtime

    lineage = device.lineages[name]
    file, served = lineage.load().file, lineage.store.served
    if not served.exists():
        text = f"{served} is not there, so an application has nothing to open"
        return Finding(name, False, text, "edgeagent run: a start puts it back", "served-gone")
    if int8_head.trains(file, model=name):
        return f"@{lineage.head().version} opens: {int8_head.Int8Model(file, model=name).runtime_key}"
    model = runtime.load().open(file, model=name)
    fallback = f" (without the default delegate: {model.fallback})" if model.fallback else ""
    return f"@{lineage.head().version} opens: {model.runtime_key}{fallback}"


def _desired(device: Glance, name: str) -> Finding | None:
    """Return how far the newest desired is; None where nothing was desired yet."""
    assert device.database is not None and device.trust is not None  # there are no lineages without
    here = desired_here(device.database, device.trust, name)
    return None if here is None else Finding("desired", True, line_of(here, device.settings.model(name)), key="desired", model=name)


def _budget(device: Glance, name: str) -> str | Finding:
    """Say what the board has for the limits that are set; a limit on what it can't measure keeps nothing from anything."""
    limits, board = device.settings.model(name).budget, Sensors(zones=device.settings.board.thermal_zones)
    degrees, battery = board.celsius(), board.on_battery()
    if limits.max_celsius and degrees is None:
        hint = "set budget.max_celsius to 0, or let the kernel show a thermal zone"
        return Finding("budget", False, f"{name}: max_celsius is set, but no zone in /sys/class/thermal says a temperature", hint)
    if limits.on_battery == "pause" and battery is None:
        text = f"{name}: on_battery is pause, but nothing in /sys/class/power_supply says whether it runs on one"
        return Finding("budget", False, text, "set budget.on_battery to train")
    heat = "no temperature" if degrees is None else f"{degrees:.0f} °C"
    power = {None: "no word on power", True: "on battery", False: "on mains"}[battery]
    return f"{name}: {mib(board.resident())} MiB resident, {heat}, {power}"
