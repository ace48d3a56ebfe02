"""What a trainer says of itself, its step, epoch and metrics, written beside what is measured."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchvitals.hooks.exits import exception_details
from torchvitals.hooks.monitor import Monitor
from torchvitals.hooks.recorder import Recorder
from torchvitals.hooks.unattended import watch_process
from torchvitals.signals.catalog import BY_NAME

VALIDATION = {"val", "valid", "validation", "eval", "evaluation", "dev"}
"""Words by which people name what is measured on data that is not trained on."""


class TrainerJournal:
    """One training of a trainer, from its begin to its end.

    The process is watched as under ``torchvitals run``, and by that run's own monitor where there is one: the
    numbers are the same either way, and nothing is counted twice.

    Args:
        validation_loss: name of the metric that is the validation loss; found by its name when empty.
        directory: where runs are written; default ``TORCHVITALS_DIR`` or ``~/.local/state/torchvitals``.
        overhead: share of step time that all hooks together may take.
    """

    def __init__(self, validation_loss: str = "", directory: str | Path | None = None, overhead: float = 0.01) -> None:
        self._validation_loss = validation_loss
        self._directory = Path(directory) if directory else None
        self._overhead = overhead
        self._monitor: Monitor | None = None
        self._owned = False

    def begin(self) -> None:
        """Watch from now on; the optimizer has been made, so that what runs without gradients is an evaluation."""
        if self._monitor is not None:
            return
        self._owned = Monitor.everywhere is None
        self._monitor = Monitor.everywhere or watch_process(Recorder(self._directory, overhead=self._overhead))
        self._monitor.observer.will_train = True

    def step(self, number: int, epoch: float | None) -> None:
        """The trainer is about to take the step that its own log calls ``number``."""
        if self._monitor is not None:
            self._monitor.log(trainer_step=number, **({} if epoch is None else {"epoch": epoch}))

    def metrics(self, values: Mapping[str, Any]) -> None:
        """Numbers that the trainer logged; they are written with the step that follows, or at the end."""
        if self._monitor is None:
            return
        name = self._validation_name(values)
        told = {signal_name(key): value for key, value in values.items() if key != "epoch"}
        if name:
            told["validation_loss"] = values[name]
        self._monitor.recorder.fuse.guard("trainer", self._monitor.log)(**told)

    def end(self, error: BaseException | None = None) -> None:
        """The training is over; ``error`` broke it off."""
        monitor, self._monitor = self._monitor, None
        if monitor is None or not self._owned:
            return
        if isinstance(error, Exception):
            monitor.recorder.event("exception", **exception_details(error))
        monitor.detach(failed=isinstance(error, Exception))

    def _validation_name(self, values: Mapping[str, Any]) -> str:
        """The one name that stands for the validation loss, decided when the first such metric is logged.

        Losses of several data sets must not be mixed: of the first ones logged the shortest name is kept.
        """
        if not self._validation_loss:
            self._validation_loss = min(filter(is_validation_loss, values), key=len, default="")
        return self._validation_loss if self._validation_loss in values else ""


def is_validation_loss(name: str) -> bool:
    """Whether a metric's name says that it is a loss on validation data.

    >>> [is_validation_loss(name) for name in ("eval_loss", "valid/loss_epoch", "val_loss_step", "loss", "evaluate")]
    [True, True, False, False, False]
    """
    words = set(re.split(r"[^a-z]+", name.lower()))
    return "loss" in words and "step" not in words and bool(words & VALIDATION)


def signal_name(metric: str) -> str:
    """The name under which a trainer's metric is written: its own, unless it is that of something we measure.

    A trainer's ``loss`` is an average over its logging interval, from which NaN may have been taken out.

    >>> signal_name("loss"), signal_name("eval_accuracy")
    ('trainer_loss', 'eval_accuracy')
    """
    return f"trainer_{metric}" if metric in BY_NAME else metric
