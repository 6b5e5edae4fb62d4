"""The process that rehearses one mode of one file: it has loaded nothing else, and says on its standard output how far it is.

Words: what to do ("mode" or "stock"), then a JSON object with paths and limits. Whatever goes wrong in the file is told as a reason.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelwire.errors import ModelWireError, RuntimeUnusable

from .limited import RehearsalLimits, forget_peak, limit


def main(words: Sequence[str]) -> int:
    """Rehearse, and say what was found. The exit code is 0, also of a failure that was told."""
    asked = json.loads(words[1])
    # What libraries print by themselves goes to standard error; what is said here is lines of JSON alone.
    handle = os.dup(1)
    os.dup2(2, 1)

    def say(**what: Any) -> None:
        os.write(handle, json.dumps(what).encode() + b"\n")

    def stage(name: str) -> None:
        say(stage=name)

    from edgecommon import runtime

    try:
        installed = runtime.load()
    except RuntimeUnusable as e:
        say(end={"no_runtime": str(e.facts.get("reason", e))})
        return 0
    from . import checks

    limits = RehearsalLimits(**asked["limits"])
    checks.warm()
    limit(limits)
    forget_peak()
    found: dict[str, Any] = {}
    say(runtime=f"{installed.package} {installed.version}")
    try:
        if words[0] == "stock":
            checks.stock_alone(installed, Path(asked["file"]), found, stage)
        else:
            stock = Path(asked["stock"]) if asked["stock"] else None
            checks.mode(installed, Path(asked["file"]), stock, asked, limits, found, stage)
    except checks.Failed as e:
        found["reason"] = str(e)
    except ModelWireError as e:
        found["reason"] = checks.plain(str(e.facts.get("reason", e.message)))
    except MemoryError:
        found["reason"] = f"it takes more than the {limits.memory >> 20} MiB of memory that a rehearsal is allowed"
    except runtime.FAILURES as e:
        found["reason"] = checks.plain(str(e)) or type(e).__name__
    say(end=found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
