"""Weights that shrink to nothing, in all layers alike: the decay pulls harder than the gradient."""

from typing import ClassVar

import numpy as np
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.scalars import grown


class VanishingWeights:
    """The median layer's weights are less than ``left`` of what they were at first, and got there little by little.

    No gradient does that: training moves weights away from where they began, and the decay that is usual in training
    (rate times decay of 1e-3 a step at the very most) settles where the gradient balances it, near a third of the
    start. Pruned, clamped and newly drawn weights change in one leap, and so does not count what came down by more than
    ``leap`` of the way between two samples.

    Args:
        left: of the norm at first. A net of which a thirtieth is left answers the same to everything.
        leap: share of the way, in logarithms, in one go.
        patience: samples in a row.

    >>> detector = VanishingWeights()
    >>> for step in range(0, 400, 20):
    ...     norms = [5.0 * 0.98**step, 3.0 * 0.98**step]
    ...     reading = Reading.of(step, parameter_weight_norm=norms, parameter_rows=[8.0, 8.0])
    ...     for finding in detector.update(reading):
    ...         print(finding.kind, finding.first_step, finding.step, round(finding.value, 3))
    vanishing 0 200 0.018
    """

    kind: ClassVar[str] = "vanishing"
    axis: ClassVar[DetectorAxis] = "parameter"
    reads: ClassVar[tuple[str, ...]] = ("parameter_weight_norm", "parameter_rows")

    def __init__(self, *, left: float = 0.03, leap: float = 0.5, patience: int = 2) -> None:
        self._left, self._leap, self._patience = left, leap, patience
        self._start = np.zeros(0)
        """Norm of each layer when it was first seen; NaN before."""
        self._last, self._count, self._largest = 1.0, 0, 0.0
        """Median share of what there was, samples below the limit in a row, and the largest leap in logarithms."""
        self._first = 0
        self._told = False
        self._seen = False

    def update(self, reading: Reading) -> list[Finding]:
        if self._told or not all(name in reading.values for name in self.reads):
            return []
        weight, rows = (np.where(reading.present[name], reading.values[name], np.nan) for name in self.reads)
        known = (weight > 0) & np.isfinite(weight) & (rows > 0)
        self._start = grown(self._start, len(weight), np.nan)
        fresh = known & np.isnan(self._start[: len(weight)])
        self._start[: len(weight)][fresh] = weight[fresh]
        if not known.any():
            return []
        if not self._seen:
            self._seen, self._first = True, reading.step
        share = float(np.median(weight[known] / self._start[: len(weight)][known]))
        self._largest = max(self._largest, float(np.log(self._last / share)))
        self._last = share
        self._count = self._count + 1 if share <= self._left else 0
        gradual = self._largest <= self._leap * -np.log(min(share, self._left))
        if self._count < self._patience or not gradual:
            return []
        self._told = True
        return [
            Finding(
                kind=self.kind,
                severity="error",
                first_step=self._first,
                step=reading.step,
                value=share,
                threshold=self._left,
                evidence={"signal": "weights", "layers": int(np.count_nonzero(known))},
            )
        ]

    def status(self) -> Status:
        if not self._seen:
            return Status("not_checked", "no layer with weights was seen")
        return Status("alarm") if self._told else Status("ok")
