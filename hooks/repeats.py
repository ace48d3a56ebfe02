"""Running a step again on the same inputs: the first operation whose result has other bits is not deterministic.

Only where it was asked for (``torchvitals run --exact``): each look costs several forwards and backwards. Torch has a
list of operations without a deterministic algorithm and names them; but it also has operations that merely choose a
faster, unordered algorithm unless told otherwise (on a CPU the backward of ``table[index]`` with several threads), of
which it says nothing. So results are compared, operation by operation, and torch's list is asked as well.
"""

import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd import backward as run_backward  # imported before anybody taps it
from torch.nn import Module
from torch.utils._python_dispatch import TorchDispatchMode
from torchvitals.hooks import digests
from torchvitals.hooks.births import CollectiveError
from torchvitals.hooks.calls import Call
from torchvitals.hooks.graph_task import current_node, next_sequence_number
from torchvitals.hooks.nested import tensors
from torchvitals.hooks.refusal import refusal
from torchvitals.hooks.replay import Replay
from torchvitals.hooks.sandbox import sandbox
from torchvitals.hooks.source import Line, line_of, user_frames

if TYPE_CHECKING:
    from torchvitals.hooks.recorder import Recorder

_COLLECTIVE = ("c10d", "_c10d_functional", "_c10d_functional_autograd")
_UNINITIALISED = ("empty", "new_empty", "resize")
"""Operations whose results hold whatever the memory held."""
_OVERWRITES = {"fill_", "zero_", "copy_", "bernoulli_", "uniform_", "normal_", "random_", "exponential_"}
_TOLD = re.compile(r"^(\S+) does not have a deterministic implementation")
_JOB_ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError, AssertionError)


class Done(NamedTuple):
    """One operation that was run: digests of what went in and of what came out, and where it was called."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    line: Line
    node: int
    """Sequence number of the autograd node it belongs to; -1 in the forward pass."""
    draws: bool
    """Whether it draws random numbers."""


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's initialiser has no types
    """Writes down every operation that is run inside it, until a deadline (``time.monotonic()``)."""

    def __init__(self, deadline: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: list[Done] = []
        self.late = False
        self.lines: dict[int, Line] = {}
        """Autograd node → line of the forward operation that made it."""
        self._deadline = deadline
        self._raw: set[int] = set()
        """Storages that nothing has been written to, or not wholly."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace in _COLLECTIVE:
            raise CollectiveError(str(func))
        self.late = self.late or time.monotonic() > self._deadline
        if self.late:
            return func(*args, **kwargs)
        name = func._schema.name.split("::")[1]
        given = [(_storage(t), t) for t in tensors((args, kwargs))]
        inputs = self._digests(t for key, t in given if key not in self._raw)
        result = func(*args, **kwargs)
        self._note_memory(name, {key for key, _ in given}, result)
        frame = next(user_frames(sys._getframe(1)), None)
        node = current_node()
        line = line_of(frame) if frame is not None and node is None else Line()
        if node is None and torch.is_grad_enabled():
            self.lines[next_sequence_number() - 1] = line
        number = -1 if node is None else int(node._sequence_nr())
        draws = torch.Tag.nondeterministic_seeded in func.tags
        outputs = self._digests(t for t in tensors(result) if _storage(t) not in self._raw)
        self.done.append(Done(str(func), inputs, outputs, line, number, draws))
        return result

    def _note_memory(self, name: str, given: set[int], result: Any) -> None:
        """Keep track of memory that holds whatever was there: it may be given to operations that overwrite it."""
        for tensor in tensors(result):
            key = _storage(tensor)
            if name.startswith(_UNINITIALISED):
                self._raw.add(key)
            elif key not in given or (name in _OVERWRITES and tensor.nbytes >= tensor.untyped_storage().nbytes()):
                self._raw.discard(key)

    def _digests(self, found: Iterable[torch.Tensor]) -> tuple[int, ...]:
        readable = [t.detach() for t in found if digests.digestible(t)]
        return tuple(digests.digest(readable).tolist()) if readable else ()


