"""What the operator's command key seals: commands for devices, and acts about their keys. The ingester holds no such key."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from edgecloud import keys
from edgecloud.audit.admissions import Admissions
from edgecloud.registry import ActRow, LineageRow, Request, SqliteStore
from edgecloud.settings import from_environment, registry_path
from edgecommon.arguments import shown
from modelwire.errors import BadArgument
from modelwire.names import ALL
from modelwire.wire import cbor, records
from modelwire.wire.keys import KeyKind
from modelwire.wire.records import Act, Command
from modelwire.wire.signing import Role, Signer

from . import ssh_agent
from .answer import now
from .passphrases import add_passphrase, passphrase_of

EXPIRES = "30d"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_LONGEST = 3650 * _UNITS["d"]


def add_key(parser: argparse.ArgumentParser) -> None:
    """Let a command name the key that it seals with."""
    what = f"the operator's command key, or {ssh_agent.NAME} (default: command.key beside the registry); EDGECLOUD_COMMAND_KEY"
    parser.add_argument("--key", metavar="FILE", help=what)
    add_passphrase(parser)


def add_expires(parser: argparse.ArgumentParser) -> None:
    """Let a command say for how long what it asks for is good."""
    parser.add_argument(
        "--expires", type=expires_type("--expires"), metavar="TIME",
        help=f"how long the device may take to hear of it: 90s, 30m, 12h or 30d (default: {EXPIRES}); later it is not carried out",
    )  # fmt: skip


def command_key(args: argparse.Namespace, store: SqliteStore) -> Signer:
    """Return the command key that the command line names: in its file, or with an ssh-agent.

    Raises WrongKeyKind, or BadArgument when the fleet does not trust it.
    """
    opened: Signer | None = getattr(args, "unlocked", None)
    if opened is not None:
        return opened
    said = args.key or from_environment("COMMAND_KEY", "")
    held = keys.trusted(store.identity, [row.record for row in store.trusts.all()])
    if said == ssh_agent.NAME:
        what = f"the command key that trust record {held.number} names"
        return ssh_agent.agent_key(keys.named(held, Role.COMMAND), what)
    path = Path(said) if said else registry_path(args.db).parent / keys.COMMAND
    file = keys.read_key_file(path, KeyKind.COMMAND_PRIVATE)
    keys.require_speaks(file, Role.COMMAND, held, path)  # before anybody types
    return keys.open_key(file, passphrase_of(args))


def add_root_key(parser: argparse.ArgumentParser) -> None:
    """Let a command name the fleet's root key."""
    what = f"the fleet's root key, or {ssh_agent.NAME} (default: root.key beside the registry)"
    parser.add_argument("--root-key", metavar="FILE", help=what)
    add_passphrase(parser)


def root_key(args: argparse.Namespace, store: SqliteStore) -> Signer:
    """Return the root key that the command line names: in its file, or with an ssh-agent.

    Raises WrongKeyKind, or BadArgument when it is not the one that the newest trust record names.
    """
    held = keys.trusted(store.identity, [row.record for row in store.trusts.all()])
    if args.root_key == ssh_agent.NAME:
        return ssh_agent.agent_key([held.root], f"the root key that trust record {held.number} names")
    path = Path(args.root_key) if args.root_key else registry_path(args.db).parent / keys.ROOT
    file = keys.read_key_file(path, KeyKind.ROOT_PRIVATE)
    if file.public != held.root:
        raise BadArgument(
            reason=f"{path} is not the root key that trust record {held.number} names: nobody would believe what it signs",
            fix="edgecloud trust show tells which file holds it; name that with --root-key",
        )
    return keys.open_key(file, passphrase_of(args))


def unlock(args: argparse.Namespace, store: SqliteStore) -> AbstractContextManager[None]:
    """Have the passphrase of the command key typed, if it has one: in the transaction that follows, the ingester would wait for it."""
    said = args.key or from_environment("COMMAND_KEY", "")
    path = Path(said) if said else registry_path(args.db).parent / keys.COMMAND
    if said != ssh_agent.NAME and path.exists() and not keys.read_key_file(path, KeyKind.COMMAND_PRIVATE).seed:
        args.unlocked = command_key(args, store)
    return nullcontext()


def parse_expires(text: str | None, flag: str = "--expires", least: int = 1) -> int:
    """Return seconds from 90s, 30m, 12h or 30d; of None, which is not given, the usual time. Raises BadArgument."""
    text = EXPIRES if text is None else text
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else -1
    if not least <= seconds <= _LONGEST:
        raise BadArgument(reason=f"{flag}: {text[:40]!r} is no time", fix="write 90s, 30m, 12h or 30d; at most 3650d")
    return seconds


def expires_type(flag: str, least: int = 1) -> Callable[[str], str]:
    """Return the type of an argument that `parse_expires` reads: the text itself, once it is known to be a time."""

    def read(text: str) -> str:
        try:
            parse_expires(text, flag, least)
        except BadArgument as error:
            raise argparse.ArgumentTypeError(f"{shown(text)} is no time; {error.next_step}") from None
        return text

    return read


def open_request(store: SqliteStore, lineage: LineageRow, verb: str) -> Request | None:
    """Return what a device was asked for before, in the epoch that it is in, and may still do."""
    epoch = store.lineages.current(lineage.id)
    asked = [r for r in store.requests.open(now(), lineage.id) if r.verb == verb]
    return next((r for r in reversed(asked) if epoch is not None and sealed(r).state == epoch.state), None)


def sealed(request: Request) -> Command:
    """Return the command that a request holds."""
    return records.expect(records.parse(request.record), Command)


def ask(
    store: SqliteStore, lineage: LineageRow, key: Signer, verb: str, body: Mapping[str, cbor.Value], *, expires: int,
    parent: bytes = b"",
) -> Request:  # fmt: skip
    """Seal a command for a device's model, and keep it for the ingester to pass on. Raises TooLarge when no record holds it."""
    epoch = store.lineages.current(lineage.id)
    if epoch is None:
        raise BadArgument(reason=f"{lineage} has never said hello", fix="edgecloud devices list tells which have")
    number, at = next_number(_decided(store).commands.get((lineage.device, lineage.model), 0)), now()
    said = Command(
        store.fleet, lineage.device, lineage.model, at, number, at + expires, epoch.state, epoch.epoch, parent, verb, body
    )
    request = Request(number, lineage.id, verb, records.encode(said, key, store.identity.id), at + expires, at)
    store.requests.add(request)
    return request


def decide(store: SqliteStore, key: Signer, device: str, verb: str, public: bytes) -> None:
    """Seal what the operator has decided about a device's key, and keep it. verb: "admit" or "revoke"."""
    number = next_number(_decided(store).act)
    said = Act(store.fleet, device, ALL, now(), number, verb, public)
    store.acts.add(ActRow(number, device, verb, public, records.encode(said, key, store.identity.id)))


def decided_number(store: SqliteStore) -> int:
    """Return the number of the operator's next word about devices' keys, or about what is kept."""
    return next_number(_decided(store).act)


def _decided(store: SqliteStore) -> Admissions:
    """Return what was sealed before. The numbers of rows are anybody's: one above the highest there is would be the last for ever."""
    held = Admissions(store.identity)
    held.catch_up(store.log, store.database.path)
    return held


def next_number(last: int) -> int:
    """Return a number above the last one, and above any that a registry gave before it was restored from an older copy."""
    return max(last + 1, time.time_ns() // 1_000_000)
