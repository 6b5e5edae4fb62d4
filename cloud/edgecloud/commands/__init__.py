"""The commands of `edgecloud`, by subject. Each takes parsed arguments and returns an Answer; nothing else prints."""

from __future__ import annotations
