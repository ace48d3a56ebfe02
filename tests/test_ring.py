"""The ring writes one row where all have spoken together, and finds each subject's place where they have not."""

import numpy as np
import pytest
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.ring import Ring
from torchvitals.detectors.scalars import losses, magnitudes

SIZE, SUBJECTS = 5, 4


def kept(columns):
    """What a ring of ``SIZE`` holds of each subject, the newest last."""
    return [column[-SIZE:] for column in columns]


def held(ring):
    """The same out of a ring."""
    out = []
    for subject, count in enumerate(ring.count.tolist()):
        order = np.roll(ring.values[:, subject], -count % SIZE) if count > SIZE else ring.values[:count, subject]
        out.append(order.tolist())
    return out


@pytest.mark.parametrize("present", [1.0, 0.7], ids=["together", "each for itself"])
def test_holds_the_newest_values_of_each_subject(present):
    rng = np.random.default_rng(3)
    ring, columns = Ring(SIZE, np.float64), [[] for _ in range(SUBJECTS)]
    ring.grow(SUBJECTS)
    for _ in range(23):
        values, use = rng.normal(size=SUBJECTS), rng.random(SUBJECTS) < present
        ring.add(values, use)
        for subject in np.flatnonzero(use):
            columns[subject].append(float(values[subject]))
        assert held(ring) == kept(columns)


def test_a_subject_that_joins_later_is_counted_for_itself():
    ring = Ring(SIZE, np.float64)
    ring.grow(1)
    for value in range(3):
        ring.add(np.array([float(value)]), np.array([True]))
    ring.grow(2)
    ring.add(np.array([7.0, 8.0]), np.array([True, True]))

    assert held(ring) == [[0.0, 1.0, 2.0, 7.0], [8.0]]


@pytest.mark.parametrize("present", [1.0, 0.7], ids=["together", "each for itself"])
def test_a_modest_count_ends_and_the_slots_go_on(present):
    rng = np.random.default_rng(4)
    modest, plain = Ring(SIZE, np.float64, each=7, modest=True), Ring(SIZE, np.float64, each=7)
    for ring in (modest, plain):
        ring.grow(SUBJECTS)
    for turn in range(700):
        values, use = rng.normal(size=SUBJECTS), rng.random(SUBJECTS) < (present if turn % 300 else 0.5)
        for ring in (modest, plain):
            ring.add(values, use)

        np.testing.assert_equal(modest.values, plain.values)
        assert modest.count.max() < 256 or turn < 300
        assert (modest.count % (7 * SIZE) == plain.count % (7 * SIZE)).all()


def test_what_detectors_make_of_a_reading_is_made_once_and_says_who_is_absent():
    reading = Reading.of(
        3, loss=[1.0, np.nan, 0.0, 5.0], gradient_norm=[10.0, 1.0, np.inf, 1.0], skipped_steps=[0, 0, 0, 2]
    )
    reading.present["loss"][1] = False
    made = magnitudes(reading, 4)

    assert magnitudes(reading, 4) is made
    np.testing.assert_allclose(made.heights[:2], [[0.0, np.nan, -300.0, np.log10(5)], [1.0, 0.0, np.inf, 0.0]])
    assert made.usable.tolist() == [[True, False, True, False], [True, True, False, True], [False] * 4]
    assert losses(reading, 4).sent.tolist() == [True, False, True, False]
