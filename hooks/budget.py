"""How much the hooks may cost, and what that buys.

A token bucket in seconds: every step adds ``overhead`` of its own duration, everything the hooks do takes
out what it was measured to cost. What is optional (the full gradient norm, sampled profiles) happens when
the bucket can pay for it, and at the latest every ``floor`` steps.

The bucket starts with ``allowance``, so that a job's first steps, where most jobs break, are seen densely;
half a second is 1 % of the first 50 seconds and nothing afterwards.
"""

ALLOWANCE_SECONDS = 0.5
SMOOTHING = 0.2
"""Weight of the newest measurement in a moving average: five steps to follow a change."""


class Task:
    """One optional piece of work: what it costs and when it ran last."""

    __slots__ = ("cost", "floor", "last", "share")

    def __init__(self, floor: int, share: float) -> None:
        self.floor = floor
        self.share = share
        self.cost = 0.0
        self.last = -1


class Budget:
    """Decides, from measured costs, which optional work a step may do.

    Args:
        overhead: share of step time that all hooks together may take.
        allowance: seconds that may be spent before any step has paid for them.
        norm_floor, sample_floor: the full norm and the profiles happen at least this often, in steps,
            whatever they cost: a monitor that sees nothing is no monitor. A profile of 300 µs every 500
            steps is 0.6 µs a step.

    >>> budget = Budget(overhead=0.01, allowance=0.0, sample_floor=50)
    >>> [step for step in range(0, 200) if budget.wants("sample", step) and not budget.done("sample", step, 1.0)]
    [0, 50, 100, 150]
    """

    def __init__(
        self,
        overhead: float = 0.01,
        *,
        allowance: float = ALLOWANCE_SECONDS,
        norm_floor: int = 20,
        sample_floor: int = 200,
    ) -> None:
        self.overhead = overhead
        self.tokens = allowance
        self.ratio = 0.0
        """Measured cost over step time, smoothed: the signal ``overhead_ratio``."""
        self._most = max(allowance, 1.0)
        self._tasks = {"norm": Task(norm_floor, 0.5), "sample": Task(sample_floor, 1.0)}

    @property
    def in_debt(self) -> bool:
        """Whether even what is done at every step costs more than was earned: steps of a millisecond or two."""
        return self.tokens < 0.0

    def wants(self, task: str, step: int) -> bool:
        """Whether ``task`` may happen at ``step``."""
        work = self._tasks[task]
        if work.last < 0 or step - work.last >= work.floor:
            return True
        return self.tokens >= work.cost * work.share and self.tokens > 0.0

    def done(self, task: str, step: int, seconds: float) -> None:
        """``task`` happened at ``step`` and took ``seconds``, which :meth:`close_step` will be told as well."""
        work = self._tasks[task]
        work.cost = seconds if work.last < 0 else work.cost + SMOOTHING * (seconds - work.cost)
        work.last = step

    def interval(self, task: str, step: int) -> int:
        """Steps since ``task`` last happened: the sampling in force."""
        return step - self._tasks[task].last

    def grant(self, seconds: float) -> None:
        """Suspicion pays: allow ``seconds`` more."""
        self.tokens = min(self.tokens + seconds, self._most)

    def close_step(self, step_seconds: float, cost_seconds: float) -> None:
        """A step took ``step_seconds``, ``cost_seconds`` of them in our code."""
        self.tokens = min(self.tokens + self.overhead * step_seconds - cost_seconds, self._most)
        # Debt is bounded: one slow dump must not silence the next thousand steps.
        self.tokens = max(self.tokens, -self._most)
        if step_seconds > 0.0:
            self.ratio += 0.05 * (cost_seconds / step_seconds - self.ratio)
