"""What the causes of a memory leak have in common: the finding, the holder and how to say a rate."""

from typing import Any

import numpy as np
from torchvitals.agent.case import Case
from torchvitals.detectors.detector import Finding

WORKERS = "worker_bytes"
LONG = 200
"""Steps: an epoch of that many is over soon enough to wait for the second."""
PARTS = 6
LONGER = 1.25
"""Times the elements of the first batches: the activations of a step grow with them, by tens of MB in small nets."""
ENDED = 0.25
"""Share of the first half's rise that is left to the wandering of resident memory: the allocator's pieces of a cache
that had been full for long took another 0.12 of it, and a leak goes on with 1."""
OLD = 0.1
"""A holder older than the run by more than this share of it has not always grown at this rate: it tells no onset."""


def leak_of(case: Case) -> Finding | None:
    """The leak, or the pressure it has led to."""
    return next(iter([*case.of_kind("memory_leak"), *case.of_kind("memory_pressure")]), None)


def in_workers(case: Case) -> bool:
    """Whether it is the worker processes of a loader that grow."""
    leak = leak_of(case)
    return leak is not None and leak.evidence.get("signal") == WORKERS


def holder_of(case: Case) -> dict[str, Any] | None:
    """What the leak hunt found, the largest first; ``None`` when it named nothing.

    Nobody hunts in the processes of a loader's workers: of them the code alone says what may grow.
    """
    if in_workers(case):
        return next((event.details for _, event in case.events_of("worker_holder")), None)
    found = [event.details for _, event in case.events_of("holder") if not event.details.get("native")]
    return max(found, key=lambda details: float(details.get("bytes_per_step") or 0.0), default=None)


def onset_of(case: Case) -> int | None:
    """When the holder was empty: what it holds, by its own rate, counted back from when it was found.

    Exact to a step or two for whatever gains the same number at each step, while resident memory only rises once
    what earlier steps had freed is used up. ``None`` when nothing was named or the holder was not empty at the start.
    """
    leak, holder = leak_of(case), holder_of(case)
    found = next((event.step for _, event in case.events_of("holder") if event.details is holder), None)
    if leak is None or holder is None or found is None:
        return None
    count, rate = float(holder.get("count") or 0), float(holder.get("growth_per_step") or 0)
    if not count > 1 or not rate > 0:
        return None
    onset = found - count / rate
    return round(max(onset, 0.0)) if -found * OLD <= onset <= leak.step else None


def fills_up(case: Case) -> str:
    """Why a rise in memory was no leak: it has ended, or what grows has a limit of its own; else empty."""
    if any(finding.kind != "memory_leak" for finding in case.findings):
        return ""
    if levelled_off(case):
        return "memory rose at first and has stayed level since: a cache that was filled once"
    holder = holder_of(case)
    # A tensor of the batch, or made of it, is longer each time as well.
    if (holder is None or holder.get("tensor")) and batches_grow(case):
        return "batches grow, and nothing else was found that keeps memory: longer sequences, larger pictures take more"
    if holder is None or not holder.get("limit"):
        return ""
    size = float(holder["limit"]) * _bytes_each(case, holder)
    room = case.history.series("memory_headroom_bytes", case.opening.rank).values
    if len(room) and size > float(room[0]):
        return ""  # a limit beyond all the memory there is stops nothing
    return f"{holder.get('holder')} fills up and ends at {holder['limit']} entries, about {size / 1e6:.3g} MB"


def _bytes_each(case: Case, holder: dict[str, Any]) -> float:
    """What an entry takes; in the workers of a loader, which may all come to hold it, what it takes in all of them."""
    if not in_workers(case):
        return float(holder["bytes_per_step"]) / max(float(holder["growth_per_step"]), 1e-9)
    loader = case.facts.get("loader") or {}
    return case.opening.value / max(int(loader.get("batch_size") or 1), 1) * max(int(loader.get("workers") or 1), 1)


def levelled_off(case: Case) -> bool:
    """Whether memory has long stopped rising, as far as is known by now: a leak goes on as it began.

    The half of the run since the onset that is newest is held against the older half; it must be at least ``LONG``.
    """
    finding = case.opening
    series = case.history.series(str(finding.evidence.get("signal", "rss_bytes")), finding.rank)
    since = series.steps >= finding.first_step
    steps, values = series.steps[since], series.values[since]
    if len(steps) < 8 or steps[-1] - finding.first_step < 2 * LONG:
        return False
    middle = int(np.searchsorted(steps, (finding.first_step + steps[-1]) / 2))
    first, half, last = (float(np.median(part)) for part in (values[:4], values[middle - 2 : middle + 2], values[-4:]))
    return last - half <= ENDED * (half - first)


def batches_grow(case: Case) -> bool:
    """Whether what a step is given has grown all the while that memory rose, as lessons of a curriculum do."""
    leak = case.opening
    series = case.history.series("batch_values", leak.rank)
    values = series.values[(series.steps >= leak.first_step) & (series.steps <= leak.step)]
    if len(values) < 2 * PARTS or not np.isfinite(values).all():
        return False
    parts = np.array([float(np.median(part)) for part in np.array_split(values, PARTS)])
    return bool((np.diff(parts) > 0).sum() >= PARTS - 2 and parts[-1] >= LONGER * parts[0])


def place_of(holder: dict[str, Any] | None) -> str:
    """``file:line`` of the container, or its name when no line is known."""
    return str(holder.get("line") or holder.get("holder") or "") if holder else ""


def per_step(leak: Finding) -> str:
    """The rate in the unit a person would choose.

    >>> per_step(Finding(kind="memory_leak", severity="error", first_step=0, step=9, value=0, threshold=0,
    ...                  evidence={"bytes_per_step": 2.5e6}))
    '2.5 MB'
    """
    size = float(leak.evidence.get("bytes_per_step", leak.value))
    return f"{size / 1e6:.3g} MB" if size >= 1e6 else f"{size / 1e3:.3g} kB"
