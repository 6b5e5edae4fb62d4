"""`edgecloud doctor`: everything that an ingester needs, looked at once."""

from __future__ import annotations

import argparse
import shutil
import stat
from pathlib import Path

from edgecloud import keys
from edgecloud.audit import tampering
from edgecloud.audit.entries import RESTORE, parse
from edgecloud.intake import reaching
from edgecloud.registry import open_registry
from edgecloud.registry.lock import BUT, holder
from edgecloud.registry.privacy import OPEN, require_private
from edgecloud.settings import from_environment, registry_path
from edgecommon.certificates import life_of, read_file
from edgecommon.files import close_line
from edgecommon.mqtt_packets import INBOUND
from edgecommon.printing import Answer
from edgecommon.probing import Found
from edgecommon.reaching import ACCESS, TRIP
from modelwire import kernels
from modelwire.errors import BadArgument, CertificateRefused, MissingFile, ModelWireError, RegistryDamaged, TooLarge
from modelwire.wire import records
from modelwire.wire.keys import KeyKind, read_fleet
from modelwire.wire.records import Trust, expect
from modelwire.wire.signing import Role

from ..alarms import open_alarms
from ..answer import Document, now, table, when
from ..broker import add_broker, add_client_id, broker_of, client_id_of
from ..losses import namesake_line, namesakes_of, witness_line, witnesses_of
from ..waiting import waiting_keys

NAME = "doctor"
HELP = "Look at everything that an ingester needs."
EXAMPLES = (
    "edgecloud doctor",
    "edgecloud doctor --broker mqtt://127.0.0.1:1883",
    "edgecloud doctor --broker mqtts://centre@broker:8883 --password-file secret --ca ca.pem",
)

RESTORED = "where you restored it yourself, that is why, and nothing is to be mended; else somebody put an older copy here: docs/log.md"
NOT_RESTORED = "see who changed the registry, and restore the newest backup that is whole: docs/log.md"
PUT_BACK = "put back the fleet.pub of this registry: edgecloud init wrote it, and boards have copies"
MARKS = {True: "ok", False: "FIX", None: "--"}  # the last is of what was not tried
REFUSED = 1000  # messages, the last ones that were refused
KEPT_OFF = "have the broker keep them off (max_packet_size), and strangers too: docs/broker.md"
ROOM = 512 * 1024 * 1024  # bytes of free disk below which doctor warns


def add(parser: argparse.ArgumentParser) -> None:
    add_broker(parser)
    add_client_id(parser)
    parser.add_argument("--key", metavar="FILE", help="the centre's receipt key (default: receipt.key beside the registry); EDGECLOUD_KEY")


def run(args: argparse.Namespace) -> Answer:
    path = registry_path(args.db)
    checks = [
        _check("kernel", lambda: f"{kernels.describe()}, rounds to nearest even", ""),
        _check("registry", lambda: _look_at(path), "opens, and is whole"),
        _check("private", lambda: _private(path), "nobody else may look into the registry, its copies and the keys here"),
        _check("log", lambda: _log_says(path), "whole, signed, and every table says the same"),
        _check("waiting", lambda: _waits(path), "nothing waits"),
        _check("key", lambda: _key_fits(path, args.key), "speaks for the centre, and nobody else may read it"),
        _check("fleet key", lambda: _public(path), "is what this registry's boards are given"),
        _check("witnesses", lambda: _witnesses(path), "no board has seen another log than this registry's"),
        _check("names", lambda: _alarms(path), "no two use one name"),
        _unread(path),
        _check("disk", lambda: _room(path), "has room"),
        _check("certificate", lambda: _own_certificate(args), "none is set"),
        *_broker(args, path),
    ]
    bad = [c for c in checks if c["ok"] is False]
    text = table(("", "what", "", "what to do"), [(MARKS[c["ok"]], c["what"], c["found"], c["fix"]) for c in checks])
    return Answer({"checks": checks, "ok": not bad}, text, code=1 if bad else 0)


