"""Names of models: DEVICE[/MODEL]@VERSION, in one place. VERSION is a number, `latest` (the head) or `base` (its epoch's first)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgecloud.registry import LineageRow, Store, VersionRow
from modelwire.errors import AmbiguousName, Malformed, UnknownVersion
from modelwire.names import NAME

LATEST, BASE = "latest", "base"
_SILENT = "{0} is let in and has sent no update yet: edgeagent status on its board says why"
_FORM = re.compile(r"(?P<device>[^/@]+)(/(?P<model>[^/@]+))?(@(?P<version>[^/@]+))?\Z")


@dataclass(frozen=True, slots=True)
class Name:
    """A parsed name."""

    device: str
    model: str | None
    version: int | str | None  # a number, LATEST, BASE, or None when it was left out

    def __str__(self) -> str:
        return self.device + (f"/{self.model}" if self.model else "") + (f"@{self.version}" if self.version is not None else "")


@dataclass(frozen=True, slots=True)
class Place:
    """What a name stands for: a version, or the base of an epoch."""

    lineage: LineageRow
    epoch: int
    base: bytes  # commit of the base that it is on
    version: VersionRow | None  # None: the base that the epoch began with

    def __str__(self) -> str:
        return f"{self.lineage}@{self.version.version if self.version else BASE}"


_AS = "write pi-7, pi-7@3 or pi-7/digits@latest: edgecloud devices lists the devices"


def parse(text: str) -> Name:
    """Return the parts of DEVICE[/MODEL][@VERSION]. Raises Malformed."""
    parts = _FORM.match(text)
    if parts is None or not NAME.match(parts["device"]) or (parts["model"] and not NAME.match(parts["model"])):
        raise Malformed(what="name", reason=f"{text[:200]!r} is not DEVICE[/MODEL]@VERSION", fix=_AS)
    version: int | str | None = parts["version"]
    if isinstance(version, str) and version not in (LATEST, BASE):
        if not re.fullmatch(r"[0-9]{1,18}", version):
            raise Malformed(what="name", reason=f"{text[:200]!r}: a version is a number, {LATEST} or {BASE}")
        version = int(version)
    return Name(parts["device"], parts["model"], version)


def find_lineage(store: Store, name: Name) -> LineageRow:
    """Return the model that a name stands for; with one model its name may be left out. Raises UnknownVersion or AmbiguousName."""
    mine = store.lineages.of(name.device)
    if name.model is not None:
        mine = [one for one in mine if one.model == name.model]
    if not mine:
        silent = name.model is None and bool(store.devices.keys(name.device))
        raise UnknownVersion(name=str(name), **({"fix": _SILENT.format(name.device)} if silent else {}))
    if len(mine) > 1:
        raise AmbiguousName(device=name.device, models=", ".join(one.model for one in mine), example=f"{name.device}/{mine[0].model}")
    return mine[0]


def find(store: Store, name: Name) -> Place:
    """Return the version or base that a name stands for, `latest` when it says none. Raises UnknownVersion."""
    lineage = find_lineage(store, name)
    epoch = store.lineages.current(lineage.id)
    head = store.lineages.head(lineage.id, epoch.epoch) if epoch else None
    if epoch is None or head is None:
        raise UnknownVersion(name=str(name))
    if name.version == BASE or name.version == 0:
        return Place(lineage, epoch.epoch, epoch.base, None)
    if isinstance(name.version, int):
        row = store.versions.numbered(lineage.id, name.version)
        if row is None:
            raise UnknownVersion(name=f"{lineage}@{name.version}")
        return Place(lineage, row.epoch, row.base, row)
    row = store.versions.by_id(head.version_id) if head.version_id is not None else None
    return Place(lineage, epoch.epoch, row.base if row is not None else epoch.base, row)
