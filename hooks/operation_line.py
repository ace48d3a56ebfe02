"""On which line of the job's code is this operation of the loss written?

The autograd graph knows operations, not lines. The frame that called ``backward`` is known, so the syntax
of its function, and of the functions it calls, is searched for the operation: ``torch.log(x)``,
``x.log()``, ``a / b``.
"""

import ast
from collections.abc import Iterator
from types import FrameType, FunctionType, MethodType
from typing import Any, NamedTuple

import torch
from torchvitals.hooks.source import (
    Function,
    Line,
    called_functions,
    function_at,
    last_line,
    line_of,
    locals_of,
    of_library,
    resolve,
)

_SPELLINGS: dict[str, set[str]] = {
    "div": {"div", "divide", "true_divide"},
    "pow": {"pow", "square"},
    "linalg_vector_norm": {"norm", "vector_norm", "pairwise_distance"},
    "norm": {"norm", "vector_norm"},
    "log_softmax": {"log_softmax", "cross_entropy", "CrossEntropyLoss"},
    "nll_loss": {"nll_loss", "cross_entropy", "CrossEntropyLoss", "NLLLoss"},
    "mse_loss": {"mse_loss", "MSELoss"},
    "smooth_l1_loss": {"smooth_l1_loss", "SmoothL1Loss"},
    "huber_loss": {"huber_loss", "HuberLoss"},
    "binary_cross_entropy": {"binary_cross_entropy", "BCELoss"},
    "std": {"std", "std_mean"},
    "ctc_loss": {"ctc_loss", "CTCLoss"},
    "kl_div": {"kl_div", "KLDivLoss"},
    "mul": {"mul", "multiply"},
    "sub": {"sub", "subtract", "rsub", "l1_loss", "L1Loss"},
}
_OPERATORS: dict[str, type[ast.operator]] = {
    "div": ast.Div, "pow": ast.Pow, "mul": ast.Mult, "sub": ast.Sub, "rsub": ast.Sub, "add": ast.Add,
}  # fmt: skip
Range = tuple[float, float]
_CALL_DEPTH = 4
"""Calls followed from the function that calls backward: training step, loss method, helper, helper."""


class Sought(NamedTuple):
    """An operation of the graph, and what is known of its second operand."""

    word: str
    operand: Range | None

    def spelled_by(self, part: ast.AST, scope: dict[str, Any]) -> bool:
        """Whether ``part`` can be the operation: it is written so, on a tensor, and its numbers are the right ones."""
        if not _spells(part, self.word, scope):
            return False
        if not isinstance(part, ast.BinOp):
            return True
        left, right = _number(part.left, scope), _number(part.right, scope)
        if left is not None and right is not None:
            return False  # numbers only: nothing that autograd has seen
        return right is None or self.operand is None or self.operand[0] <= right <= self.operand[1]


def operation_line(word: str, frames: list[FrameType], operand: Range | None = None) -> Line:
    """The line that spells ``word`` in the innermost of ``frames`` that leads to one; no line if none does.

    Args:
        word: an operation's name as in the graph, ``log`` or ``linalg_vector_norm``.
        frames: the job's frames, innermost first.
        operand: smallest and largest value of the second operand, where they are known: of several divisions it is
            not the one by 2 that divided by 0.
    """
    sought = Sought(word, operand)
    for frame in frames:
        function = function_at(frame.f_code.co_filename, frame.f_lineno)
        if function is None:
            continue
        scope = {**frame.f_globals, **locals_of(frame)}
        found = _search(sought, frame.f_code.co_filename, function, scope, frame.f_lineno, depth=_CALL_DEPTH)
        if found.file:
            return found
    return _in_methods(sought, frames)


def nearest(frames: list[FrameType]) -> Line:
    """Where the innermost of ``frames`` stands, those of the job before those of a library that runs its loop."""
    own = [frame for frame in frames if not of_library(frame.f_code.co_filename)]
    return line_of((own or frames)[0]) if frames else Line()


def _in_methods(sought: Sought, frames: list[FrameType]) -> Line:
    """The same in the methods of the job's own objects among ``frames``, the last resort.

    A trainer (of Lightning, of Hugging Face) asks a method of the job for the loss, and calls ``backward`` when that
    method has returned.
    """
    seen: set[type] = set()
    for frame in frames:
        owner = locals_of(frame).get("self")
        if type(owner) in seen:
            continue
        seen.add(type(owner))
        for method in vars(type(owner)).values():
            if not isinstance(method, FunctionType) or of_library(method.__code__.co_filename):
                continue
            code = method.__code__
            function = function_at(code.co_filename, last_line(code))
            if function is not None:
                scope = {**method.__globals__, "self": owner}
                found = _search(sought, code.co_filename, function, scope, last_line(code), depth=_CALL_DEPTH)
                if found.file:
                    return found
    return Line()


def _search(sought: Sought, file: str, function: ast.AST, scope: dict[str, Any], before: int, *, depth: int) -> Line:
    lines = sorted({part.lineno for part in own_nodes(function) if sought.spelled_by(part, scope)})
    if lines:
        earlier = [number for number in lines if number <= before]
        return Line(file, earlier[-1] if earlier else lines[-1])
    if depth:
        for other, called, its_scope in called_functions(function, scope):
            found = _search(sought, other, called, its_scope, getattr(called, "end_lineno", 0), depth=depth - 1)
            if found.file:
                return found
    return Line()


def _number(part: ast.AST, scope: dict[str, Any]) -> float | None:
    """The value of ``part`` if it is a number, or a variable that holds one."""
    if isinstance(part, ast.UnaryOp) and isinstance(part.op, ast.USub):
        value = _number(part.operand, scope)
        return None if value is None else -value
    found = part.value if isinstance(part, ast.Constant) else scope.get(getattr(part, "id", ""))
    return float(found) if isinstance(found, int | float) else None


def own_nodes(function: ast.AST) -> Iterator[Any]:
    """Nodes of ``function`` without those of functions and classes defined inside it."""
    for child in ast.iter_child_nodes(function):
        if isinstance(child, (*Function.__args__, ast.ClassDef)):
            continue
        yield child
        yield from own_nodes(child)


def _spells(node: ast.AST, word: str, scope: dict[str, Any]) -> bool:
    operator = _OPERATORS.get(word)
    if isinstance(node, (ast.BinOp, ast.AugAssign)):
        return operator is not None and isinstance(node.op, operator)
    if not isinstance(node, ast.Call):
        return False
    spellings = _SPELLINGS.get(word, {word, word + "_"})
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    target = resolve(node.func, scope)
    if name in spellings:
        return not _of_another_trade(target)
    return isinstance(target, torch.nn.Module) and type(target).__name__ in spellings


def _of_another_trade(target: Any) -> bool:
    """Whether a call is known to be of no operation of torch, whatever its name: a logger's ``log``, one of numbers."""
    if isinstance(target, FunctionType | MethodType):
        return not (target.__module__ or "").startswith("torch.")
    return getattr(target, "__module__", None) in ("math", "cmath") or type(target).__module__ == "numpy"
