"""Exact averages of several devices' models on the lattice, made on request and judged on probes."""

from __future__ import annotations

__all__: list[str] = []
