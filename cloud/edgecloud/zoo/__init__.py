"""Tries many model files: what of each can be made trainable, whether that runs and learns here, and which missing rule keeps the most out.

Files are hostile: each is parsed, and each result is run, in a child process with limits. Nothing here knows of the registry.
"""

from __future__ import annotations

__all__ = ["codes", "counting", "limited", "running", "trying"]
