"""Exact averages of several devices' models on the lattice, made on request and judged on probes. Knows no network and no command line."""

from __future__ import annotations

__all__ = ["averaging", "judging", "parents"]
