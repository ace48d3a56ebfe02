"""How much the hooks may cost, and what that buys.

A token bucket in seconds: every step adds ``overhead`` of its own duration, everything the hooks do takes
out what it was measured to cost. What is optional (the full gradient norm, sampled profiles) happens when
the bucket can pay for it, and at the latest every ``floor`` steps.

The bucket starts with ``allowance``, so that a job's first steps, where most jobs break, are seen densely;
a second is 1 % of the first 100 seconds and nothing afterwards.
"""

ALLOWANCE_SECONDS = 1.0
SMOOTHING = 0.2
"""Weight of the newest measurement in a moving average: five steps to follow a change."""


class Task:
    """One optional piece of work: what it costs, when it ran last, and how it is spread."""

    __slots__ = ("cost", "dense", "floor", "last", "sparsest")

    def __init__(self, floor: int, sparsest: int, dense: int) -> None:
        self.floor = floor
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
        """Measured cost over step time, smoothed: the signal ``overhead_ratio``."""
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
        if work.last < 0 or step - work.last >= work.floor:
            return True
        return self.tokens > 0.0 and self.tokens >= work.cost and step - work.last >= work.spacing(step)

    def done(self, task: str, step: int, seconds: float, optimizer: int = 0) -> None:
        """``task`` happened at ``step`` and took ``seconds``, which :meth:`close_step` will be told as well."""
        work = self._task(task, optimizer)
        work.cost = seconds if work.last < 0 else work.cost + SMOOTHING * (seconds - work.cost)
        work.last = step

    def interval(self, task: str, step: int, optimizer: int = 0) -> int:
        """Steps since ``task`` last happened: the sampling in force; 0 when it never did."""
        last = self._task(task, optimizer).last
        return step - last if last >= 0 else 0

    def _task(self, task: str, optimizer: int) -> Task:
        work = self._tasks.get((task, optimizer))
        if work is None:
            work = self._tasks[task, optimizer] = Task(*self._spread[task])
        return work

    def close_step(self, step_seconds: float, cost_seconds: float) -> None:
        """A step took ``step_seconds``, ``cost_seconds`` of them in our code."""
        self.tokens = min(self.tokens + self.overhead * step_seconds - cost_seconds, self._most)
        # Debt is bounded: one slow dump must not silence the next thousand steps.
        self.tokens = max(self.tokens, -self._most)
        if step_seconds > 0.0:
            self.ratio += 0.05 * (cost_seconds / step_seconds - self.ratio)
