"""What travels between device and centre: manifests, sections, planes, the signed container around them, and its proof without content.

Knows no state that an update is applied to, and no network.
"""

from __future__ import annotations

__all__ = ["container", "header", "manifest", "planes", "proof", "sections"]
