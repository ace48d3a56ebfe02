"""The newest and the largest learning rate of every rank, kept once for all detectors that look at them."""

import numpy as np
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.scalars import Singles, grown, rates


class RatePast:
    """Magnitudes as they were last told: a step that is only counted does not tell its own.

    >>> past = RatePast()
    >>> for step, rate in enumerate((0.1, 0.3, float("nan"), 0.2)):
    ...     past.take(Reading.of(step, learning_rate=rate), 1)
    >>> past.newest.tolist(), past.highest.tolist()
    ([0.20000000298023224], [0.30000001192092896])
    """

    def __init__(self) -> None:
        self.newest: Singles = np.zeros(0, dtype=np.float32)
        """NaN before any."""
        self.highest: Singles = np.zeros(0, dtype=np.float32)

    def take(self, reading: Reading, subjects: int) -> None:
        """Take a reading, of which several detectors may tell; the first one counts."""
        key = "rates taken", id(self)
        if key in reading.memo:
            return
        reading.memo[key] = self
        self.newest, self.highest = grown(self.newest, subjects, np.nan), grown(self.highest, subjects)
        rate, told = rates(reading, subjects)
        np.copyto(self.newest[: len(rate)], rate, where=told)
        np.fmax(self.highest[: len(rate)], rate, out=self.highest[: len(rate)])


def rates_of(reading: Reading, subjects: int, own: RatePast) -> RatePast:
    """Those of this job with that of this reading: those that its detectors share, or a detector's own."""
    past: RatePast = own if reading.shared is None else reading.shared.setdefault("rates", own)
    past.take(reading, subjects)
    return past
