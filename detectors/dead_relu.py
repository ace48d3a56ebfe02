"""Units that have stopped: their output, and so every gradient of theirs, is exactly zero for every sample.

A ReLU that is negative for all inputs passes no gradient and never comes back (Maas et al., "Rectifier
nonlinearities improve neural network acoustic models", ICML 2013; Lu et al., "Dying ReLU and initialization",
arXiv 1903.06733). A healthy ReLU layer is half to nine tenths zero, so shares of zeros say nothing: the signals
read here are shares of *units* that have been silent for improbably long, each given its own past.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.streak import Streak

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


class _Silent:
    """Which subjects have lost most of their units, and since when; shared by both axes.

    Args:
        share: of the units must be silent. Layers of healthy small nets lose up to 60 % at a high learning rate.
        rise: above the lowest share in this run, of silent units or of zeros: a net pruned to 10 % is born silent.
        from_start: a share that was never lower than ``share`` must be this high to count without a rise.
        patience: samples in a row, on top of the three that the signal itself waits for. One is enough when *all*
            units are silent.
        start_patience: the same for a layer that was never seen alive.
    """

    def __init__(self, share: float, rise: float, from_start: float, patience: int, start_patience: int) -> None:
        self._share = share
        self._rise = rise
        self._from_start = from_start
        self._patience = patience
        self._start_patience = start_patience
        self.floor = np.empty(0)
        self._sparsest = np.empty(0)
        """The lowest share of zeros so far: a sparse layer is no dead one, and its death is dated by more of them."""
        self.zeros = Streak()
        self._risen = Streak()
        self._born = Streak()

    def update(self, step: int, silent: NDArray[np.float64], zero: NDArray[np.float64], known: Bools) -> Bools:
        """The subjects of which it is certain now. ``zero`` is the share at this sample alone, for the onset."""
        self.floor = np.pad(self.floor, (0, len(silent) - len(self.floor)), constant_values=np.inf)
        lowest = np.fmin(np.where(known, silent, np.inf), np.where(np.isfinite(zero), zero, np.inf))
        self.floor = np.minimum(self.floor, lowest)
        floor = np.where(np.isfinite(self.floor), self.floor, 1.0)
        self._sparsest = np.pad(self._sparsest, (0, len(zero) - len(self._sparsest)), constant_values=np.inf)
        self._sparsest = np.fmin(self._sparsest, zero)
        halfway = (1.0 + np.where(np.isfinite(self._sparsest), self._sparsest, 0.0)) / 2
        mute = self._sparsest >= self._from_start
        self.zeros.update(
            step, zero >= np.where(mute, self._share, np.maximum(self._share, halfway)), np.isfinite(zero)
        )
        risen = self._risen.update(step, (silent >= self._share) & (silent - floor >= self._rise), known)
        risen = np.where((silent >= 1.0) & (risen > 0), self._patience, risen)
        born = self._born.update(step, (silent >= self._from_start) & (floor >= self._share), known)
        return known & ((risen >= self._patience) | (born >= self._start_patience))

    def born(self, subject: int) -> bool:
        """Whether it was silent from the start."""
        return bool(self.floor[subject] >= self._share)

    def onset(self, subject: int, step: int) -> int:
        """Where its zeros began; ``step`` when they come and go."""
        return self.zeros.onset(subject) if self.zeros.count[subject] else step

    def alive_at(self, subject: int, step: int) -> int:
        """The last sample at which most of its units spoke; -1 when there was none."""
        return self.zeros.missed(subject) if self.zeros.count[subject] else step


class DeadReluByGradient:
    """Layers whose units get no gradient any more: sees functional and compiled ReLUs, too.

    The hooks send shares only for layers at which a gradient arrives from behind, so a layer that is silent
    because a later one is dead is not named. A layer that is silent altogether counts only if what follows it
    was fed nothing but zeros (its weight gradient is exactly zero): otherwise it is a branch that was not used.
    Where the next gradient is a millionth of the largest, gradients have vanished by underflow.

    Args:
        share, rise, from_start, patience, start_patience: see :class:`_Silent`.
        few: a layer with fewer rows is judged only when all of them have fallen silent: squeeze layers of four units
            may be born dead in a healthy net.
        underflow: the gradient heard behind a silent layer must be at least this share of the largest one.

    Units that die between samples 3 and 4 are reported once silent for three samples, twice in a row:

    >>> detector = DeadReluByGradient()
    >>> for step in range(10):
    ...     silent, zero = (0.9, 0.9) if step >= 6 else (0.0, 0.9 * (step >= 4))
    ...     found = detector.update(Reading.of(step, parameter_silent_rows=[0.0, silent, 0.0], parameter_rows=[8, 8, 8],
    ...         parameter_zero_rows=[0.1, zero, 0.1], parameter_gradient_norm=[1.0, 0.1, 1.0]))
    ...     for finding in found:
    ...         print(finding.step, finding.subject, finding.first_step, finding.value)
    7 1 4 0.9
    """

    kind: ClassVar[str] = "dead_relu"
    axis: ClassVar[DetectorAxis] = "parameter"
    reads: ClassVar[tuple[str, ...]] = (
        "parameter_silent_rows",
        "parameter_zero_rows",
        "parameter_rows",
        "parameter_gradient_norm",
    )

    def __init__(
        self,
        *,
        share: float = 0.8,
        rise: float = 0.3,
        from_start: float = 0.95,
        patience: int = 2,
        start_patience: int = 2,
        few: int = 8,
        underflow: float = 1e-6,
    ) -> None:
        self._silent = _Silent(share, rise, from_start, patience, start_patience)
        self._share = share
        self._few = few
        self._underflow = underflow
        self._told: set[int] = set()
        self._samples = 0

    def update(self, reading: Reading) -> list[Finding]:
        if not all(name in reading.values for name in self.reads):
            return []
        silent, zero, rows, norm = (np.where(reading.present[n], reading.values[n], np.nan) for n in self.reads)
        known = np.isfinite(silent)
        self._samples += bool(known.any())
        certain = self._silent.update(reading.step, np.where(known, silent, 0.0), zero, known)
        found = []
        for layer in (int(i) for i in np.flatnonzero(certain) if int(i) not in self._told):
            if self._blocks(layer, silent, rows, norm):
                self._told.add(layer)
                found.append(self._finding(reading.step, layer, silent, rows, norm))
        return found

    def _blocks(self, layer: int, silent: Floats, rows: Floats, norm: Floats) -> bool:
        """Whether the silence is the layer's own doing."""
        following = np.flatnonzero(np.isfinite(rows[layer + 1 :])) + layer + 1
        if not len(following):
            return bool(silent[layer] < 1.0 and rows[layer] >= self._few)
        end = following[1] if len(following) > 1 else len(norm)
        audible = not _largest(norm[following[0] : end]) <= self._underflow * _largest(norm)
        if silent[layer] >= 1.0 and norm[following[0]] != 0:
            return False
        alive_before = silent[layer] >= 1.0 and not self._silent.born(layer)
        return audible and bool(alive_before or rows[layer] >= self._few)

    def _finding(self, step: int, layer: int, silent: Floats, rows: Floats, norm: Floats) -> Finding:
        before = np.isfinite(rows[: layer + 1]) & (norm[: layer + 1] == 0)
        evidence = {
            "silent_units": round(float(silent[layer] * rows[layer])),
            "units": int(rows[layer]),
            "lowest_share": float(self._silent.floor[layer]),
            "from_start": self._silent.born(layer),
            "alive_at": self._silent.alive_at(layer, step),
            "layers_without_gradient": int(np.count_nonzero(before)),
        }
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=self._silent.onset(layer, step),
            step=step,
            value=float(silent[layer]),
            threshold=self._share,
            subject=layer,
            evidence=evidence,
        )

    def status(self) -> Status:
        return _status(self._samples, bool(self._told), "no layer whose rows are units was seen")


