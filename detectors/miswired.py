"""Miswired: the code runs, and a relation that holds in every sound training loop does not hold in it.

Relations found 18 of 20 real silent training errors where statistics of loss and gradients found 2 (Jiang et al.,
"Training with Confidence: Catching Silent Errors in Deep Learning Training", OSDI 2025).
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.scalars import grown, scalar, single, subjects_of
from torchvitals.detectors.streak import Streak
from torchvitals.signals.records import AnyRecord, Event, Hello

PLACES = ("line", "parameter", "optimizer")
"""Details of a broken relation that say where, the best first."""


FROM_THE_START = (
    "squashed_twice", "never_stepped", "cloned_workers", "endless_momentum", "first_batch_only", "invalid_targets",
    "no_log_probabilities", "softmax_over_batch",
    "broadcast_targets", "initialized_by_ancestors", "loaded_then_overwritten", "loaded_zeros", "frozen_late",
)  # fmt: skip
"""Relations of how the code is put together: what is found at step 200 was so at step 0."""


class BrokenRelation:
    """A relation that the hooks have looked at and found broken: each tells itself, once per run and kind of relation.

    ``squashed_twice`` (a softmax under a cross-entropy), ``dropout_in_evaluation``, ``never_stepped`` (an optimizer
    whose parameters get gradients), ``frozen_moves`` (a step changed what requires no gradient), ``cloned_workers``
    (workers of a loader whose batches are equal), ``endless_momentum`` (1 or more), ``optimizer_state_left_behind``
    (of a checkpoint that was resumed from), ``first_batch_only`` (of a loader that has more), ``invalid_targets`` (of a
    binary cross-entropy), ``broadcast_targets`` (each answer is compared with all of them),
    ``initialized_by_ancestors`` (weights that one pass drew for each module around them), ``loaded_then_overwritten``
    and ``loaded_zeros`` (of a checkpoint), ``loaded_nothing`` (of one that holds all under other names),
    ``spectral_norm_unsettled`` (an evaluation with norms that nobody knows yet), ``frozen_late`` (layers that a model
    freezes when they have been trained), ``served_in_training_mode`` (by a service), ``unused_experts`` (to which the
    router of a mixture sends no token), ``no_log_probabilities`` and ``softmax_over_batch`` (under a negative
    log-likelihood). They are exact, or far beyond chance, so there is nothing to set.

    >>> detector, hello = BrokenRelation(), Hello(run="r", rank=0, world_size=1, pid=7)
    >>> event = Event(9.5, 3, "relation", {"relation": "squashed_twice", "line": "train.py:31", "inner": "softmax"})
    >>> for finding in detector.observe(hello, event):
    ...     print(finding.step, finding.name, finding.evidence["relation"])
    3 train.py:31 squashed_twice
    """

    kind: ClassVar[str] = "miswired"
    records: ClassVar[tuple[type, ...]] = (Event,)

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._seen = False

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        """Take one event."""
        self._seen = True
        if not isinstance(record, Event) or record.kind != "relation":
            return []
        relation = str(record.details.get("relation", ""))
        if not relation or relation in self._told:
            return []
        self._told.add(relation)
        name = next((str(record.details[place]) for place in PLACES if record.details.get(place)), "")
        return [
            Finding(
                kind=self.kind,
                severity="error" if record.details.get("backward_passes") else "warning",  # nothing has stepped
                first_step=int(record.details.get("first", 0 if relation in FROM_THE_START else record.step)),
                step=record.step,
                value=float(record.details.get("parameters", 1)),
                threshold=0.0,
                name=name,
                rank=hello.rank,
                evidence=dict(record.details),
            )
        ]

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        """Nothing is held back."""
        del gone
        return []

    def status(self) -> Status:
        if self._told:
            return Status("alarm")
        return Status("ok") if self._seen else Status("not_checked", "no event was seen")


class WrongMode:
    """Training goes on in evaluation mode, or evaluations run in training mode, where the mode makes a difference.

    Only models with dropout or batch normalisation are counted (hooks/modes.py). Training in evaluation mode counts
    when the same job has trained in training mode before: a net that is fine-tuned in evaluation mode on purpose does
    so from the start. Evaluations in training mode count when they come in bursts between many steps without any: the
    other net of an adversarial pair, a teacher or a policy at play is called in every step, and statistics of a batch
    norm are gathered once, at the end.

    Args:
        established: steps in training mode before.
        patience: steps that training must have gone on for in evaluation mode,
        samples: as seen in so many of them; where steps are short not each is looked at.
        burst: forwards without gradients between two steps that are an evaluation, or one of as many rows as so many
            batches have: a small validation set is often a single forward.
        bursts: of them, before it is certain.
        share: of the steps that may have such forwards.

    >>> detector = WrongMode()
    >>> for step in range(90):
    ...     mode = {"batch_items": [8.0]} if step < 60 else {"eval_mode_passes": [1.0]}
    ...     for finding in detector.update(Reading.of(step, backward_passes=[1.0], **mode)):
    ...         print(finding.step, finding.first_step, finding.evidence["relation"])
    79 60 left_in_evaluation_mode
    """

    kind: ClassVar[str] = "miswired"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = (
        "backward_passes",
        "batch_items",
        "eval_mode_passes",
        "train_mode_evaluations",
        "train_mode_items",
    )

    def __init__(
        self,
        *,
        established: int = 10,  # more than a dry run
        patience: int = 20,  # alternating phases (a probe, a frozen teacher) change sooner
        samples: int = 5,
        burst: int = 5,
        bursts: int = 2,
        share: float = 0.1,  # evaluating more often than every tenth step is no evaluation
    ) -> None:
        self.established, self.patience, self.samples = established, patience, samples
        self.burst, self.bursts, self.share = burst, bursts, share
        self._trained = np.zeros(0, dtype=np.uint8)
        """Steps in training mode, as far as they are counted."""
        self._taken = 0
        """Steps of the job, and how many of them there had been when a rank joined it."""
        self._joined = np.zeros(0, dtype=np.int32)
        """None of them while all have been there from the start."""
        self._batch = np.zeros(0, dtype=np.float32)
        """Rows of the largest training batch."""
        self._with = np.zeros(0, dtype=np.int32)
        """Steps with forwards in training mode and without gradients before them; this and what follows of ranks up to
        the last that has had any."""
        self._bursts = np.zeros(0, dtype=np.int32)
        self._first = np.full(0, -1, dtype=np.int32)
        self._streak = Streak()
        self._told: set[tuple[str, int]] = set()
        self._seen = False

    def update(self, reading: Reading) -> list[Finding]:
        """Take one step."""
        ranks = max(len(self._batch), subjects_of(reading, self.reads))
        if not ranks:
            return []
        self._grow(ranks)
        self._taken += 1
        self._seen = self._seen or bool(scalar(reading, "backward_passes", ranks)[1].any())
        return [*self._trains(reading, ranks), *self._evaluates(reading, ranks)]

    def status(self) -> Status:
        if self._told:
            return Status("alarm")
        return Status("ok") if self._seen else Status("not_checked", "no training step was seen")

    def _trains(self, reading: Reading, ranks: int) -> list[Finding]:
        batch, in_training = scalar(reading, "batch_items", ranks)
        np.fmax(self._batch, single(batch), out=self._batch)
        passes, wrong = scalar(reading, "eval_mode_passes", ranks)
        _, stepped = scalar(reading, "backward_passes", ranks)
        if np.count_nonzero(wrong):
            wrong = wrong & (passes > 0) & ~in_training & (self._trained >= self.established)
        self._trained += in_training & (self._trained < self.established)
        count = self._streak.update(reading.step, wrong, stepped)
        if not self._streak.holding:
            return []
        many = np.flatnonzero(count >= self.samples).tolist()
        long = [rank for rank in many if reading.step - self._streak.onset(rank) >= self.patience - 1]
        return [
            self._finding("left_in_evaluation_mode", reading.step, rank, self._streak.onset(rank), float(count[rank]))
            for rank in long
            if ("left_in_evaluation_mode", rank) not in self._told
        ]

    def _evaluates(self, reading: Reading, ranks: int) -> list[Finding]:
        forwards, sent = scalar(reading, "train_mode_evaluations", ranks)
        if not np.count_nonzero(sent):
            return []
        rows, _ = scalar(reading, "train_mode_items", ranks)
        here = sent & (forwards > 0)
        if not np.count_nonzero(here):
            return []
        self._with, self._bursts = grown(self._with, ranks), grown(self._bursts, ranks)
        self._first = grown(self._first, ranks, -1)
        self._with += here
        large = (self._batch > 0) & (rows >= self.burst * self._batch)
        fresh = here & ((forwards >= self.burst) | large)
        self._first[fresh & (self._bursts == 0)] = reading.step
        self._bursts += fresh
        certain = (
            fresh
            & (self._bursts >= self.bursts)
            & (self._with <= self.share * (self._taken - grown(self._joined, ranks)))
        )
        relation = "evaluated_in_training_mode"
        return [
            self._finding(relation, reading.step, rank, int(self._first[rank]), float(forwards[rank]))
            for rank in np.flatnonzero(certain).tolist()
            if (relation, rank) not in self._told
        ]

    def _finding(self, relation: str, step: int, rank: int, first: int, value: float) -> Finding:
        self._told.add((relation, rank))
        return Finding(
            kind=self.kind,
            severity="warning",
            first_step=first,
            step=step,
            value=value,
            threshold=float(self.patience if relation == "left_in_evaluation_mode" else self.burst),
            subject=rank,
            evidence={"relation": relation, "bursts": int(self._bursts[rank]) if len(self._bursts) > rank else 0},
        )

    def _grow(self, ranks: int) -> None:
        if ranks > len(self._batch):
            if self._taken:
                self._joined = grown(grown(self._joined, len(self._batch)), ranks, self._taken)
            self._trained, self._batch = grown(self._trained, ranks), grown(self._batch, ranks)
