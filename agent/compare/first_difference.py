"""Where two recordings of one rank first differ: the step, the stage of the step, the signal and the layers.

Only what is a function of the job's numbers is compared, bit by bit, at the steps both runs recorded. A difference
that the weights outlived (they are bitwise equal at a later step) is no divergence: a norm summed by another number
of threads, a loss that was printed before an all-reduce.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from torchvitals.agent.compare.recorded import Integers, Rank, values_at

Stage = Literal["setting", "batch", "forward", "loss", "backward", "update"]
STAGES: tuple[Stage, ...] = ("setting", "batch", "forward", "loss", "backward", "update")
"""In the order in which a step does them: of what differs in one step the earliest stage is named."""
SCALARS: dict[str, Stage] = {
    "learning_rate": "setting",
    "batch_items": "batch",
    "batch_digest": "batch",
    "input_nonfinite": "batch",
    "input_absmax": "batch",
    "loss": "loss",
    "gradient_norm_unclipped": "backward",
    "gradient_norm_unclamped": "backward",
    "gradient_norm": "backward",
    "gradient_norm_shard": "backward",
    "tripwire_norm": "backward",
    "loss_scale": "update",
    "skipped_steps": "update",
}
PROFILES: dict[str, Stage] = {
    "module_output_absmax": "forward",
    "module_output_std": "forward",
    "module_zero_share": "forward",
    "module_saturated_share": "forward",
    "parameter_gradient_norm": "backward",
    "parameter_zero_rows": "backward",
    "parameter_update_norm": "update",
    "parameter_weight_norm": "update",
}
DIGESTS: dict[str, Stage] = {"gradient": "backward", "parameter": "update", "final": "update"}
"""``final`` are the weights when the process ended, which it may have changed after its last step."""
BEFORE_FIRST = -1
"""The step of a digest that was taken before the first step."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first thing that differs. ``values`` are A's and B's, where it is one number."""

    step: int
    stage: Stage
    signal: str
    rank: int = 0
    optimizer: int = 0
    axis: str = ""
    values: tuple[float, float] | None = None