def _check(what: str, look: object, fine: str) -> Document:
    assert callable(look)
    try:
        said = look()
    except ModelWireError as error:
        return _found(what, False, str(error), error.next_step)
    except OSError as error:
        return _found(what, False, str(error), "check the path and who may use it")
    except tampering.UNREADABLE as error:  # of a row whose bytes were changed; the checks of the registry and its log say which
        return _found(what, False, f"can't be read: {type(error).__name__}: {error}", "edgecloud verify tells more")
    return _found(what, True, said if isinstance(said, str) and said else fine)


def _found(what: str, ok: bool | None, found: str, fix: str = "") -> Document:
    return {"key": what.replace(" ", "-").lower(), "what": what, "ok": ok, "found": found, "fix": fix}


def _broker(args: argparse.Namespace, path: Path) -> list[Document]:
    """Return how the broker is set, and what each step to it comes to."""
    found: list[Document] = []

    def look() -> str:
        broker, fleet = broker_of(args), _fleet(path)
        client, running = client_id_of(args, fleet), holder(path)
        # Where a certificate's name is the session's id, the same broker by another name would take the session, too.
        link = running.says.partition(BUT)[0] if running is not None else ""
        same = link == f"connected to {broker.url}" or broker.certificates.own is not None
        connected = same and link.startswith("connected")
        busy = f"the ingester, process {running.pid}, is let in: {link}" if connected and running else ""
        for one in reaching.look(broker, fleet or "fleet", client, busy=busy, free=running is None):
            if not fleet and one.step in (ACCESS, TRIP):
                one = Found(one.step, None, "not tried: the registry, which names the fleet, comes first")
            found.append(_found(f"broker {one.step}", one.ok, one.text, one.fix))
        if running is not None and (running.says.startswith("no link") or BUT in running.says):
            said = f"process {running.pid} {'is' if connected else 'has'} {running.says}"
            fix = "mend the access list, then start the ingester again" if connected else "see the lines above"
            found.append(_found("ingester", False, said, fix))
        return broker.url + (f", as {broker.user}" if broker.user else "")

    return [_check("broker", look, ""), *found]


def _fleet(path: Path) -> str:
    try:
        store = open_registry(path, readonly=True)
    except ModelWireError:
        return ""  # its own check says what is wrong; the way to the broker is looked at all the same
    try:
        return store.fleet
    finally:
        store.close()


def _look_at(path: Path) -> None:
    store = open_registry(path)
    try:
        wrong = store.problems()
    finally:
        store.close()
    if wrong:
        raise RegistryDamaged(path=path, reason=wrong[0])


def _log_says(path: Path) -> None:
    store = open_registry(path, readonly=True)
    try:
        wrong = tampering.look(store)
    finally:
        store.close()
    if wrong:
        raise RegistryDamaged(path=path, reason=wrong[0] + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""))


def _waits(path: Path) -> str:
    """Return what waits, and for whom; empty when nothing does. None of it is a fault."""
    store = open_registry(path, readonly=True)
    try:
        versions, strangers = store.tallies.waiting(), len(waiting_keys(store))
        namesakes = namesakes_of(store, now())
    finally:
        store.close()
    some = [f"{versions} {'version is' if versions == 1 else 'versions are'} waiting: a running ingester judges them"] if versions else []
    some += [f"{strangers} {'key waits' if strangers == 1 else 'keys wait'} for you: edgecloud devices lists them"] if strangers else []
    return "; ".join(some + [namesake_line(one) for one in namesakes[:3]])


def _witnesses(path: Path) -> None:
    """Raise BadArgument when boards have seen another log of this centre than the one that is here.

    That a restore stands in the log excuses nothing: whoever puts an older copy here can enter one, for no key seals it.
    """
    store = open_registry(path, readonly=True)
    try:
        seen = witnesses_of(store)
        restored = [one.at for one in map(parse, store.log.after(0)) if one.kind == RESTORE] if seen else []
    finally:
        store.close()
    if seen:
        more = f"; and {len(seen) - 1} more" if len(seen) > 1 else ""
        more += f"; the log says that a backup was restored, {when(restored[-1])}" if restored else "; the log names no restore"
        raise BadArgument(reason=witness_line(seen[-1]) + more, fix=RESTORED if restored else NOT_RESTORED)


