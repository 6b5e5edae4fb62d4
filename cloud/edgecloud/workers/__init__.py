"""Processes beside the ingester that rebuild versions and prove them. Knows no network; a worker reads the registry and writes nothing."""

from __future__ import annotations

__all__ = ["building", "pool", "worker"]
