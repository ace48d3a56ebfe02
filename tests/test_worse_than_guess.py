"""Fresh classifiers that large steps leave worse than a guess, and what looks like it."""

import math

import numpy as np
import pytest
from torchvitals.detectors.detector import Finding, Reading
from torchvitals.detectors.worse_than_guess import WorseThanGuess

CHANCE = math.log(10)


def watch(losses: list[float], rate: float = 2.0, items: int = 16) -> list[Finding]:
    detector = WorseThanGuess()
    return [
        finding
        for step, loss in enumerate(losses)
        for finding in detector.update(Reading.of(step, loss=loss, learning_rate=rate, batch_items=items))
    ]


def around(level: float, spread: float, first: float = CHANCE) -> list[float]:
    return [first, *np.random.default_rng(0).normal(level, spread, 400).tolist()]


def test_a_loss_that_stays_above_chance_at_a_large_rate_is_told_once() -> None:
    found = watch(around(2.45, 0.06))

    assert [(f.kind, f.first_step, f.step, f.evidence["classes"]) for f in found] == [("divergence", 1, 191, 10)]


@pytest.mark.parametrize(
    ("losses", "given"),
    [
        (around(2.45, 0.06), {"rate": 0.1}),  # labels that cannot be learnt, at a usual rate
        (around(2.45, 0.06), {"items": 2}),  # one loss of two rows is no sample
        (around(CHANCE, 0.06), {}),  # at chance: a plateau
        (around(0.5, 0.05, first=0.45), {}),  # goes on from a checkpoint, and stands still
        (around(2.45, 0.06, first=math.log(2)), {}),  # a generator that is losing
        ([CHANCE, *[9.0] * 60, *around(1.2, 0.1)[1:]], {}),  # an overshoot that passes
    ],
)
def test_what_is_not_worse_than_a_guess(losses: list[float], given: dict[str, float]) -> None:
    assert watch(losses, **given) == []


def test_of_many_ranks_each_is_told_of_once_and_not_all_at_the_same_step() -> None:
    detector, ranks = WorseThanGuess(), 130
    rates, items = np.full(ranks, 2.0), np.full(ranks, 32.0)
    found = [
        (finding.subject, finding.step)
        for step in range(300)
        for finding in detector.update(
            Reading.of(step, loss=np.full(ranks, 2.5 if step else CHANCE), learning_rate=rates, batch_items=items)
        )
    ]

    assert [subject for subject, _ in found] == list(range(ranks))
    assert [step for _, step in found] == [191 + rank // 64 for rank in range(ranks)]
    assert detector.over