class Repeats:
    """Runs steps again and tells what differs.

    Args:
        recorder: where the events go.
        runs: how often a step is run; a race that shows once in ten is found in most of these looks together.
        limit_seconds: for one look; operations later than that run unseen.
    """

    def __init__(self, recorder: "Recorder", *, runs: int = 4, limit_seconds: float = 20.0) -> None:
        self._recorder = recorder
        self._runs = runs
        self._limit = limit_seconds
        self.found = False

    def look(self, replay: Replay, step: int) -> None:
        """Run the newest forward of ``replay`` and its backward again. Call it before the step is applied."""
        newest = replay.newest()
        if self.found or newest is None:
            return
        module, call = newest
        if not call.gradients and not call.substituted:
            return  # another model's step, as the generator's in the step of its judge
        why = refusal(module) or call.changed(gradients=True)
        if why:
            self._tell(step, why=why)
            return
        deadline = time.monotonic() + self._limit
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the job has seen them once
                told = self._compared(module, call, deadline)
        except _JOB_ERRORS as error:  # it ran once: what it raises now is the job's own
            self._tell(step, why=f"running the step again failed: {type(error).__name__}: {error}"[:300])
            return
        self.found = bool(told.get("operation"))
        self._tell(step, **told)

    def _compared(self, module: Module, call: Call, deadline: float) -> dict[str, Any]:
        first = _run(module, call, deadline)
        told: dict[str, Any] = {"runs": 1}
        for _ in range(self._runs - 1):
            again = _run(module, call, deadline)
            told["runs"] += 1
            if difference := _first_difference(first, again):
                told |= difference
                break
            if again.late:
                told["why"] = "the time was over before the step had been run to its end"
                break
        return told | {"unordered": _listed_by_torch(module, call, deadline)}

    def _tell(self, step: int, **details: Any) -> None:
        self._recorder.event("repeat", at=step, **{"operation": "", "why": "", **details})


def _run(module: Module, call: Call, deadline: float) -> Operations:
    with sandbox(module, call.devices()):
        args, kwargs = call.inputs()
        call.restore_generators()
        operations = Operations(deadline)
        with torch.enable_grad():
            with operations, call.autocast():
                output = module(*args, **kwargs)
            roots, gradients = call.roots(output)
            if roots:
                with operations:
                    run_backward(roots, gradients)
    return operations


def _first_difference(a: Operations, b: Operations) -> dict[str, Any]:
    """What is known of the first operation that did not do the same again; empty when all did."""
    for one, other in zip(a.done, b.done, strict=False):
        if one.name == other.name and one[1:3] == other[1:3]:
            continue
        line = a.lines.get(one.node, Line()) if one.node >= 0 else one.line
        why = "inputs" if one.inputs != other.inputs else "draws" if one.draws else "result"
        if one.name != other.name:
            why = "path"
        return {
            "operation": one.name, "phase": "backward" if one.node >= 0 else "forward", "differs": why,
            "line": str(line), "code": line.code, "instead": other.name if why == "path" else "",
        }  # fmt: skip
    if len(a.done) != len(b.done) and not (a.late or b.late):
        longer = max(a.done, b.done, key=len)[min(len(a.done), len(b.done))]
        return {"operation": longer.name, "phase": "forward", "differs": "path", "line": str(longer.line),
                "code": longer.line.code, "instead": ""}  # fmt: skip
    return {}


def _listed_by_torch(module: Module, call: Call, deadline: float) -> list[str]:
    """The operations of this step that torch has no deterministic algorithm for, by its own account."""
    with _warning_of_unordered() as caught:
        _run(module, call, deadline)
    found = [match[1] for warning in caught if (match := _TOLD.match(str(warning.message)))]
    return sorted(set(found))


@contextmanager
def _warning_of_unordered() -> Iterator[list[warnings.WarningMessage]]:
    """Torch's deterministic mode, warning only; as it was when the block is left."""
    before = torch.are_deterministic_algorithms_enabled()
    only = torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings(record=True) as caught:
        try:
            warnings.simplefilter("always")
            torch.use_deterministic_algorithms(True, warn_only=True)
            yield caught
        finally:
            torch.use_deterministic_algorithms(before, warn_only=only)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)
