"""The tables of docs/, made from the code that they are about: ``python docs/generate.py``.

A test compares the files with what this makes, so nobody has to remember.
"""

import ast
import inspect
import itertools
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from torchvitals.agent import config
from torchvitals.agent.case import Cause
from torchvitals.agent.causes import CAUSES
from torchvitals.agent.config import Settings
from torchvitals.agent.metric_names import METRICS
from torchvitals.detectors import DETECTORS, RECORD_DETECTORS
from torchvitals.signals.catalog import SIGNALS

HERE = Path(__file__).parent
ROOMS = ("signals", "hooks", "detectors", "agent", "dashboard", "demo_jobs")
NOTE = "<!-- Made by docs/generate.py from {source}; edit that and run it again. -->"


def signals() -> str:
    """Every signal a job can send."""
    rows = [
        (f"`{each.name}`", f"`{each.unit}`", each.axis, each.cadence, each.tells) for each in SIGNALS
    ]  # fmt: skip
    return page(
        "signals/catalog.py",
        "Signals",
        "What a job can say. *Axis* is what the entries of a value are (`none`: it is one number); *cadence* is how "
        "often it comes: every `step`, on `sampled` steps (the budget sets how often), or per `window` of requests. "
        "A name of your own (`monitor.log(reward=1.0)`) is stored and drawn as well; no detector reads it.",
        table(("signal", "unit", "axis", "cadence", "what it tells"), rows),
    )


def metrics() -> str:
    """Every Prometheus metric of the agent."""
    rows = [
        (f"`{each.name}`", each.type, ", ".join(f"`{label}`" for label in each.labels), each.tells)
        for each in METRICS.values()
    ]
    return page(
        "agent/metric_names.py",
        "Metrics",
        "What the agent exposes at `/metrics` for Prometheus. Of a rank that is gone only `torchvitals_rank_up` stays, "
        "at 0; run ids, steps and layer names are no labels, so that the number of series stays in the hundreds. "
        "Scrape with `honor_labels: true`, since `job` is the name of the run.",
        table(("metric", "type", "labels", "what it tells"), rows),
    )


def detectors() -> str:
    """Every kind of incident with its causes, and every cause word."""
    classes = defaultdict(list)
    for each in (*DETECTORS, *RECORD_DETECTORS):
        classes[each.kind].append(each)
    kinds = [
        (
            f"`{kind}`",
            " ".join(dict.fromkeys(summary(sys.modules[each.__module__]) for each in group)),
            ", ".join(f"`{cause.word}`" for cause in CAUSES if kind in cause.explains) or "`unknown`",
        )
        for kind, group in sorted(classes.items())
    ]
    causes = [(f"`{cause.word}`", *meaning(cause)) for cause in sorted(CAUSES, key=lambda cause: cause.word)]
    return page(
        "detectors/ and agent/causes/",
        "What is detected, and the causes that are told apart",
        "One word is one failure: the name of the detector's file, the kind of its incident, the label of its alert. "
        "Thresholds and warm-ups are named arguments of the detectors, each with its reason, in `detectors/`.",
        table(("kind", "what it is", "causes that are weighed, besides `unknown`"), kinds),
        "## Causes",
        table(("cause", "what it is", "where the evidence comes from"), causes),
    )


def settings() -> str:
    """Every setting of the agent."""
    docs = attribute_docstrings(Settings)
    rows = [
        (f"`{name}`", f"`{value!r}`" if name != "sinks" else "none", variable(name), docs[name])
        for name, value in ((name, getattr(Settings(), name)) for name in Settings.__struct_fields__)
    ]
    sinks = [
        (f"`{cls.__struct_config__.tag}`", summary(cls)) for cls in (config.AlertmanagerSink, config.WebhookSink)
    ]  # fmt: skip
    shared = attribute_docstrings(config._Sink)
    return page(
        "agent/config.py",
        "Settings of the agent",
        "Precedence: argument, then environment, then `torchvitals.toml` (in the working directory, else in "
        "`~/.config/torchvitals/`), then default. In the file they stand under `[agent]`; an unknown key is an error.",
        table(("setting", "default", "environment", "what it does"), rows),
        "## Receivers of alerts\n\nEach `[[sinks]]` table of the file is one, with `kind` and:",
        table(("key", "what it does"), [(f"`{name}`", text) for name, text in shared.items()]),
        table(("kind", "who receives"), sinks),
    )


