"""Lines of the job's own code: whose frame is this, and on which line does it call that?"""

import ast
import inspect
import linecache
import os
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, NamedTuple

import torch

_TORCH = str(Path(torch.__file__).parent) + os.sep
_OURS = str(Path(__file__).parent) + os.sep
_STDLIB = sysconfig.get_paths()["stdlib"] + os.sep
_SITE = "site-packages" + os.sep

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Line(NamedTuple):
    """A line of source; ``file`` is the whole path, ``str(line)`` the short form for people."""

    file: str = ""
    number: int = 0

    def __str__(self) -> str:
        return f"{short(self.file)}:{self.number}" if self.file else ""

    @property
    def code(self) -> str:
        """The text of the line, empty where there is none (a notebook cell that is gone)."""
        return linecache.getline(self.file, self.number).strip() if self.file else ""


def short(file: str) -> str:
    """``file`` relative to the working directory or to ``site-packages``; else its last two parts.

    >>> short("/opt/venv/lib/python3.12/site-packages/timm/models/vit.py")
    'timm/models/vit.py'
    """
    if _SITE in file:
        return file.rsplit(_SITE, 1)[1]
    here = str(Path.cwd()) + os.sep
    return file.removeprefix(here) if file.startswith(here) else Path(file).name


def is_user_file(file: str) -> bool:
    """Is this code of the job or of a library on top of torch: not torch, not ours, not Python itself?"""
    if file.startswith((_TORCH, _OURS, "<frozen")):
        return False
    return not file.startswith(_STDLIB) or _SITE in file


def of_library(file: str) -> bool:
    """Is this code that somebody installed, as a trainer around the job's own?"""
    return _SITE in file or not is_user_file(file)


def user_frames(frame: FrameType | None = None, stop: CodeType | None = None) -> Iterator[FrameType]:
    """Frames of user code from the innermost outwards, up to the frame that runs ``stop``."""
    frame = frame or sys._getframe(1)
    while frame is not None and frame.f_code is not stop:
        if is_user_file(frame.f_code.co_filename):
            yield frame
        frame = frame.f_back


def line_of(frame: FrameType) -> Line:
    """Where ``frame`` stands."""
    return Line(frame.f_code.co_filename, frame.f_lineno)


def locals_of(frame: FrameType) -> dict[str, Any]:
    """The local variables of ``frame``.

    Up to Python 3.12 the frame keeps a snapshot once asked, and with it everything the variables held at
    that moment, for as long as the function runs: a batch, a graph. So the snapshot is emptied.
    """
    found = dict(frame.f_locals)
    snapshot = frame.f_locals
    if type(snapshot) is dict and snapshot is not frame.f_globals and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        snapshot.clear()
    return found


@lru_cache(maxsize=64)
def tree(file: str) -> ast.Module | None:
    """The syntax tree of ``file``; ``None`` if it is not Python that can be read."""
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError, RecursionError):
        return None


def function_at(file: str, number: int) -> ast.AST | None:
    """The innermost function of ``file`` around line ``number``, or the whole module."""
    module = tree(file)
    if module is None:
        return None
    around = [f for f in ast.walk(module) if isinstance(f, Function) and f.lineno <= number <= (f.end_lineno or 0)]
    return max(around, key=lambda function: function.lineno, default=module)


def call_names(node: ast.AST) -> Iterator[ast.expr]:
    """What is called in ``node``: the ``f`` of every ``f(...)``."""
    return (call.func for call in ast.walk(node) if isinstance(call, ast.Call))


def called_functions(node: ast.AST, scope: dict[str, Any]) -> Iterator[tuple[str, ast.AST, dict[str, Any]]]:
    """File, syntax and scope of each Python function, method or module that ``node`` calls by a name in ``scope``."""
    for name in call_names(node):
        target = resolve(name, scope)
        owner = target if isinstance(target, torch.nn.Module) else None
        if isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name) and owner is None:
            owner = scope.get(name.value.id)
        target = type(target).forward if isinstance(target, torch.nn.Module) else getattr(target, "__func__", target)
        if not isinstance(target, FunctionType) or not is_user_file(target.__code__.co_filename):
            continue
        function = function_at(target.__code__.co_filename, last_line(target.__code__))
        if isinstance(function, Function):
            yield target.__code__.co_filename, function, {**target.__globals__, "self": owner}


def last_line(code: CodeType) -> int:
    """The last line of the function, past its decorators."""
    return max((number for _, _, number in code.co_lines() if number), default=code.co_firstlineno)


def resolve(name: ast.expr, scope: dict[str, Any]) -> Any:
    """The object behind ``a`` or ``a.b``; attributes of classes and modules only, so that no property runs."""
    if isinstance(name, ast.Name):
        return scope.get(name.id)
    if isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name):
        owner = scope.get(name.value.id)
        if isinstance(owner, torch.nn.Module) and name.attr in owner._modules:
            return owner._modules[name.attr]
        holder = owner if isinstance(owner, (ModuleType, type)) else type(owner)
        return inspect.getattr_static(holder, name.attr, None)
    return None
