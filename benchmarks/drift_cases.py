"""Drift in data that is not ours: scikit-learn's sets and those in river's wheel, with a change put in."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.drift import Drift

Floats = NDArray[np.float64]
BLOCKS, ONSET, ROWS = 60, 30, 64
"""Blocks in a case, the first changed one, and rows in a block: 16 requests of four."""
WINDOW = 100
COLUMNS = 12
"""Features of each set that are served; 64 would take river's detectors minutes."""


class Case(NamedTuple):
    """A stream of rows (rows × features), and the row from which it is changed; -1 when it is not."""

    data: str
    change: str
    rows: Floats
    onset: int


def tables() -> Iterator[tuple[str, Floats, NDArray[np.int64]]]:
    """Name, features and classes of every data set there is."""
    from sklearn import datasets

    for name in ("digits", "wine", "breast_cancer", "iris"):
        found = getattr(datasets, f"load_{name}")()
        yield name, np.asarray(found.data, np.float64), np.asarray(found.target)
    try:
        from river import datasets as streams
    except ImportError:
        return
    for made in (streams.Bananas(), streams.Phishing(), streams.ImageSegments()):
        rows = list(made)
        features = np.array([[float(value) for value in x.values()] for x, _ in rows])
        labels = np.unique([str(y) for _, y in rows], return_inverse=True)[1]
        yield type(made).__name__, features, labels


def cases(seed: int) -> Iterator[Case]:
    """Every data set without a change (twice) and with each."""
    rng = np.random.default_rng(seed)
    onset = ONSET * ROWS
    for name, features, labels in tables():
        varied = features[:, features.std(0) > 0][:, :COLUMNS]
        column = int(rng.integers(varied.shape[1]))
        spread = varied[:, column].std()

        def drawn(pool: Floats = varied) -> Floats:
            return pool[rng.integers(len(pool), size=BLOCKS * ROWS)]

        for _ in range(2):
            yield Case(name, "none", drawn(), -1)
        changes: dict[str, Callable[[Floats], Floats]] = {
            "shift by 1.5 sd": lambda values, spread=spread: values + 1.5 * spread,
            "unit (× 25.4)": lambda values: values * 25.4,
            "missing": lambda values: np.full_like(values, np.nan),
        }
        for change, act in changes.items():
            rows = drawn()
            rows[onset:, column] = act(rows[onset:, column])
            yield Case(name, change, rows, onset)
        rows, one = drawn(), varied[labels == labels[0]]
        rows[onset:] = one[rng.integers(len(one), size=len(rows) - onset)]
        yield Case(name, "one class only", rows, onset)


def ours(case: Case) -> list[int]:
    """Rows at which drift was certain."""
    detector, found = Drift(), []
    for block in range(BLOCKS):
        rows = case.rows[block * ROWS : (block + 1) * ROWS]
        known = np.isfinite(rows)
        count = np.maximum(known.sum(0), 1)
        mean = np.where(known, rows, 0).sum(0) / count
        std = np.sqrt((np.where(known, rows - mean, 0) ** 2).sum(0) / count)
        empty = ~known.any(0)
        values = {
            "feature_mean": np.where(empty, np.nan, mean),
            "feature_std": np.where(empty, np.nan, std),
            "feature_missing": 1 - known.mean(0),
            "feature_zero": (rows == 0).mean(0),
            "feature_rows": np.full(rows.shape[1], float(ROWS)),
            "feature_role": np.zeros(rows.shape[1]),
        }
        if detector.update(Reading.of(16 * block, 10.0 * block, **values)):
            found.append((block + 1) * ROWS)
    return found


def windows(alarms: Callable[[Floats, Floats], bool]) -> Callable[[Case], list[int]]:
    """Every window of a hundred rows against the first thousand, feature by feature, as dashboards do."""

    def judge(case: Case) -> list[int]:
        reference = case.rows[: 10 * WINDOW]
        ends = range(11 * WINDOW, len(case.rows) + 1, WINDOW)
        return [end for end in ends if _any(alarms, reference, case.rows[end - WINDOW : end])]

    return judge


def _any(alarms: Callable[[Floats, Floats], bool], reference: Floats, window: Floats) -> bool:
    for column in range(window.shape[1]):
        values = window[:, column][np.isfinite(window[:, column])]
        if not len(values) or alarms(reference[:, column], values):
            return True
    return False


def wasserstein(reference: Floats, values: Floats) -> bool:
    """Evidently's default: a distance of a tenth of a standard deviation."""
    return bool(stats.wasserstein_distance(reference, values) > 0.1 * max(float(reference.std()), 1e-12))


def kolmogorov(reference: Floats, values: Floats) -> bool:
    """Kolmogorov-Smirnov at 5 %, as in alibi-detect and Evidently for small sets."""
    return bool(stats.ks_2samp(reference, values).pvalue < 0.05)


def by_row(make: Callable[[], object]) -> Callable[[Case], list[int]]:
    """A detector of river's for each feature, fed row by row."""

    def judge(case: Case) -> list[int]:
        found: set[int] = set()
        for column in case.rows.T:
            detector = make()
            for place, value in enumerate(column):
                detector.update(float(np.nan_to_num(value)))  # type: ignore[attr-defined]
                if detector.drift_detected:  # type: ignore[attr-defined]
                    found.add(place + 1)
        return sorted(found)

    return judge


def methods() -> dict[str, Callable[[Case], list[int]]]:
    """Everybody who looks, by name."""
    found: dict[str, Callable[[Case], list[int]]] = {
        "torchvitals": ours,
        "always": lambda case: list(range(ROWS, len(case.rows) + 1, ROWS)),
        "never": lambda _: [],
        "W/σ > 0.1, n=100": windows(wasserstein),
        "KS p < 0.05, n=100": windows(kolmogorov),
    }
    try:
        from river import drift
    except ImportError:
        return found
    return found | {"river ADWIN": by_row(drift.ADWIN), "river Page-Hinkley": by_row(drift.PageHinkley)}
