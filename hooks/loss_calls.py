"""Losses of answers that are not trained on: torch's own loss functions, met only while the job evaluates."""

from collections.abc import Callable
from typing import Any

import torch
from torchvitals.hooks.taps import Taps

FUNCTIONS = (
    "cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss", "l1_loss",
    "smooth_l1_loss", "huber_loss", "gaussian_nll_loss", "poisson_nll_loss", "ctc_loss",
)  # fmt: skip
"""Of ``torch.nn.functional``; the modules of the same purpose call them."""


class LossCalls:
    """The mean loss of an evaluation, from the calls of one function: the first that an evaluation used.

    From the first evaluation on the functions are replaced for good, since in ``cross_entropy(model(x), y)`` Python
    looks the function up before it calls the model; they are heard from the first answer of an evaluation to the next
    step. A training loss costs a microsecond more.

    >>> calls = LossCalls()
    >>> calls.listen()
    >>> for answer in (torch.ones(3), torch.zeros(1)):
    ...     _ = torch.nn.functional.mse_loss(answer, torch.zeros_like(answer))
    >>> float(calls.end()), calls.known
    (0.75, 'mse_loss')
    >>> calls.close()
    """

    def __init__(self) -> None:
        self.known = ""
        """The function whose results are taken."""
        self._taps: Taps | None = None
        self._listening = False
        self._sums: dict[str, tuple[Any, int]] = {}

    def listen(self) -> None:
        """An evaluation goes on."""
        self._listening = True
        if self._taps is None:
            self._taps = Taps()
            for name in FUNCTIONS:
                self._taps.wrap(torch.nn.functional, name, after=self._listener(name))

    def end(self) -> torch.Tensor | None:
        """The next step begins: the mean over all items, ``None`` when nothing was heard."""
        self._listening = False
        sums, self._sums = self._sums, {}
        self.known = self.known or next(iter(sums), "")
        total, items = sums.get(self.known, (None, 0))
        return total / items if items else None

    def close(self) -> None:
        """Put the functions back."""
        self._listening = False
        if self._taps is not None:
            self._taps.remove()
            self._taps = None

    def _listener(self, name: str) -> Callable[..., None]:
        def called(result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self._listening:
                return
            answer = args[0] if args else kwargs.get("input")
            if not isinstance(result, torch.Tensor) or result.requires_grad or not isinstance(answer, torch.Tensor):
                return  # a loss to train on, or an exception on its way
            items = len(answer) if answer.dim() else 1
            whole = result.detach() if kwargs.get("reduction") == "sum" else result.detach().mean() * items
            total, before = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + whole, before + items

        return called
