"""What the centre remembers: the Store and BlobStore seams, and the registry in SQLite."""

from __future__ import annotations

from .blobs import BlobStore
from .rows import (
    Annotation,
    Base,
    DeviceKey,
    Epoch,
    HeadRow,
    LineageRow,
    NewVersion,
    OpenTransfer,
    Parked,
    PresenceRow,
    Refusal,
    Request,
    Status,
    VersionRow,
    WaitingMessage,
)
from .sqlite_store import FILES_FROM, SqliteStore, blob_folder, create_registry, open_registry
from .store import Store

__all__ = [
    "FILES_FROM",
    "Annotation",
    "Base",
    "BlobStore",
    "DeviceKey",
    "Epoch",
    "HeadRow",
    "LineageRow",
    "NewVersion",
    "OpenTransfer",
    "Parked",
    "PresenceRow",
    "Refusal",
    "Request",
    "SqliteStore",
    "Status",
    "Store",
    "VersionRow",
    "WaitingMessage",
    "blob_folder",
    "create_registry",
    "open_registry",
]
