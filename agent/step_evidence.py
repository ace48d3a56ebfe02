"""What the step scalars and the replay say around a finding: shared by the causes of what blows up."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torchvitals.agent.case import Case
from torchvitals.agent.history import Series

LOOK_BACK = 40
"""Steps before an onset in which its cause is looked for; a compounding schedule needs most of them."""

MOST_OPTIMIZERS = 8
"""Nobody trains more nets against each other."""

ADAPTIVE = ("Adam", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Lion", "Lamb", "Adafactor", "Muon")
"""Optimizers whose steps are as large as their rate, whatever the size of the gradient."""
RAW = 50.0
"""Largest input that is no longer a matter of taste: 10^6 standardised values stay below 6, pixels reach 255."""


Floats = NDArray[np.float64]


class Leap(NamedTuple):
    """A scalar that went from ``before`` (its largest so far) to ``after``, beginning at ``step``."""

    step: int
    before: float
    after: float
    until: int | None = None
    """Where it rose step by step: the step at which it had come to ``after``."""

    @property
    def factor(self) -> float:
        return self.after / self.before if self.before > 0 else np.inf


def scalars(case: Case, name: str) -> Series:
    """One signal of the rank and optimizer that the opening finding is about."""
    opening = case.opening
    own = case.history.series(name, opening.rank, opening.optimizer)
    return own if len(own.values) else case.history.series(name, None, opening.optimizer)


def leap(case: Case, name: str, *, back: int = LOOK_BACK, least: float = 3.0) -> Leap | None:
    """Where a signal went at least ``least`` times beyond all its past, within ``back`` steps before the onset."""
    return _leap(scalars(case, name), case.opening.first_step, back, least)


def leap_elsewhere(case: Case, name: str) -> Leap | None:
    """The same of another optimizer: in an adversarial pair what one does wrong shows in the other's loss as well.

    Each optimizer counts steps of its own; they are taken to run side by side.
    """
    own = _steps(case, case.opening.optimizer)
    for optimizer in range(MOST_OPTIMIZERS):
        series, steps = case.history.series(name, case.opening.rank, optimizer), _steps(case, optimizer)
        if optimizer == case.opening.optimizer or not steps or not own:
            continue
        # a step or two apart is where the reading has come to, not how often each steps
        pace = 1.0 if abs(steps - own) <= MOST_OPTIMIZERS else steps / own
        if found := _leap(series, round(case.opening.first_step * pace), LOOK_BACK, 3.0):
            return found
    return None


def _steps(case: Case, optimizer: int) -> int:
    """Steps of an optimizer, as far as its losses tell."""
    steps = case.history.series("loss", case.opening.rank, optimizer).steps
    return int(steps[-1]) + 1 if len(steps) else 0


def _leap(series: Series, onset: int, back: int, least: float) -> Leap | None:
    early = (series.steps < onset - back) | (series.steps == series.steps.min(initial=0))
    # where not every step is looked at, the next one that is tells what held at the onset
    looked = series.steps[series.steps >= onset]
    last = max(onset + 1, int(looked[0])) if len(looked) else onset + 1
    near = (series.steps >= onset - back) & (series.steps <= last) & ~early
    past = np.abs(series.values[early & np.isfinite(series.values)])
    if not near.any() or not len(past):
        return None
    before, values = float(past.max()), np.abs(series.values[near])
    after = float(np.nanmax(values, initial=0.0))
    if not after > max(least * before, 0.0):
        return None
    return Leap(*_sharpest(series.steps[near], values, before), after)


def _sharpest(steps: Any, values: Any, before: float) -> tuple[int, float]:
    """The step at which the rise to the peak began, and the value just before: the last near the old level."""
    low = np.flatnonzero(values[: int(np.nanargmax(values)) + 1] <= 1.5 * before)
    first = int(low[-1]) + 1 if len(low) else 0
    first = min(first, len(steps) - 1)
    level = float(values[first - 1]) if first else before
    return int(steps[first]), level


def at_onset(case: Case, name: str) -> float | None:
    """The value at the onset, or within a step of it; the farthest from zero."""
    series, onset = scalars(case, name), case.opening.first_step
    near = series.values[(series.steps >= onset - 1) & (series.steps <= onset + 1)]
    if not len(near):
        return None
    bad = near[~np.isfinite(near)]
    return float(bad[0] if len(bad) else near[np.argmax(np.abs(near))])


def in_force(case: Case, name: str) -> float | None:
    """What a setting was at the onset: as last seen by then, else as first seen after it."""
    series, onset = scalars(case, name), case.opening.first_step
    if not len(series.values):
        return None
    return float(series.values[max(0, int(np.searchsorted(series.steps, onset, side="right")) - 1)])


RISEN = 5.0
"""A rate that is this many times its value at the start has been raised, not warmed up from its usual level."""
GEOMETRIC = 30
"""Steps over which a rate that grows by the same factor each time is told from a warm-up."""


def compounding(case: Case) -> float | None:
    """The factor by which the learning rate grows step after step; ``None`` where it does not, or not always by it."""
    series, opening = scalars(case, "learning_rate"), case.opening
    known = (series.steps <= opening.step) & (series.values > 0)
    steps, values = series.steps[known][-GEOMETRIC:], series.values[known][-GEOMETRIC:]
    if len(values) < 4 or steps[-1] - steps[0] < GEOMETRIC // 2:
        return None
    growth = np.diff(np.log(values)) / np.diff(steps)
    even = float(growth.min()) > 0.8 * float(growth.max())
    return float(np.exp(np.median(growth))) if even and growth.min() > 1e-3 else None


def raised_rate(case: Case) -> str:
    """How the learning rate had come to be higher than ever by the onset, in words; empty when it had not."""
    opening = case.opening
    rates = scalars(case, "learning_rate").before(opening.first_step + 1, opening.first_step + 1)
    if jump := leap(case, "learning_rate"):
        return f"the learning rate had gone to {jump.after:.3g} at step {jump.step}"
    if len(rates) and rates[-1] >= rates.max() and rates[-1] > RISEN * rates[0] > 0:
        return f"the learning rate had risen from {rates[0]:.3g} to {rates[-1]:.3g}"
    return ""


def endless_momentum(case: Case) -> float | None:
    """A momentum of 1 or more in the optimizer that the case is about: what it has pushed once it pushes for ever."""
    return max((value for value in settings(case, "momentum") if value >= 1), default=None)


def optimizer_name(case: Case) -> str:
    """The class of the optimizer that the case is about; empty when unknown."""
    optimizers = case.facts.get("optimizers") or []
    index = case.opening.optimizer
    return str(optimizers[index].get("class", "")) if index < len(optimizers) else ""


def settings(case: Case, name: str) -> list[float]:
    """A hyper-parameter of the optimizer that the case is about, by group."""
    optimizers = case.facts.get("optimizers") or []
    groups = optimizers[case.opening.optimizer].get("groups", []) if case.opening.optimizer < len(optimizers) else []
    return [float(group[name]) for group in groups if isinstance(group.get(name), int | float)]


def largest_move(case: Case) -> float | None:
    """The largest update of a layer relative to its weights, from the onset until it was certain, if it was seen."""
    opening = case.opening
    kept = [case.history.profiles(f"parameter_{n}_norm", opening.rank, opening.optimizer) for n in ("update", "weight")]
    weights = {profile.step: profile.values for profile in kept[1]}
    found = [
        _largest_ratio(profile.values, weights[profile.step])
        for profile in kept[0]
        if profile.step in weights and opening.first_step - 1 <= profile.step <= opening.step + LOOK_BACK
    ]
    return max((ratio for ratio in found if ratio is not None), default=None)


def first_move(case: Case) -> float:
    """The largest update of a layer relative to its weights in the very first step; 0 where it was not seen."""
    opening = case.opening
    kept = [
        case.history.profiles(f"parameter_{n}_norm", opening.rank, opening.optimizer)[:1] for n in ("update", "weight")
    ]
    if not all(kept) or any(profiles[0].step > 0 for profiles in kept):
        return 0.0
    return _largest_ratio(kept[0][0].values, kept[1][0].values) or 0.0


def _largest_ratio(updates: Floats, weights: Floats) -> float | None:
    """Infinite where a layer is not finite any more; ``None`` where nothing can be told."""
    if len(updates) != len(weights) or not np.isfinite(updates).any():
        return None
    if np.isinf(updates).any() or np.isinf(weights).any():
        return float("inf")
    return float(np.nanmax(updates / np.maximum(weights, 1e-6), initial=0.0))


def first_value(case: Case, name: str) -> float | None:
    """The value of the very first step, if it is still known."""
    series = scalars(case, name)
    return float(series.values[0]) if len(series.values) and series.steps[0] <= 1 else None


def raw_input(case: Case) -> float | None:
    """The largest input of the very first steps, if it is so large that nothing can have scaled it."""
    largest = first_value(case, "input_absmax")
    return largest if largest is not None and np.isfinite(largest) and largest >= RAW else None


def origin(case: Case) -> dict[str, Any] | None:
    """What the replay found: the earliest event, if it is not of another incident long ago.

    Of several ranks one knows, and the others say that their own gradients were finite before they were shared.
    """
    events = [event for _, event in case.events_of("origin") if event.step >= case.opening.first_step - LOOK_BACK]
    return min(events, key=lambda event: (event.step, not event.details.get("complete"))).details if events else None


def few_spoilt(found: dict[str, Any], few: float = 0.05) -> bool:
    """Whether at most ``few`` of the values of the weight in ``found``, an origin, are not finite.

    A gradient that is not finite spoils whole rows of a weight, most often all of them.
    """
    number = int((found.get("inputs") or {}).get("nonfinite") or len(found.get("elements") or []))
    return 0 < number <= few * int(np.prod(found.get("shape") or [0]))


def in_the_batch(case: Case) -> bool:
    """Whether the replay found the batch itself not finite: then nothing that the job did before matters."""
    found = origin(case) or {}
    return found.get("operation") == "batch" or found.get("batch_finite") is False


def culprit(case: Case) -> int | None:
    """The one rank on which something stopped being finite, though sharing gradients spread it within the step."""
    step = case.opening.first_step
    if case.world_size < 2:
        return None
    origins = {rank for rank, event in case.events_of("origin") if event.step == step and event.details.get("complete")}
    if len(origins) == 1:
        return origins.pop()
    alone = _alone_broken(case, "loss", step)
    return _alone_broken(case, "local_gradient", step) if alone is None else alone


def _alone_broken(case: Case, name: str, step: int) -> int | None:
    """The rank on which a signal is not finite while it is on all others that have sent it."""
    ranks = case.history.ranks(name)
    told = {rank: value for rank in ranks if (value := case.history.series(name, rank).at(step)) is not None}
    broken = [rank for rank, value in told.items() if not np.isfinite(value)]
    return broken[0] if len(broken) == 1 < len(told) else None


def came_once(case: Case) -> int | None:
    """The one rank whose own gradients were not finite, and were when the same step was run again."""
    step = case.opening.first_step
    rank = _alone_broken(case, "local_gradient", step)
    told = [event.details for who, event in case.events_of("origin") if who == rank and event.step == step]
    return rank if rank is not None and any(details.get("vanished") for details in told) else None


def place(found: dict[str, Any] | None) -> str:
    """The module of an origin, or its line."""
    return str(found.get("module") or found.get("line") or "") if found else ""


def grew(case: Case) -> bool:
    """Whether magnitudes grew before anything stopped being finite."""
    broken = case.of_kind("nonfinite")
    return any(not broken or f.first_step < broken[0].first_step for f in case.of_kind("explosion", "divergence"))


def never_cleared(case: Case) -> int:
    """Steps in a row, up to where the opening finding was certain, with gradients that nothing had cleared."""
    series = scalars(case, "gradients_reset")
    values = series.values[series.steps <= max(case.opening.step, case.opening.first_step + 8)]
    cleared = np.flatnonzero(values != 0)
    return len(values) - (int(cleared[-1]) + 1 if len(cleared) else 0)
