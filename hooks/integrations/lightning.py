"""For the ``Trainer`` of Lightning: ``Trainer(..., callbacks=[TorchvitalsCallback()])``."""

import sys
from pathlib import Path
from typing import Any

from torchvitals.hooks.integrations.journal import TrainerJournal

try:
    if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
        from pytorch_lightning import Callback
    else:
        from lightning.pytorch import Callback  # type: ignore[assignment, unused-ignore]  # twins, the same by name
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"torchvitals.hooks.integrations.lightning is for the Trainer of Lightning, and {error.name} is not "
        "installed; type: pip install lightning",
        name=error.name,
    ) from error


class TorchvitalsCallback(Callback):  # type: ignore[misc, unused-ignore]  # untyped where not installed
    """Watches a fit from ``on_train_start`` to its end, with the trainer's step, epoch and metrics.

    ``trainer_step`` is ``trainer.global_step`` before the step, as in the trainer's own log: the first is 0. Metrics
    of training are read every ``log_every_n_steps``, those of validation when it ends. Works under
    ``torchvitals run`` as well, and adds to that run.

    Args:
        validation_loss: name of the metric that is the validation loss; by default ``val_loss`` or what is like it.
        directory: where runs are written; default ``TORCHVITALS_DIR`` or ``~/.local/state/torchvitals``.
        overhead: share of step time that all hooks together may take.
    """

    def __init__(
        self, *, validation_loss: str = "", directory: str | Path | None = None, overhead: float = 0.01
    ) -> None:
        self._journal = TrainerJournal(validation_loss, directory, overhead)
        self._of_training: set[str] = set()
        self._of_validation: set[str] = set()
        self._told = -1

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self._journal.begin()

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        self._journal.step(trainer.global_step, trainer.current_epoch)

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        due = trainer.global_step % trainer.log_every_n_steps == 0 and trainer.global_step != self._told
        if due or not self._of_training:  # the first batch shows which names are those of training
            self._told = trainer.global_step
            self._tell(trainer, self._of_training, self._of_validation)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self._tell(trainer, self._of_training, self._of_validation)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        if not trainer.sanity_checking:
            self._tell(trainer, self._of_validation, self._of_training)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self._journal.end()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        self._journal.end(exception)

    def _tell(self, trainer: Any, own: set[str], others: set[str]) -> None:
        """Lightning keeps all metrics in one dictionary, the old ones too: who logged a name first owns it."""
        found = {name: value for name, value in trainer.callback_metrics.items() if name not in others}
        own.update(found)
        self._journal.metrics(found)
