"""Waiting for something to become true, with a deadline instead of a guess."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LOOK_SECONDS = 0.02


def eventually(condition: Callable[[], T], seconds: float = 60.0, what: str = "") -> T:
    """The first truthy answer of ``condition``; an AssertionError when the deadline passes."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or condition}"
        threading.Event().wait(LOOK_SECONDS)
