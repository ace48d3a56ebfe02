"""NaN or Inf in the loss, or in a gradient that was applied."""

from typing import ClassVar

import numpy as np
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.scalars import Mask, grown, scalar, shortest, single, subjects_of

GRADIENTS = ("gradient_norm", "gradient_norm_unclipped", "gradient_norm_shard", "tripwire_norm")
LOOKED_AT = ("loss", *GRADIENTS)


class NonFinite:
    """The first non-finite loss or applied gradient of each rank; immediate, no second key.

    A step that the loss scaler skipped (``skipped_steps`` > 0) applied nothing: its overflow is how the scale is
    found, and only :class:`~torchvitals.detectors.loss_scale_collapse.LossScaleCollapse` minds it. NaN among
    the inputs alone is no finding either: jobs mask their missing values; it is evidence when the loss follows.

    ``critical`` when the weights take the gradient, ``error`` when only the loss was bad.

    >>> detector = NonFinite()
    >>> for step, loss in enumerate([0.9, 0.8, float("nan"), float("nan")]):
    ...     for finding in detector.update(Reading.of(step, loss=loss, gradient_norm=loss, skipped_steps=0)):
    ...         print(finding.first_step, finding.severity, finding.evidence["signals"])
    2 critical ['loss', 'gradient_norm']
    """

    kind: ClassVar[str] = "nonfinite"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("loss", *GRADIENTS, "skipped_steps", "input_nonfinite", "input_absmax")

    def __init__(self) -> None:
        self.fired = np.zeros(0, dtype=bool)
        self.last = np.zeros((2, 0), dtype=np.float32)
        """The last finite loss and gradient norm."""
        self.looked = False

    def update(self, reading: Reading) -> list[Finding]:
        subjects = max(len(self.fired), subjects_of(reading, self.reads))
        if subjects > len(self.fired):
            self.fired = grown(self.fired, subjects)
            self.last = grown(self.last.T, subjects, np.nan).T.copy()
        names = [name for name in LOOKED_AT if name in reading.values]
        if not names:
            return []
        sent = [scalar(reading, name, subjects) for name in names]
        values = np.array([each for each, _ in sent])
        finite = np.isfinite(values)
        calm = np.count_nonzero(finite) == finite.size
        found = []
        if not calm:
            bad = dict(zip(names, np.array([present for _, present in sent]) & ~finite, strict=True))
            found = self._tell(reading, bad) if any(np.count_nonzero(mask) for mask in bad.values()) else []
        self.looked = self.looked or calm or any(np.count_nonzero(present) for _, present in sent)
        for column, name in enumerate(LOOKED_AT[:2]):
            if name in names:
                row = names.index(name)
                np.copyto(self.last[column], single(values[row]), where=finite[row])
        return found

    def status(self) -> Status:
        if not self.looked:
            return Status("not_checked", "neither loss nor gradient norms were seen")
        return Status("alarm" if self.fired.any() else "ok")

    def _tell(self, reading: Reading, bad: dict[str, Mask]) -> list[Finding]:
        """The findings of those that applied what is not finite for the first time."""
        skipped, _ = scalar(reading, "skipped_steps", len(self.fired))
        any_bad = np.logical_or.reduce(list(bad.values())) & ~(skipped > 0)
        rows = np.flatnonzero(any_bad & ~self.fired)
        self.fired |= any_bad
        return [self._finding(int(row), reading, [name for name in bad if bad[name][row]]) for row in rows]

    def _finding(self, row: int, reading: Reading, names: list[str]) -> Finding:
        subjects = len(self.fired)
        dirty, told = scalar(reading, "input_nonfinite", subjects)
        weights_hit = any(name in GRADIENTS for name in names)
        value = float(scalar(reading, names[0], subjects)[0][row])
        return Finding(
            kind=self.kind,
            severity="critical" if weights_hit else "error",
            first_step=reading.step,
            step=reading.step,
            value=value,
            threshold=float(np.finfo(np.float32).max),
            subject=row,
            evidence={
                "signals": names,
                "loss_before": _plain(self.last[0, row]),
                "gradient_before": _plain(self.last[1, row]),
                "input_nonfinite": bool(dirty[row] > 0) if told[row] else None,
            },
        )


def _plain(value: np.float32) -> float | None:
    return shortest(value) if np.isfinite(value) else None
