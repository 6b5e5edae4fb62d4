"""What the centre keeps so that every version comes back within a promise, and what it lets go. Knows no network and no command line."""

from __future__ import annotations

__all__ = [
    "beside", "chains", "compacting", "deciding", "erasing", "letting_go", "measuring", "prices", "promise", "purging", "retention",
    "sketching", "thinning", "whatif",
]  # fmt: skip
