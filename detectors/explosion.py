"""Loss and gradient grow out of all proportion to anything the run has shown."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.envelope import UNKNOWN, Crest, Envelope, Steepness, steepness_of
from torchvitals.detectors.loss_past import LAG, LossPast, past_of
from torchvitals.detectors.scalars import (
    LOSS,
    Floats,
    Losses,
    Mask,
    Reals,
    decades,
    grown,
    losses,
    magnitudes,
    scalar,
    subjects_of,
)

ENDLESS = np.array(np.inf)
LONE = 4.0
"""Decades by which losses of single rows differ: one squared normal number in a hundred is 10^-4."""


class Explosion:
    """Growth in decades beyond the largest loss and gradient ever seen, and no way back.

    A step is *elevated* when the loss is at least ``least`` decades above its envelope and loss and gradient
    together are ``decades`` above theirs. Two keys: how far, and for how long. It is certain when

    - ``persist`` of the last 8 steps are elevated, or
    - the loss grew by ``runaway`` decades in one step from an elevated one, or two steps in a row lie
      ``far`` decades out (nothing healthy does either), or
    - a value stops being finite within 3 steps of an elevated one, or
    - ``damage`` steps after an elevated one the median loss is still above all that was seen before.

    So one bad batch from which the job recovers is no explosion, nor is a gradient spike of a recurrent net. When
    the learning rate has just gone ``rate_jump`` times beyond anything before, the recent past is the
    reference instead of all of it: then even a return to an untrained loss counts.

    >>> detector = Explosion()
    >>> losses = [2.3, 2.1, 1.8, 1.5, 1.4, 1.2, 9.0, 400.0, 6e4, 1e9]
    >>> for step, loss in enumerate(losses):
    ...     for finding in detector.update(Reading.of(step, loss=loss, gradient_norm=loss)):
    ...         print(finding.kind, "certain at", finding.step, "since", finding.first_step)
    explosion certain at 8 since 6
    """

    kind: ClassVar[str] = "explosion"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = (
        "loss",
        "gradient_norm",
        "gradient_norm_unclipped",
        "tripwire_norm",
        "learning_rate",
        "skipped_steps",
        "batch_items",
    )

    def __init__(
        self,
        *,
        decades: float = 1.5,  # 30 times in loss × norm: healthy overshoots and curricula measured stay below
        least: float = 0.7,  # five times in the loss itself: a generator that is losing climbs by four
        least_jumped: float = 0.3,  # twice is enough where the learning rate has just jumped
        signed: float = 1.5,  # more decades for a loss that has been negative: around zero it has no scale
        unscaled: int = 32,  # losses to see first of such a one: an agent that has met no reward yet is near zero
        persist: int = 6,  # of 8: heavy-tailed noise exceeds its own maximum tenfold once, not six times
        runaway: float = 1.0,  # ten times more in a single step, from an elevated one
        far: float = 3.0,  # a thousand times beyond anything, twice in a row
        prompt: int = 10,  # steps of which at least one should be back to normal after a spike
        damage: int = 30,  # steps of which half should
        rate_jump: float = 3.0,  # warm-up slopes stay below; a wrong schedule does not
        known: int = 4,  # losses to see first, unless the growth is `far` or the batch is large enough
        lone: int = 16,  # losses to see first where batches are known to be a few rows
        items: int = 8,  # rows in a batch from which one loss is a fair sample of the losses to come
    ) -> None:
        self.decades, self.least, self.least_jumped, self.signed = decades, least, least_jumped, signed
        self.unscaled = unscaled
        self.persist = persist
        self.runaway, self.far = runaway, far
        self.prompt, self.damage = prompt, damage
        self.rate_jump, self.known, self.lone, self.items = np.log10(rate_jump), known, lone, items
        self.past = LossPast()
        self.envelope = Envelope()
        self.rates = Crest(1e-30, early=False)  # they are judged from LAG losses on
        self.gradients = Steepness()
        self.elevated = np.zeros(0, dtype=np.uint8)
        """Which of the last 8 steps were, one bit each: bit 0 is the newest. This and what follows while `stirred`."""
        self.last = np.zeros(0, dtype=np.float16)
        """Excess of the loss one step ago, where anything was noticed then."""
        self.spike = np.zeros(0, dtype=np.int32)
        """Step of the latest elevated loss, -1 while there is none, and log10 of the reference at the time."""
        self.level = np.zeros(0, dtype=np.float32)
        self.fired = np.zeros(0, dtype=bool)
        self.negative = np.zeros(0, dtype=bool)
        self.signs = False
        """Whether a loss of anybody has been negative."""
        self.tolerance = np.zeros(0, dtype=np.float16)
        """Decades between first losses that are still noise: few where the batch is large."""
        self.stirred = False
        """Whether the last steps decide on this one: something was elevated, or has left its mark."""

    def update(self, reading: Reading) -> list[Finding]:
        subjects = max(len(self.fired), subjects_of(reading, self.reads))
        self._grow(subjects)
        size = magnitudes(reading, subjects)
        self.past = past_of(reading, subjects, self.past)
        said = self._begun(losses(reading, subjects))
        self.gradients = steepness_of(reading, size, self.gradients)
        jumped, reference = self._jumped(reading, subjects), self.envelope.bound
        if jumped is not None:
            reference = np.where(jumped, self.envelope.recent_bound(self.seen), reference)
        height = size.heights[LOSS] - reference
        if said.negative is not None:
            self.signs = True
            unscaled = said.negative & ~self.negative & (self.seen < self.unscaled)
            if self.stirred:  # what stood out so far was measured on a scale that there is not
                self.spike[unscaled], self.level[unscaled] = -1, np.inf
            self.negative |= said.negative
        if self.signs:
            with np.errstate(invalid="ignore"):  # what is infinite and not to be judged
                height -= self._allowed()
        if self.envelope.young:
            self._sample(reading, subjects)
        found = []
        if self.stirred or np.count_nonzero(height >= self._noticed):
            found = self._look(reading, said, height, reference, jumped)
        self.envelope.add(self.past, self.tolerance)
        return found

    def status(self) -> Status:
        if not len(self.fired):
            return Status("not_checked", "no loss was seen")
        if self.fired.any():
            return Status("alarm")
        seen = self.past.known
        if (seen < self.known).all():
            return Status("warming_up", f"{int(seen.max())} of {self.known} losses seen")
        return Status("ok")

    def _grow(self, subjects: int) -> None:
        if subjects <= len(self.fired):
            return
        for envelope in (self.envelope, self.rates):
            envelope.grow(subjects)
        self.fired, self.negative = grown(self.fired, subjects), grown(self.negative, subjects)
        self.tolerance = grown(self.tolerance, subjects, 2.0)
        if self.stirred:
            self._make_room(subjects)

    def _make_room(self, subjects: int) -> None:
        """For what an elevated step is followed by."""
        self.elevated, self.last = grown(self.elevated, subjects), grown(self.last, subjects, -np.inf)
        self.spike, self.level = grown(self.spike, subjects, -1), grown(self.level, subjects, np.inf)

    def _allowed(self) -> Floats:
        """Decades that a loss may rise as it has been negative: around zero it has no scale, least of all early."""
        early = self.seen < self.unscaled
        return np.where(self.negative, np.where(early, np.inf, self.signed), 0.0)

    @property
    def seen(self) -> NDArray[np.int32]:
        """Losses before this one."""
        return self.past.before

    @property
    def _noticed(self) -> float:
        """Below this height nothing is elevated."""
        return min(self.least, self.least_jumped, self.far)

    def _jumped(self, reading: Reading, subjects: int) -> Mask | None:
        """Whose learning rate has just gone far beyond anything before; None where nobody's has."""
        rate, _ = scalar(reading, "learning_rate", subjects)
        height = decades(rate).astype(np.float32)
        beyond = height - self.rates.bound > self.rate_jump
        jumped = None
        if np.count_nonzero(beyond):
            jumped = beyond & (rate > 0) & (self.seen >= LAG)
        self.rates.add(height, height < ENDLESS)
        return jumped

    def _begun(self, said: Losses) -> Losses:
        """Without zeros before any other loss (a student that starts as its own teacher): they have no scale."""
        zero = self.past.leading
        return said if zero is None else said._replace(sent=said.sent & ~zero, usable=said.usable & ~zero)

    def _sample(self, reading: Reading, subjects: int) -> None:
        """How fair a sample of the losses to come one loss is."""
        items, sent = scalar(reading, "batch_items", subjects)
        few = np.where(items >= self.items, self.least_jumped, LONE)
        np.copyto(self.tolerance, few, where=sent)

    @np.errstate(invalid="ignore")  # non-finite values are data here
    def _look(
        self, reading: Reading, said: Losses, height: Floats, reference: Reals, jumped: Mask | None
    ) -> list[Finding]:
        """Judge a step at which something is noticed, or which something noticed decides on."""
        loss, present = said.values, said.sent
        self._make_room(len(loss))
        jumped = np.zeros(len(loss), dtype=bool) if jumped is None else jumped
        height = np.where(np.isnan(loss) | (reference == UNKNOWN), np.nan, height)  # exceeds nothing
        broken = present & ~np.isfinite(loss)
        high = self._high(height, jumped)
        certain = self._certain(reading.step, present, high, height, broken) & ~self.fired
        found = [self._finding(int(row), reading, loss, reference) for row in np.flatnonzero(certain)]
        self.fired |= certain
        self._remember(reading.step, present, high, height, (reference, jumped))
        return found

    def _high(self, height: Floats, jumped: Mask) -> Mask:
        """Which subjects are elevated at this step."""
        tolerance, known = self.tolerance, self.seen
        trusted = tolerance < 1
        young = ~trusted & (known < LAG)  # a few single rows: as good as no past
        alone = jumped & (height >= self.least)
        steepness = height + np.fmax(self.gradients.decades, 0)
        both = steepness >= np.where(young, self.decades + self.signed, self.decades)
        high = alone | (both & (height >= np.where(jumped, self.least_jumped, self.least)))
        fair = known >= np.where(trusted, 1, np.where(tolerance > self.far, self.lone, self.known))
        elevated: Mask = high & (fair | (height >= np.where(tolerance > self.far, 2 * self.far, self.far)))
        return elevated

    def _certain(self, step: int, present: Mask, high: Mask, height: Floats, broken: Mask) -> Mask:
        finite = present & np.isfinite(height)
        lasting = high & (np.unpackbits(self.elevated[:, None], axis=1).sum(axis=1) + 1 >= self.persist)
        recent = self.elevated & 0b111 > 0
        runaway = high & (self.elevated & 1 > 0) & (height >= self.last + self.runaway)
        far = (height >= self.far) & (self.last >= self.far)
        certain: Mask = (finite & (lasting | runaway | far)) | (broken & recent) | self._damaged(step, finite)
        return certain

    def _damaged(self, step: int, finite: Mask) -> Mask:
        """Where a spike left its mark: nothing since came back to what was normal, or the median did not."""
        age = step - self.spike
        due = np.flatnonzero(finite & (self.spike >= 0) & ((age == self.prompt) | (age == self.damage)))
        damaged = np.zeros(len(finite), dtype=bool)
        for row in due.tolist():
            newest = self.past.of(row, LAG, skip=1)
            dates = np.array(self.past.dates(row, LAG + 1)[:-1], dtype=np.int64)
            after = decades(newest[LAG - len(dates) :][dates > self.spike[row]])
            if len(after) >= self.prompt // 2:
                lowest = np.min(after) if age[row] == self.prompt else np.median(after)
                damaged[row] = lowest > self.level[row]
        return damaged

    def _remember(self, step: int, present: Mask, high: Mask, height: Floats, state: tuple[Reals, Mask]) -> None:
        reference, jumped = state
        rows = np.flatnonzero(present)
        self.elevated[rows] = self.elevated[rows] << 1 | high[rows]
        # A spike says something of the steps after it when nothing preceded it or a long past did: in between, the
        # envelope is still that of a few losses, and a policy or a heavy tail finds its scale by leaps.
        known = self.seen
        judged = (known <= 3) | (known >= 2 * LAG) | jumped
        fresh = present & high & judged & (height >= self.runaway)
        first = fresh & ~((self.spike >= 0) & (step - self.spike <= self.damage))
        # One loss or three are no sample of several tasks by turns: of those, the first may have the smallest loss.
        few = np.where(known <= 3, self.least_jumped, 0.0)
        self.level[first] = (reference + few)[first]
        self.spike[fresh] = step
        marked = (self.spike >= 0) & (step - self.spike < self.damage)
        np.copyto(self.last, height.astype(np.float16), where=present & np.isfinite(height))
        self.stirred = bool(self.elevated.any() or marked.any() or (self.last >= self._noticed).any())
        if not self.stirred:
            self.elevated, self.last = self.elevated[:0].copy(), self.last[:0].copy()
            self.spike, self.level = self.spike[:0].copy(), self.level[:0].copy()

    def _finding(self, row: int, reading: Reading, loss: Floats, reference: Reals) -> Finding:
        level = min(float(reference[row]), float(self.level[row]))
        heights, dates = decades(self.past.of(row, LAG)), self.past.dates(row, LAG)
        above = heights[LAG - len(dates) :] > level + self.least_jumped
        onset = int(np.array(dates)[above].min(initial=reading.step))
        peak = float(np.nanmax(heights, initial=-np.inf))
        value, steep = float(loss[row]), float(self.gradients.decades[row])
        return Finding(
            kind=self.kind,
            severity="critical",
            first_step=onset,
            step=reading.step,
            value=value,
            threshold=float(10 ** (level + self.least_jumped)),
            subject=row,
            evidence={
                "signal": "loss",
                "largest_before": float(10**level),
                "peak": value if value > 10**peak else float(10**peak),
                "gradient_decades": steep if abs(steep) < UNKNOWN / 2 else None,
                "finite": bool(np.isfinite(value)),
            },
        )
