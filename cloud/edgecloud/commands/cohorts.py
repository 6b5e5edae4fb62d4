"""A cohort on a command line: by its number in `edgecloud cluster`, or as a file with a device a line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from edgecloud.registry import SqliteStore
from edgecloud.searching import cluster
from edgecommon import files
from modelwire.errors import BadArgument, MissingFile

from .answer import progress

FILE_MAX = 4 << 20  # bytes of a list of devices
HELP = "a cohort by its number in edgecloud cluster, or a file with a device a line"


@dataclass(frozen=True, slots=True)
class NamedCohort:
    """The devices of a cohort, DEVICE[/MODEL][@VERSION] each, and what it is in words."""

    names: tuple[str, ...]
    words: str


def add_cohort(parser: argparse.ArgumentParser | argparse._MutuallyExclusiveGroup) -> None:
    """Take --cohort."""
    parser.add_argument("--cohort", metavar="COHORT", help=HELP)


def cohort_of(store: SqliteStore, said: str, model: str | None) -> NamedCohort:
    """Return the cohort that a command line names. Raises BadArgument or MissingFile where it is none."""
    if said.isascii() and said.isdigit():
        cohorts = cluster.cluster(store, model=model, progress=progress("models")).cohorts
        found = next((one for one in cohorts if str(one.number) == said), None)
        if found is None:
            fix = f"edgecloud cluster lists them: 1 to {len(cohorts)}; a file of this name is ./{said[:40]}"
            raise BadArgument(reason=f"there is no cohort {said[:40]}", fix=fix)
        return NamedCohort(tuple(f"{lineage}@{version.version}" for lineage, version in found.members), f"cohort {said}: {found.why}")
    path = Path(said)
    try:
        with files.open_regular(path) as file:
            data = file.read(FILE_MAX + 1)
    except FileNotFoundError:
        fix = "edgecloud cluster numbers cohorts; a file lists DEVICE[/MODEL][@VERSION], one a line"
        raise MissingFile(path=path, what="the list of a cohort", fix=fix) from None
    try:
        lines = data.decode().splitlines() if len(data) <= FILE_MAX else None
    except UnicodeDecodeError:
        lines = None
    if lines is None:
        raise BadArgument(reason=f"{path} is no list of devices", fix="write DEVICE[/MODEL][@VERSION], one a line, in UTF-8")
    return NamedCohort(tuple(line.strip() for line in lines if line.strip() and not line.startswith("#")), f"the list {path.name}")
