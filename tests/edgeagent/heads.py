"""Files whose head trains on kept features, and a device that does so, for tests."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeagent.service.agent import Agent
from edgeagent.service.opener import Opener
from edgeagent.settings import reading
from edgeagent.state.folder import DeviceFolder, open_folder
from edgeagent.system.clock import Clock
from edgecloud.graft.grafting import Wish, graft
from modelwire.tensors import F32
from tests.worlds import MODELS

from .boards import centre, make_with
from .centre import Centre, FakeClock

SETTINGS = {
    "train.mode": "features", "train.epochs": "4", "train.learning_rate": "0.02", "train.margin": "100", "update.max_bytes": "64KiB",
    "train.optimizer": "adam",
}  # fmt: skip


@lru_cache
def grafted(stock: str = "har", train: str = "head", modes: tuple[str, ...] = (), loss: str = "auto", optimizer: str = "sgd") -> bytes:
    """Return a stock file with its head, or more, made trainable."""
    data = (MODELS / "stock" / f"{stock}.tflite").read_bytes()
    return graft(data, Wish(train=(train,), modes=modes, loss=loss, optimizer=optimizer, batch=8)).file


def samples(count: int, seed: int = 0, shape: tuple[int, ...] = (100, 6), classes: int = 4) -> tuple[F32, NDArray[np.int64]]:
    """Return windows whose mean tells their class."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % classes
    x = rng.standard_normal((count, *shape)) + 0.4 * y.reshape(-1, *[1] * len(shape))
    return x.astype(np.float32), y


class Board:
    """A device that trains heads, with a centre in memory."""

    def __init__(self, opened: DeviceFolder, held: Centre) -> None:
        self.device, self.centre = opened, held
        self.models = Opener(opened)
        self.agent = Agent(
            opened, held, self.models, "test", clock=Clock(held.clock.monotonic, held.clock.wall), rng=random.Random(1),
            extractors=self.models.extractors,
        )  # fmt: skip
        self.lineage = opened.lineages["m"]
        self.spool = opened.spool


@contextmanager
def board(folder: Path, file: bytes, *, held: Centre | None = None, **changes: str) -> Iterator[Board]:
    """Make a device in `folder` when there is none, and open it. changes: section__key="text"."""
    if not (folder / reading.FILE).exists():
        make_with(folder, {**SETTINGS, **{k.replace("__", "."): v for k, v in changes.items()}}, {"m": file})
    with open_folder(reading.load(folder / reading.FILE, environment={}, flags={}), alone=True) as opened:
        yield Board(opened, held or centre(FakeClock(), file=file))
