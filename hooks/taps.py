"""Places in torch where everybody passes: replaced by a wrapper on install, put back on remove.

Each tap calls the original with the same arguments and returns what it returned; listeners run under the
fuse before and after. ``install`` and ``remove`` nest, so several monitors may share the taps.
"""

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from types import CodeType
from typing import Any, NamedTuple

from torchvitals.hooks import tracing

Listener = Callable[..., Any]
Shortcut = Callable[[Any, Any], Any]


class Tap(NamedTuple):
    """One replaced attribute: where it lives, its name, and what to tell whom."""

    owner: Any
    attribute: str
    original: Any


class Taps:
    """The replaced attributes of one monitor."""

    def __init__(self) -> None:
        self._taps: list[Tap] = []
        self.removed = False

    def wrap(
        self,
        owner: Any,
        attribute: str,
        before: Listener | None = None,
        after: Listener | None = None,
        shortcut: Shortcut | None = None,
    ) -> bool:
        """Replace ``owner.attribute`` by a wrapper; ``False`` when there is no such attribute.

        ``before(args, kwargs)`` runs first, ``after(result, args, kwargs)`` last, also when the original
        raised (``result`` is then the exception, which goes on). ``shortcut(original, wrapper)`` makes what is put
        there in place of the wrapper, for calls that need neither.
        """
        original = getattr(owner, attribute, None)
        if original is None:
            return False
        wrapper = _wrapper(self, original, before, after)
        wrapper.taps = self
        if shortcut is not None:
            wrapper = shortcut(original, wrapper)
            wrapper.taps = self
            _codes.add(wrapper.__code__)
        _put(owner, attribute, wrapper)
        self._taps.append(Tap(owner, attribute, original))
        return True

    def remove(self) -> None:
        """Let the wrappers pass everything through, and take away those that nobody has wrapped in turn.

        Several monitors may go in any order: the last of a pile takes the others with it.
        """
        self.removed = True
        while self._taps:
            owner, attribute, _ = self._taps.pop()
            found = replaced = getattr(owner, attribute)
            while getattr(found, "__code__", None) in _codes and found.taps.removed:
                found = found.__wrapped__
            if found is not replaced:
                _put(owner, attribute, found)


def _put(owner: Any, attribute: str, function: Any) -> None:
    """Set the attribute; what was a static method stays one."""
    static = isinstance(inspect.getattr_static(owner, attribute), staticmethod)
    setattr(owner, attribute, staticmethod(function) if static else function)


def _wrapper(taps: Taps, original: Any, before: Listener | None, after: Listener | None) -> Any:
    @wraps(original)
    def tapped(*args: Any, **kwargs: Any) -> Any:
        if taps.removed or tracing.dynamo_traces() or tracing.callback():  # dynamo traces the original, and none of us
            return original(*args, **kwargs)
        if before is not None:
            before(args, kwargs)
        result = None
        try:
            result = original(*args, **kwargs)
            return result
        finally:
            if after is not None:
                after(result if result is not None else sys.exc_info()[1], args, kwargs)

    return tapped


def tapped_code() -> CodeType:
    """The code that all wrappers share."""
    return next(part for part in _wrapper.__code__.co_consts if isinstance(part, CodeType) and part.co_name == "tapped")


_codes = {tapped_code()}
"""That of all wrappers, and of the shortcuts before them."""


def codes() -> frozenset[CodeType]:
    """The code of everything that was put in place of a function of torch."""
    return frozenset(_codes)
