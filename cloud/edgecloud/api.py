"""The registry for programs and notebooks, read only: edgecloud.open("fleet.db").device("pi-7").version(3).weights()."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import total_ordering
from pathlib import Path
from types import TracebackType

from edgecommon.printing import visible
from modelwire.cards.card import Card
from modelwire.errors import BadArgument, ModelWireError, UnknownVersion
from modelwire.lattice.state import ModelState
from modelwire.tensors import Weights
from modelwire.update.container import Container
from modelwire.update.header import Header
from modelwire.wire import cbor

from .audit import tampering
from .comparisons import Comparisons
from .feasibility import fitness
from .probes import running
from .registry import LineageRow, SqliteStore, Status, VersionRow, open_registry
from .rollouts import rows
from .searching import nearest
from .versions import cards, comparing, listing, materialise, naming
from .versions.listing import Listing


def open(path: str | os.PathLike[str]) -> Registry:
    """Return the fleet of a registry. Raises MissingFile or RegistryDamaged. The ingester may go on meanwhile."""
    return Registry(open_registry(Path(path), readonly=True))


@total_ordering
class _Handle:
    """What stands for something in a registry: equal, and of one hash, where two stand for the same; in the order of names."""

    def _key(self) -> tuple[object, ...]:
        """What of the registry it is; two of one class are compared by it."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if type(other) is type(self) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return self._key() < other._key() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())


class Registry(_Handle, Comparisons):
    """All devices of a registry. For one thread; `close` it, or use it in a `with` statement."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._bases = materialise.LoadedBases(store)
        self._recent = nearest.Recent()
        self._spare = running.Spare()
        self._closed = False

    @property
    def name(self) -> str:
        return self._store.fleet

    @property
    def path(self) -> Path:
        """The registry's file."""
        return self._store.database.path

    def devices(self) -> list[Device]:
        return [Device(self, name) for name in self._store.devices.names()]

    def device(self, name: str) -> Device:
        """Return a device. Raises UnknownVersion when the registry does not know it."""
        if name not in self._store.devices.names():
            raise UnknownVersion(name=name)
        return Device(self, name)

    def versions(self, device: str | None = None, model: str | None = None) -> Listing:
        """Return a row a version, refused ones too, of all devices or of one: plain dicts, as `pandas.DataFrame` takes them.

        Raises UnknownVersion for a device that the registry does not know, and for a model that nobody has sent.
        """
        if device is not None:
            self.device(device)
        if model is not None:
            known = self._store.lineages.all() if device is None else self._store.lineages.of(device)
            if model not in {one.model for one in known}:
                raise UnknownVersion(name=f"{device or 'any device'}/{model}")
        return listing.versions(self._store, device, model)

    def overview(self) -> Listing:
        """Return a row a device: its totals, its last update, and when it was last heard of."""
        return listing.fleet(self._store)

    def silent(self, hours: float = 24) -> Listing:
        """Return a row a device that nothing was heard of for so many hours, the longest silent first."""
        if not isinstance(hours, (int, float)) or math.isnan(hours):  # SQLite would compare it with every row, and find none silent
            raise BadArgument(reason=f"{hours!r} is no number of hours", fix="fleet.silent(hours=24)")
        return listing.silent(self._store, hours)

    def rollouts(self) -> Listing:
        """Return a row a rollout, the oldest first: its state, and how many devices serve its variant or took it back."""
        return rows.rollouts(self._store)

    def rollout(self, name: str) -> Listing:
        """Return a row a device of one rollout: how far it has come, and what it measured. Raises UnknownVersion."""
        return rows.devices(self._store, name)

    def find(self, name: str) -> Version:
        """Return what DEVICE[/MODEL]@VERSION stands for; `latest` when it names no version."""
        return Version(self, naming.find(self._store, naming.parse(name)))

    def close(self) -> None:
        self._closed = True
        self._spare.close()
        self._store.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _key(self) -> tuple[object, ...]:
        return str(self.path), self._store.identity.id

    def __repr__(self) -> str:
        return visible(f"<registry {self.name}: {self.path}{', closed' if self._closed else ''}>")

    def _repr_html_(self) -> str:
        return _html(self, self.overview)


