"""The registry in one SQLite file: make it, open it, and the Store that the rest of the package works with."""

from __future__ import annotations

import glob
import secrets
from contextlib import AbstractContextManager
from pathlib import Path

from edgecloud.registry.blobs import BlobStore, DatabaseBlobs, FileBlobs, TieredBlobs
from edgecloud.registry.lock import lock_schema
from edgecloud.registry.rows import TrustRow
from edgecloud.registry.seams.evaluations import Evaluations
from edgecloud.registry.seams.inbox import Annotations, Inbox, Losses, Refusals, Requests, Transfers
from edgecloud.registry.seams.keeping import Policies, Sketches, States
from edgecloud.registry.seams.models import Bases, Lineages, Merges, Tallies, Versions
from edgecloud.registry.seams.probing import Intermediates, ProbeSets
from edgecloud.registry.seams.quotas import Quotas
from edgecloud.registry.seams.rollouts import Rollouts
from edgecloud.registry.seams.thinning import Erasures, Thinnings
from edgecloud.registry.seams.trust import Acts, Devices, Log, Trusts
from edgecommon.files import put_in_place
from edgecommon.sqlite import Database
from modelwire.errors import BadArgument, MissingFile, RegistryDamaged
from modelwire.names import check_own_name
from modelwire.wire.signing import Fleet

from . import schema
from .database import open_database, problems, require_no_sides
from .deploying.rollouts import SqliteRollouts
from .evaluations import SqliteEvaluations
from .inbox import SqliteAnnotations, SqliteInbox, SqliteQuotas, SqliteRefusals, SqliteRequests, SqliteTransfers
from .keeping import SqlitePolicies, SqliteStates
from .log import SqliteLog
from .losses import SqliteLosses
from .models import SqliteBases, SqliteLineages, SqliteMerges, SqliteVersions
from .probing import SqliteIntermediates, SqliteProbeSets
from .sketches import SqliteSketches
from .tallies import SqliteTallies, wrong_tallies
from .thinning import SqliteErasures, SqliteThinnings
from .trusts import SqliteActs, SqliteDevices, SqliteTrusts
from .views import wrong_scores

FILES_FROM = 4 * 1024 * 1024  # bytes; a fsynced file costs ten commits below this, nothing above (measured)


class SqliteStore:
    """Implements Store over one connection; for one thread."""

    def __init__(self, database: Database) -> None:
        self.database = database
        row = database.maybe("SELECT fleet, root, id, files_from FROM registry")
        if row is None:
            raise RegistryDamaged(path=database.path, reason="it names no fleet")
        fleet, root, id, files_from = row
        if not (isinstance(fleet, str) and isinstance(root, bytes) and isinstance(id, bytes) and isinstance(files_from, int)):
            raise RegistryDamaged(path=database.path, reason="it names its fleet by values of another kind")
        self._fleet, self._identity = fleet, Fleet(root, id)
        self.log: Log = SqliteLog(database)
        self.trusts: Trusts = SqliteTrusts(database, self.log)
        self.acts: Acts = SqliteActs(database, self.log)
        self.bases: Bases = SqliteBases(database)
        self.merges: Merges = SqliteMerges(database)
        self.devices: Devices = SqliteDevices(database)
        self.lineages: Lineages = SqliteLineages(database, self.log)
        self.versions: Versions = SqliteVersions(database, self.log)
        self.tallies: Tallies = SqliteTallies(database)
        self.inbox: Inbox = SqliteInbox(database)
        self.losses: Losses = SqliteLosses(database)
        self.refusals: Refusals = SqliteRefusals(database)
        self.requests: Requests = SqliteRequests(database, self.log)
        self.quotas: Quotas = SqliteQuotas(database)
        self.rollouts: Rollouts = SqliteRollouts(database, self.log)
        self.transfers: Transfers = SqliteTransfers(database)
        self.annotations: Annotations = SqliteAnnotations(database)
        self.thinnings: Thinnings = SqliteThinnings(database, self.log)
        self.erasures: Erasures = SqliteErasures(database, self.log)
        self.files = FileBlobs(blob_folder(database.path))
        self.states: States = SqliteStates(database, FileBlobs(state_folder(database.path)), files_from)
        self.policies: Policies = SqlitePolicies(database)
        self.evaluations: Evaluations = SqliteEvaluations(database)
        self.sketches: Sketches = SqliteSketches(database)
        self.probes: ProbeSets = SqliteProbeSets(database)
        self.intermediates: Intermediates = SqliteIntermediates(database)
        self.blobs: BlobStore = TieredBlobs(DatabaseBlobs(database), self.files, files_from)

    @property
    def fleet(self) -> str:
        return self._fleet

    @property
    def identity(self) -> Fleet:
        return self._identity

    def transaction(self) -> AbstractContextManager[None]:
        return self.database.transaction()

    def problems(self) -> list[str]:
        """Return what SQLite finds wrong with the registry's file; nothing when it is whole."""
        return problems(self.database) + wrong_scores(self.database) + wrong_tallies(self.database)

    def close(self) -> None:
        self.database.close()


