"""Every example in every docstring runs, under the name by which users import its module."""

import doctest
import importlib
import pkgutil

import pytest

ROOMS = (
    "torchvitals.signals",
    "torchvitals.hooks",
    "torchvitals.hooks.integrations",
    "torchvitals.detectors",
    "torchvitals.agent",
    "torchvitals.agent.causes",
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