class Device(_Handle):
    """One device; with one model, that model's versions are its own."""

    def __init__(self, fleet: Registry, name: str) -> None:
        self._fleet, self.name = fleet, name

    def models(self) -> list[Model]:
        return [Model(self._fleet, one) for one in self._fleet._store.lineages.of(self.name)]

    def model(self, name: str | None = None) -> Model:
        """Return a model of this device; its only one when no name is given. Raises UnknownVersion or AmbiguousName."""
        return Model(self._fleet, naming.find_lineage(self._fleet._store, naming.Name(self.name, name, None)))

    def version(self, version: int | str = naming.LATEST) -> Version:
        return self.model().version(version)

    def versions(self) -> list[Version]:
        """Return all versions of its one model; none while it has sent nothing. Raises AmbiguousName."""
        return self.model().versions() if self.models() else []

    def _key(self) -> tuple[object, ...]:
        return *self._fleet._key(), self.name

    def __repr__(self) -> str:
        return visible(f"<device {self.name}>")

    def _repr_html_(self) -> str:
        return _html(self, lambda: self._fleet.versions(self.name))


class Model(_Handle):
    """One model of one device: its lineage."""

    def __init__(self, fleet: Registry, lineage: LineageRow) -> None:
        self._fleet, self._lineage = fleet, lineage
        self.device, self.name = lineage.device, lineage.model

    def version(self, version: int | str = naming.LATEST) -> Version:
        """Return a version by its number, `latest` (the head) or `base`. Raises UnknownVersion."""
        name = naming.parse(f"{self._lineage}@{version}")
        return Version(self._fleet, naming.find(self._fleet._store, name))

    def versions(self) -> list[Version]:
        """Return all versions in the order of linking, refused ones too; the base is not among them."""
        rows = self._fleet._store.versions.of(self._lineage.id)
        return [Version(self._fleet, naming.Place(self._lineage, row.epoch, row.base, row)) for row in rows]

    @property
    def latest(self) -> Version:
        return self.version(naming.LATEST)

    @property
    def base(self) -> Version:
        return self.version(naming.BASE)

    def _key(self) -> tuple[object, ...]:
        return *self._fleet._key(), self.device, self.name

    def __repr__(self) -> str:
        return visible(f"<model {self._lineage}>")

    def _repr_html_(self) -> str:
        return _html(self, lambda: self._fleet.versions(self.device, self.name))


