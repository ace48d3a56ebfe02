"""How much the hooks may cost, and what that buys.

A token bucket in seconds: every step adds ``overhead`` of its own duration, everything the hooks do takes
out what it was measured to cost. What is optional (the full gradient norm, sampled profiles) happens when
the bucket can pay for it, and at the latest every ``floor`` steps; in debt these are also ``FLOOR_SECONDS`` apart.

The bucket starts with ``allowance``, so that a job's first steps, where most jobs break, are seen densely;
a second is 1 % of the first 100 seconds and nothing afterwards.
"""

import math

ALLOWANCE_SECONDS = 1.0
FLOOR_SECONDS = {"norm": 0.2, "sample": 1.0, "activations": 2.0}
"""In debt a floor is no sooner than this: a hundred steps of a millisecond are no reason to look again."""
FLOOR_SHARE = 0.2
"""Of the budget that each of the three floors may take in debt, by what it was measured to cost,"""
LONGEST_REST = 10.0
"""but no rarer than this, in seconds: a unit that dies is to be seen within a minute."""
HIDDEN = 1.8
"""What the hooks' own clock says of the work done at every step, times this, is what a step gets longer: calls
into the hooks and caches that the job finds cold. Measured once, on steps of 0.5 ms: 109 µs by the clock, 201 in
all."""
COUNTED = 0.05
"""Cost of a counted step, as a share of a watched one's without its optional work: 65 of 1,260 µs were measured beside
an MLP of 2.5 ms;"""
LIGHTER = 0.022
"""and how much less a light one costs: 28 µs."""
MOST_COUNTED = 384
"""Steps between two watched ones: those of a millisecond are then seen two or three times a second,"""
MOST_COUNTED_SECONDS = 1.0
"""and longer ones once. A look takes one or two milliseconds with all that is done then."""
EVERY_STEP = 0.4
"""Share of the budget that what is done at every step may take; the rest is that of the floors."""
SMOOTHING = 0.2
"""Weight of the newest measurement in a moving average: five steps to follow a change."""


