"""What a version takes beside MMlib's: bytes of full and partial updates, from the evaluation that `make paper` runs."""

from __future__ import annotations

import json

from tests.paper import __main__ as paper


def measure(full: bool) -> dict[str, float | int]:
    """Return the headline of the evaluation. What was measured before, and lies in build/paper, is not measured again."""
    return paper.headline(paper.measure(full))


if __name__ == "__main__":
    import os

    print(json.dumps(measure(os.environ.get("FULL", "") not in ("", "0")), indent=1))
