"""Gradients that die on the way to the input, and gradients that are exactly zero everywhere.

In a deep net of squashing units each layer shrinks the gradient by a factor, so the input-most layers learn
nothing (Hochreiter 1991; Glorot and Bengio, AISTATS 2010). Absolute limits depend on the loss, its reduction and
the width, and all gradients shrink as a job converges; so a layer is compared with the other layers of the same
step, and with its own place among them earlier.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.scalars import ZERO, grown, losses, shortest
from torchvitals.detectors.streak import Streak

Floats = NDArray[np.float64]
LAYERS = 3
"""With fewer layers there is no depth to vanish in."""


class VanishingGradient:
    """Input-most layers whose gradient has become a vanishing share of the largest layer's.

    Only weights with rows of units count: the bias in front of a batch norm and the bias of attention keys have
    no gradient but rounding noise in any net. A branch scaled down on purpose (layer scale 1e-6) is not at the
    input, and what is exactly zero next to something sound is cut off or dead, not vanished. A layer drawn at zero
    on purpose (the last of a residual branch, an adapter) is deaf for some steps and loud relative to its own
    weight, which says nothing of the others: it is no measure for them before it has grown.

    Args:
        share: of the largest layer's gradient, relative to the layer's weight. Healthy trainable nets of 30
            layers stay above 1e-4; 20 sigmoid layers are at 1e-10.
        drop: the same against the layer's own first samples: a fault during training.
        dropped_share: largest share at which a drop counts.
        unborn: rows this much shorter than the net's median row belong to a layer drawn at or near zero; common
            schemes stay within a factor of five of each other.
        reference: samples whose median is a layer's own past.
        patience: samples in a row.

    >>> detector = VanishingGradient()
    >>> for step in (0, 20, 40, 60):
    ...     norms = [1e-12, 1e-9, 1e-5, 1e-3, 1.0]
    ...     reading = Reading.of(step, parameter_gradient_norm=norms, parameter_weight_norm=[1.0] * 5,
    ...         parameter_rows=[64.0] * 5)
    ...     for finding in detector.update(reading):
    ...         print(finding.step, finding.subject, finding.first_step, finding.evidence["vanished_layers"])
    40 0 0 2
    """

    kind: ClassVar[str] = "vanishing"
    axis: ClassVar[DetectorAxis] = "parameter"
    reads: ClassVar[tuple[str, ...]] = ("parameter_gradient_norm", "parameter_weight_norm", "parameter_rows")

    def __init__(
        self,
        *,
        share: float = 1e-6,
        drop: float = 1e-3,
        dropped_share: float = 1e-5,
        unborn: float = 0.1,
        reference: int = 5,
        patience: int = 3,
    ) -> None:
        self._share = share
        self._drop = drop
        self._dropped_share = dropped_share
        self._unborn = unborn
        self._reference = reference
        self._patience = patience
        self._past: list[Floats] = []
        self._streak = Streak()
        self._samples = 0
        self._told = False

    def update(self, reading: Reading) -> list[Finding]:
        if not all(name in reading.values for name in self.reads):
            return []
        norm, weight, rows = (np.where(reading.present[n], reading.values[n], np.nan) for n in self.reads)
        known = np.isfinite(norm) & np.isfinite(rows) & (weight > 0)
        known &= self._grown_up(weight, rows, known)
        if np.count_nonzero(known) < LAYERS or not np.any(norm[known] > 0):
            return []
        self._samples += 1
        relative = np.where(known, norm, np.nan) / np.where(known, weight, 1.0)
        share = relative / np.nanmax(relative)
        limits = self._limits(share)
        vanished = self._from_input(share, limits, np.flatnonzero(known))
        count = self._streak.update(reading.step, np.isin(np.arange(len(norm)), vanished), known)
        if self._told or not vanished or count[vanished[0]] < self._patience:
            return []
        self._told = True
        return [self._finding(reading.step, vanished, share, limits, norm)]

    def _grown_up(self, weight: Floats, rows: Floats, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The layers whose rows are not near zero, measured by the net's median row."""
        length = np.where(known, weight, np.nan) / np.sqrt(np.where(known, np.maximum(rows, 1.0), 1.0))
        typical = np.nanmedian(length) if known.any() else 0.0
        return np.fmax(length, 0.0) >= self._unborn * typical

    def _limits(self, share: Floats) -> Floats:
        """The share under which each layer has vanished, by the general limit or by its own past."""
        if len(self._past) < self._reference:
            self._past.append(share)
            return np.full(len(share), self._share)
        width = len(share)
        past = np.stack([np.pad(p, (0, width - len(p)), constant_values=np.nan) for p in self._past])
        past[:, np.isnan(past).all(axis=0)] = 0.0  # a layer that came later has no past, and keeps the general limit
        fallen = np.minimum(np.nanmedian(past, axis=0) * self._drop, self._dropped_share)
        return np.fmax(fallen, self._share)

    def _from_input(self, share: Floats, limits: Floats, layers: NDArray[np.int64]) -> list[int]:
        """The vanished layers in a row from the input; none when the last of them is exactly zero.

        Underflow leaves a slope of tiny numbers behind the zeros; a cut or a dead layer ends abruptly.
        """
        sound = np.flatnonzero(share[layers] > limits[layers])
        run = [int(layer) for layer in layers[: sound[0]]]
        return run if run and share[run[-1]] > 0 else []

    def _finding(self, step: int, vanished: list[int], share: Floats, limits: Floats, norm: Floats) -> Finding:
        first = vanished[0]
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=self._streak.onset(first),
            step=step,
            value=float(share[first]),
            threshold=float(limits[first]),
            subject=first,
            evidence={
                "vanished_layers": len(vanished),
                "layers": int(np.count_nonzero(np.isfinite(share))),
                "gradient_norm": float(norm[first]),
                "largest_gradient_norm": float(np.nanmax(norm)),
            },
        )

    def status(self) -> Status:
        if not self._samples:
            return Status("not_checked", f"fewer than {LAYERS} layers with weights were seen")
        if self._told:
            return Status("alarm")
        missing = self._patience - self._samples
        return Status("warming_up", f"{missing} more samples needed") if missing > 0 else Status("ok")


