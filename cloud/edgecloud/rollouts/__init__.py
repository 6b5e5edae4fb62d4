"""How a variant reaches a fleet: whom a rollout is for, in which phases, what it costs and what its gates can tell.

Knows no network and no command line, and holds no key.
"""

from __future__ import annotations

__all__ = ["choosing", "group", "planning", "power", "statements"]
