"""Run a command, and say what it took: seconds on the clock, and seconds of processor, its children included.

    timed.py FILE COMMAND...

The exit code is the command's; FILE then holds the two numbers, for summary.py.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path


def main(file: Path, command: list[str]) -> int:
    began = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    wall, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    file.write_text(f"{wall:.1f} {cpu:.1f}\n")
    print(f"took {wall:.0f} s, {cpu:.0f} s of processor")
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
