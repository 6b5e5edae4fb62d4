"""A disk whose power can be cut: SQLite through a VFS of ours, and what Python writes by the same rule. README.md tells it.

The rule: what was not flushed is lost, or survives in any combination, the last of it torn at 512 bytes; a name that was given, moved or
removed is so for sure once its folder was flushed.
"""

from __future__ import annotations

from .disk import Disk
from .library import PowerVfs, power_vfs
from .steps import DiskSteps

__all__ = ["Disk", "DiskSteps", "PowerVfs", "power_vfs"]
