"""A new board sets itself up from its boot partition: read as a stranger's, made whole or not at all, secrets erased there afterwards.

Knows no link and no training: it makes the folder that `edgeagent run` then starts in.
"""

from __future__ import annotations

from .outcome import ProvisionOutcome, write_issue, write_report
from .partition import BootPartition, read_partition
from .setting_up import provision

__all__ = ["BootPartition", "ProvisionOutcome", "provision", "read_partition", "write_issue", "write_report"]
