"""Is this code being traced, compiled or transformed? Then none of ours may run in it.

What we computed would become part of a compiled graph, an exported program or a cache of recomputation, and the
tensors may not be real ones. All names but those of ``torch.compiler`` and ``is_tracing`` are private to torch and
probed; one that is missing is taken for a "no".

What runs in every step asks ``dynamo_traces() or callback()``: the answer of :func:`compiling` without a call of ours.
"""

from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any

import torch


def _probe(*path: str) -> Any:
    found: Any = torch._C
    for name in path:
        found = getattr(found, name, None)
    return found


def _no_callback() -> None:
    """Nothing is compiled."""


dynamo_traces = torch.compiler.is_dynamo_compiling
"""False where Python runs it, and true where dynamo reads it."""
callback: Callable[[], Any] = _probe("_dynamo", "eval_frame", "get_eval_frame_callback") or _no_callback
"""What would compile a function that is called now; false where nothing would."""
_is_compiling = torch.compiler.is_compiling
_is_tracing: Callable[[], bool] = _probe("_is_tracing") or torch.jit.is_tracing  # type: ignore[attr-defined]
_modes: Callable[[], int] | None = _probe("_len_torch_dispatch_stack")
_transform: Callable[[], Any] | None = _probe("_functorch", "peek_interpreter_stack")


def compiling() -> bool:
    """Whether dynamo is tracing us, or would compile us: we were called from compiled code behind a graph break."""
    return _is_compiling() or bool(callback())


def unreal() -> bool:
    """Whether a forward that runs now is more, or less, than a forward.

    It is compiled, traced by ``torch.jit`` or ``torch.export``, transformed by ``torch.func``, or under a dispatch
    mode: fake tensors, or selective checkpointing, which would save our results and give them to the wrong layer.
    """
    return (
        _is_compiling()
        or bool(callback())
        or _is_tracing()
        or (_modes is not None and _modes() > 0)
        or (_transform is not None and _transform() is not None)
    )


def never_compile(codes: Iterable[CodeType]) -> None:
    """Let dynamo run these functions as they are; it may still look through them where it inlines.

    Only once the job has imported dynamo, which takes a second. Private: ``torch._dynamo.eval_frame.skip_code``.
    Without it our functions are compiled with the job's, to calls of the originals.
    """
    skip = getattr(getattr(getattr(torch, "_dynamo", None), "eval_frame", None), "skip_code", None)
    if skip is not None:
        for code in codes:
            skip(code)
