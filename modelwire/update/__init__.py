"""What travels between device and centre: manifests, sections, planes and the signed container around them.

Knows no state that an update is applied to, and no network.
"""

from __future__ import annotations

__all__ = ["adopting", "container", "header", "manifest", "planes", "proof", "sections"]
