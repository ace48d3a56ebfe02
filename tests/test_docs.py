"""The documentation is held to the code: its examples run, its tables are current, and no word is left out."""

import contextlib
import doctest
import importlib
import importlib.util
import io
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from torchvitals.agent import cli
from torchvitals.agent.causes import CAUSES
from torchvitals.agent.config import FIELDS, Settings
from torchvitals.agent.metric_names import METRICS
from torchvitals.agent.offline import diagnose_directory
from torchvitals.dashboard.__main__ import arguments as dashboard_arguments
from torchvitals.detectors import DETECTORS, RECORD_DETECTORS
from torchvitals.signals.catalog import SIGNALS
from torchvitals.signals.reader import list_runs

ROOMS = (
    "torchvitals.signals",
    "torchvitals.hooks",
    "torchvitals.hooks.integrations",
    "torchvitals.detectors",
    "torchvitals.agent",
    "torchvitals.agent.causes",
    "torchvitals.agent.compare",
    "torchvitals.dashboard",
    "torchvitals.demo_jobs",
)
OPTIONAL = {"streamlit", "altair", "lightning", "pytorch_lightning", "transformers", "accelerate", "apprise", "sklearn"}
"""Extras: a module that needs one is skipped where it is not installed, and only then."""


def modules():
    """Names of all modules: the rooms' own paths are walked, since a namespace package has none to walk."""
    for room in ROOMS:
        package = importlib.import_module(room)
        yield room
        for found in pkgutil.iter_modules(package.__path__):
            if not found.ispkg and found.name != "__main__":
                yield f"{room}.{found.name}"


NAMES = sorted(set(modules()) - {"torchvitals.dashboard.app"})  # a Streamlit script, run by its own tests


def test_the_walk_finds_what_is_there():
    assert {"torchvitals.signals.catalog", "torchvitals.detectors.drift", "torchvitals.agent.causes.unknown"} <= {
        *NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in OPTIONAL:
            raise
        pytest.skip(f"{error.name} is not installed")
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)

    assert result.failed == 0


def test_a_wrong_example_is_noticed():
    finder, runner = doctest.DocTestParser(), doctest.DocTestRunner(verbose=False)
    wrong = finder.get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)

    assert runner.run(wrong, out=lambda _: None).failed == 1


ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def generator():
    """docs/generate.py, which is no package."""
    spec = importlib.util.spec_from_file_location("torchvitals_docs", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(generator().PAGES))
def test_the_tables_are_those_of_the_code(name):
    """When this fails, type: make docs."""
    made = generator().PAGES[name]()

    assert made == (ROOT / "docs" / name).read_text(encoding="utf-8"), "type: make docs"


def documented(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def missing(words, text: str) -> list[str]:
    """The words that ``text`` does not hold in code quotes."""
    return [word for word in words if f"`{word}`" not in text]


def test_every_word_is_explained():
    kinds = {detector.kind for detector in (*DETECTORS, *RECORD_DETECTORS)}

    assert missing((signal.name for signal in SIGNALS), documented("signals.md")) == []
    assert missing((metric.name for metric in METRICS.values()), documented("metrics.md")) == []
    assert missing({*kinds, *(cause.word for cause in CAUSES)}, documented("detectors.md")) == []
    assert missing(kinds, README) == []
    assert missing(FIELDS, documented("settings.md")) == []
    assert missing(["no_such_word"], README) == ["no_such_word"]


def test_no_field_of_the_settings_is_without_its_sentence():
    """An attribute docstring that is forgotten would leave a hole in the table."""
    assert set(generator().attribute_docstrings(Settings)) == {*FIELDS}


def helps():
    """Command → what its --help prints."""
    for command in cli.COMMANDS:
        out = io.StringIO()
        main = dashboard_arguments if command == "dashboard" else lambda words: cli.main(words)  # noqa: PLW0108
        words = ["--help"] if command == "dashboard" else [command, "--help"]
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
            main(words)
        yield command, out.getvalue()


def test_every_command_and_option_is_in_the_page_of_the_command_line():
    page = documented("cli.md")
    rows = {row.split("`")[1].split()[0]: row for row in page.splitlines() if row.startswith("| `")}

    assert set(rows) == set(cli.COMMANDS)
    for command, text in helps():
        options = set(re.findall(r"--[a-z][a-z-]+", text)) - {"--help"}
        assert {option for option in options if option not in rows[command]} == set(), command


def test_the_readme_names_what_is_in_the_tree():
    tree = README.split("```\nsignals/", 1)[1].split("```")[0]
    named = {line.split()[0].strip("/") for line in f"signals/{tree}".splitlines() if line.strip()}
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").exists()}

    assert rooms <= named
    for name in named:
        assert (ROOT / name).exists() or list(ROOT.glob(f"*/{name}")), name


def test_links_between_the_pages_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_code_of_the_readme_runs(tmp_path):
    """Both ways to attach, as they stand there; each leaves a run that can be diagnosed."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    environ = {**os.environ, "TORCHVITALS_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)], capture_output=True, text=True, env=environ
    )

    assert done.returncode == 0, done.stderr
    reports = [diagnose_directory(run.path) for run in list_runs(tmp_path)]
    assert sorted((report.role, report.steps) for report in reports) == [("serve", 200), ("train", 100)]
    assert [report.incidents for report in reports] == [[], []]