def _alarms(path: Path) -> None:
    """Raise BadArgument while nobody has acknowledged that two use one name."""
    store = open_registry(path, readonly=True)
    try:
        said = open_alarms(store)
    finally:
        store.close()
    if said:
        more = f"; and {len(said) - 1} more: edgecloud devices lists them" if len(said) > 1 else ""
        raise BadArgument(reason=said[0]["says"] + more, fix=said[0]["next"])


def _unread(path: Path) -> Document:
    """Return what was too large to be read, among what was refused last: no fault of this centre's, and a broker can keep it off."""
    try:
        store = open_registry(path, readonly=True)
        try:
            large = [one for one in store.refusals.last(REFUSED) if one.error == TooLarge.__name__ and one.size > INBOUND]
        finally:
            store.close()
    except ModelWireError:
        return _found("messages", None, "not tried: the registry comes first")
    if not large:
        return _found("messages", True, "none was too large to be read")
    many, names = sum(1 + one.repeats for one in large), sorted({one.device or "no device" for one in large})
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    said = f"{many} above {INBOUND} bytes {'were' if many > 1 else 'was'} let go unread, the last {when(large[0].at)}"
    return _found("messages", True, f"{said}, in the name of {', '.join(names[:3])}{more}", KEPT_OFF)


def _key_fits(path: Path, key: str | None) -> None:
    store = open_registry(path, readonly=True)
    try:
        held = keys.trusted(store.identity, [row.record for row in store.trusts.all()])
    finally:
        store.close()
    file = Path(key or from_environment("KEY", "") or path.parent / keys.RECEIPT)
    keys.require_speaks(keys.read_key_file(file, KeyKind.RECEIPT_PRIVATE), Role.RECEIPT, held, file)


def _public(path: Path) -> str:
    """Return whether fleet.pub is here. Raises BadArgument for one of another fleet: boards that are given it believe another centre."""
    file = path.parent / keys.PUBLIC
    if not file.exists():
        return f"{file} is not here: boards are given it elsewhere"
    store = open_registry(path, readonly=True)
    try:
        identity, rows = store.identity, store.trusts.all()
        roots = {identity.root, *(expect(records.parse(row.record), Trust).root for row in rows)}
    finally:
        store.close()
    held = read_fleet(file.read_text(errors="replace")[:4096].strip(), str(file))
    if held.id != identity.id:
        raise BadArgument(reason=f"{file} is of another fleet, {held.id.hex()}; this one is {identity.id.hex()}", fix=PUT_BACK)
    if held.root not in roots:
        raise BadArgument(reason=f"{file} names a root key that this fleet never had", fix=PUT_BACK)
    return f"{file} is of this fleet, {identity.id.hex()}"


def _own_certificate(args: argparse.Namespace) -> str:
    """Return how long the centre's certificate for the broker is good; empty when it has none. Raises CertificateRefused when it ended."""
    path = broker_of(args).certificates.own
    if path is None:
        return ""
    life, at = life_of(read_file(path, "the centre's certificate"), str(path)), now()
    if life.word(at) in ("ended", "early"):
        raise CertificateRefused(certificate=path, reason=life.told(at), fix="edgecloud ca renew; if it is good until later, set the clock")
    return f"{path} {life.told(at)}" + ("; edgecloud ca renew" if life.word(at) == "due" else "")


def _private(path: Path) -> None:
    if not path.exists():
        raise MissingFile(path=path, what="the registry", fix="edgecloud init makes one; --db or EDGECLOUD_DB names another")
    require_private(path)
    for name in keys.SECRET:
        file = path.parent / name
        if file.is_file() and (mode := stat.S_IMODE(file.stat().st_mode)) & OPEN:
            raise BadArgument(reason=f"the private key {file} is open to others than its owner (mode {mode:o})", fix=close_line(file))


def _room(path: Path) -> None:
    free = shutil.disk_usage(path.absolute().parent).free
    if free < ROOM:
        raise BadArgument(reason=f"{free // 1024 // 1024} MiB are free beside {path}", fix="make room")
