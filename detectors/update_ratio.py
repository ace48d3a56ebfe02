"""How far a step moves the weights, relative to their size: so little that nothing is learned, or far too much.

A ratio ‖Δw‖/‖w‖ near 1e-3 is usual, but anything from 1e-6 (fine-tuning) to 1e-1 (a start with Adam) is healthy,
and it falls with the gradient as a job converges. So the small end is judged by the *step taken per gradient*,
which convergence leaves alone, and the large end only where weights are replaced rather than adjusted.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.streak import Streak

Floats = NDArray[np.float64]


class UpdateRatio:
    """Even the fastest layer's update is nothing next to its weights, or the median one is as large as they are.

    Args:
        low: ratio under which a step changes nothing: float32 rounds at 6e-8 of a weight.
        high: ratio from which weights are replaced. A first step from zero has 1 in its own layer, not in most.
        least_layers: layers that must have been measured for *most* to mean anything: a model of one layer that
            starts near zero is replaced by its first steps, as it should be.
        collapse: fall of the step per gradient, against its largest median so far, that counts as a fault.
        patience: samples in a row.
        quiet: share of the steps so far that a low ratio must last: schedules end near zero.

    >>> detector = UpdateRatio()
    >>> for step in range(10):
    ...     for finding in detector.update(Reading.of(step, parameter_update_norm=[1e-10, 2e-10],
    ...         parameter_weight_norm=[1.0, 1.0], parameter_gradient_norm=[1.0, 2.0], parameter_rows=[8, 8])):
    ...         print(finding.step, finding.first_step, finding.value)
    4 0 2e-10
    """

    kind: ClassVar[str] = "update_ratio"
    axis: ClassVar[DetectorAxis] = "parameter"
    reads: ClassVar[tuple[str, ...]] = (
        "parameter_update_norm",
        "parameter_weight_norm",
        "parameter_gradient_norm",
        "parameter_rows",
    )

    def __init__(
        self,
        *,
        low: float = 1e-8,
        high: float = 0.5,
        least_layers: int = 3,
        collapse: float = 1e-3,
        patience: int = 5,
        high_patience: int = 3,
        quiet: float = 0.25,
    ) -> None:
        self._low = low
        self._high = high
        self._least_layers = least_layers
        self._collapse = collapse
        self._patience = patience
        self._high_patience = high_patience
        self._quiet = quiet
        self._largest_rate = 0.0
        self._low_streak = Streak()
        self._high_streak = Streak()
        self._told: set[str] = set()
        self._samples = 0

    def update(self, reading: Reading) -> list[Finding]:
        if not all(name in reading.values for name in self.reads):
            return []
        change, weight, gradient, rows = (np.where(reading.present[n], reading.values[n], np.nan) for n in self.reads)
        known = np.isfinite(change) & np.isfinite(rows) & (gradient > 0) & np.isfinite(gradient) & (weight > 0)
        if not known.any():
            return []
        self._samples += 1
        ratios = change[known] / weight[known]
        fastest, usual = float(ratios.max()), float(np.median(ratios))
        rate = float(np.median(change[known] / gradient[known]))
        first = self._samples == 1
        fallen = first or rate <= self._collapse * self._largest_rate or self._low_streak.count[0] == self._samples - 1
        self._largest_rate = max(self._largest_rate, rate)
        looked = np.array([True])
        low = self._low_streak.update(reading.step, np.array([0 < fastest <= self._low and fallen]), looked)[0]
        replaced = usual >= self._high and len(ratios) >= self._least_layers
        high = self._high_streak.update(reading.step, np.array([replaced]), looked)[0]
        if high >= self._high_patience and "high" not in self._told:
            return [self._finding("high", reading.step, usual, rate)]
        began = self._low_streak.onset(0)
        if low >= self._patience and reading.step - began >= self._quiet * began and "low" not in self._told:
            return [self._finding("low", reading.step, fastest, rate)]
        return []

    def _finding(self, side: str, step: int, ratio: float, rate: float) -> Finding:
        self._told.add(side)
        return Finding(
            kind=self.kind,
            severity="warning",
            first_step=(self._high_streak if side == "high" else self._low_streak).onset(0),
            step=step,
            value=ratio,
            threshold=self._high if side == "high" else self._low,
            evidence={"side": side, "step_per_gradient": rate, "largest_step_per_gradient": self._largest_rate},
        )

    def status(self) -> Status:
        if not self._samples:
            return Status("not_checked", "no update of a layer with weights was measured")
        if self._told:
            return Status("alarm")
        missing = self._patience - self._samples
        return Status("warming_up", f"{missing} more samples needed") if missing > 0 else Status("ok")
