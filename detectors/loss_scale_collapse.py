"""Mixed precision that can no longer find a loss scale: it falls and falls, and steps are skipped."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.ring import Ring
from torchvitals.detectors.scalars import ZERO, Floats, Mask, grown, scalar, shortest, single, subjects_of

ROUNDED = 1 / 128
"""Share by which the upper half of a float32 may lie below it."""
MOST_SKIPS = 1 << 14
"""Skips in a row, and non-finite losses among them, that are counted."""
BLOCKS = 8
"""In which scales are kept, one of each: the oldest is one to seven attempts younger than the window is long."""


class LossScaleCollapse:
    """Skipped steps that are more than the search for a scale.

    A scaler begins too high (65536), halves at each overflow, doubles after 2000 good steps: a handful of skips at
    the start and one now and then are how it works. It has collapsed when

    - the scale is below ``floor`` and at most 1/16 of what it began with: fp16 gradients overflow unscaled; or
    - ``storm`` attempts in a row were skipped: from 65536 down to 1 takes 16; or
    - of the last ``window`` attempts a share ``often`` was skipped while the scale fell to a quarter or less:
      a short growth interval skips often too, around a scale that stays.

    >>> detector = LossScaleCollapse()
    >>> scale = 65536.0
    >>> for step in range(40):
    ...     skipped = step >= 10
    ...     for finding in detector.update(Reading.of(step, loss_scale=scale, skipped_steps=skipped)):
    ...         print(finding.first_step, finding.step, finding.value)
    ...     scale /= 2 if skipped else 1
    10 27 0.5
    """

    kind: ClassVar[str] = "loss_scale_collapse"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("loss_scale", "skipped_steps", "loss")

    def __init__(
        self,
        *,
        floor: float = 1.0,  # below it the scale shrinks gradients, the opposite of its purpose
        storm: int = 20,  # attempts in a row
        window: int = 50,  # attempts over which the share is taken; 64 at most
        often: float = 0.3,  # growth intervals of 3 and more skip less
        quiet: int = 20,  # good steps that end one episode of skips
    ) -> None:
        self.floor, self.storm, self.window = floor, storm, window
        self.often, self.quiet = often, quiet
        self.fired = np.zeros(0, dtype=bool)
        self.row = np.zeros(0, dtype=np.int16)
        """Skips in a row."""
        self.began = np.zeros(0, dtype=np.int32)
        """Step of the first skip of this episode."""
        self.first = np.zeros(0, dtype=np.uint16)
        """The first scale; 0 before it."""
        self.scales = Ring(BLOCKS, np.uint16, fill=0, each=window // (BLOCKS - 1), modest=True)
        """Upper halves of float32: powers of two are exact, others to 1 %."""
        self.skips = np.zeros(0, dtype=np.uint64)
        """Of the newest attempts, one bit each: bit 0 is the newest."""
        self.skipping = False
        """Whether there are any."""
        self.fresh = False
        """Whether somebody may have sent no scale so far."""
        self.broken = np.zeros(0, dtype=np.int16)
        """Skipped attempts of this episode whose loss was not finite: the overflow is in the forward pass."""

    def update(self, reading: Reading) -> list[Finding]:
        if "loss_scale" not in reading.values:
            return []
        subjects = max(len(self.fired), subjects_of(reading, self.reads[:2]))
        self._grow(subjects)
        scale, scaled = scalar(reading, "loss_scale", subjects)
        skipped, _ = scalar(reading, "skipped_steps", subjects)
        if self.fresh:
            np.copyto(self.first, _upper(scale), where=scaled & (self.first == 0))
            self.fresh = bool((self.first == 0).any())
        skip = scaled & (skipped > ZERO)
        if not np.count_nonzero(skip):
            self.row[scaled] = 0
            self._remember(scale, skip, scaled)
            return []
        self.row[scaled & ~skip] = 0
        collapsed = self._skipped(reading, scale, skipped, skip)
        self._remember(scale, skip, scaled)
        return [self._finding(int(row), reading.step, float(scale[row])) for row in np.flatnonzero(collapsed)]

    def status(self) -> Status:
        if not self.scales.count.any():
            return Status("not_checked", "the job uses no loss scaler")
        return Status("alarm" if self.fired.any() else "ok")

    def _skipped(self, reading: Reading, scale: Floats, skipped: Floats, skip: Mask) -> Mask:
        """Count the skips of this step, and judge them: where the scale has collapsed."""
        loss, sent = scalar(reading, "loss", len(scale))
        newest = np.uint64((1 << self.quiet) - 1)
        fresh = skip & ((self.skips & newest == 0) | (self.began < 0))
        self.began[fresh] = reading.step
        self.broken[fresh] = 0
        self.broken += skip & sent & ~np.isfinite(loss) & (self.broken < MOST_SKIPS)
        self.row[skip] = np.clip(self.row[skip] + np.minimum(skipped[skip], MOST_SKIPS), 0, MOST_SKIPS)
        collapsed: Mask = skip & (self.row > 0) & self._collapsed(scale, skip) & ~self.fired
        self.fired |= collapsed
        return collapsed

    def _collapsed(self, scale: Floats, skip: Mask) -> Mask:
        low = (scale < self.floor) & (scale <= (1 + ROUNDED) * _whole(self.first) / 16)
        storm = self.row >= self.storm
        share = (self._skips(np.arange(len(scale))) + skip) / (self.window + 1)
        count = self.scales.count
        oldest = self.scales.values[(count // self.scales.each + 1) % BLOCKS, np.arange(len(scale))]
        quarter = _whole(oldest) / 4
        falling = (count >= self.window) & (share >= self.often) & (scale <= (1 + ROUNDED) * quarter)
        collapsed: Mask = low | storm | falling
        return collapsed

    def _remember(self, scale: Floats, skip: Mask, scaled: Mask) -> None:
        rows = self.scales.add(_upper(scale), scaled)
        if self.skipping or np.count_nonzero(skip):
            self.skips[rows] = self.skips[rows] << np.uint64(1) | skip[rows]
            self.skipping = bool(self.skips.any())

    def _skips(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """How many of the window's attempts were skipped."""
        bits = self.skips[rows, None] >> np.arange(self.window, dtype=np.uint64) & np.uint64(1)
        return np.asarray(bits.sum(axis=1), dtype=np.int64)

    def _grow(self, subjects: int) -> None:
        if subjects <= len(self.fired):
            return
        self.fresh = True
        self.scales.grow(subjects)
        self.skips = grown(self.skips, subjects)
        self.fired, self.row, self.first = (grown(state, subjects) for state in (self.fired, self.row, self.first))
        self.began, self.broken = grown(self.began, subjects, -1), grown(self.broken, subjects)

    def _finding(self, row: int, step: int, scale: float) -> Finding:
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=int(self.began[row]),
            step=step,
            value=scale,
            threshold=self.floor,
            subject=row,
            evidence={
                "first_scale": shortest(_whole(self.first[row : row + 1])[0]),
                "skips_in_a_row": int(self.row[row]),
                "skips_in_window": int(self._skips(np.array([row]))[0]),
                "nonfinite_losses": int(self.broken[row]),
            },
        )


def _upper(scale: Floats) -> NDArray[np.uint16]:
    """The upper halves of scales as float32."""
    return np.asarray(single(scale).view(np.uint32) >> 16, dtype=np.uint16)


def _whole(upper: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (upper.astype(np.uint32) << 16).view(np.float32)
