"""What others do with the same telemetry: dummies, fixed thresholds, a z-score, and river's detectors by default.

A rival is made anew for each recording, takes one step's scalars at a time and says whether it alarms.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Watcher = Callable[[Mapping[str, float]], bool]
NO_RIVER = "river is not installed: ADWIN and Page-Hinkley are left out; see them with: pip install river"


def always() -> Watcher:
    return lambda _: True


def never() -> Watcher:
    return lambda _: False


def norm_of(values: Mapping[str, float]) -> float:
    return values.get("gradient_norm_unclipped", values.get("gradient_norm", math.nan))


def trainpulse() -> Watcher:
    """Its defaults: not finite, five times the mean of 50 losses, a gradient norm above 100 or below 1e-7."""
    losses: deque[float] = deque(maxlen=50)

    def watch(values: Mapping[str, float]) -> bool:
        loss, norm = values["loss"], norm_of(values)
        spike = len(losses) == losses.maxlen and loss > 5 * float(np.mean(losses))
        losses.append(loss)
        return not math.isfinite(loss) or spike or not 1e-7 <= norm <= 100

    return watch


def torchmortem() -> Watcher:
    """Its defaults: not finite, a gradient norm above 1000."""
    return lambda values: not (math.isfinite(values["loss"]) and norm_of(values) <= 1000)


def lightning_spike() -> Watcher:
    """SpikeDetection: three times the mean of ten losses, from the second on; and what is not finite."""
    losses: deque[float] = deque(maxlen=10)

    def watch(values: Mapping[str, float]) -> bool:
        loss = values["loss"]
        spike = not math.isfinite(loss) or (len(losses) > 1 and loss > 3 * float(np.mean(losses)))
        losses.append(loss)
        return spike

    return watch


def z_score() -> Watcher:
    """Three standard deviations above the mean of 30 losses."""
    losses: deque[float] = deque(maxlen=30)

    def watch(values: Mapping[str, float]) -> bool:
        loss = values["loss"]
        with np.errstate(invalid="ignore", over="ignore"):
            high = len(losses) == losses.maxlen and not loss <= np.mean(losses) + 3 * np.std(losses)
        losses.append(loss)
        return bool(high)

    return watch


def _river(make: Callable[[], Any]) -> Callable[[], Watcher]:
    def start() -> Watcher:
        detectors = [make(), make()]

        def watch(values: Mapping[str, float]) -> bool:
            series = (values["loss"], norm_of(values))
            for detector, value in zip(detectors, series, strict=True):
                detector.update(value if math.isfinite(value) else 1e30)
            return any(detector.drift_detected for detector in detectors)

        return watch

    return start


def rivals() -> dict[str, Callable[[], Watcher]]:
    """All of them by name."""
    found: dict[str, Callable[[], Watcher]] = {
        "always": always,
        "never": never,
        "trainpulse rules": trainpulse,
        "torchmortem rules": torchmortem,
        "Lightning spike": lightning_spike,
        "z-score > 3 of 30": z_score,
    }
    try:
        from river import drift
    except ImportError:
        return found
    return found | {"river ADWIN": _river(drift.ADWIN), "river Page-Hinkley": _river(drift.PageHinkley)}
