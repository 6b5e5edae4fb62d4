"""Which CA a command line means, and how its certificates are shown: the same for `ca` and `broker`."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecloud.audit.admissions import Admissions
from edgecloud.certificates import Issue
from edgecloud.registry import open_registry
from edgecloud.settings import from_environment, registry_path
from edgecommon.certificates import Life, day
from modelwire.errors import BadArgument, MissingFile

from .answer import Document, registry_of

FOLDER = "ca"


def add_authority(parser: argparse.ArgumentParser) -> None:
    """Add the argument that says where the CA is."""
    parser.add_argument("--ca-dir", metavar="DIR", help="the CA's folder (default: ca beside the registry); EDGECLOUD_CA_DIR")


def authority_folder(args: argparse.Namespace) -> Path:
    return Path(args.ca_dir or from_environment("CA_DIR", "") or registry_path(args.db).parent / FOLDER)


def fleet_of(args: argparse.Namespace, asked: str | None) -> str:
    """Return the name of the fleet: what was asked for, else the registry's."""
    if asked:
        return asked
    if not registry_path(args.db).exists():
        raise BadArgument(reason=f"there is no registry {registry_path(args.db)} that names the fleet", fix="name it with --fleet")
    with registry_of(args) as store:
        return store.fleet


def revoked_devices(args: argparse.Namespace, names: list[str]) -> dict[str, str]:
    """Return why devices are out: those whose keys are all revoked in the registry.

    Empty where there is no registry on this machine. Raises MissingFile when one was named, and is not there.
    """
    path = registry_path(args.db)
    if not path.exists():
        if args.db or from_environment("DB", ""):
            raise MissingFile(path=path, what="the registry", fix="edgecloud init makes one; --db or EDGECLOUD_DB names another")
        return {}
    store = open_registry(path, readonly=True)
    try:
        admitted = Admissions(store.identity)
        admitted.catch_up(store.log, path)  # by the log: a row can be changed by whoever writes to the file
        keys = {name: admitted.of(name, store.devices.keys(name)) for name in names}
    finally:
        store.close()
    why = "its key is revoked in the registry: set the board up anew, and let its new key in"
    return {name: why for name, held in keys.items() if held and all(key.revoked_at is not None for key in held)}


def issue_document(one: Issue, now: int) -> Document:
    """Return what a command says of a certificate."""
    return {
        "name": one.name, "kind": one.kind.value, "serial": one.serial, "ca": one.authority, "since": one.since, "until": one.until,
        "state": state_of(one, now), "superseded": one.superseded or None, "revoked": one.revoked or None, "hosts": list(one.hosts),
    }  # fmt: skip


def state_of(one: Issue, now: int) -> str:
    """Return how a certificate stands, in one word or two."""
    if one.revoked:
        return "revoked"
    if one.revoke_at:
        return f"superseded, revoked from {day(one.revoke_at)} on"
    if one.superseded:
        return "superseded"
    return Life(one.since, one.until).word(now)