def files() -> str:
    """Every file of the rooms, by its first sentence."""
    blocks = []
    for room in ROOMS:
        paths = sorted(path for path in (HERE.parent / room).rglob("*.py") if "__pycache__" not in path.parts)
        lines = [(f"`{path.relative_to(HERE.parent / room)}`", first_sentence(path)) for path in paths]
        blocks += [f"## {room}", table(("file", "what it is"), [line for line in lines if line[1]])]
    return page("the files themselves", "Files", "One line per file: the first sentence of each.", *blocks)


def compatibility() -> str:
    """Every setting whose record a test holds against the truth."""
    blocks = []
    for path in sorted((HERE.parent / "tests" / "compatibility").glob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        rows = list(_settings(tree, path.name))
        if rows:
            heading = (ast.get_docstring(tree) or "").splitlines()[0].rstrip(".")
            blocks.append(f"## {heading}")
            blocks.append(table(("setting", "recorded, and equal to the truth", "said not to be seen", "test"), rows))
    return page(
        "tests/compatibility/",
        "Compatibility",
        "Each row is a test in `tests/compatibility/`. It runs a training twice, bare and watched: parameters, buffers "
        "and states of optimizers and generators are bit for bit equal, no hook is left, each recorded value is the "
        "one that the test computes by itself in double precision (relative error at most 1e-5), and the run says in "
        "`not_checked` what the third column says and nothing else. Signals that a row does not name may be there too. "
        "Once more it runs where steps cannot pay for looks, so that most are only counted: the same bits again, every "
        "loss, and nothing recorded that is not the truth.",
        *blocks,
    )


def _settings(tree: ast.Module, file: str) -> Iterator[tuple[str, str, str, str]]:
    """The rows that the ``setting`` marks of a test file make."""
    names = {
        ast.unparse(node.targets[0]): node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and len(node.targets) == 1
    }
    for test in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        for mark in test.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.setting":
                claims = {word.arg: _literal(word.value, names) for word in mark.keywords}
                unseen = [f"{what}: {why}" for what, why in claims.get("not_checked", {}).items()]
                signals = ", ".join(f"`{name}`" for name in claims["records"])
                yield _literal(mark.args[0], names), signals, "; ".join(unseen), f"`{file}::{test.name}`"


def _literal(node: ast.expr, names: dict[str, ast.expr]) -> Any:
    """A literal in which names of the file and ``**`` of dictionaries may stand."""
    if isinstance(node, ast.Name):
        return _literal(names[node.id], names)
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        parts = [_literal(v, names) if k is None else {_literal(k, names): _literal(v, names)} for k, v in pairs]
        return {key: value for part in parts for key, value in part.items()}
    return ast.literal_eval(node)


PAGES: dict[str, Callable[[], str]] = {
    "signals.md": signals,
    "metrics.md": metrics,
    "detectors.md": detectors,
    "settings.md": settings,
    "files.md": files,
    "compatibility.md": compatibility,
}


def page(source: str, title: str, *blocks: str) -> str:
    return "\n\n".join((NOTE.format(source=source), f"# {title}", *blocks)) + "\n"


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; pipes in cells are escaped."""
    lines = [list(headings)]
    lines += [["---"] * len(lines[0]), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary(thing: object) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split()).replace("``", "`")


def first_sentence(path: Path) -> str:
    """The beginning of a file's docstring, without importing the file."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.!?]) (?=[A-Z`])", text)[0].replace("``", "`")


def meaning(cause: type[Cause]) -> tuple[str, str]:
    return summary(sys.modules[cause.__module__]), summary(cause)


def variable(name: str) -> str:
    if name in config.FILE_ONLY:
        return ""
    return "`TORCHVITALS_DIR`" if name == "directory" else f"`{config.PREFIX}{name.upper()}`"


def attribute_docstrings(cls: type) -> dict[str, str]:
    """Field → the string below it."""
    (definition,) = (node for node in ast.parse(inspect.getsource(cls)).body if isinstance(node, ast.ClassDef))
    return dict(_documented(definition.body))


def _documented(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            yield ast.unparse(field.target), " ".join(str(ast.literal_eval(below.value)).replace("``", "`").split())


def main() -> None:
    """Write all pages."""
    for name, make in PAGES.items():
        (HERE / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
