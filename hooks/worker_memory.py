"""The memory of a loader's worker processes, which nothing in the job's own process shows, and what may fill it."""

import ast
import inspect
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from torchvitals.hooks.growth_line import grows
from torchvitals.hooks.memory import Memory
from torchvitals.hooks.source import Function, Line, is_user_file, tree

MOST_WORKERS = 8
"""Read at most: 0.6 µs each. They do the same."""
SUSPICIOUS_BYTES = 4 << 20
"""Growth from which the code is searched: workers settle at their first batches, allocators take a few megabytes."""
SETTLED_READINGS = 16
WRAPPERS = ("dataset", "datasets", "source", "base")
"""Attributes under which torch and others keep the data set that a data set is made of."""
CALLS = 2
"""Functions of the same module that are followed from the data set's methods: a loader, and what it calls."""


class WorkerMemory:
    """Reads what the workers of the newest loader keep to themselves.

    Pages that a worker shares with the job, with files or with other workers do not count: those that it copies because
    it writes to them, if only a reference count, replace what was resident before.
    """

    def __init__(self) -> None:
        self._workers: list[Memory] = []
        self._dataset: Any = None
        self._readings = 0
        self._settled = 0
        self._searched = False

    def met(self, iterator: Any) -> None:
        """The job has begun to take batches from ``iterator``."""
        self.close()
        processes = list(getattr(iterator, "_workers", ()))[:MOST_WORKERS]
        self._workers = [Memory(f"/proc/{process.pid}/statm") for process in processes]
        self._dataset = getattr(iterator, "_dataset", None) if processes else None
        self._readings = self._settled = 0

    def private_bytes(self) -> int | None:
        """Of all workers together; ``None`` where there are none, or no longer."""
        try:
            parts = [worker.private_bytes() for worker in self._workers]
        except OSError:  # one has ended
            self.close()
            return None
        found = [part for part in parts if part is not None]
        if not found or len(found) < len(parts):
            return None
        self._readings += 1
        if self._readings == SETTLED_READINGS:
            self._settled = sum(found)
        return sum(found)

    def suspect(self, now: int) -> dict[str, Any] | None:
        """What the code says of a data set whose workers have grown to ``now``; once."""
        if self._searched or self._readings <= SETTLED_READINGS or now - self._settled < SUSPICIOUS_BYTES:
            return None
        self._searched = True
        for part in parts_of(self._dataset):
            for holder, line in growing(part):
                limit = _length(part) if keyed_by_index(part, line) else 0
                return {"holder": holder, "line": str(line), "code": line.code, "limit": limit}
        return None

    def close(self) -> None:
        """Read these workers no more."""
        for worker in self._workers:
            worker.close()
        self._workers, self._dataset = [], None


def parts_of(dataset: Any) -> Iterator[Any]:
    """``dataset`` and what it is made of, the outermost first."""
    waiting, seen = deque([dataset]), set[int]()
    while waiting and len(seen) < MOST_WORKERS:
        part = waiting.popleft()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        held = vars(part) if hasattr(part, "__dict__") else {}
        for name in WRAPPERS:
            inner = held.get(name)
            waiting.extend(inner if isinstance(inner, list | tuple) else [inner])


def growing(dataset: Any) -> Iterator[tuple[str, Line]]:
    """Containers that the methods of ``dataset``, or functions they call, put something into, each with its line."""
    kind = type(dataset)
    module = sys.modules.get(kind.__module__)
    file = inspect.getsourcefile(kind) if module is not None and kind.__module__ != "builtins" else None
    if module is None or file is None or not is_user_file(file) or (syntax := tree(file)) is None:
        return
    methods = _methods(syntax, kind.__name__)
    for name in _containers(vars(dataset) if hasattr(dataset, "__dict__") else {}):
        for line in _grown(methods, name):
            yield f"`self.{name}` of {kind.__name__}", Line(file, line)
    for name in _containers(vars(module)):
        for line in _grown([*methods, *_called(syntax, methods)], name):
            yield f"`{name}`, global of {_spelled(module)}", Line(file, line)


def keyed_by_index(dataset: Any, line: Line) -> bool:
    """Whether ``line`` keeps each item under its own number, so that there will be no more than items."""
    syntax = tree(line.file)
    methods = _methods(syntax, type(dataset).__name__) if syntax is not None else []
    for method in methods:
        numbers = {argument.arg for argument in method.args.args[1:]} if method.name == "__getitem__" else set[str]()
        stores = [node for node in ast.walk(method) if isinstance(node, ast.Assign) and node.lineno == line.number]
        targets = [target for node in stores for target in node.targets if isinstance(target, ast.Subscript)]
        if any(isinstance(target.slice, ast.Name) and target.slice.id in numbers for target in targets):
            return True
    return False


def _length(dataset: Any) -> int:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return 0


def _containers(held: dict[str, Any]) -> list[str]:
    return [name for name, value in held.items() if isinstance(value, list | dict | set | deque) and name[:2] != "__"]


def _methods(syntax: ast.AST, name: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The methods of the class that run for each item, so not its constructor."""
    classes = [node for node in ast.walk(syntax) if isinstance(node, ast.ClassDef) and node.name == name]
    return [part for node in classes for part in node.body if isinstance(part, Function) and part.name != "__init__"]


def _called(syntax: ast.AST, methods: Sequence[ast.AST]) -> list[ast.AST]:
    """Functions of the module that ``methods`` call, and those that these call."""
    functions = {node.name: node for node in getattr(syntax, "body", []) if isinstance(node, Function)}
    found: dict[str, ast.AST] = {}
    newest = list(methods)
    for _ in range(CALLS):
        names = [node.id for part in newest for node in ast.walk(part) if isinstance(node, ast.Name)]
        fresh = {name: functions[name] for name in names if name in functions and name not in found}
        found |= fresh
        newest = list(fresh.values())
    return list(found.values())


def _grown(functions: Sequence[ast.AST], name: str) -> list[int]:
    """The first line that puts something into what is called ``name``, if these functions take nothing out of it."""
    nodes = [node for function in functions for node in ast.walk(function)]
    if any(_shrinks(node, name) for node in nodes):
        return []
    return [int(getattr(node, "lineno", 0)) for node in nodes if grows(node, name) and hasattr(node, "lineno")][:1]


def _shrinks(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Delete):
        return any(isinstance(target, ast.Subscript) and _is(target.value, name) for target in node.targets)
    function = node.func if isinstance(node, ast.Call) else None
    taking = ("pop", "popitem", "popleft", "clear", "remove", "discard")
    return isinstance(function, ast.Attribute) and function.attr in taking and _is(function.value, name)


def _is(node: ast.AST, name: str) -> bool:
    return name == (node.id if isinstance(node, ast.Name) else getattr(node, "attr", None))


def _spelled(module: ModuleType) -> str:
    return "the script" if module.__name__ == "__main__" else module.__name__
