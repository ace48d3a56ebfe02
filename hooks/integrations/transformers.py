"""For the ``Trainer`` of Hugging Face: ``Trainer(..., callbacks=[TorchvitalsCallback()])``."""

from pathlib import Path
from typing import Any

from torchvitals.hooks.integrations.journal import TrainerJournal

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"torchvitals.hooks.integrations.transformers is for the Trainer of Hugging Face, and {error.name} is not "
        "installed; type: pip install 'transformers[torch]'",
        name=error.name,
    ) from error


class TorchvitalsCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]  # untyped where not installed
    """Watches a training from ``on_train_begin`` to ``on_train_end``, with the trainer's step, epoch and metrics.

    ``trainer_step`` is the ``step`` of ``trainer.state.log_history``: the first is 1, and a resumed training goes on
    where it stopped; ``epoch`` is how far it was when the step began. Works under ``torchvitals run`` as well, and
    adds to that run.

    Args:
        validation_loss: name of the metric that is the validation loss; by default ``eval_loss`` or what is like it.
        directory: where runs are written; default ``TORCHVITALS_DIR`` or ``~/.local/state/torchvitals``.
        overhead: share of step time that all hooks together may take.
    """

    def __init__(
        self, *, validation_loss: str = "", directory: str | Path | None = None, overhead: float = 0.01
    ) -> None:
        self._journal = TrainerJournal(validation_loss, directory, overhead)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._journal.begin()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._journal.step(state.global_step + 1, state.epoch)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self._journal.metrics(logs or {})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._journal.end()
