"""What the centre remembers: the Store and BlobStore seams, and the registry in SQLite. Knows no network, and not what an update means.

Unlike other rooms it hands out its names here, as all of the centre works with them; the modules listed are used whole.
"""

from __future__ import annotations

from .blobs import BlobStore
from .rows import (
    ActRow,
    AlarmRow,
    Annotation,
    Base,
    DeviceKey,
    Epoch,
    HeadRow,
    LineageRow,
    LineageStanding,
    LogEntry,
    LostRow,
    ModelWish,
    NewVersion,
    OpenTransfer,
    Parked,
    PresenceRow,
    Refusal,
    Rejection,
    Request,
    SignedEnd,
    Situation,
    Status,
    TrustRow,
    VersionRow,
    WaitingMessage,
    WitnessRow,
)
from .seams.store import Store
from .seams.trust import Log, Remembered
from .sqlite.store import FILES_FROM, SqliteStore, blob_folder, create_registry, open_registry

__all__ = [
    "FILES_FROM",
    "ActRow",
    "AlarmRow",
    "Annotation",
    "Base",
    "BlobStore",
    "DeviceKey",
    "Epoch",
    "HeadRow",
    "LineageRow",
    "LineageStanding",
    "Log",
    "LogEntry",
    "LostRow",
    "ModelWish",
    "NewVersion",
    "OpenTransfer",
    "Parked",
    "PresenceRow",
    "Refusal",
    "Rejection",
    "Remembered",
    "Request",
    "SignedEnd",
    "Situation",
    "SqliteStore",
    "Status",
    "Store",
    "TrustRow",
    "VersionRow",
    "WaitingMessage",
    "WitnessRow",
    "backup",
    "blob_folder",
    "claims",
    "create_registry",
    "encrypted",
    "lock",
    "open_registry",
    "privacy",
    "sqlite",
]
