"""The house keeps its shape: who may import whom, how long things are, where errors may be swallowed."""

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT: dict[str, set[str]] = {
    "signals": set(),
    "hooks": {"signals"},
    "detectors": {"signals"},
    "agent": {"signals", "detectors"},
    "dashboard": {"signals"},
    "demo_jobs": {"hooks"},
}
MAY_USE_TORCH = {"hooks", "demo_jobs"}
# A detector is a pure function: these are how a module reaches files, clocks, threads and chance.
IMPURE = {
    "os", "io", "pathlib", "shutil", "tempfile", "socket", "subprocess", "threading", "multiprocessing",
    "asyncio", "time", "datetime", "random", "secrets", "logging", "urllib", "http",
}  # fmt: skip
FORBIDDEN_NAMES = {"core", "util", "utils", "common", "helper", "helpers", "misc", "manager", "managers", "base"}
FUNCTION_LINES = 50
FUNCTION_MEDIAN = 10
FILE_LINES = 300
BROAD_EXCEPT_FILES = 3
# Demo jobs are scripts a stranger could have written: arrows hold, budgets do not.
UNBUDGETED = {"demo_jobs"}


def sources(root: Path, *, budgeted: bool = False) -> list[Path]:
    """The Python files of all rooms, nested packages included."""
    rooms = [room for room in MAY_IMPORT if not (budgeted and room in UNBUDGETED)]
    return sorted(path for room in rooms for path in (root / room).rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(tree: ast.AST) -> Iterator[tuple[int, str, int]]:
    """Line, dotted name and relative level of everything imported, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, 0
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, f"{node.module or ''}.{alias.name}", node.level


def bad_import(room: str, name: str, level: int) -> str:
    """Why a file of ``room`` may not import ``name``; empty when it may."""
    top, _, rest = name.partition(".")
    if level:
        return "relative import"
    if top in MAY_IMPORT:
        return f"bare folder import; write torchvitals.{name}"
    target = rest.partition(".")[0]
    if top == "torchvitals" and target != room and target not in MAY_IMPORT[room]:
        return f"{room} may not import {target}"
    if top in {"torch", "torchvision", "lightning", "transformers"} and room not in MAY_USE_TORCH:
        return f"{room} may not import {top}"
    if room == "detectors" and top in IMPURE:
        return f"detectors are pure functions, and {top} is not"
    return ""


def import_violations(root: Path) -> list[str]:
    found = []
    for path in sources(root):
        place = path.relative_to(root)
        for line, name, level in imported(parse(path)):
            if why := bad_import(place.parts[0], name, level):
                found.append(f"{place}:{line}: {why}")
    return found


def module_name(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(("torchvitals", *(part for part in parts if part != "__init__")))


def runtime_imports(tree: ast.Module) -> Iterator[str]:
    """What is imported when the file runs: not what is only there for the type checker."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    yield from (name for _, name, _ in imported(tree))


def import_graph(root: Path) -> dict[str, set[str]]:
    """Module → the modules of ours that it imports, its own package left out."""
    trees = {module_name(root, path): parse(path) for path in sources(root)}
    graph: dict[str, set[str]] = {}
    for module, tree in trees.items():
        names = set(runtime_imports(tree))
        direct = {name if name in trees else name.rpartition(".")[0] for name in names}
        graph[module] = {name for name in direct if name in trees and name != module}
    return graph


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """Modules that can reach themselves."""
    found = []
    for start in sorted(graph):
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting.extend(graph[module])
        if start in seen:
            found.append(start)
    return found


def name_violations(root: Path) -> list[str]:
    found = []
    for path in sources(root):
        place = path.relative_to(root)
        vague = FORBIDDEN_NAMES.intersection((*place.parts[:-1], path.stem))
        found.extend(f"{place}: `{word}` says nothing about what is inside" for word in sorted(vague))
        if path.stem in sys.stdlib_module_names and not path.stem.startswith("__"):
            found.append(f"{place}: shadows the standard library's {path.stem} for a script beside it")
    return found


def functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Every function and how many lines it has, its docstring not counted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                lines -= (first.end_lineno or first.lineno) - first.lineno + 1
            yield node, lines


def length_violations(root: Path) -> list[str]:
    found = []
    for path in sources(root, budgeted=True):
        place = path.relative_to(root)
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > FILE_LINES:
            found.append(f"{place}: {lines} lines, at most {FILE_LINES}")
        for function, length in functions(parse(path)):
            if length > FUNCTION_LINES:
                found.append(f"{place}:{function.lineno}: {function.name} has {length} lines, at most {FUNCTION_LINES}")
    return found


def median_function(root: Path) -> float:
    return statistics.median(n for path in sources(root, budgeted=True) for _, n in functions(parse(path)))


def catches_everything(node: ast.AST) -> bool:
    """Whether ``node`` swallows any exception: a broad handler, or ``suppress`` of one."""
    if isinstance(node, ast.ExceptHandler):
        caught = [node.type]
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        caught = list(node.args)
    else:
        return False
    flat = [e for c in caught for e in (c.elts if isinstance(c, ast.Tuple) else [c])]
    return any(e is None or ast.unparse(e) in {"Exception", "BaseException"} for e in flat)


def broad_except_files(root: Path) -> list[str]:
    return [
        str(path.relative_to(root))
        for path in sources(root, budgeted=True)
        if any(catches_everything(node) for node in ast.walk(parse(path)))
    ]


def test_the_arrows_point_one_way():
    assert import_violations(ROOT) == []


def test_no_module_imports_itself_around_a_corner():
    assert cycles(import_graph(ROOT)) == []


def test_names_say_what_is_inside():
    assert name_violations(ROOT) == []


def test_functions_and_files_stay_short():
    assert length_violations(ROOT) == []
    assert median_function(ROOT) <= FUNCTION_MEDIAN


def test_errors_are_swallowed_in_few_places():
    files = broad_except_files(ROOT)

    assert len(files) <= BROAD_EXCEPT_FILES, files


def test_every_package_has_a_marker_and_is_listed():
    """A nested package that pyproject.toml forgets imports from a checkout and is absent from the wheel."""
    import tomllib

    mapping = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {path.parent.relative_to(ROOT) for path in sources(ROOT) if path.name == "__init__.py"}

    assert {Path(folder) for folder in mapping["package-dir"].values()} == packages
    assert set(mapping["packages"]) == set(mapping["package-dir"])
    assert [str(package) for package in sorted(packages) if not (ROOT / package / "py.typed").exists()] == []


def test_the_changelog_and_the_version_agree():
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    top = next(line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## "))

    assert top.split()[1] == version


# The rules are worth something only if breaking them is seen.


@pytest.mark.parametrize(
    ("place", "line", "told"),
    [
        ("signals/wire.py", "import torchvitals.hooks.probe", "signals may not import hooks"),
        ("detectors/sick.py", "from torchvitals import agent", "detectors may not import agent"),
        ("hooks/attach.py", "from torchvitals.agent.store import Store", "hooks may not import agent"),
        ("agent/causes/deep.py", "from torchvitals.hooks import attach", "agent may not import hooks"),
        ("agent/causes/deep.py", "def f():\n    import torch", "agent may not import torch"),
        ("dashboard/app.py", "from torchvitals.agent.store import Store", "dashboard may not import agent"),
        ("detectors/sick.py", "import time", "pure functions"),
        ("agent/tail.py", "from . import store", "relative import"),
        ("agent/tail.py", "from signals.spool import SpoolWriter", "bare folder import"),
    ],
)
def test_a_planted_bad_import_is_seen(tmp_path, place, line, told):
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")

    (violation,) = import_violations(tmp_path)

    assert told in violation
    assert violation.startswith(place)


def test_a_planted_cycle_is_seen(tmp_path):
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "one.py").write_text("from torchvitals.agent.two import x\n")
    (tmp_path / "agent" / "two.py").write_text("def f():\n    from torchvitals.agent import one\n")
    (tmp_path / "agent" / "three.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torchvitals.agent.three import y\n"
    )

    assert cycles(import_graph(tmp_path)) == ["torchvitals.agent.one", "torchvitals.agent.two"]


@pytest.mark.parametrize("name", ["agent/utils.py", "agent/core/x.py", "hooks/queue.py", "detectors/statistics.py"])
def test_a_planted_bad_name_is_seen(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("")

    assert len(name_violations(tmp_path)) == 1


def test_planted_lengths_and_broad_excepts_are_seen(tmp_path):
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "long.py").write_text("def f():\n" + "    x = 1\n" * 51 + "\n" * 300)
    (tmp_path / "agent" / "a.py").write_text("try:\n    f()\nexcept (ValueError, Exception):\n    pass\n")
    (tmp_path / "agent" / "b.py").write_text("try:\n    f()\nexcept:\n    pass\n")
    (tmp_path / "agent" / "c.py").write_text("with contextlib.suppress(BaseException):\n    f()\n")
    (tmp_path / "agent" / "d.py").write_text("with contextlib.suppress(OSError):\n    f()\n")

    assert len(length_violations(tmp_path)) == 2
    assert broad_except_files(tmp_path) == ["agent/a.py", "agent/b.py", "agent/c.py"]
