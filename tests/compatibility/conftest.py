"""The trial of each setting, with the claims of the test that it serves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("compatibility.trial")

from compatibility.trial import Trial  # noqa: E402 (its asserts must be rewritten before it is imported)


@pytest.fixture
def trial(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Trial]:
    """A trial that must have proven the ``records`` of the test's ``setting`` mark by the end of the test."""
    mark = request.node.get_closest_marker("setting")
    made = Trial(tmp_path / "runs", mark.kwargs["records"], mark.kwargs.get("not_checked", {}))
    yield made
    assert made.proven
