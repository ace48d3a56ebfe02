"""A value that the job computed in its loop, without a graph, and that is not finite: by what, and on which line?

A weight, an advantage or a ratio is made of the batch; what is left of it is the variable. Its assignment is
evaluated once more, part by part: the first part that is not finite, though all it is made of is, was the beginning.
Only arithmetic and a list of tensor functions without side effects are evaluated; anything else is not looked into.
"""

import ast
import contextlib
import warnings
from collections.abc import Iterator
from types import FrameType, FunctionType, ModuleType
from typing import Any, NamedTuple

import torch
from torchvitals.hooks.births import Birth, kind_of, statistics
from torchvitals.hooks.operation_line import own_nodes
from torchvitals.hooks.source import Function, Line, function_at, is_user_file, last_line, locals_of, resolve

PURE = frozenset({
    "abs", "acos", "acosh", "add", "amax", "amin", "arange", "argmax", "asin", "atanh", "cat", "clamp", "clamp_max",
    "clamp_min", "clip", "cos", "cosh", "cosine_similarity", "cumsum", "detach", "div", "double", "exp", "expand_as",
    "expm1", "flip", "float", "floor", "full_like", "gather", "log", "log10", "log1p", "log2", "log_softmax", "logit",
    "logsumexp", "max", "maximum", "mean", "min", "minimum", "mul", "nan_to_num", "neg", "norm", "normalize",
    "ones_like", "permute", "pow", "prod", "reciprocal", "relu", "repeat", "reshape", "round", "rsqrt", "sigmoid",
    "sign", "sin", "sinh", "size", "softmax", "sqrt", "square", "squeeze", "stack", "std", "sub", "sum", "t", "tan",
    "tanh", "transpose", "true_divide", "unsqueeze", "var", "view", "where", "zeros_like",
})  # fmt: skip
"""Functions of torch, and methods of its tensors, that only compute."""
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow", ast.MatMult: "matmul",
}  # fmt: skip
_NEAR = 4
"""Frames that are looked at, innermost first."""
_REFUSALS = (RuntimeError, TypeError, ValueError, IndexError, AttributeError)
"""What torch raises where an expression cannot be evaluated as it was: a variable has another value by now."""
_DEPTH = 8
"""Assignments and functions followed from the one that made the value."""


class Beginning(NamedTuple):
    """The operation that made a non-finite value of finite ones, what it was given, and where it is written."""

    operation: str
    given: list[torch.Tensor]
    line: Line


class _Found(Exception):  # noqa: N818 (an answer on its way, not an error)
    def __init__(self, beginning: Beginning) -> None:
        self.beginning = beginning


class _CannotTell(Exception):  # noqa: N818
    pass


def begun_in_job(birth: Birth, frames: list[FrameType]) -> bool:
    """Whether ``birth``, of a tensor without a graph, is no data but something the job computed: then it says where."""
    made = beginning_of(birth.shape, frames)
    if made is None:
        return False
    birth.operation, birth.source, birth.node = f"aten.{made.operation}", "", ""
    birth.inputs = statistics(made.given[0]) if made.given else {}
    birth.place.line = made.line
    return True


def beginning_of(shape: tuple[int, ...], frames: list[FrameType]) -> Beginning | None:
    """Where a non-finite variable of this ``shape`` in the job's ``frames`` was computed; ``None`` where it was not."""
    for frame in frames[:_NEAR]:
        function = function_at(frame.f_code.co_filename, frame.f_lineno)
        if function is None:
            continue
        known = locals_of(frame)
        bad = [name for name, value in known.items() if _is_bad(value) and value.grad_fn is None]
        # the loss may hold what an expression made of the variable and gave no name
        itself = [name for name in bad if tuple(known[name].shape) == shape]
        evaluation = _Evaluation(frame.f_code.co_filename, function, {**frame.f_globals, **known})
        for name in itself or bad:
            if found := _evaluated(evaluation, name, frame.f_lineno + 1):
                return found
    return None


def _evaluated(evaluation: "_Evaluation", name: str, before: int) -> Beginning | None:
    with warnings.catch_warnings(), contextlib.suppress(_CannotTell, *_REFUSALS):
        warnings.simplefilter("ignore")  # the job has seen them once
        try:
            evaluation.assigned(name, before)
        except _Found as found:
            return found.beginning
    return None


