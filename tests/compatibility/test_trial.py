"""The trial itself: what it runs a job under."""

from pathlib import Path

import torch
from compatibility.toys import loss_of, perceptron
from compatibility.trial import Trial
from recorded import series


def test_where_a_job_is_hardly_watched_all_kinds_of_steps_occur(tmp_path: Path) -> None:
    trial = Trial(tmp_path, (), {})
    model = perceptron()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with trial.watch_hardly(model, optimizer):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()

    assert list(series(tmp_path, "overhead_ratio")) == [0, 3]  # watched
    assert list(series(tmp_path, "tripwire_norm")) == [0, 2, 3, 5]  # all but the light ones
    assert list(series(tmp_path, "loss")) == [0, 1, 2, 3, 4, 5]
