"""What the ranks of a run did differently, for the causes that ask."""

import math
from typing import NamedTuple

import numpy as np
from torchvitals.agent.case import Case
from torchvitals.detectors.detector import Finding

SAME = 1e-6
"""Relative difference below which two float numbers of two ranks are one: the same kernel on the same bits gives the
same number, and a reduction in another order differs by less."""


class Difference(NamedTuple):
    """The first step at which ranks told different numbers, and the numbers by rank."""

    step: int
    values: dict[int, float]

    def told(self) -> str:
        """``rank 0: 0.25, rank 1: 0.53``, the first four."""
        shown = [f"rank {rank}: {value:.4g}" for rank, value in sorted(self.values.items())[:4]]
        return ", ".join(shown) + (", …" if len(self.values) > len(shown) else "")


def parameter_desync(case: Case) -> list[Finding]:
    """The findings that parameters or hyper-parameters differ; running statistics are another matter."""
    return [finding for finding in case.of_kind("desync") if finding.evidence.get("what") != "buffers"]


def first_difference(case: Case, signal: str) -> Difference | None:
    """The first step at which at least two ranks sent ``signal`` and disagree."""
    by_step: dict[int, dict[int, float]] = {}
    for rank in case.history.ranks(signal):
        series = case.history.series(signal, rank)
        for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
            by_step.setdefault(step, {})[rank] = value
    for step in sorted(by_step):
        values = by_step[step]
        if len(values) > 1 and not alike(list(values.values())):
            return Difference(step, values)
    return None


def settings_desync(case: Case) -> Finding | None:
    """The finding that the optimizers of the ranks are set differently."""
    return next((f for f in parameter_desync(case) if f.evidence.get("what") == "hyper-parameters"), None)


def same_gradients_at(case: Case, finding: Finding) -> bool:
    """Whether ranks that parted are known to have applied gradients of the same norm in the step in which they did."""
    equal, step = last_equal(finding), finding.first_step
    if equal is None or equal != step - 1:
        return False
    told = [case.history.series("gradient_norm", rank) for rank in case.history.ranks("gradient_norm")]
    values = [float(series.values[series.steps == step][0]) for series in told if (series.steps == step).any()]
    return len(values) > 1 and alike(values)


def alike(values: list[float]) -> bool:
    """Whether numbers of several ranks are one, NaN among them."""
    first = values[0]
    return all(
        (math.isnan(first) and math.isnan(value)) or first == value or abs(first - value) <= SAME * abs(first)
        for value in values[1:]
    )


def senders(case: Case, signal: str) -> tuple[list[int], int | None]:
    """The ranks that ever sent ``signal``, and the first step at which one did."""
    ranks = case.history.ranks(signal)
    firsts = [series.steps[0] for rank in ranks if len((series := case.history.series(signal, rank)).steps)]
    return ranks, int(min(firsts)) if firsts else None


def last_equal(finding: Finding) -> int | None:
    """The last step at which ranks that part were equal, where one is known; dated by what changed, the one before.

    >>> sums = {"agreed_at": 72, "dated_by": None}
    >>> at = dict(kind="desync", severity="critical", first_step=76, step=80, value=1.0, threshold=0.0)
    >>> last_equal(Finding(**at, evidence=sums)), last_equal(Finding(**at, evidence=sums | {"dated_by": "x"}))
    (72, 75)
    """
    agreed = finding.evidence.get("agreed_at")
    if finding.evidence.get("dated_by"):
        return finding.first_step - 1
    return None if agreed is None else int(agreed)


WHOLE = 0.8
"""Share of the tensors from which on an update as a whole was another one; some may have had no gradient."""


def part_only(differing: int, compared: int) -> bool:
    """Whether only some of the tensors differ.

    >>> part_only(3, 6), part_only(6, 6), part_only(9, 10)
    (True, False, False)
    """
    return differing <= WHOLE * compared


def onset_text(finding: Finding) -> str:
    """``step 76``, or ``a step from 73 to 76`` where nobody looked in between.

    >>> at = dict(kind="desync", severity="critical", first_step=76, step=80, value=1.0, threshold=0.0)
    >>> onset_text(Finding(**at, evidence={"agreed_at": 72})), onset_text(Finding(**at, evidence={"agreed_at": 75}))
    ('a step from 73 to 76', 'step 76')
    """
    equal = last_equal(finding)
    if equal is None or equal >= finding.first_step - 1:
        return f"step {finding.first_step}"
    return f"a step from {equal + 1} to {finding.first_step}"


class Sharing(NamedTuple):
    """How often the ranks shared gradients from a step on: steps with and without a collective, worst rank."""

    steps: int
    unshared: int


def sharing(case: Case, start: int, end: int | None = None) -> Sharing:
    """Over the steps from ``start`` up to and including ``end`` (``None``: the last)."""
    worst = Sharing(0, 0)
    for rank in case.history.ranks("collectives"):
        series = case.history.series("collectives", rank)
        within = series.steps >= start
        if end is not None:
            within &= series.steps <= end
        found = Sharing(int(within.sum()), int((series.values[within] == 0).sum()))
        worst = max(worst, found, key=lambda sharing: sharing.unshared)
        if not worst.steps:
            worst = found
    return worst


def told_not_to_share(case: Case, start: int) -> float | None:
    """Of the steps from ``start`` on without a collective, the share whose backward passes all ran under ``no_sync``.

    ``None`` where it was not recorded: no wrapper that has a ``no_sync``, or no such step.
    """
    told = []
    for rank in case.history.ranks("no_sync_passes"):
        passes, under, shared = (
            dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))
            for name in ("backward_passes", "no_sync_passes", "collectives")
            for series in (case.history.series(name, rank),)
        )
        unshared = [step for step in under if step >= start and shared.get(step) == 0]
        told += [under[step] >= passes.get(step, 1.0) for step in unshared]
    return sum(told) / len(told) if told else None


def unshared_at_last(case: Case, start: int) -> int:
    """Steps from just before ``start`` on that were shared, but whose last backward pass ran under ``no_sync``."""
    return max(
        (
            int((case.history.series("no_sync_last", rank).steps >= start - 1).sum())
            for rank in case.history.ranks("no_sync_last")
        ),
        default=0,
    )


def accumulates(case: Case) -> float:
    """The largest usual number of backward passes per step of any rank; 1 where nothing is accumulated."""
    usual = [
        float(np.median(series.values[np.isfinite(series.values)]))
        for rank in case.history.ranks("backward_passes")
        if len((series := case.history.series("backward_passes", rank)).values)
    ]
    return max(usual, default=1.0)


def ranks_text(ranks: list[int]) -> str:
    """``rank 3`` or ``ranks 0, 2``.

    >>> ranks_text([3]), ranks_text([0, 2])
    ('rank 3', 'ranks 0, 2')
    """
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))