def _require_one_name(path: Path) -> None:
    """Raise BadArgument for a file that others may open by another name: SQLite keeps a log for each name, and one spoils the other's."""
    others = path.stat().st_nlink - 1
    if others:  # a kill leaves a second name of ours, that nobody opens
        others -= sum(p != path and p.samefile(path) for p in path.parent.glob(f"{glob.escape(path.name)}.*"))
    if others:
        fix = f"remove the other name: find / -xdev -samefile {path}; edgecloud backup makes a copy"
        raise BadArgument(reason=f"{path} has {others} more name (a hard link) elsewhere", fix=fix)


def blob_folder(path: Path) -> Path:
    """Return where a registry keeps what is too large for its own file."""
    return path.with_name(path.name + ".blobs")


def state_folder(path: Path) -> Path:
    """Return where a registry keeps states of models that are too large for its own file."""
    return path.with_name(path.name + ".states")


def create_registry(path: Path, *, fleet: str, identity: Fleet, trust: TrustRow, now: int, files_from: int = FILES_FROM) -> None:
    """Make a new registry. It has its name only when it is whole. Raises BadArgument when the file is there already.

    identity: the fleet's root key and id; trust: its first trust record.
    """
    check_own_name("fleet name", fleet)
    if path.exists():
        raise BadArgument(reason=f"{path} is there already", fix="a registry is never overwritten; name another with --db")
    require_no_sides(path)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    database = open_database(partial, create=True)
    try:
        schema.migrate(database)
        database.run("INSERT INTO registry VALUES (1, ?, ?, ?, ?, ?)", fleet, identity.id, identity.root, files_from, now)
        SqliteTrusts(database, SqliteLog(database)).add(trust)
        database.close()  # the last one out folds the log into the file
        put_in_place(partial, path, replace=False)
    finally:
        database.close()
        for name in (partial, partial.with_name(partial.name + "-wal"), partial.with_name(partial.name + "-shm")):
            name.unlink(missing_ok=True)


def open_registry(path: Path, *, readonly: bool = False, synchronous: str = "FULL", busy: float = 30.0) -> SqliteStore:
    """Return the registry at `path`; an older one is brought to this release's schema unless it is opened to read.

    Raises MissingFile, RegistryDamaged, OldWire for one made before wire 1 was final, or UnsupportedWire for a newer release's.
    """
    if not path.exists():
        raise MissingFile(path=path, what="the registry", fix="edgecloud init makes one; --db or EDGECLOUD_DB names another")
    path = path.resolve()  # a link to it has no blobs beside itself
    if not readonly:
        _require_one_name(path)
    database = open_database(path, readonly=readonly, synchronous=synchronous, busy=busy)
    try:
        current = schema.check(database)
        if not current and readonly:
            raise BadArgument(reason=f"{path} was made by an older release", fix=f"edgecloud ingest --once --db {path} brings it here")
        if not readonly:
            database.keep_log()
        if not current:
            with lock_schema(path):
                if not schema.check(database):  # another process may have done it meanwhile
                    schema.migrate(database)
        return SqliteStore(database)
    except BaseException:
        database.close()
        raise
