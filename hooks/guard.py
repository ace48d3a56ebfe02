"""On request only: what to do instead of applying gradients that are not finite.

The monitor itself never changes a training. A guard does, because it was asked to, and writes an event each time.
It looks at every gradient in the optimizer's pre-hook, one pass: 0.06 ms per million parameters on a CPU core. On a
CUDA device the host waits for the answer, which costs a synchronisation per step.

Ranks must act alike without talking to each other. With DDP they do: gradients are equal on all ranks once they are
reduced, and nothing else is looked at, above all not the loss, which is each rank's own. Where parameters are
sharded, or ranks train without DDP, equal answers are not certain, and only ``stop`` and functions are done there.

Not covered: optimizers that are given a closure (their gradients do not exist yet); steps that a ``GradScaler``
leaves out (it has looked already); weights that overflow from finite gradients; and where nobody called ``attach``
before the first forward, the running statistics that a bad first batch has spoilt.
"""

import os
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, get_args

Action = Literal["skip", "stop", "rollback"]
ACTIONS: tuple[str, ...] = get_args(Action)
VARIABLE = "TORCHVITALS_GUARD"
"""What ``torchvitals run --guard`` sets."""


class BadStep(NamedTuple):
    """A step whose gradients are not finite, as a function that was given as guard sees it."""

    step: int
    optimizer: int
    parameters: list[str]
    """Names of the parameters whose gradient holds NaN or Inf, in the model's order."""
    of: int
    """Parameters that have a gradient."""
    consecutive: int
    """This is the n-th bad step in a row, from 1."""


Decide = Callable[[BadStep], str | None]


class NonFiniteStepError(RuntimeError):
    """Raised out of ``optimizer.step()`` when the guard stops a training; the weights are untouched."""


class Guard:
    """What to do, and how far.

    Args:
        action: ``skip`` (apply nothing, go on), ``stop`` (raise), ``rollback`` (apply nothing and go back to the
            newest checkpoint), or a function that is given a :class:`BadStep` and answers one of these words, or
            ``None`` to apply the step as it is.
        every: steps between checkpoints for ``rollback``: what is lost at most, beside the bad step.
        most: bad steps in a row after which it stops whatever was asked: nothing would be learnt any more.
        largest: bytes a checkpoint may take in host memory; beyond it a rollback is a skip, and it is said.

    Raises:
        ValueError: ``action`` is another word.
    """

    def __init__(
        self,
        action: Action | Decide,
        *,
        every: int = 100,
        most: int = 100,
        largest: int = 4 << 30,
    ) -> None:
        if not callable(action) and action not in ACTIONS:
            raise ValueError(f"a guard is one of {', '.join(ACTIONS)}, or a function; it was given {action!r}")
        self.action = action
        self.every = every
        self.most = most
        self.largest = largest

    @property
    def word(self) -> str:
        """What the facts call it."""
        return getattr(self.action, "__name__", "function") if callable(self.action) else self.action

    @property
    def keeps(self) -> bool:
        """Whether checkpoints are needed; a function may ask for a rollback at any time."""
        return callable(self.action) or self.action == "rollback"


def of(given: "Guard | Action | Decide | None") -> Guard | None:
    """What was given as ``guard=`` as a :class:`Guard`."""
    return given if given is None or isinstance(given, Guard) else Guard(given)


def from_environment(environ: Mapping[str, str] = os.environ) -> Guard | None:
    """The guard that ``torchvitals run`` was asked for."""
    word = environ.get(VARIABLE, "")
    return Guard(word) if word else None  # type: ignore[arg-type] # checked by the constructor
