"""`edgecloud keys`: how the files of private keys are kept."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edgecloud import keys
from edgecloud.registry.encrypted import made_backup_key
from edgecommon.files import write_named
from edgecommon.printing import Answer, lines_of
from modelwire.errors import BadArgument
from modelwire.wire.keys import fingerprint

from ..answer import Document
from ..passphrases import add_passphrase, new_passphrase, passphrase_of
from ..verb import Verb

NAME = "keys"
HELP = "How the files of private keys are kept."
EXAMPLES = ("edgecloud keys protect command.key",)
BACKUP = "backup.key"


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a private key of the fleet: command.key, root.key, director.key or receipt.key")
    add_passphrase(parser)


def protect(args: argparse.Namespace) -> Answer:
    file = keys.read_key_file(Path(args.file))
    if not file.seed:
        raise BadArgument(reason=f"{file.path} is kept by a passphrase already", fix="edgecloud keys unprotect it first")
    text = keys.key_text(file.kind, file.seed, new_passphrase(args, file.path))
    return _written(file, text, protected=True)


def unprotect(args: argparse.Namespace) -> Answer:
    file = keys.read_key_file(Path(args.file))
    if file.seed:
        raise BadArgument(reason=f"{file.path} is kept by no passphrase", fix="nothing is to be done")
    seed = keys.seed_in(file, passphrase_of(args))
    return _written(file, keys.key_text(file.kind, seed), protected=False)


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    _add_file(parser)
    parser.add_argument("-o", "--out", metavar="OUT", help="file to write (default: standard output, which must not be a terminal)")


def export_ssh(args: argparse.Namespace) -> Answer:
    if not args.out and sys.stdout.isatty():
        raise BadArgument(reason="a private key is not shown on a terminal", fix=f"edgecloud keys export-ssh {args.file} | ssh-add -")
    file = keys.read_key_file(Path(args.file))
    text = keys.ssh_text(keys.seed_in(file, passphrase_of(args)))
    document: Document = {"file": str(file.path), "public": file.public.hex(), "out": args.out}
    if not args.out:
        return Answer({**document, "private": text}, text.rstrip("\n"))
    write_named(Path(args.out), text.encode(), mode=0o600, replace=False)
    return Answer(document, lines_of([f"{args.out}: ssh-add it, and remove it then: no passphrase keeps it"]))


def _backup_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", default=BACKUP, metavar="FILE", help=f"file for the private key (default: {BACKUP})")


def backup_key(args: argparse.Namespace) -> Answer:
    private, public = made_backup_key()
    path = Path(args.out)
    write_named(path, f"# public key: {public}\n{private}\n".encode(), mode=0o600, replace=False)
    document: Document = {"file": str(path), "public": public}
    lines = [f"{path}: opens backups; keep it where no backup and no registry is", f"public key: {public}"]
    return Answer(document, lines_of([*lines, f"edgecloud backup monday.age --encrypt-to {public}"]))


def _written(file: keys.KeyFile, text: str, *, protected: bool) -> Answer:
    owner = file.path.stat()
    write_named(file.path, text.encode(), mode=0o600)
    keys.give_to_owner(file.path, owner)
    document: Document = {"file": str(file.path), "kind": file.kind.prefix, "public": file.public.hex(), "protected": protected}
    how = "is kept by a passphrase now" if protected else "is kept by no passphrase now: whoever reads the file has the key"
    return Answer(document, lines_of([f"{file.path}, {fingerprint(file.public)}, {how}"]))


VERBS = (
    Verb("protect", "Keep a private key by a passphrase.", ("edgecloud keys protect command.key",), protect, _add_file),
    Verb("unprotect", "Write a private key without its passphrase.", ("edgecloud keys unprotect command.key",), unprotect, _add_file),
    Verb(
        "export-ssh", "Write a private key as OpenSSH has it, for ssh-add: to a file, or to standard output for ssh-add -.",
        ("edgecloud keys export-ssh command.key -o id_edge",),
        export_ssh, _export_arguments,
    ),
    Verb("backup", "Make the key pair of encrypted backups.", ("edgecloud keys backup -o backup.key",), backup_key, _backup_arguments),
)  # fmt: skip