class Layers(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries of an axis differ at one step."""

    stage: Stage
    signal: str
    names: list[str]
    of: int
    """How many were compared."""

    @property
    def place(self) -> str:
        """The one that was computed first; empty where all differ and nobody can tell.

        Outputs come in the order of the calls. Gradients come from the loss down, so the last one was first.
        """
        if not self.names:
            return ""
        if self.stage == "forward":
            return self.names[0]
        if len(self.names) == self.of and self.of > 1:
            return ""
        return self.names[-1 if self.stage == "backward" else 0]


class Agreement(msgspec.Struct, kw_only=True):
    """What was compared and how far it was equal, on one rank."""

    rank: int
    steps: int
    """Common steps."""
    losses: int
    """Steps whose loss both recorded."""
    digests: int
    """Steps at which both digested all weights."""
    equal_weights_at: int | None
    """The last of those at which all weights were equal; -1 is before the first step, ``None`` never."""
    final: bool = False
    """Whether the weights were equal when both processes ended."""
    first: Difference | None = None
    layers: Layers | None = None
    passing: list[Difference] = []
    """What differed while the weights stayed equal."""


def compare_ranks(a: Rank, b: Rank, rank: int) -> Agreement:
    """Compare one rank of two runs."""
    weights = [key for key in a.digests if key[1] == "parameter" and key in b.digests]
    equal = [_last_equal(a.digests[key], b.digests[key]) for key in weights]
    until = None if not equal or None in equal else min(step for step in equal if step is not None)
    floor = BEFORE_FIRST - 1 if until is None else until
    found = sorted(_differences(a, b, rank), key=order)
    later = [_first_after(a, b, difference, floor) for difference in found]
    lasting = sorted((difference for difference in later if difference is not None), key=order)
    common = np.intersect1d(a.series("loss")[0], b.series("loss")[0])
    agreement = Agreement(
        rank=rank,
        steps=min(a.steps, b.steps),
        losses=len(common),
        digests=max((len(a.digests[key].keys() & b.digests[key].keys()) for key in weights), default=0),
        equal_weights_at=until,
        final=any(_ended_alike(a, b, axis) for axis, _ in weights),
        passing=[difference for difference in found if difference.step <= floor],
    )
    if lasting:
        agreement.first = lasting[0]
        agreement.layers = layers_at(a, b, lasting[0].step)
    return agreement


def layers_at(a: Rank, b: Rank, step: int) -> Layers | None:
    """The layers that differ at ``step``, of the earliest stage at which any does."""
    found = [*_digested_layers(a, b, step), *_profiled_layers(a, b, step)]
    # Of one stage the exact digest speaks before a norm of the same tensors.
    return min(found, key=lambda layers: (STAGES.index(layers.stage), layers.signal not in DIGESTS), default=None)


def _differences(a: Rank, b: Rank, rank: int) -> Iterator[Difference]:
    """The first difference of everything both recorded."""
    for (optimizer, signal), stage in ((key, SCALARS[key[1]]) for key in a.tracks if key[1] in SCALARS):
        if (optimizer, signal) in b.tracks:
            start = Difference(step=BEFORE_FIRST - 1, stage=stage, signal=signal, rank=rank, optimizer=optimizer)
            yield from _some(_first_after(a, b, start, BEFORE_FIRST - 1))
    for axis, signal, stage in [
        *((axis, signal, PROFILES[signal]) for axis, signal in a.profiles if signal in PROFILES),
        *((axis, kind, DIGESTS[kind]) for axis, kind in a.digests if kind in DIGESTS),
    ]:
        start = Difference(
            step=BEFORE_FIRST - 1, stage=stage, signal=signal, rank=rank, optimizer=_optimizer(axis), axis=axis
        )
        yield from _some(_first_after(a, b, start, BEFORE_FIRST - 1))


def _first_after(a: Rank, b: Rank, like: Difference, floor: int) -> Difference | None:
    """The first difference of the same signal behind step ``floor``."""
    if like.step > floor:
        return like
    if not like.axis:
        return _first_scalar(a, b, like, floor)
    key = (like.axis, like.signal)
    if like.signal in DIGESTS:
        mine, theirs = a.digests[key], b.digests.get(key, {})
        differing = (s for s in mine.keys() & theirs.keys() if s > floor and not _same(mine[s], theirs[s]))
    else:
        ours, others = a.profiles[key], b.profiles.get(key, {})
        differing = (s for s in ours.keys() & others.keys() if s > floor and ours[s] != others[s])
    step = min(differing, default=None)
    return None if step is None else msgspec.structs.replace(like, step=step)


def _first_scalar(a: Rank, b: Rank, like: Difference, floor: int) -> Difference | None:
    a_steps, a_values = a.series(like.signal, like.optimizer)
    b_steps, b_values = b.series(like.signal, like.optimizer)
    steps, left, right = np.intersect1d(a_steps, b_steps, assume_unique=True, return_indices=True)
    mine, theirs = a_values[left], b_values[right]
    where = np.flatnonzero(differing(mine, theirs) & (steps > floor))
    if not len(where):
        return None
    index = int(where[0])
    return msgspec.structs.replace(like, step=int(steps[index]), values=(float(mine[index]), float(theirs[index])))


def differing(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where two arrays of floats differ in a bit; two NaN are alike, ``0.0`` and ``-0.0`` are not.

    >>> differing(np.array([1.0, np.nan, 0.0]), np.array([1.0, np.nan, -0.0])).tolist()
    [False, False, True]
    """
    bits = np.ascontiguousarray(a).view(np.int64) != np.ascontiguousarray(b).view(np.int64)
    found: NDArray[np.bool_] = bits & ~(np.isnan(a) & np.isnan(b))
    return found


def _last_equal(a: dict[int, Integers], b: dict[int, Integers]) -> int | None:
    return max((step for step in a.keys() & b.keys() if _same(a[step], b[step])), default=None)


def _ended_alike(a: Rank, b: Rank, axis: str) -> bool:
    mine, theirs = a.digests.get((axis, "final"), {}), b.digests.get((axis, "final"), {})
    return mine.keys() == theirs.keys() and bool(mine) and all(_same(mine[step], theirs[step]) for step in mine)


def _same(a: Integers, b: Integers) -> bool:
    return a.shape == b.shape and bool((a == b).all())


def _digested_layers(a: Rank, b: Rank, step: int) -> Iterator[Layers]:
    for (axis, kind), mine in a.digests.items():
        left, right = mine.get(step), b.digests.get((axis, kind), {}).get(step)
        if kind in DIGESTS and left is not None and right is not None and left.shape == right.shape:
            yield from _named(a, axis, kind, DIGESTS[kind], left != right)


def _profiled_layers(a: Rank, b: Rank, step: int) -> Iterator[Layers]:
    for (axis, signal), mine in a.profiles.items():
        theirs = b.profiles.get((axis, signal), {})
        if signal not in PROFILES or step not in mine or mine[step] == theirs.get(step, mine[step]):
            continue
        left, right = values_at(a, axis, signal, step), values_at(b, axis, signal, step)
        if len(left) == len(right):
            bits = np.frombuffer(left, "<i4") != np.frombuffer(right, "<i4")
            yield from _named(a, axis, signal, PROFILES[signal], bits)


def _named(rank: Rank, axis: str, signal: str, stage: Stage, differs: NDArray[np.bool_]) -> Iterator[Layers]:
    names = rank.entries.get(axis, [])
    if differs.any() and len(names) >= len(differs):
        found = [names[index] for index in np.flatnonzero(differs)]
        yield Layers(stage=stage, signal=signal, names=found, of=len(differs))


def _optimizer(axis: str) -> int:
    kind, _, number = axis.partition(":")
    return int(number) if kind == "parameter" and number.isdecimal() else 0


def order(difference: Difference) -> tuple[int, int, int, str]:
    """Sorts differences by when they came about."""
    known = difference.signal not in DIGESTS
    return difference.step, STAGES.index(difference.stage), difference.optimizer, f"{known}{difference.signal}"


def _some(difference: Difference | None) -> Iterator[Difference]:
    if difference is not None:
        yield difference
