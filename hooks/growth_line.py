"""The statement that makes a container grow: where a person has to look, and what to change."""

import ast
from collections.abc import Callable, Collection, Iterable

from torchvitals.hooks.source import Function, Line, tree

Search = Callable[[ast.AST, str], bool]


def growth_line(files: Iterable[str], name: str, function: str = "") -> Line:
    """The statement that makes the container called ``name`` grow, or defines it; else no line.

    Looks in ``function`` first, then anywhere in ``files``; growing (append, ``[...] =``, ``+=``) before defining.
    """
    for search in (grows, _defines):
        for inside in dict.fromkeys((function, "")):
            for file in files:
                line = _first(file, inside, name, search)
                if line:
                    return Line(file, line)
    return Line()


_GROWING = {"append", "extend", "add", "insert", "update", "setdefault", "appendleft", "push", "register_forward_hook"}


def grows(node: ast.AST, name: str) -> bool:
    """Does ``node`` put something into the container called ``name``?"""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in _GROWING and is_called(node.func.value, name)
    if isinstance(node, ast.AugAssign):
        return is_called(node.target, name)
    if isinstance(node, ast.Assign):
        if any(isinstance(target, ast.Subscript) and is_called(target.value, name) for target in node.targets):
            return True
        mentions = any(
            is_called(part, name) for part in ast.walk(node.value) if isinstance(part, (ast.Name, ast.Attribute))
        )
        return mentions and any(is_called(target, name) for target in node.targets)
    return False


def _defines(node: ast.AST, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return isinstance(node, (ast.Assign, ast.AnnAssign)) and any(t is not None and is_called(t, name) for t in targets)


def is_called(node: ast.AST, name: str) -> bool:
    """Does ``node`` read as ``name``, ``anything.name`` or ``name[...]``?"""
    if isinstance(node, ast.Subscript):
        return is_called(node.value, name)
    return name == (node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None)


def _first(file: str, function: str, name: str, search: Search) -> int:
    module = tree(file)
    if module is None:
        return 0
    inside = [f for f in ast.walk(module) if isinstance(f, Function) and f.name == function] if function else [module]
    lines = [
        node.lineno for part in inside for node in ast.walk(part) if search(node, name) and hasattr(node, "lineno")
    ]
    return min(lines, default=0)


def use_line(files: Iterable[str], names: Collection[str], inside: Line) -> Line:
    """Where the job's own ``files`` use an object of a library, so that the library's line ``inside`` is reached.

    Args:
        files: of the job.
        names: by which the job knows the object.
        inside: the statement of the library that makes the container grow: calls of the methods that lead to it are
            looked for first, then calls of the object itself (a metric, a module).
    """
    methods = _leading_to(inside)

    def calls_method(node: ast.AST, name: str) -> bool:
        function = node.func if isinstance(node, ast.Call) else None
        return isinstance(function, ast.Attribute) and function.attr in methods and is_called(function.value, name)

    def calls_itself(node: ast.AST, name: str) -> bool:
        return isinstance(node, ast.Call) and is_called(node.func, name)

    for search in (calls_method, calls_itself):
        for file in files:
            for name in names:
                if line := _first(file, "", name, search):
                    return Line(file, line)
    return Line()


def _leading_to(line: Line) -> set[str]:
    """The function that ``line`` is in, and those of the same file that call it, or one of them: `put` of `_put`."""
    module = tree(line.file)
    functions = [f for f in ast.walk(module) if isinstance(f, Function)] if module is not None else []
    around = [f for f in functions if f.lineno <= line.number <= (f.end_lineno or f.lineno)]
    found = {max(around, key=lambda function: function.lineno).name} if around else set()
    calls = [(f.name, {_called(node) for node in ast.walk(f) if isinstance(node, ast.Call)}) for f in functions]
    while more := {name for name, called in calls if called & found} - found:
        found |= more
    return found


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


_REGISTRATIONS = {
    "_forward_hooks": {"register_forward_hook"},
    "_forward_pre_hooks": {"register_forward_pre_hook"},
    "_backward_hooks": {"register_hook", "register_full_backward_hook", "register_backward_hook"},
    "_backward_pre_hooks": {"register_full_backward_pre_hook"},
    "_optimizer_step_pre_hooks": {"register_step_pre_hook"},
    "_optimizer_step_post_hooks": {"register_step_post_hook"},
    "param_groups": {"add_param_group"},
    "state": {"add_param_group"},
}


def registration_line(files: Iterable[str], container: str) -> Line:
    """The call that puts things into torch's ``container``, as ``_forward_hooks``; no line if ``files`` hold none."""
    wanted = _REGISTRATIONS.get(container, set())

    def registers(node: ast.AST, _: str) -> bool:
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in wanted

    for file in files:
        line = _first(file, "", container, registers)
        if line:
            return Line(file, line)
    return Line()
