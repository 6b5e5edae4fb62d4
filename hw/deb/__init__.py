"""Debian packages of agent and centre, by a small script over dpkg-deb: `make deb`, `python -m hw.deb`. README.md tells what is in them."""

from __future__ import annotations

__all__ = ["building", "targets"]
