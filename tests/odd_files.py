"""Files that no command should read: a pipe that nobody writes to, what has no end, a folder, a link to itself, noise."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ODD = ("pipe", "/dev/zero", "folder", "loop", "none", "sparse", "noise")
PLAIN = ("sparse", "noise")  # files after all, too large or of no sense
SECONDS = 120  # a safety limit: what waits for a pipe waits for ever


def lay(folder: Path) -> None:
    """Make them, but for the one that is not there and the machine's own."""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "noise").write_bytes(bytes(range(256)) * 9)
    with (folder / "sparse").open("wb") as file:
        file.truncate(1 << 42)
    for name in PLAIN:
        (folder / name).chmod(0o600)


@contextmanager
def limited() -> Iterator[None]:
    """Raise TimeoutError in the block when it takes far too long. On the main thread."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError("a command waits for a pipe, or reads what has no end")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
