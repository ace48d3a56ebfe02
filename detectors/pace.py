"""Pace: a job's own passes as a clock, by which a slow job is told from a crowded machine."""

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.block_statistics import Floats, Mask, row_median
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.scalars import grown, scalar, worked

KEPT = 4
"""Timed passes of each rank that are kept, the newest."""
KNOWN = 3
"""Timed passes since steps became slow, that tell how fast the machine is now. Light steps time none: of steps of a few
milliseconds the hooks time one in 25 to 50, and no block of 20 has as many."""
PATIENCE = 10
"""Blocks that such passes are waited for; a job that times none is measured by the load alone."""
SELDOM = 4
"""Where every step is timed, of so many one is taken: in turns, to spread the work."""
FOLLOWED = 8
"""Ordinary blocks over which the usual time of the passes is taken."""
UNHINDERED = 1.5
"""Times the usual that passes may take on a machine that does not slow the job down: after a wait of 30 ms the caches
are cold, and the passes of a model of 0.7 ms took 1.0 to 1.4 times as long."""
LONGEST = np.array(6e4)
"""Seconds; more is a broken number, and float16 ends there."""


class Pace:
    """Forward and backward do the same work as ever: how much longer they take is how much slower the machine is.

    Args:
        contended: runnable tasks by core, above which the machine may be what is slow.

    >>> pace = Pace(contended=1.5)
    >>> pace.grow(1)
    >>> for step in range(40):
    ...     slower = 1.0 if step < 20 else 3.0
    ...     work = {"forward_seconds": [0.01 * slower], "backward_seconds": [0.02 * slower]}
    ...     pace.take(Reading.of(step, machine_load=[2.0], **work), step)
    ...     pace.follow(slice(None), np.array([step < 20]))
    >>> pace.ratio(slice(None)).round(2).tolist()
    [3.0]

    """

    def __init__(self, *, contended: float) -> None:
        self.contended = contended
        self._work = np.full((KEPT, 0), np.nan, dtype=np.float16)
        """Seconds of the newest passes that were timed, oldest first."""
        self._usual = np.full(0, np.nan, dtype=np.float16)
        """Their median in an ordinary block, followed slowly."""
        self._fresh = np.zeros(0, dtype=np.uint8)
        """How many have been timed since the last ordinary block, as far as they are counted."""
        self._load = np.zeros(0, dtype=np.float16)
        """Newest load of each rank's machine; 0 while nobody told it."""
        self._all = False
        """Whether everybody's were timed in the newest step."""

    def take(self, reading: Reading, place: int) -> None:
        """Take one step, the ``place``-th of its block."""
        ranks = len(self._load)
        if "machine_load" in reading.values:
            load, told = scalar(reading, "machine_load", ranks)
            np.copyto(self._load, np.clip(load, 0.0, LONGEST).astype(np.float16), where=told & np.isfinite(load))
        before, self._all = self._all, False
        if "forward_seconds" not in reading.values and "backward_seconds" not in reading.values:
            return
        work = worked(reading, ranks, LONGEST)
        timed = work > 0
        self._all = bool(timed.all())
        which = slice(place % SELDOM, None, SELDOM) if before and self._all else np.flatnonzero(timed)
        self._work[:-1, which] = self._work[1:, which]
        self._work[-1, which] = work[which]
        self._fresh[which] = np.minimum(self._fresh[which], KNOWN) + 1

    def ratio(self, turn: slice) -> Floats:
        """How many times longer the same work takes than it did, 1 at least; NaN while that is not known."""
        ratio = row_median(self._work[:, turn].T.astype(np.float32)) / self._usual[turn]  # both above 0, or NaN
        return np.where((self._fresh[turn] >= KNOWN) & (ratio > 0), np.maximum(ratio, 1.0), np.nan)

    def crowded(self, turn: slice) -> Mask:
        """On whose machine more tasks want each core than the job can have brought along."""
        crowded: Mask = self._load[turn] > self.contended
        return crowded

    def follow(self, turn: slice, ordinary: Mask) -> None:
        """Take the newest passes of those whose block was ``ordinary`` into the usual ones.

        Of the blocks after it only those tell that are still to be timed.
        """
        work, usual = row_median(self._work[:, turn].T.astype(np.float32)), self._usual[turn]
        mixed = np.where(np.isnan(usual), work, usual + (work - usual) / FOLLOWED).astype(np.float16)
        self._usual[turn] = np.where(ordinary & np.isfinite(work), mixed, usual)
        self._fresh[turn] = np.where(ordinary, 0, self._fresh[turn])

    def forget(self, ranks: NDArray[np.intp]) -> None:
        """Their passes do other work from now on."""
        self._work[:, ranks] = np.nan
        self._usual[ranks], self._fresh[ranks] = np.nan, 0

    def grow(self, ranks: int) -> None:
        """Make room for new ranks."""
        nan = float("nan")
        self._work, self._usual = grown(self._work.T, ranks, nan).T.copy(), grown(self._usual, ranks, nan)
        self._fresh, self._load = grown(self._fresh, ranks), grown(self._load, ranks)
