"""A service answers NaN: in which request first, what it was given then, and which operation makes it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torchvitals.hooks.nested import tensors

if TYPE_CHECKING:
    from torchvitals.hooks.forwards import RootWatch
    from torchvitals.hooks.verdict import Origin

_PLAIN = (int, float, str, bytes, type(None))
"""What a request may hold besides tensors if it is to be run again: a cache of keys would be filled twice."""
TRIES = 3
"""Requests that are run again at most, each once."""


class Undefined(NamedTuple):
    """The first request of a block that was answered with NaN."""

    request: int
    """Counted from the beginning of the block."""
    rows: int
    """Rows of the answer that hold NaN, of those looked at."""
    output: str
    given: str
    """The input that was NaN in that request; empty if none was."""
    zero: str
    """The input of which such a row was exactly zero; empty if none was, or rows of input and answer don't match."""


class Kept(Protocol):
    """What a block keeps of one tensor of its requests."""

    path: str
    columns: list[str]
    reduced: bool

    @property
    def is_answer(self) -> bool: ...
    def has_nan(self) -> bool: ...
    def requests(self) -> list[int]: ...
    def rows(self, request: int) -> NDArray[np.float32]: ...


def first_undefined(kept: Sequence[Kept]) -> Undefined | None:
    """The first request of a block that was answered with NaN; ``None`` in nearly all blocks.

    A score of -inf is a choice that is masked, and a distance may be infinite; NaN is no answer to anything.
    """
    found = [(_first_nan(each), each) for each in kept if each.is_answer and each.has_nan()]
    if not found:
        return None
    request, answer = min(found, key=lambda pair: pair[0])
    bad = np.asarray(np.isnan(answer.rows(request)).any(axis=1))
    inputs = [each for each in kept if not each.path.startswith("output") and not each.reduced]
    given = next((_name_of_nan(each, request) for each in inputs if np.isnan(each.rows(request)).any()), "")
    zero = next((each.path for each in inputs if _is_zero(each.rows(request), bad)), "")
    return Undefined(request, int(bad.sum()), answer.path, given, zero)


def origin_of(root: "RootWatch", args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> "Origin | None":
    """Which operation made the NaN of ``output``, if it holds one: the request is run again under inspection.

    Only where that changes nothing but tensors of the model's own, which are put back.
    """
    module = root.module()
    answers = [t for t in tensors(output) if t.is_floating_point() and t.device.type == "cpu"]
    if module is None or not any(bool(t.isnan().any()) for t in answers) or not _is_plain((args, kwargs)):
        return None
    root.replay.remember(module, args, dict(kwargs))
    origin = root.replay.output_origin()
    root.replay.forget()
    return origin


def _first_nan(kept: Kept) -> int:
    return next(request for request in kept.requests() if np.isnan(kept.rows(request)).any())


def _name_of_nan(kept: Kept, request: int) -> str:
    """The column of NaN, or the whole input if there are several."""
    bad = np.flatnonzero(np.isnan(kept.rows(request)).any(0))
    return kept.columns[bad[0]] if len(bad) == 1 and len(kept.columns) > 1 else kept.path


def _is_zero(rows: NDArray[np.float32], bad: NDArray[np.bool_]) -> bool:
    """Whether one of the ``bad`` rows was given nothing but zeros, in a table of several columns."""
    return len(rows) == len(bad) and rows.shape[1] > 1 and bool((rows[bad] == 0).all(1).any())


def _is_plain(value: Any, depth: int = 4) -> bool:
    if isinstance(value, _PLAIN) or next(tensors(value, 0), None) is not None:
        return True
    if not depth or type(value) not in (tuple, list, dict):
        return False
    return all(_is_plain(each, depth - 1) for each in (value.values() if type(value) is dict else value))
