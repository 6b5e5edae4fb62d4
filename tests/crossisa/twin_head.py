"""The hash that csrc/selftest_head.c returns, computed by the numpy twin alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from modelwire import _reference as twin
from modelwire._reference import head
from modelwire.errors import TrainingDiverged
from modelwire.output_head_settings import Activation, Loss, Optimizer, OutputHeadSettings, Schedule
from tests.crossisa.stream import Stream

MOST_ROWS = 100


class Run(Stream):
    """One pass over the fixed stream."""

    def __init__(self) -> None:
        super().__init__(88172645463325252)

    def even(self) -> float:
        return ((self.rnd() & 0xFFFF) - 32768) * 2.0**-15

    def array(self, array: Any) -> None:
        self.feed(array.tobytes())

    def functions(self) -> None:
        x = (np.arange(4096, dtype=np.uint64) * 0x00100021).astype(np.uint32).view(np.float32)
        magnitude = x.view(np.uint32) & np.uint32(0x7FFFFFFF)
        near = magnitude <= 0x42DC0000
        positive = (x.view(np.uint32) == magnitude) & (magnitude >= 0x00800000) & (magnitude < 0x7F800000)
        results = np.zeros((4096, 3), np.float32)
        results[near, 0], results[near, 1], results[positive, 2] = head.exp(x[near]), head.tanh(x[near]), head.log(x[positive])
        self.array(results)

    def one(self, s: OutputHeadSettings, dtype: int, n: int, first: int, steps: int) -> None:
        features, halves, small = [], [], []
        for _ in range(n * s.features):
            bits = self.rnd()
            features.append(self.even())
            halves.append(bits & 0x83FF | (bits >> 16) % 16 << 10)
            small.append((bits >> 16 & 255) - 128)
        rows = {
            1: np.array(features, np.float32), 2: np.array(halves, np.uint16).view(np.float16), 4: np.array(small, np.int8)
        }[dtype]  # fmt: skip
        labels = np.array([self.rnd() % s.outputs for _ in range(n)], np.uint32)
        targets = np.array([(self.even() + 1) * 0.5 for _ in range(n * s.outputs)], np.float32)
        wanted = labels if s.loss is Loss.SOFTMAX else targets
        start = np.zeros(s.size, np.float32)
        for i in range(s.size):
            if self.rnd() % 8:
                start[i] = self.even() * 0.25
            else:
                start.view(np.uint32)[i] = self.rnd() & 0x807FFFFF
        weights, slots = start.copy(), np.zeros(s.slots * s.size, np.float32)
        losses = [
            twin.head_train(s, rows, wanted, weights, slots, scale=2.0**-6, step=at, count=count)
            for at, count in ((0, first), (first, steps - first))
        ]
        self.array(weights)
        self.array(slots)
        self.array(np.concatenate(losses))
        self.array(twin.head_infer(s, rows, weights, scale=2.0**-6))
        wild = replace(s, rate=2.0**120)
        slots[:] = 0
        try:
            twin.head_train(wild, rows, wanted, start, slots, scale=2.0**-6, step=0, count=steps)
        except TrainingDiverged as error:
            self.array(np.array([int(str(error.facts["steps"]))], np.uint64))

    def all(self) -> int:
        self.functions()
        for n in range(1, MOST_ROWS + 1, 33):
            self.array(twin.permutation(0x0123456789ABCDEF, n, n))
        s = OutputHeadSettings(
            50, 10, 300, optimizer=Optimizer.SGD, schedule=Schedule.LINEAR, batch=32, every=7, seed=0xFEDCBA9876543210, rate=0.5,
            rate_end=0.01, factor=0.75, decay=0.001, beta1=0.9, beta2=0.999, epsilon=1e-7,
        )  # fmt: skip
        self.one(s, 1, 100, 300, 300)
        s = replace(s, features=21, hidden=(19,), outputs=7, activation=Activation.TANH, optimizer=Optimizer.MOMENTUM)
        s = replace(s, schedule=Schedule.STAIRS, batch=8, rate=0.05)
        self.one(s, 4, 37, 13, 60)
        s = replace(s, features=16, hidden=(17, 12), outputs=5, activation=Activation.RELU, optimizer=Optimizer.ADAM)
        s = replace(s, loss=Loss.MSE, batch=16)
        self.one(s, 2, 33, 59, 60)
        s = replace(s, features=33, hidden=(), outputs=3, loss=Loss.LOGISTIC, schedule=Schedule.CONSTANT)
        self.one(s, 1, 40, 1, 60)
        return self.hash


def head_hash() -> int:
    """Return what csrc/selftest_head.c returns."""
    with np.errstate(all="ignore"):
        return Run().all()
