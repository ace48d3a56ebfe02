"""The length at which the job's own code stops a container's growth: a replay memory, a cache that is emptied.

Read from the source, as a person would: the test of its length that stands before what makes it grow, or the one
behind which it is cut. What is compared is looked up, nothing is run.
"""

import ast
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from torchvitals.hooks.growth_line import grows, is_called
from torchvitals.hooks.source import tree

_BELOW = (ast.Lt, ast.LtE, ast.NotEq)
_REACHED = (ast.Gt, ast.GtE, ast.Eq)
_SHRINKING = {"pop", "popleft", "popitem", "clear", "remove", "heappop", "heappushpop"}
_SCOPES = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_LEAVING = (ast.Return, ast.Continue)


def length_limit(
    files: Iterable[str], name: str, scope: Mapping[str, Any], length: int, within: Collection[str] = ()
) -> int | None:
    """The limit of the container called ``name`` that has ``length`` entries now; ``None`` where the code sets none.

    A limit that it has passed already is none. ``scope`` is what the code that holds it can see: variables, or
    the attributes of ``self``. That code is ``within`` the classes or functions of these names, or anywhere.
    """
    limits = [
        limit
        for part in _parts(files, within)
        for bound in _bounds(part, name)
        if (limit := _number(bound, name, scope, length)) is not None and limit >= length
    ]
    return min(limits, default=None)


def _parts(files: Iterable[str], within: Collection[str]) -> Iterator[ast.AST]:
    for file in files:
        module = tree(file)
        if module is None:
            continue
        if not within:
            yield module
        yield from (n for n in ast.walk(module) if isinstance(n, _SCOPES) and n.name in within)


def _bounds(part: ast.AST, name: str) -> Iterator[tuple[ast.expr, ast.expr] | ast.expr]:
    """What the length is compared with where that decides on growth: (what is compared, limit), or the limit alone."""
    for node, rest in _statements(part):
        if isinstance(node, (ast.If, ast.While)):
            for compared, operator, limit in _comparisons(node.test):
                if _stops(node, operator, name, rest):
                    yield compared, limit
        elif (kept := _kept(node, name)) is not None:
            yield kept


def _statements(part: ast.AST) -> Iterator[tuple[ast.stmt, list[ast.stmt]]]:
    """Each statement, and those behind it in its block."""
    for node in ast.walk(part):
        for _, block in ast.iter_fields(node):
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                yield from ((statement, block[place + 1 :]) for place, statement in enumerate(block))


def _comparisons(test: ast.expr) -> Iterator[tuple[ast.expr, ast.cmpop, ast.expr]]:
    """The comparisons without which the test does not hold."""
    for part in test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]:
        if isinstance(part, ast.Compare) and len(part.ops) == 1:
            yield part.left, part.ops[0], part.comparators[0]


def _stops(node: ast.If | ast.While, operator: ast.cmpop, name: str, rest: list[ast.stmt]) -> bool:
    """Whether what follows from the comparison keeps the container from growing on; ``rest`` comes after it."""
    if isinstance(operator, _BELOW):
        return _any(node.body, name, grows) or _any(node.orelse, name, _shrinks)
    if not isinstance(operator, _REACHED) or isinstance(node.test, ast.BoolOp):
        return False
    leaves = isinstance(node, ast.If) and isinstance(node.body[-1], _LEAVING) and _any(rest, name, grows)
    return leaves or _any(node.body, name, _shrinks) or _any(node.orelse, name, grows)


def _any(body: Iterable[ast.stmt], name: str, search: Callable[[ast.AST, str], bool]) -> bool:
    return any(search(node, name) for statement in body for node in ast.walk(statement))


def _shrinks(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Call):
        function = node.func
        word = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = function.value if isinstance(function, ast.Attribute) else None
        return word in _SHRINKING and any(is_called(part, name) for part in (owner, *node.args) if part is not None)
    if isinstance(node, ast.Delete):
        return any(isinstance(target, ast.Subscript) and is_called(target, name) for target in node.targets)
    return isinstance(node, ast.Assign) and any(
        isinstance(target, (ast.Name, ast.Attribute)) and is_called(target, name) for target in node.targets
    )


def _kept(node: ast.AST, name: str) -> ast.expr | None:
    """The ``n`` of ``x = x[-n:]`` and of ``del x[:-n]``."""
    part, place = None, None
    if isinstance(node, ast.Assign) and any(is_called(target, name) for target in node.targets):
        part = node.value
        place = part.slice.lower if isinstance(part, ast.Subscript) and isinstance(part.slice, ast.Slice) else None
    elif isinstance(node, ast.Delete):
        part = node.targets[0]
        place = part.slice.upper if isinstance(part, ast.Subscript) and isinstance(part.slice, ast.Slice) else None
    if part is None or not is_called(part, name) or not isinstance(place, ast.UnaryOp):
        return None
    return place.operand if isinstance(place.op, ast.USub) else None


def _number(
    bound: tuple[ast.expr, ast.expr] | ast.expr, name: str, scope: Mapping[str, Any], length: int
) -> int | None:
    """The limit as a number; ``None`` where it is unknown, or something else than the length is compared with it."""
    if isinstance(bound, ast.expr):
        return _value(bound, scope)
    compared, limit = bound
    counts = _is_length(compared, name) or _value(compared, scope) in (length - 1, length)
    return _value(limit, scope) if counts else None


def _is_length(node: ast.expr, name: str) -> bool:
    """``len(name)``, ``len(anything.name)``, or ``len(self)``."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len" and node.args):
        return False
    return is_called(node.args[0], name) or (isinstance(node.args[0], ast.Name) and node.args[0].id == "self")


def _value(node: ast.expr, scope: Mapping[str, Any]) -> int | None:
    """A whole number written out, in a variable, or in an attribute; no property runs."""
    found: Any = None
    if isinstance(node, ast.Constant):
        found = node.value
    elif isinstance(node, ast.Name):
        found = scope.get(node.id)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        owner = scope.get(node.value.id)
        if node.value.id == "self" and node.attr in scope:
            found = scope[node.attr]
        elif owner is not None:
            found = inspect.getattr_static(owner, node.attr, None)
    return found if isinstance(found, int) and not isinstance(found, bool) else None
