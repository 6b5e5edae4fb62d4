"""A model opened in a process of its own, as long as a round needs it: the agent loads no TFLite runtime. Knows no round, no state."""

from __future__ import annotations

__all__ = ["model_process"]
