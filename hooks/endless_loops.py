"""A loop that cannot end: no condition leaves it that can come true, nor a call, nor an exception.

Read off the bytecode of the frame a thread stands in, when the job has stood still for seconds. A slow loop over data
has an end, a call or an exception by which it is left, and is never taken for one; so are most loops that are endless
by mistake, of which nobody can know. Sleeping is allowed: it ends nothing.
"""

import dis
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from types import CodeType, FrameType

from torchvitals.hooks.frozen_conditions import waits_for_nothing

LEAVES = ("RETURN", "RAISE", "RERAISE", "YIELD", "SEND", "CALL_FUNCTION_EX", "IMPORT_NAME", "BEFORE_WITH")
"""Instructions by which a loop hands control to somebody else."""
HARMLESS = frozenset({"time", "sleep"})
"""Names that a loop may use where it calls something."""
CONDITIONAL = ("_IF_", "FOR_ITER")


def endless_loop(frame: FrameType | None, *, alone: bool = True) -> str:
    """``file:line function`` of a loop without a way out that ``frame`` stands in; empty where there may be one.

    Args:
        frame: of the thread in question.
        alone: whether there is no other thread. The main thread of a server sleeps for good, beside others, and
            what a loop waits for another thread may change.

    """
    if frame is None:
        return ""
    code = frame.f_code
    harmless = HARMLESS if alone else frozenset[str]()
    for first, last in _loops(code):
        if not first <= frame.f_lasti <= last:
            continue
        frozen = alone and not _catches(code, first, last) and waits_for_nothing(frame, _inside(code, first, last))
        if frozen or not _has_exit(code, first, last, harmless):
            return f"{code.co_filename}:{frame.f_lineno} {code.co_name}"
    return ""


def _loops(code: CodeType) -> Iterator[tuple[int, int]]:
    """Offsets of the first and the last instruction of each loop, found by the jumps back to its beginning."""
    ends: dict[int, int] = {}
    for each in dis.get_instructions(code):
        target = _target(each)
        if target is not None and target <= each.offset:
            ends[target] = max(each.offset, ends.get(target, 0))
    yield from ends.items()


def _has_exit(code: CodeType, first: int, last: int, harmless: AbstractSet[str]) -> bool:
    """Whether anything between two offsets may lead elsewhere, or cannot be judged."""
    if _catches(code, first, last):
        return True
    inside = _inside(code, first, last)
    if any(each.opname.startswith("CALL") for each in inside):
        loaded = {each.argval for each in inside if each.opname.startswith("LOAD_") and "CONST" not in each.opname}
        if not loaded <= harmless:
            return True
    return any(each.opname.startswith(LEAVES) or _jumps_out(each, first, last) for each in inside)


def _catches(code: CodeType, first: int, last: int) -> bool:
    """Whether an exception is caught in the loop."""
    return any(entry.start <= last and entry.end >= first for entry in dis.Bytecode(code).exception_entries)  # type: ignore[attr-defined]


def _inside(code: CodeType, first: int, last: int) -> list[dis.Instruction]:
    return [each for each in dis.get_instructions(code) if first <= each.offset <= last]


def _jumps_out(each: dis.Instruction, first: int, last: int) -> bool:
    target = _target(each)
    if target is None:
        return False
    falls_through = each.offset == last and any(mark in each.opname for mark in CONDITIONAL)
    return falls_through or not first <= target <= last


def _target(each: dis.Instruction) -> int | None:
    return int(each.argval) if each.opcode in dis.hasjrel or each.opcode in dis.hasjabs else None
