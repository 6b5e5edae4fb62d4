"""The auditor: holds every version of every device against what that device itself remembers of it.

Each is exact, or the centre says by a name of its own what became of it. A version that is served and is another, or that the centre
once proved and neither serves nor names, is a silent divergence: the one thing that may never be.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from edgecloud.audit import tampering
from edgecloud.audit.signing import require_signed
from edgecloud.intake.routing import Ingest
from edgecloud.registry import LineageRow, SqliteStore, Status, Store, VersionRow, statements
from edgecloud.versions import materialise
from modelwire.errors import ModelWireError, Thinned
from modelwire.lattice.state import ModelState
from modelwire.wire.signing import KEY_BYTES
from tests.simulator.made import CARRIED, GIVEN_UP, VERIFIED, WAITING, Made

AT_ITS_BOARD = {WAITING: "still at its board", GIVEN_UP: "given up by its board", CARRIED: "carried by a later one"}
Remembered = dict[str, list[Made]]  # what each device has made, by the name of its lineage, as DEVICE/MODEL


@dataclass
class Verdict:
    """What an audit found. A version is counted under one name."""

    exact: int = 0
    named: Counter[str] = field(default_factory=Counter)  # by what the centre calls it: refused, waiting, RegistryDamaged, ...
    examples: dict[str, str] = field(default_factory=dict)  # of each name
    diverged: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # of them, those that are served: whatever else is said, this may never be

    @property
    def versions(self) -> int:
        return self.exact + sum(self.named.values()) + len(self.diverged)

    def call(self, name: str, which: str, text: str = "") -> None:
        self.named[name] += 1
        self.examples.setdefault(name, f"{which}: {text}" if text else which)


def audit(store: Store, remembered: Remembered, keys: Mapping[str, bytes], *, again: int = 0, rng: Random | None = None) -> Verdict:
    """Return what is left of all that the devices have made.

    keys: each device's public key, by its name: an erasure names no device, and the operator sealed whose key it is.
    again: so many versions are recovered a second time, each by itself.
    """
    out, erased = Verdict(), erased_keys(store)
    bases = materialise.LoadedBases(store)
    pick = rng if rng is not None else Random(0)
    rows = 0
    for name, all_made in sorted(remembered.items()):
        if keys[name.split("/")[0]] in erased:
            for made in all_made:
                out.call("erased", f"{name}@{made.version}")
            if name.split("/")[0] not in store.erasures.under_way() and store.lineages.get(*name.split("/")) is not None:
                out.diverged.append(f"{name}: it is said to be erased, and is there")
            continue
        try:
            lineage = store.lineages.get(*name.split("/"))
            versions = {v.commit: v for v in store.versions.of(lineage.id)} if lineage is not None else {}
        except ModelWireError as error:
            _all_named(out, name, all_made, error)
            continue
        if lineage is not None:
            recovered = dict(_recover(store, lineage, versions.values(), bases))
            _lineage(out, name, all_made, versions, recovered)
            rows += len(versions)
            for version in pick.sample(sorted(versions.values(), key=lambda v: v.id), min(len(versions), again // len(remembered) + 1)):
                if again:
                    _same_again(out, store, f"{name}@{version.version}", version, recovered[version.commit], bases)
        else:
            _lineage(out, name, all_made, {}, {})
    return out


def erased_keys(store: Store) -> set[bytes]:
    """Return the keys of the devices whose erasure the operator has sealed, be it done or under way."""
    out = set()
    for row in store.erasures.all():
        said = statements.unsealed(row.record)
        if isinstance(said, statements.Erasure):
            out |= {said.keys[i : i + KEY_BYTES] for i in range(0, len(said.keys), KEY_BYTES)}
    return out


def wrong_in_log(store: SqliteStore) -> list[str]:
    """Return why the log is not to be believed, and what in the registry is not as it says; nothing when all is well."""
    try:
        ingest = Ingest(store, secret=bytes(32))
        ingest.catch_up()
        require_signed(store, ingest.admissions, "the registry")
        return tampering.look(store)
    except ModelWireError as error:
        return [str(error)]


Recovered = bytes | ModelWireError | None  # SHA-256 of the file; what keeps it from being exact; nothing for one that is not judged yet


def _recover(
    store: Store, lineage: LineageRow, versions: Iterable[VersionRow], bases: materialise.LoadedBases
) -> Iterator[tuple[bytes, Recovered]]:
    """Yield what is recovered of each version, by commit: a step each from the one before, or all its way where that does not lead."""
    state: ModelState | None = None
    reached = b""
    for version in sorted(versions, key=lambda v: v.version):
        if version.status is not Status.VERIFIED:
            yield version.commit, None
            continue
        try:
            if state is None or reached != version.parent or version.kind == "snapshot":
                raise NotNextError
            materialise.step(store, lineage, version, state)
        except (ModelWireError, NotNextError):
            try:
                state = materialise.rebuild(store, version, bases)
            except ModelWireError as error:
                state, reached = None, b""
                yield version.commit, error
                continue
        reached = version.commit
        yield version.commit, hashlib.sha256(materialise.file_of(state, bases[version.base])).digest()


class NotNextError(Exception):
    """A version does not follow from the one that is at hand."""


def _lineage(
    out: Verdict, name: str, all_made: Iterable[Made], versions: dict[bytes, VersionRow], recovered: dict[bytes, Recovered]
) -> None:
    """Judge all that one device has made, and whether the centre holds anything that it has not."""
    known = set()
    for made in all_made:
        known.add(made.commit)
        which, row = f"{name}@{made.version}", versions.get(made.commit)
        if row is None:
            if made.fate in AT_ITS_BOARD:
                out.call(AT_ITS_BOARD[made.fate], which)
            else:
                out.diverged.append(f"{which}: its board was told that it is verified, and the centre knows nothing of it")
        elif row.status is Status.REFUSED:
            out.call("refused", which, row.reason)
            if made.fate == VERIFIED:
                out.diverged.append(f"{which}: its board was told that it is verified, and the centre refused it")
        elif row.status is Status.STORED:
            out.call("not judged yet", which)
        else:
            _served(out, which, made, row, recovered[made.commit])
    proven = [v for v in versions.values() if v.status is Status.VERIFIED]
    if proven and isinstance(recovered[(newest := max(proven, key=lambda v: v.version)).commit], Thinned):
        out.diverged.append(f"{name}@{newest.version}: no policy lets the newest version go, and it was thinned")
    for commit, row in versions.items():
        if commit not in known:
            out.diverged.append(f"{name}@{row.version}: the centre holds what its board never made")


def _served(out: Verdict, which: str, made: Made, row: VersionRow, recovered: Recovered) -> None:
    if isinstance(recovered, ModelWireError):
        out.call(type(recovered).__name__, which, str(recovered))
    elif made.lie:
        out.diverged.append(f"{which}: what its board sealed wrongly is served")
    elif row.root != made.root or (made.file_sha256 and recovered != made.file_sha256):
        out.diverged.append(f"{which}: what is served is not the file that ran on its board")
        out.wrong.append(out.diverged[-1])
    else:
        out.exact += 1


def _same_again(
    out: Verdict, store: Store, which: str, version: VersionRow, before: Recovered, bases: materialise.LoadedBases
) -> None:
    """Recover a version by itself, as a person asks for it: it is what it was in its turn, or the error has a name."""
    if not isinstance(before, bytes):
        return
    try:
        state = materialise.rebuild(store, version, bases)
    except ModelWireError as error:
        out.call(f"{type(error).__name__} by itself", which, str(error))
        return
    if hashlib.sha256(materialise.file_of(state, bases[version.base])).digest() != before:
        out.diverged.append(f"{which}: recovered by itself it is another than in its turn")
        out.wrong.append(out.diverged[-1])


def _all_named(out: Verdict, name: str, all_made: Iterable[Made], error: ModelWireError) -> None:
    for made in all_made:
        out.call(type(error).__name__, f"{name}@{made.version}", str(error))
