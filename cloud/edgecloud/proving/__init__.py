"""What the centre hands out for others to check, what it checks of itself by sample, and how it mends what was lost. docs/proofs.md.

It knows no network and no command line. The verifier in it knows nothing of this project but its formats.
"""

from __future__ import annotations

__all__ = ["assembling", "exporting_log", "making", "repairing", "sampling", "telling", "verifier"]