class ZeroGradient:
    """The whole gradient is exactly zero while the loss is not: nothing can be learned any more.

    Args:
        patience: applied steps in a row. A hinge that one batch satisfies gives a single zero.
        content: a loss below this share of its largest value means the job is done, not dead.
        never: the same as ``patience`` for a loss that has never been other than zero: a hinge or a distance to a
            teacher may begin at zero, and does not stay there.

    >>> detector = ZeroGradient()
    >>> for step in range(12):
    ...     for finding in detector.update(Reading.of(step, gradient_norm=[0.0 if step >= 3 else 1.0], loss=[2.3])):
    ...         print(finding.step, finding.first_step)
    7 3
    """

    kind: ClassVar[str] = "vanishing"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("gradient_norm", "loss")

    def __init__(self, *, patience: int = 5, content: float = 1e-4, never: int = 30) -> None:
        self._patience = patience
        self._never = never
        self._content = content
        self._largest = np.zeros(0, dtype=np.float32)
        self._streak = Streak()
        self._told: set[int] = set()
        self._seen = False

    def update(self, reading: Reading) -> list[Finding]:
        norm = reading.values.get("gradient_norm")
        if norm is None:
            return []
        self._seen = True
        ranks = len(norm)
        loss = np.abs(losses(reading, ranks).singles)
        self._largest = np.fmax(grown(self._largest, ranks), loss)
        known, zero, empty = reading.present["gradient_norm"], norm == ZERO, self._largest == ZERO
        if np.count_nonzero(zero):
            zero &= empty | ~(loss <= self._content * self._largest)  # which is False when nobody knows the loss
        count = self._streak.update(reading.step, zero, known)
        if not self._streak.holding:
            return []
        enough = count >= np.where(empty, self._never, self._patience)
        new = [int(r) for r in (known & enough).nonzero()[0] if int(r) not in self._told]
        self._told.update(new)
        return [self._finding(reading.step, rank, shortest(loss[rank])) for rank in new]

    def _finding(self, step: int, rank: int, loss: float) -> Finding:
        evidence: dict[str, Any] = {"gradient_norm": 0.0, "loss": loss, "everywhere": True}
        return Finding(
            kind=self.kind,
            severity="critical",
            first_step=self._streak.onset(rank),
            step=step,
            value=0.0,
            threshold=0.0,
            subject=rank,
            evidence=evidence,
        )

    def status(self) -> Status:
        if not self._seen:
            return Status("not_checked", "no gradient norm was sent")
        return Status("alarm") if self._told else Status("ok")
