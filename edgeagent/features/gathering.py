"""What a round in mode features trains and judges with: rows of kept features and the exact head, where other modes have an interpreter.

Another process has the runtime: for samples whose features are not known yet, and once after a start, to see that head and model agree.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeagent.samples.spool import Samples, Spool
from edgeagent.system.clock import Clock
from edgeagent.training import guard
from edgeagent.training.course import Lesson
from edgecommon.memory import peak
from modelwire.errors import NotEnoughSamples, NotTrainable
from modelwire.lattice.state import ModelState
from modelwire.output_head import rows as wire_rows
from modelwire.output_head.rows import Rows
from modelwire.output_head_settings import OutputHeadSettings
from modelwire.tensors import F32, Schema
from modelwire.tflite.notes import HeadNotes, Notes

from .base_file import featured_notes
from .exact_course import OutputHead, output_head_of, rows_for
from .extraction import Extraction
from .kept import Features


@dataclass(frozen=True, slots=True)
class FeaturesBase:
    """The model whose frozen part computes features."""

    model: str  # its name
    commit: bytes  # of its base
    file: Path  # the base's
    schema: Schema


@dataclass(frozen=True, slots=True)
class FeaturesWanted:
    """Which samples are wanted as features."""

    base: FeaturesBase
    until: int  # the newest sample that counts; 0: none at all
    share: float = 1.0  # of one core that computing them may take


@dataclass(frozen=True, slots=True)
class Known:
    """What was found out about the head of a model's base since the agent started."""

    base: bytes  # commit
    output_head: OutputHead
    notes: Notes
    runtime_key: str
    batch: int

    def answers(self, weights: Mapping[str, NDArray[Any]], rows: Rows) -> F32:
        """Return what a model with these weights answers to the samples of these rows, [n, outputs]."""
        shape = self.output_head.recipe(rows=len(rows), batch=1, epochs=1, rate=0.0, optimizer="sgd", seed=0)
        return self.output_head.answers(shape, weights, rows)

    def check_front(self, state: ModelState, *, model: str) -> None:
        """Raise NotTrainable when something in front of the head was trained: the kept features are those of the base."""
        head = {name for pair in self.output_head.notes.layers for name in pair}
        front = {name for mode in self.notes.modes for name in mode.weights} - head
        for spec, base, now in zip(state.manifest.schema.tensors, state.base, state.weights, strict=True):
            if spec.name in front and base.tobytes() != now.tobytes():
                reason = f"mode features: {spec.name} in front of the head has moved from the base: train.mode = head trains on"
                raise NotTrainable(model=model, reason=reason)


@dataclass(frozen=True, slots=True)
class OnFeatures:
    """One round's samples as features. x of the samples is empty."""

    model: str
    known: Known
    training: Samples
    judging: Samples
    until: int  # the newest sample that counts
    rows: Rows  # to train on
    judged: Rows

    def measure(self, weights: Mapping[str, NDArray[Any]]) -> guard.Score:
        """Return the score of a model with these weights on the held-out samples."""
        return guard.score(self.known.answers(weights, self.judged), self.judging)

    def recipe(self, rows: Rows, lesson: Lesson, optimizer: str) -> OutputHeadSettings:
        """Return how the lesson trains on these rows. optimizer: a name; "" for the model file's own."""
        return self.known.output_head.recipe(
            rows=len(rows), batch=self.known.batch, epochs=lesson.epochs, rate=lesson.learning_rate,
            optimizer=optimizer or self.known.notes.optimizer, seed=lesson.seed,
        )  # fmt: skip

    def quantised(self) -> Rows:
        """Return the rows to train on as a recipe carries them."""
        return wire_rows.quantized(self.rows.features, self.rows.labels, self.rows.targets)


