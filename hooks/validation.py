"""The validation loss that the job computes for itself, found where it keeps it: nobody has to log it for us.

Between two steps the job has evaluated its model. Either the model gave the losses itself (the models of Hugging
Face do), or the job's variables hold one number under a name that says what it is: ``val_loss``, ``losses["val"]``,
``history["val_loss"][-1]``. Where nothing is kept (``print(evaluate(model))``) there are still the calls of torch's
loss functions meanwhile. What the job logs by ``monitor.log`` goes before all of them.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Module
from torchvitals.hooks.loss_calls import LossCalls
from torchvitals.hooks.source import locals_of, user_frames

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer

HELD_OUT = {"val", "valid", "validation", "eval", "evaluation", "dev", "test", "vloss", "vlosses"}
LOSS = {"loss", "losses", "nll", "vloss", "vlosses"}
NOT_THIS_ONE = {
    "best", "min", "lowest", "max", "prev", "previous", "last", "old", "running", "total", "sum", "batch", "step",
    "weight", "weights", "target", "fn", "func",
}  # fmt: skip
"""Words of what is kept beside the newest mean: the best so far, the sum on the way to it, a setting."""
LOOKS = 4
"""Evaluations after which a job that was found to keep no such number is left alone."""
WIDEST = 64
"""Entries of a dictionary that are read."""


class ValidationLoss:
    """What is known of the evaluation since the last step."""

    def __init__(self) -> None:
        self._due = False
        self._sum: torch.Tensor | None = None
        self._count = 0
        self._name = ""
        """Where it was found the first time; later only there."""
        self._newest: float | None = None
        self._looks = LOOKS
        self._calls = LossCalls()

    def evaluated(self, module: Module | None, output: Any) -> None:
        """``module`` has answered without gradients, or in evaluation mode."""
        if module is None or module.training:
            return
        self._due = True
        if self._looks and not self._name:
            self._calls.listen()
        loss = own_loss(output)
        if loss is not None:
            self._sum = loss if self._sum is None else self._sum + loss
            self._count += 1

    def take(self, *, logged: bool) -> float | torch.Tensor | None:
        """The validation loss of the evaluation that is over; ``None`` where there was none or nobody knows it.

        Where the job has ``logged`` its own, it is believed from then on.
        """
        if logged:
            self._looks = 0
            self.close()
        due, self._due = self._due, False
        called = self._calls.end()
        total, count, self._sum, self._count = self._sum, self._count, None, 0
        if not due or not self._looks:
            return None
        if total is not None:
            self.close()
            return total / count
        found = None if self._calls.known else self._kept()
        if self._name:
            self.close()
            return found
        if called is None:
            self._looks -= 1
            if not self._looks:
                self.close()
        return called

    def close(self) -> None:
        """Nothing is to be heard of calls: the job ends, or another source is known."""
        self._calls.close()

    def _kept(self) -> float | None:
        candidates: dict[str, float] = {}
        for frame in user_frames(sys._getframe()):
            for name, value in named_losses(locals_of(frame)):
                candidates.setdefault(name, value)
        self._name = self._name or min(candidates, key=len, default="")
        newest = candidates.get(self._name)
        if newest is None or newest == self._newest:  # of an evaluation before
            return None
        self._newest = newest
        return newest


def tell_validation(observer: "Observer") -> None:
    """A step begins after forwards without gradients: what they amounted to is written with it.

    Before the first step they were a trial of the code, as Lightning's sanity check is, or told of another model.
    """
    logged = observer.pending.logged
    value = observer.validation.take(logged="validation_loss" in logged)
    if value is not None and observer.recorder.step:
        logged["validation_loss"] = value


def own_loss(output: Any) -> torch.Tensor | None:
    """The loss that a model put into its output, if it did."""
    loss = output.get("loss") if isinstance(output, Mapping) else None
    return loss.detach() if isinstance(loss, torch.Tensor) and loss.numel() == 1 else None


def named_losses(variables: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers among ``variables``, the attributes of ``self``, and in dictionaries, that are named a validation loss.

    >>> kept = {"val_loss": 0.5, "best_val_loss": 0.4, "lr": 0.1, "losses": {"train": 0.2, "val": 0.6}}
    >>> list(named_losses({**kept, "history": {"valid_loss": [0.9, 0.7]}}))
    [('val_loss', 0.5), ('losses.val', 0.6), ('history.valid_loss', 0.7)]
    """
    for name, value in variables.items():
        if isinstance(value, dict):
            found = list(value.items())[:WIDEST]
            yield from _numbers((f"{name}.{key}", key, item) for key, item in found if isinstance(key, str))
            yield from _numbers((f"{name}.{key}", f"{name} {key}", item) for key, item in found if key in HELD_OUT)
        else:
            yield from _numbers([(name, name, value)])
    owner = variables.get("self")
    if owner is not None and not isinstance(owner, Module) and type(getattr(owner, "__dict__", None)) is dict:
        yield from ((f"self.{name}", value) for name, value in named_losses({**vars(owner), "self": None}))


def is_validation_loss(name: str) -> bool:
    """Whether ``name`` says that it is the newest loss on data held out.

    >>> [is_validation_loss(n) for n in ("val_loss", "avg_vloss", "valLoss", "value_loss", "best_val_loss", "eval")]
    [True, True, True, False, False, False]
    """
    words = set(re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()))
    return bool(words & LOSS and words & HELD_OUT and not words & NOT_THIS_ONE)


def _numbers(entries: Iterable[tuple[str, str, Any]]) -> Iterator[tuple[str, float]]:
    for path, name, value in entries:
        newest = value[-1] if isinstance(value, list) and value else value
        if isinstance(newest, torch.Tensor):
            newest = float(newest.detach()) if newest.numel() == 1 and newest.device.type == "cpu" else None
        if isinstance(newest, Real) and not isinstance(newest, bool) and is_validation_loss(name):
            yield path, float(newest)
