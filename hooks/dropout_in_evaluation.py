"""A functional dropout that was not told of evaluation mode: answers of an evaluation are then random.

``torch.nn.functional.dropout(x, p)`` drops by default, whatever the mode of the model. It is looked at during the
first evaluations only, from the inside of the forward, so that its line can be named.
"""

import sys
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Module
from torchvitals.hooks.source import is_user_file, line_of

LOOKS = 4
"""Evaluation forwards that are looked at: the path through a model hardly ever changes."""
WATCHED = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")


class DropoutInEvaluation:
    """Listens to the functional dropouts while a root is called in evaluation mode.

    Args:
        tell: is called with the place as ``file:line``, once.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._left = LOOKS
        self._originals: dict[str, Any] = {}

    def enter(self, module: Module) -> None:
        """``module``, a root, begins an evaluation."""
        if self._left <= 0 or self._originals or module.training or _asks_for_dropout(module):
            return
        self._left -= 1
        root = weakref.ref(module)
        for name in WATCHED:
            original = getattr(torch.nn.functional, name)
            self._originals[name] = original
            setattr(torch.nn.functional, name, self._listening(original, root))

    def leave(self) -> None:
        """It has ended."""
        while self._originals:
            name, original = self._originals.popitem()
            setattr(torch.nn.functional, name, original)

    def _listening(self, original: Any, root: "weakref.ref[Module]") -> Any:
        def dropout(*args: Any, **kwargs: Any) -> Any:
            share = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
            drops = args[2] if len(args) > 2 else kwargs.get("training", original.__name__ == "dropout")
            frame = sys._getframe(1)
            evaluates = (module := root()) is not None and not module.training  # a forward that raised left us here
            if drops and share and evaluates and is_user_file(frame.f_code.co_filename) and self._left >= 0:
                self._left = -1
                self._tell(str(line_of(frame)))
            return original(*args, **kwargs)

        return dropout


def _asks_for_dropout(module: Module) -> bool:
    """Whether dropout is wanted in evaluation (Monte-Carlo dropout): a dropout module of it is in training mode."""
    return any(part.training and "Dropout" in type(part).__name__ for part in module.modules())