class Version(_Handle):
    """One version of a device's model, or the base (number 0). What it gives is exact and proven, or an error.

    Its status is what it was when the registry was asked for it: ask again for the present one.
    """

    def __init__(self, fleet: Registry, place: naming.Place) -> None:
        self._fleet, self._place = fleet, place

    @property
    def name(self) -> str:
        return str(self._place)

    @property
    def number(self) -> int:
        return self._row.version if self._row else 0

    @property
    def epoch(self) -> int:
        return self._place.epoch

    @property
    def kind(self) -> str:
        return self._row.kind if self._row else "base"

    @property
    def status(self) -> str:
        """How far it has come: stored, verified or refused; a base is always verified."""
        return (self._row.status if self._row else Status.VERIFIED).value

    @property
    def reason(self) -> str:
        """Why it was refused; empty otherwise."""
        return self._row.reason if self._row else ""

    @property
    def unfit(self) -> str:
        """Why it is unfit: what it says and what the centre measures; empty where nothing says so, as for a version never scored."""
        row = self._place.version
        found = None if row is None else fitness.unfit(self._fleet._store, [row.id]).get(row.id)
        return "" if found is None else found.words

    @property
    def commit(self) -> bytes:
        return self._row.commit if self._row else self._place.base

    @property
    def parent(self) -> bytes | None:
        """Commit of the version before it; None for a base."""
        return self._row.parent if self._row else None

    @property
    def root(self) -> bytes:
        return self._row.root if self._row else self._base.manifest.root

    @property
    def size(self) -> int:
        """Bytes that travelled: the whole signed container; the file of a base."""
        return self._row.size if self._row else self._base.manifest.file_size

    @property
    def received_at(self) -> datetime | None:
        """When it came, by the centre's clock, in UTC; None for a base."""
        return listing.time_of(self._row.received_at) if self._row else None

    @property
    def metrics(self) -> Mapping[str, cbor.Value]:
        """What the device said beside the update, such as its held-out loss before and after."""
        extension = cbor.decode(self._row.extension, "extension") if self._row and self._row.extension else {}
        assert isinstance(extension, dict)  # ingest has parsed it
        return extension

    @property
    def card(self) -> Card | None:
        """What the device's data looked like that this version learnt from; None when the update carried no card. Raises WireError."""
        return cards.card_of(self._fleet._store, self._row) if self._row else None

    @property
    def header(self) -> Header | None:
        """The header of the stored container, proven to be it; None for a base."""
        container = self.container
        return container.header if container else None

    @property
    def container(self) -> Container | None:
        """The stored container, parsed; None for a base."""
        return materialise.open_container(self._fleet._store, self._place.lineage, self._row) if self._row else None

    def weights(self) -> Weights:
        """Return arrays by name, held as their types are, bit for bit what the device runs. Raises NotServed for a refused version."""
        return self.state().named()

    def file(self) -> bytes:
        """Return the `.tflite`, byte for byte the file that the device serves at this version."""
        return materialise.file_of(self.state(), self._base)

    def state(self) -> ModelState:
        """Return the model on its lattice: base, integers and weights."""
        if self._row is None:
            return self._base.state()
        return materialise.rebuild(self._fleet._store, self._row, self._fleet._bases)

    def prove_file(self, file: bytes) -> None:
        """Raise RootMismatch unless a bare `.tflite` holds this version's weights, bit for bit; WrongBase when it has other tensors."""
        materialise.prove_file(self.state(), file, self.name)

    def diff(self, other: Version) -> comparing.Distance:
        """Return how far `other` is from this version, tensor by tensor."""
        return comparing.distance(self.state(), other.state())

    @property
    def _row(self) -> VersionRow | None:
        return self._place.version

    @property
    def _base(self) -> materialise.LoadedBase:
        return self._fleet._bases[self._place.base]

    def _key(self) -> tuple[object, ...]:
        lineage = self._place.lineage
        return *self._fleet._key(), lineage.device, lineage.model, self.epoch, self.number

    def __repr__(self) -> str:
        size = f", {self._row.size} bytes" if self._row else ""
        return visible(f"<version {self.name}: {self.kind}, {self.status}{size}>")

    def _repr_html_(self) -> str:
        names = ("name", "kind", "status", "reason", "epoch", "size", "received_at", "commit", "metrics")

        def facts() -> Listing:
            values = ((name, getattr(self, name)) for name in names)
            shown = [(name, value.hex() if isinstance(value, bytes) else value) for name, value in values if value not in (None, "")]
            said = [(name, value) for name, value in shown if name != "metrics"] + [
                (name, value) for name, value in self.metrics.items() if isinstance(value, (int, float, str))
            ]
            return Listing({"": name, "value": value} for name, value in said)

        return _html(self, facts)


def _html(handle: _Handle, rows: Callable[[], Listing]) -> str:
    """Return rows as a notebook shows them, under what they are of; that alone where they can't be had: the registry may be closed."""
    title = f"<p>{html.escape(repr(handle))}</p>"
    try:
        return title + rows()._repr_html_()
    except ModelWireError as error:
        return f"{title}<p>{html.escape(visible(error.message))}</p>"
    except tampering.UNREADABLE:  # values of any kind stand in the rows of a changed registry
        return f"{title}<p>its rows can't be read: edgecloud verify says what is wrong</p>"
