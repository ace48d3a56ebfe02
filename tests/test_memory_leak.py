"""Memory that was asked for at once and is touched bit by bit is no leak."""

import numpy as np
import pytest
from torchvitals.agent.case import Case
from torchvitals.agent.history import History
from torchvitals.agent.memory_words import fills_up
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.memory_leak import MemoryLeak
from torchvitals.signals.records import Event


def found(resident: float, mapped: float | None) -> list[int]:
    """First steps of the findings when resident memory and the address space grow by so many bytes per step."""
    detector, findings = MemoryLeak(), []
    for step in range(600):
        values = {"rss_bytes": [3e8 + resident * step]}
        if mapped is not None:
            values["mapped_bytes"] = [9e9 + mapped * step + 1.6e8 * (step > 100)]  # and a thread's arena, once
        findings += detector.update(Reading.of(step, **values))
    return [finding.first_step for finding in findings]


@pytest.mark.parametrize("mapped", [None, np.nan, 65536.0, 131072.0])
def test_what_is_asked_for_step_by_step_leaks(mapped: float | None) -> None:
    assert found(65536.0, mapped) == [0]


def test_an_array_that_fills_up_or_a_mapped_file_that_is_read_does_not() -> None:
    assert found(65536.0, 0.0) == []


LIST = {"holder": "list `kept` in train", "line": "train.py:9", "type": "torch.Tensor", "growth_per_step": 1.0}
OUTPUT = {"holder": "Tensor `output` in train", "type": "rows of a torch.Tensor", "tensor": True}


@pytest.mark.parametrize(
    ("sizes", "holder", "leaks"),
    [
        (np.linspace(400, 900, 200), None, False),  # a curriculum
        (np.linspace(400, 900, 200), OUTPUT, False),
        (np.linspace(400, 900, 200), LIST, True),
        (np.full(200, 400.0), None, True),
        (np.linspace(400, 430, 200), None, True),
        (np.random.default_rng(0).uniform(100, 900, 200), None, True),  # sentences of all lengths
    ],
)
def test_longer_batches_take_more_memory(sizes: np.ndarray, holder: dict | None, leaks: bool) -> None:
    detector, history, findings = MemoryLeak(), History(), []
    for step, size in enumerate(sizes):
        history.add("batch_values", step, float(size))
        findings += detector.update(Reading.of(step, rss_bytes=[3e8 + 3e4 * step]))
    events = [(0, Event(1.0, 150, "holder", {"bytes_per_step": 3e4, "graph": False} | holder))] if holder else []

    assert len(findings) == 1
    assert bool(fills_up(Case(findings=findings, history=history, facts={}, events=events))) is not leaks
