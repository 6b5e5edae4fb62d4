"""The registry in one SQLite file: its tables and their migrations, the Store on them, views for other tools."""

from __future__ import annotations

__all__ = ["chains", "database", "schema", "store", "views"]