class Task:
    """One optional piece of work: what it costs, when it ran last, and how it is spread."""

    __slots__ = ("cost", "dense", "floor", "last", "ran", "rest", "sparsest")

    def __init__(self, floor: int, sparsest: int, dense: int, rest: float) -> None:
        self.floor = floor
        self.rest = rest
        self.ran = 0.0
        self.sparsest = sparsest
        self.dense = dense
        self.cost = 0.0
        self.last = -1

    def spacing(self, step: int) -> int:
        """Steps between two runs while there is enough in the bucket."""
        return max(1, min(self.sparsest, step // self.dense))


class Budget:
    """Decides, from measured costs, which optional work a step may do.

    Args:
        overhead: share of step time that all hooks together may take.
        allowance: seconds that may be spent before any step has paid for them.
        norm_floor, sample_floor: the full norm and the profiles happen at least this often, in steps (the
            activations half as often), whatever they cost: a monitor that sees nothing is no monitor. A
            profile of 300 µs every 100 steps is 3 µs a step.
        dense: this many profiles at every step, and from then on ever further apart, so that what the
            allowance buys is spread over the job and not spent on its first second.
        sparsest: but no further apart than this while steps pay for them.

    >>> budget = Budget(overhead=0.01, allowance=0.0, sample_floor=50)
    >>> [step for step in range(0, 200) if budget.wants("sample", step) and not budget.done("sample", step, 1.0)]
    [0, 50, 100, 150]
    >>> rich = Budget(allowance=1.0, dense=4)
    >>> [step for step in range(0, 20) if rich.wants("sample", step) and not rich.done("sample", step, 0.0)]
    [0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 14, 18]
    """

    def __init__(
        self,
        overhead: float = 0.01,
        *,
        allowance: float = ALLOWANCE_SECONDS,
        norm_floor: int = 10,
        sample_floor: int = 100,
        dense: int = 64,
        sparsest: int = 10,
    ) -> None:
        self.overhead = overhead
        self.tokens = allowance
        self.ratio = 0.0
        """Cost over step time, smoothed: the signal ``overhead_ratio``."""
        self._elapsed = 0.0
        self._optional = 0.0
        """Seconds of optional work since the last watched step was closed."""
        self._plain = 0.0
        """Cost of what a watched step does in any case, smoothed."""
        self._step_seconds = 0.0
        """Duration of a step, smoothed."""
        self._most = max(allowance, 1.0)
        self._spread = {
            "norm": (norm_floor, 1, 1),
            "sample": (sample_floor, sparsest, dense),
            # a pass over all outputs costs several times as much as one over all gradients
            "activations": (2 * sample_floor, 4 * sparsest, max(1, dense // 4)),
        }
        self._tasks: dict[tuple[str, int], Task] = {}

    @property
    def in_debt(self) -> bool:
        """Whether even what is done at every step costs more than was earned: steps of a millisecond or two."""
        return self.tokens < 0.0

    def wants(self, task: str, step: int, optimizer: int = 0) -> bool:
        """Whether ``task`` may happen at ``step`` of ``optimizer``."""
        work = self._task(task, optimizer)
        if work.last < 0:
            return True
        if step - work.last >= work.floor and (not self.in_debt or self._elapsed - work.ran >= self._rest(work)):
            return True
        return self.tokens > 0.0 and self.tokens >= work.cost and step - work.last >= work.spacing(step)

    def done(self, task: str, step: int, seconds: float, optimizer: int = 0) -> None:
        """``task`` happened at ``step`` and took ``seconds``, which :meth:`close_step` will be told as well."""
        work = self._task(task, optimizer)
        work.cost = seconds if work.last < 0 else work.cost + SMOOTHING * (seconds - work.cost)
        work.last = step
        work.ran = self._elapsed
        self._optional += seconds

    def interval(self, task: str, step: int, optimizer: int = 0) -> int:
        """Steps since ``task`` last happened: the sampling in force; 0 when it never did."""
        last = self._task(task, optimizer).last
        return step - last if last >= 0 else 0

    def _rest(self, work: Task) -> float:
        """Seconds of the job between two runs in debt."""
        share = FLOOR_SHARE * self.overhead
        return max(work.rest, min(work.cost / share, LONGEST_REST)) if share > 0.0 else work.rest

    def _task(self, task: str, optimizer: int) -> Task:
        work = self._tasks.get((task, optimizer))
        if work is None:
            work = self._tasks[task, optimizer] = Task(*self._spread[task], FLOOR_SECONDS[task])
        return work

    def close_step(self, seconds: float, cost: float, counted: int = 0, light: int = 0) -> None:
        """A watched step has ended; in ``seconds`` it and ``counted`` steps before it went by.

        Args:
            seconds: since the watched step before; 0 when an evaluation or the start lies in between.
            cost: seconds measured in our code, optional work included.
            counted: steps that were only counted; their cost is estimated.
            light: how many of them were light ones.
        """
        plain = HIDDEN * max(0.0, cost - self._optional)
        self._plain += SMOOTHING * (plain - self._plain) if self._plain else plain
        cost = self._optional + plain + (counted * COUNTED - light * LIGHTER) * self._plain
        self._optional = 0.0
        self._elapsed += seconds
        # Debt is bounded: one slow dump must not silence the next thousand steps.
        self.tokens = max(min(self.tokens + self.overhead * seconds - cost, self._most), -self._most)
        if seconds > 0.0:
            each = seconds / (counted + 1)
            self._step_seconds += SMOOTHING * (each - self._step_seconds) if self._step_seconds else each
            self.ratio += 0.05 * (cost / seconds - self.ratio)

    @property
    def counting_unpaid(self) -> bool:
        """Whether even steps that are only counted cost more than they earn."""
        return self.in_debt and EVERY_STEP * self.overhead * self._step_seconds <= COUNTED * self._plain

    def steps_to_count(self) -> int:
        """How many of the steps to come are only counted, so that what is done at each is paid for on average.

        >>> def counted(step_seconds):
        ...     budget = Budget(allowance=0.0)
        ...     for _ in range(50):
        ...         budget.close_step(step_seconds, 100e-6)
        ...     return budget.steps_to_count()
        >>> [counted(seconds) for seconds in (1e-3, 9e-3, 1e-1)]
        [384, 6, 0]
        """
        if not self.in_debt:
            return 0
        earned, counted = EVERY_STEP * self.overhead * self._step_seconds, COUNTED * self._plain
        most = max(1, min(MOST_COUNTED, int(MOST_COUNTED_SECONDS / max(self._step_seconds, 1e-6))))
        if earned >= self._plain:
            return 0
        if earned <= counted:
            return most
        return min(most, math.ceil((self._plain - earned) / (earned - counted)))
