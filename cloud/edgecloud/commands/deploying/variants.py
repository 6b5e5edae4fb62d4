"""`edgecloud variants`: bases that the fleet's root key vouches for, ready to be deployed."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from edgecloud.merging import parents
from edgecloud.registry import Base, SqliteStore
from edgecloud.registry.rollout_rows import VariantRow
from edgecloud.rollouts import publishing
from edgecloud.rollouts.rows import SHORT
from edgecloud.versions import naming
from edgecommon.printing import Answer, visible
from edgecommon.tables import Column, add_limit, most
from modelwire.deploying import variants
from modelwire.deploying.variants import PARENTS_MAX, Variant
from modelwire.errors import BadArgument, UnknownVersion, WireError
from modelwire.limits import NAME_MAX
from modelwire.names import check_name
from modelwire.update.manifest import parse_manifest

from ..answer import Document, facts, now, registry_of, table, when
from ..sealing import add_root_key, root_key
from ..sizes import of_bytes, size_type
from ..verb import Verb
from .answers import described, find_variant, read_variant
from .asking import plain_type

NAME = "variants"
HELP = "Bases that may be deployed, each sealed by the fleet's root key."
EXAMPLES = ("edgecloud variants list",)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", metavar="BASE", help="a registered base: its name, or its commit")
    parser.add_argument("--model", required=True, metavar="MODEL", help="the model whose devices may run it")
    parser.add_argument("--name", metavar="NAME", help="what to call it (default: the base's name)")
    parser.add_argument("--ram", type=size_type, default=0, metavar="SIZE", help="bytes that a board needs free to train it: 48MiB")
    parser.add_argument(
        "--runtime", type=plain_type(NAME_MAX), metavar="WORD",
        help="the runtime that it needs: litert or tflite (default: any)",
    )  # fmt: skip
    what = "an identifier of its approval, such as an RXSWIN"
    parser.add_argument("--type-id", type=plain_type(NAME_MAX), metavar="TEXT", help=what)
    parser.add_argument(
        "--parent", action="append", default=[], metavar="NAME",
        help="a base or DEVICE@VERSION that it was made of; may be given again (default: those that the registry knows of a merge)",
    )  # fmt: skip
    add_root_key(parser)


def add_variant(args: argparse.Namespace) -> Answer:
    check_name("model name", args.model)
    with registry_of(args, readonly=False) as store:
        base = _base(store, args.base)
        name = check_name("variant name", args.name or base.name)
        asked, unnamed = _asked(args, store, base, name)
        row = store.rollouts.variant(base.commit)
        held = None if row is None else read_variant(store, row)
        fresh = held is None or not held[1] or replace(held[0], number=1, at=0) != asked
        if fresh:
            _require_free(store, asked)
            key = root_key(args, store)
            with store.transaction():
                number = max((one.number for one in store.rollouts.variants(args.model)), default=0) + 1
                made = replace(asked, number=number, at=now())
                sealed = variants.statement(made, key, store.identity.id)
                store.rollouts.add_variant(VariantRow(made.commit, made.model, number, name, sealed, now()))
        else:
            assert held is not None
            made = held[0]
        runs = sum(one.model == args.model for one in store.lineages.all())
    document: Document = {**described(made), "new": fresh, "devices": runs, "parents_left_out": unnamed}
    text = facts([
        *_facts(made), ("", f"{unnamed} more parents: edgecloud bases show {base.name}" if unnamed else ""),
        ("devices", f"{runs} have the model" if runs else f"none has the model {made.model} yet: is it spelt so?"),
        ("", "" if fresh else "it was sealed so before"), ("next", f"edgecloud deploy {made.name} --all --plan"),
    ])  # fmt: skip
    return Answer(document, text)


def _asked(args: argparse.Namespace, store: SqliteStore, base: Base, name: str) -> tuple[Variant, int]:
    """Return the variant as asked for, without number and time, and how many parents found no room in it."""
    manifest = parse_manifest(base.manifest)
    of = [_parent(store, text) for text in args.parent] or _origin(store, base)
    kept = of if len(of) <= PARENTS_MAX else of[:1]
    asked = Variant(
        store.fleet, args.model, name, base.commit, manifest.file_sha256, manifest.file_size, manifest.file_tree, manifest.schema.id,
        manifest.all_exact, args.runtime or "", args.ram, tuple(kept), 0, 1, args.type_id or "",
    )  # fmt: skip
    asked.require_manifest(manifest)
    return asked, len(of) - len(kept)


def _origin(store: SqliteStore, base: Base) -> list[bytes]:
    """Return the commits that a merge was made of, its base first; none for another file."""
    origin = parents.origin_of(store, base.file)
    return [] if origin is None else [origin.merge.base, *(one.version.commit for one in origin.parents)]


def _parent(store: SqliteStore, text: str) -> bytes:
    base = store.bases.named(text)
    if base is not None:
        return base.commit
    place = naming.find(store, naming.parse(text))
    return place.version.commit if place.version is not None else place.base


def _base(store: SqliteStore, text: str) -> Base:
    row = store.bases.named(text)
    found = [row] if row is not None else [b for b in store.bases.all() if len(text) >= 8 and b.commit.hex().startswith(text.lower())]
    if len(found) != 1:
        fix = f"edgecloud bases add {text}" if text.endswith(".tflite") else "edgecloud bases list; edgecloud bases add FILE.tflite"
        raise UnknownVersion(name=f"base:{text}", fix=fix)
    return found[0]


def _require_free(store: SqliteStore, asked: Variant) -> None:
    """Raise BadArgument where another variant has the name, or the base is a variant of another model."""
    for row in store.rollouts.variants():
        if row.commit == asked.commit and row.model != asked.model:
            reason = f"this base is a variant of {row.model} already, and a base belongs to one model"
            raise BadArgument(reason=reason, fix=f"--model {row.model}")
        if row.commit != asked.commit and row.name == asked.name:
            raise BadArgument(reason=f"another variant is called {asked.name!r}", fix=f"give this one a name: --name {asked.name}-2")


def list_variants(args: argparse.Namespace) -> Answer:
    limit = most(args)
    with registry_of(args) as store:
        newest = {row.commit: row for row in store.rollouts.variants()}
        rows = sorted(newest.values(), key=lambda row: (row.at, row.number), reverse=True)
        read, odd = list[tuple[Variant, bool]](), list[str]()
        for row in rows[:limit]:
            try:
                read.append(read_variant(store, row))
            except WireError as error:
                odd.append(f"{row.name}: {error.message}")
        used = {row.variant: row.name for row in store.rollouts.all()}
    document = {
        "variants": [{**described(one, speaks=speaks), "rollout": used.get(one.commit)} for one, speaks in read],
        "unproven": odd, "more": len(rows) - len(rows[:limit]),
    }  # fmt: skip
    columns = (
        Column("variant"), Column("model"), Column("commit"), Column("size", 1), Column("ram", 4), Column("sealed", 3),
        Column("rollout", 2, words=True),
    )  # fmt: skip
    lines = [
        (one.name, one.model, one.commit.hex()[:SHORT], of_bytes(one.size), of_bytes(one.ram) if one.ram else "",
         when(one.at) if speaks else "by a key that speaks no more", used.get(one.commit, ""))
        for one, speaks in read
    ]  # fmt: skip
    text = "\n".join([table(columns, lines), *map(visible, odd)])
    return Answer(document, text if rows else "no variants: edgecloud variants add BASE --model MODEL")


def show_variant(args: argparse.Namespace) -> Answer:
    with registry_of(args) as store:
        one, speaks = read_variant(store, find_variant(store, args.name))
        rollouts = [row.name for row in store.rollouts.all() if row.variant == one.commit]
    warned = "" if speaks else "its root key speaks no more: edgecloud variants add seals it anew"
    text = facts([*_facts(one), ("sealed", when(one.at)), ("", warned), ("rollouts", ", ".join(rollouts))])
    return Answer({**described(one, speaks=speaks), "rollouts": rollouts}, text)


def _facts(one: Variant) -> list[tuple[str, object]]:
    more = f" and {len(one.parents) - 4} more" if len(one.parents) > 4 else ""
    return [
        ("variant", f"{one.name}, number {one.number} of {one.model}"), ("commit", one.commit.hex()), ("file", one.file.hex()),
        ("size", f"{one.size} bytes"), ("schema", one.schema.hex()[:16]), ("exact", "all tensors" if one.exact else ""),
        ("runtime", one.runtime), ("ram", of_bytes(one.ram) if one.ram else ""), ("approval", one.type_id),
        ("made of", ", ".join(p.hex()[:SHORT] for p in one.parents[:4]) + more),
    ]  # fmt: skip


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="VARIANT", help="its name, or its commit")


def _publish_arguments(parser: argparse.ArgumentParser) -> None:
    _show_arguments(parser)
    parser.add_argument("folder", metavar="FOLDER", help="a folder that a web server serves; it is made where it is not there")
    parser.add_argument("--url", metavar="URL", default="", help="the address under which FOLDER is served, for the line that deploys it")


def publish_variant(args: argparse.Namespace) -> Answer:
    with registry_of(args) as store:
        one, _ = read_variant(store, find_variant(store, args.name))
        base = store.bases.get(one.commit)
        if base is None:
            raise UnknownVersion(name=f"base:{one.commit.hex()[:16]}", fix="edgecloud bases list")
        written = publishing.publish(store.blobs.get(base.file), Path(args.folder))
    address = f"{args.url.rstrip('/')}/{{file}}.tflite" if args.url else "https://SERVER/PATH/{file}.tflite"
    document: Document = {
        "variant": one.name, "files": [str(path) for path in written], "bytes": one.size, "file_sha256": one.file, "url": address,
    }  # fmt: skip
    lines = [("written", visible(str(path))) for path in written]
    return Answer(document, facts([*lines, ("next", f"edgecloud deploy {one.name} --all --url '{address}' --plan")]))


VERBS = (
    Verb(
        "add", "Seal a registered base as a variant that a model's devices may run.",
        (
            "edgecloud variants add merged --model digits",
            "edgecloud variants add both --model digits --name city-2 --ram 48MiB --root-key /media/usb/root.key",
        ),
        add_variant, _add_arguments,
    ),
    Verb("list", "List the variants, the newest first.", ("edgecloud variants list --json",), list_variants, add_limit),
    Verb("show", "Show what the root key says of a variant.", ("edgecloud variants show merged",), show_variant, _show_arguments),
    Verb(
        "publish", "Write a variant's file, and the list that proves its pieces, to a folder for any web server.",
        ("edgecloud variants publish merged /srv/www/bases --url https://files.example.org/bases",), publish_variant, _publish_arguments,
    ),
)  # fmt: skip
run, add = list_variants, add_limit
