"""What the ten most used commands show on a terminal of 80 columns, of a registry and a device's folder that are always the same."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shlex
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from unittest import mock

import numpy as np

import edgeagent.cli
import edgecloud.cli
from modelwire.tensors import F32
from tests.edgeagent import boards
from tests.edgeagent.centre import FakeClock
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import Base, ScriptedDevice

AT = 1_763_626_800  # Unix seconds, when the screens were taken
HOUR = 3600
WIDTH = 80
SCREENS = (
    "edgecloud devices", "edgecloud log pi-7", "edgecloud show pi-7@3", "edgecloud diff pi-7@1 pi-7@3", "edgecloud verify --all",
    "edgecloud materialise pi-7@3 -o model.tflite", "edgecloud bases", "edgecloud audit -n 4",
    "edgeagent status --dir pi-7", "edgeagent log --dir pi-7",
)  # fmt: skip
_LOSSES = "edgeagent log --dir pi-7"


class Terminal(io.StringIO):
    """Standard output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def taken() -> dict[str, str]:
    """Return what each command shows."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder, _surroundings():
        os.chdir(folder)
        try:
            _registry(Path(folder))
            _board(Path(folder) / "pi-7")
            return {line: _shown(line) for line in SCREENS}
        finally:
            os.chdir(before)


def page() -> str:
    """Return them as a chapter of the page of commands."""
    return "\n".join(f"```console\n$ {line}\n{text}```\n" for line, text in taken().items())


def _shown(line: str) -> str:
    program, *words = shlex.split(line)
    with contextlib.redirect_stdout(Terminal()) as screen, contextlib.redirect_stderr(io.StringIO()) as errors:
        code = (edgecloud.cli.main if program == "edgecloud" else edgeagent.cli.main)(words)
    assert code == 0, errors.getvalue()
    return _steady(screen.getvalue()) if line == _LOSSES else screen.getvalue()


def _steady(text: str) -> str:
    """Put the same commit in place of each that names the last bits of a loss: those are the processor's, of its exp and log."""
    return re.sub(r"\b[0-9a-f]{12}\b", lambda found: hashlib.sha256(str(text[: found.start()].count("\n")).encode()).hexdigest()[:12], text)


@contextlib.contextmanager
def _surroundings() -> Iterator[None]:
    """Let time stand still, in UTC, on a terminal without colours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDGECLOUD_", "EDGEAGENT_"))}
    with (
        mock.patch.dict(os.environ, {**kept, "COLUMNS": str(WIDTH), "NO_COLOR": "1", "TZ": "UTC"}, clear=True),
        mock.patch("time.time", lambda: AT + 0.0), mock.patch("time.monotonic", lambda: 1000.0),
    ):  # fmt: skip
        time.tzset()
        yield
    time.tzset()


def _registry(folder: Path) -> None:
    """Make a registry: pi-7 with a refused version, pi-8 that went silent yesterday, pi-9 that waits to be let in."""
    base = Base.of()
    store = make_registry(folder / "fleet.db", base)
    centre = Centre(store, now=AT - 26 * HOUR)
    store.log._clock = lambda: float(centre.now)  # type: ignore[attr-defined]
    scores = {"accuracy_before": 0.81, "accuracy_after": 0.87, "loss_before": 0.52, "loss_after": 0.31, "samples": 64}
    silent = centre.meet(ScriptedDevice(base, name="pi-8"))
    centre.deliver(silent, silent.train(extension=scores))
    centre.now = AT - 2 * HOUR
    device = centre.meet(ScriptedDevice(base))
    for n in range(1, 5):
        centre.now += 20 * 60
        odd = {"fingerprint": (1, 2)} if n == 2 else {}
        centre.deliver(device, device.train(extension={**scores, "accuracy_after": 0.87 + n / 100}, **odd))
        centre.rebuild()
        if n == 2:
            centre.deliver(device, device.snapshot(centre.said()[-1].good, extension={"note": "from the last good version"}))
            centre.rebuild()
    stranger = ScriptedDevice(base, name="pi-9")
    stranger.fleet_id = store.identity.id
    centre.take(stranger.hello())
    store.close()


def _board(folder: Path) -> None:
    """Make a device's folder, with two rounds that the centre has and one that waits."""
    clock = FakeClock()
    clock.wall = lambda: float(AT - HOUR)  # type: ignore[method-assign]
    judged = count(1)

    def better(x: F32, weights: object) -> F32:
        """Answer more like the samples' classes with each look."""
        k = min(1.0, next(judged) / 12)
        return np.exp(k * x[:, :3] + (1 - k) * x[:, 1:4]).astype(np.float32)

    with boards.rig(folder, boards.centre(clock), lambda file, name: boards.ScriptedModel(file, answer=better)) as r:
        boards.fill(r.device)
        r.run(boards.Goal(rounds=2, timeout=60))
