"""The one place in the agent's loop where any exception is caught: a plug-in must not take the agent down."""

import logging
from collections.abc import Callable
from typing import TypeVar

log = logging.getLogger("torchvitals.agent")
T = TypeVar("T")


def guarded(what: str, call: Callable[[], T]) -> tuple[T | None, str]:
    """Run ``call``; return its result and ``""``, or ``None`` and what went wrong in one line.

    Detectors and causes are code of many hands that reads the data of strangers. One that fails is
    retired by its owner and reported as not checked; the others go on.

    >>> guarded("division", lambda: 1 / 1)
    (1.0, '')
    """
    try:
        return call(), ""
    except Exception as error:
        log.warning("%s failed and is switched off", what, exc_info=True)
        return None, f"failed inside with {type(error).__name__}: {error}"
