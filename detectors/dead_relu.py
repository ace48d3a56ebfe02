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


class _Silent:
    """Which subjects have lost most of their units, and since when; shared by both axes.

    Args:
        share: of the units must be silent. Layers of healthy small nets lose up to 60 % at a high learning rate.
        rise: of that share above its lowest value in this run: a net pruned to 10 % is born silent.
        from_start: a share that was never lower than ``share`` must be this high to count without a rise.
        patience: samples in a row; the signal itself waits for at least three.
        start_patience: the same for a layer that was never seen alive.
    """

    def __init__(self, share: float, rise: float, from_start: float, patience: int, start_patience: int) -> None:
        self._share = share
        self._rise = rise
        self._from_start = from_start
        self._patience = patience
        self._start_patience = start_patience
        self.floor = np.empty(0)
        self.zeros = Streak()
        self._risen = Streak()
        self._born = Streak()

    def update(self, step: int, silent: NDArray[np.float64], zero: NDArray[np.float64], known: Bools) -> Bools:
        """The subjects of which it is certain now. ``zero`` is the share at this sample alone, for the onset."""
        self.floor = np.pad(self.floor, (0, len(silent) - len(self.floor)), constant_values=np.inf)
        self.floor[known] = np.minimum(self.floor[known], silent[known])
        floor = np.where(np.isfinite(self.floor), self.floor, 1.0)
        self.zeros.update(step, zero >= self._share, np.isfinite(zero))
        risen = self._risen.update(step, (silent >= self._share) & (silent - floor >= self._rise), known)
        born = self._born.update(step, (silent >= self._from_start) & (floor >= self._share), known)
        return known & ((risen >= self._patience) | (born >= self._start_patience))

    def born(self, subject: int) -> bool:
        """Whether it was silent from the start."""
        return bool(self.floor[subject] >= self._share)

    def onset(self, subject: int, step: int) -> int:
        """Where its zeros began; ``step`` when they come and go."""
        return self.zeros.onset(subject) if self.zeros.count[subject] else step


class DeadReluByGradient:
    """Layers whose units get no gradient any more: sees functional and compiled ReLUs, too.

    A layer that is dead entirely also silences everything before it, so the *last* layer of such a run is
    named. Where everything is silent, or a whole branch in the middle (an idle expert), no ReLU is to blame; and
    where the silence ends in gradients a millionth of the largest, they have vanished by underflow.

    Args:
        share, rise, from_start, patience, start_patience: see :class:`_Silent`.
        few: layers with fewer rows are judged only when all are silent: one of two is no majority.
        underflow: the first gradient that is heard must be at least this share of the largest one.

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
        start_patience: int = 3,
        few: int = 4,
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
        certain &= (silent >= 1.0) | (rows >= self._few)
        found = []
        for first, last in self._places(np.flatnonzero(known), silent, certain, norm):
            members = [i for i in range(first, last + 1) if known[i]]
            if not self._told.issuperset(members):
                self._told.update(members)
                found.append(self._finding(reading.step, last, silent, rows, len(members)))
        return found

    def _places(
        self, layers: NDArray[np.int64], silent: NDArray[np.float64], certain: Bools, norm: NDArray[np.float64]
    ) -> list[tuple[int, int]]:
        """Runs of layers to report, as (first, last): single ones that died in part, and dead ends."""
        places, run = [], []
        for layer in layers:
            if silent[layer] >= 1.0:
                run.append(int(layer))
                continue
            if run and self._blocks(run, layers, certain, float(norm[layer]), norm):
                places.append((run[0], run[-1]))
            run = []
            if certain[layer]:
                places.append((int(layer), int(layer)))
        return places

    def _blocks(
        self, run: list[int], layers: NDArray[np.int64], certain: Bools, heard: float, norm: NDArray[np.float64]
    ) -> bool:
        """Whether a run of entirely silent layers, followed by one whose gradient is ``heard``, ends in a dead one."""
        at_input = run[0] == layers[0]
        alone = len(run) == 1 and not self._silent.born(run[0])
        audible = not heard <= self._underflow * np.nanmax(norm)
        return bool(certain[run[-1]]) and audible and (at_input or alone)

    def _finding(
        self, step: int, layer: int, silent: NDArray[np.float64], rows: NDArray[np.float64], layers: int
    ) -> Finding:
        evidence = {
            "silent_units": round(float(silent[layer] * rows[layer])),
            "units": int(rows[layer]),
            "lowest_share": float(self._silent.floor[layer]),
            "from_start": self._silent.born(layer),
            "layers_without_gradient": layers if silent[layer] >= 1.0 else 0,
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
    30 1 15 1.0
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
        start_patience: int = 3,
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
                "modules": len(modules),
            },
        )

    def status(self) -> Status:
        return _status(self._samples, bool(self._told), "no ReLU module was seen; functional ones are not modules")


def _status(samples: int, alarm: bool, unseen: str) -> Status:
    if not samples:
        return Status("not_checked", unseen)
    if alarm:
        return Status("alarm")
    return Status("ok") if samples >= 4 else Status("warming_up", f"{samples} of 4 samples")
