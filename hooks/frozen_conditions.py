"""A loop that waits for something that nobody can change: no line of it stores anything, and no other code runs.

``while not ready: time.sleep(0.1)`` ends when another thread, a signal handler, a property or another process says
so. Where there is no other thread and no handler, and all that its conditions read is a plain value of this process,
it never does.
"""

import builtins
import dis
import inspect
import signal
import time
from collections import deque
from collections.abc import Iterable
from types import FrameType, ModuleType
from typing import Any

from torchvitals.hooks.source import locals_of

PLAIN = (bool, int, float, complex, str, bytes, type(None), list, dict, set, frozenset, tuple, deque)
"""Types, and no subclasses, whose truth, length and comparison run nobody's code. What a list holds may be compared
by code of its own: that is asked for nowhere here, since such a comparison calls a method, which is no load."""
CALLED = (time.sleep, len)
HARMLESS = (
    "LOAD_", "COMPARE_OP", "IS_OP", "UNARY_NOT", "TO_BOOL", "POP_JUMP", "JUMP", "NOP", "NOT_TAKEN", "POP_TOP",
    "PUSH_NULL", "PRECALL", "CALL", "CACHE", "EXTENDED_ARG", "COPY", "SWAP", "KW_NAMES", "RESUME",
)  # fmt: skip
"""Instructions that change nothing."""
MISSING = object()


def waits_for_nothing(frame: FrameType, inside: Iterable[dis.Instruction]) -> bool:
    """Whether the instructions ``inside`` a loop of ``frame`` read plain values only, change none, and none can be.

    That no other thread runs is for the caller to know.
    """
    inside = [each for each in inside if each.opname != "CACHE"]
    if not all(each.opname.startswith(HARMLESS) for each in inside) or _handles_signals():
        return False
    read = _read(frame, inside)
    if read is None:
        return False
    calls = sum(each.opname.startswith("CALL") for each in inside)
    called = [value for value in read if any(value is each for each in CALLED)]
    values = [value for value in read if not any(value is each for each in CALLED)]
    return bool(values) and calls == len(called) and all(type(value) in PLAIN for value in values)


def _read(frame: FrameType, inside: list[dis.Instruction]) -> list[Any] | None:
    """What the loads of a loop end in, ``a.b`` in what ``b`` is; ``None`` where that cannot be known."""
    ends: list[Any] = []
    scopes = (locals_of(frame), frame.f_globals, vars(builtins))
    for each in inside:
        if each.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            if not ends or (found := _attribute(ends.pop(), each.argval)) is MISSING:
                return None
            ends.append(found)
        elif each.opname.startswith(("LOAD_FAST", "LOAD_DEREF", "LOAD_NAME", "LOAD_GLOBAL")):
            names = each.argval if isinstance(each.argval, tuple) else (each.argval,)
            ends += [next((scope[name] for scope in scopes if name in scope), MISSING) for name in names]
        elif each.opname.startswith("LOAD_") and each.opname not in ("LOAD_CONST", "LOAD_SMALL_INT"):
            return None
    return None if any(end is MISSING for end in ends) else ends


def _attribute(owner: Any, name: str) -> Any:
    """The attribute, if it is a plain entry of its owner: a property may ask anybody."""
    holder = getattr(owner, "__dict__", None)
    if not isinstance(holder, dict) or name not in holder:
        return MISSING
    over = inspect.getattr_static(type(owner), name, None) if not isinstance(owner, ModuleType) else None
    return MISSING if hasattr(type(over), "__set__") or isinstance(owner, type) else holder[name]


def _handles_signals() -> bool:
    """Whether the job has a handler of its own for any signal: it may change what a loop waits for."""
    own = (signal.getsignal(number) for number in signal.valid_signals())
    return any(callable(handler) and handler is not signal.default_int_handler for handler in own)
