"""The board's own troubles, each with a name: what was seen, what the agent does by itself, and what it asks for."""

from __future__ import annotations

__all__ = ["mending", "naming", "noted", "places", "table", "told"]