class _Evaluation:
    """The expressions of one function, with the values that its variables have now."""

    def __init__(self, file: str, function: ast.AST, scope: dict[str, Any], depth: int = _DEPTH) -> None:
        self._file = file
        self._function = function
        self._scope = scope
        self._depth = depth

    def assigned(self, name: str, before: int) -> Any:
        """What the last assignment to ``name`` above line ``before`` amounts to."""
        statements = [s for s in _assignments(self._function, name) if s.lineno < before]
        if not statements or self._depth <= 0:
            raise _CannotTell
        self._depth -= 1
        last = max(statements, key=lambda statement: statement.lineno)
        earlier = {name: self.assigned(name, last.lineno)} if _uses(last.value, name) else {}
        return _Evaluation(self._file, self._function, self._scope | earlier, self._depth).value(last.value)

    def value(self, node: ast.expr | None) -> Any:
        """Evaluate ``node``; a variable that is not finite is followed to its own assignment."""
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return self._variable(node)
            case ast.Tuple() | ast.List():
                return [self.value(element) for element in node.elts]
            case ast.UnaryOp(op=ast.USub()):
                return -self.value(node.operand)
            case ast.BinOp() if type(node.op) in _OPERATORS:
                return self._binary(node)
            case ast.Subscript(slice=ast.Name() | ast.Constant()):
                return self.value(node.value)[self.value(node.slice)]
            case ast.Call():
                return self._call(node)
        raise _CannotTell

    def _variable(self, node: ast.Name) -> Any:
        value = self._scope.get(node.id)
        if _is_bad(value):
            self.assigned(node.id, node.lineno)
        if isinstance(value, torch.Tensor):
            return value.detach()
        if isinstance(value, bool | int | float | list | tuple):
            return value
        raise _CannotTell

    def _binary(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        word = _OPERATORS[type(node.op)]
        if not isinstance(left, torch.Tensor):
            like = right if isinstance(right, torch.Tensor) else torch.zeros(())
            left = torch.as_tensor(left, dtype=like.dtype, device=like.device)
        # what is divided by is what a reader has to see
        return self._judged(word, getattr(torch, word)(left, right), [right, left], node)

    def _call(self, node: ast.Call) -> Any:
        keywords = {k.arg: self.value(k.value) for k in node.keywords if k.arg}
        arguments = [self.value(argument) for argument in node.args]
        function = node.func
        target = resolve(function, self._scope)
        if isinstance(target, FunctionType) and is_user_file(target.__code__.co_filename) and not keywords:
            return self._called(target, arguments)
        if not isinstance(function, ast.Attribute) or function.attr not in PURE:
            raise _CannotTell
        holder = self._scope.get(function.value.id) if isinstance(function.value, ast.Name) else None
        if isinstance(holder, ModuleType):
            if holder not in (torch, torch.nn.functional):
                raise _CannotTell
        else:
            holder = self.value(function.value)
            if not isinstance(holder, torch.Tensor):
                raise _CannotTell
            arguments = [holder, *arguments]
        plain = getattr(holder if isinstance(holder, ModuleType) else torch.Tensor, function.attr)
        return self._judged(function.attr, plain(*arguments, **keywords), arguments, node)

    def _called(self, target: FunctionType, arguments: list[Any]) -> Any:
        """A function of the job that only assigns and returns."""
        code = target.__code__
        syntax = function_at(code.co_filename, last_line(code))
        names = code.co_varnames[: code.co_argcount]
        if not isinstance(syntax, Function) or len(names) != len(arguments) or self._depth <= 0:
            raise _CannotTell
        scope = {**target.__globals__, **dict(zip(names, arguments, strict=True))}
        inside = _Evaluation(code.co_filename, syntax, scope, self._depth - 1)
        for statement in syntax.body:
            match statement:
                case ast.Expr(value=ast.Constant()):
                    continue
                case ast.Assign(targets=[ast.Name(id=name)]):
                    inside._scope[name] = inside.value(statement.value)
                case ast.Return():
                    return inside.value(statement.value)
                case _:
                    raise _CannotTell
        raise _CannotTell

    def _judged(self, word: str, result: Any, given: list[Any], node: ast.expr) -> Any:
        used = [value for value in given if isinstance(value, torch.Tensor)]
        if _is_bad(result) and not any(_is_bad(value) for value in used):
            raise _Found(Beginning(word, used, Line(self._file, node.end_lineno or node.lineno)))
        return result


def _assignments(function: ast.AST, name: str) -> Iterator[ast.Assign]:
    for node in own_nodes(function):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            yield node


def _uses(node: ast.AST, name: str) -> bool:
    return any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node))


def _is_bad(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and bool(kind_of(value.detach()))