@dataclass(slots=True)
class Extractors:
    """Has features computed, and remembers what was found out, for one run of the agent."""

    state: Path  # the agent's state folder
    spool: Spool  # of that folder
    clock: Clock = field(default_factory=Clock)
    known: dict[str, Known] = field(default_factory=dict)  # by model
    most: int = 0  # bytes that this process and one that computed features ever held together

    def runtime_key(self, base: FeaturesBase) -> str:
        """Return the key of the runtime that computes this model's features. Raises NotTrainable or RuntimeUnusable."""
        finding = self._find_out(FeaturesWanted(base, 0))
        while True:
            try:
                next(finding)
            except StopIteration as end:
                known: Known = end.value
                return known.runtime_key

    def gather(self, wanted: FeaturesWanted, held_out: float) -> Generator[None, None, OnFeatures]:
        """Return the samples as features, yielding while some are computed. held_out: the share that judges.

        Raises NotTrainable where this model or these samples can't be trained in mode features; NotEnoughSamples.
        """
        name, until = wanted.base.model, wanted.until
        known = yield from self.prepare(wanted)
        kept, loss = self._kept(wanted.base, known), known.output_head.notes.loss

        def rows_of(samples: Samples) -> Rows:
            return rows_for(kept.rows(samples.ids), samples.y, labelled=samples.labelled, loss=loss, model=name)

        with self.spool.together():  # samples may have gone meanwhile, and more may go while these are read
            training, judging = self.spool.outline(name, held_out, until=until)
            if not len(training) or not len(judging):
                raise NotEnoughSamples(model=name, have=len(training) + len(judging), need=2)
            return OnFeatures(name, known, training, judging, until, rows_of(training), rows_of(judging))

    def prepare(self, wanted: FeaturesWanted) -> Generator[None, None, Known]:
        """Have the features computed that the samples lack, and return what is known of the head. Yields and raises as `gather` does."""
        base = wanted.base
        known, ids = self.known.get(base.model), self.spool.ids(base.model, until=wanted.until)
        if known is None or known.base != base.commit or self._kept(base, known).missing(ids):
            _check_size(base.model, featured_notes(base.file, base.model)[0].head, len(ids))
            known = yield from self._find_out(wanted)
        return known

    def answers(self, base: FeaturesBase, known: Known, state: ModelState, *, after: int, most: int) -> tuple[Samples, F32]:
        """Return the newest samples with ids above `after`, at most so many, and what this state's head answers to them, [n, outputs].

        Of those that `prepare` had features computed for. Raises NotTrainable.
        """
        name, kept = base.model, self._kept(base, known)
        known.check_front(state, model=name)
        with self.spool.together():  # as above; and what has come meanwhile has no features yet
            samples = self.spool.newest(name, after=after, most=most)
            have = ~np.isin(samples.ids, kept.missing(samples.ids))
            samples = replace(samples, x=samples.x[have], y=samples.y[have], ids=samples.ids[have])
            features = kept.rows(samples.ids)
        if not len(samples):
            return samples, np.zeros((0, known.output_head.widths[-1]), np.float32)
        return samples, known.answers(state.named(), Rows(features))

    def _kept(self, base: FeaturesBase, known: Known) -> Features:
        return Features(self.spool, base.model, base=base.commit, runtime=known.runtime_key, width=known.output_head.widths[0])

    def _find_out(self, wanted: FeaturesWanted) -> Generator[None, None, Known]:
        base, until = wanted.base, wanted.until
        notes, batch = featured_notes(base.file, base.model)
        assert notes.head is not None  # `featured_notes` has seen to it
        told = yield from Extraction(
            self.state, base.model, base=base.commit, file=base.file, until=until, share=wanted.share, clock=self.clock
        ).result()
        self.most = max(self.most, peak() + told["peak"])
        output_head = replace(output_head_of(notes.head, base.schema), logits=told["logits"])
        known = Known(base.commit, output_head, notes, told["runtime"], batch)
        if until:  # without samples nothing was compared
            self.known[base.model] = known
        return known


def _check_size(model: str, head: HeadNotes | None, samples: int) -> None:
    if head is not None and samples * head.features > wire_rows.ENTRIES_MAX:
        reason = f"mode features: {samples} samples of {head.features} features are too many to hold; spool.max_samples = "
        raise NotTrainable(model=model, reason=f"{reason}{wire_rows.ENTRIES_MAX // head.features} and fewer do")
