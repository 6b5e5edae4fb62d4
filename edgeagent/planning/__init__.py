"""What sending costs on this board and link: figures that were measured, decisions that were taken. Knows no state folder and no link."""

from __future__ import annotations

__all__ = ["choosing", "conditions", "figures", "pace", "plans", "telling"]