class DeadReluByOutput:
    """ReLU modules whose units put out nothing but zeros, from statistics of their outputs.

    Args:
        share, rise, from_start, patience, start_patience: see :class:`_Silent`.

    >>> detector = DeadReluByOutput()
    >>> for step in (0, 10, 20, 30, 40):
    ...     dead = 1.0 if step >= 20 else 0.05
    ...     reading = Reading.of(step, module_silent_units=[0.0, dead], module_zero_share=[0.5, dead])
    ...     for finding in detector.update(reading):
    ...         print(finding.step, finding.subject, finding.first_step, finding.value)
    20 1 15 1.0
    """

    kind: ClassVar[str] = "dead_relu"
    axis: ClassVar[DetectorAxis] = "module"
    reads: ClassVar[tuple[str, ...]] = ("module_silent_units", "module_zero_share")

    def __init__(
        self,
        *,
        share: float = 0.8,
        rise: float = 0.3,
        from_start: float = 0.95,
        patience: int = 2,
        start_patience: int = 2,
    ) -> None:
        self._silent = _Silent(share, rise, from_start, patience, start_patience)
        self._share = share
        self._told: set[int] = set()
        self._samples = 0

    def update(self, reading: Reading) -> list[Finding]:
        """A dead module feeds constants to those behind it, so of several at one step the first is named."""
        if not all(name in reading.values for name in self.reads):
            return []
        silent, zero = (np.where(reading.present[n], reading.values[n], np.nan) for n in self.reads)
        known = np.isfinite(silent)
        self._samples += bool(known.any())
        certain = self._silent.update(reading.step, np.where(known, silent, 0.0), zero, known)
        new = [int(i) for i in np.flatnonzero(certain) if int(i) not in self._told]
        self._told.update(new)
        return [self._finding(reading.step, new, silent)] if new else []

    def _finding(self, step: int, modules: list[int], silent: NDArray[np.float64]) -> Finding:
        module = min(modules, key=lambda i: (self._silent.onset(i, step), i))
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=self._silent.onset(module, step),
            step=step,
            value=float(silent[module]),
            threshold=self._share,
            subject=module,
            evidence={
                "lowest_share": float(self._silent.floor[module]),
                "from_start": self._silent.born(module),
                "alive_at": self._silent.alive_at(module, step),
                "modules": len(modules),
            },
        )

    def status(self) -> Status:
        return _status(self._samples, bool(self._told), "no ReLU module was seen; functional ones are not modules")


def _largest(values: Floats) -> float:
    """The largest of ``values`` that is a number; 0 without any."""
    return float(np.fmax.reduce(values, initial=0.0))


def _status(samples: int, alarm: bool, unseen: str) -> Status:
    if not samples:
        return Status("not_checked", unseen)
    if alarm:
        return Status("alarm")
    return Status("ok") if samples >= 4 else Status("warming_up", f"{samples} of 4 samples")
