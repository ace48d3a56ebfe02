"""Ranks that part are named with the first step, the first tensor and, where there is a majority, the rank."""

from collections.abc import Callable

import numpy as np
import pytest
from torchvitals.detectors.desync import Desync
from torchvitals.detectors.detector import Finding, Reading
from torchvitals.detectors.duplicate_data import DuplicateData
from torchvitals.detectors.unsynced_backward import UnsyncedBackward


def digests(step, rows, present=None, name="parameter_digest"):
    rows = np.asarray(rows, dtype=np.int64)
    here = np.ones(len(rows), dtype=bool) if present is None else np.asarray(present)
    return Reading(step, float(step), {name: rows}, {name: here})


def equal(step, ranks=4, tensors=6):
    return np.tile(np.arange(tensors) + 1000 * step, (ranks, 1))


def feed(detector, readings):
    return [finding for reading in readings for finding in detector.update(reading)]


class TestDesync:
    def test_equal_replicas_are_silent(self):
        detector = Desync()

        assert feed(detector, [digests(step, equal(step)) for step in range(2000)]) == []
        assert detector.status().state == "ok"

    def test_a_minority_of_one_is_named(self):
        odd = equal(20)
        odd[3, 2:4] += 1
        (finding,) = feed(Desync(), [digests(0, equal(0)), digests(10, equal(10)), digests(20, odd)])

        assert (finding.first_step, finding.subject, finding.rank) == (20, 2, 3)
        assert finding.evidence["agreed_until"] == 10
        assert finding.evidence["tensors"] == [2, 3]
        assert finding.evidence["minority"] == [3]

    def test_of_two_ranks_none_is_named_and_that_is_said(self):
        odd = equal(0, ranks=2)
        odd[1] += 1
        (finding,) = feed(Desync(), [digests(0, odd)])

        assert finding.rank is None
        assert finding.evidence["minority"] is None
        assert "two ranks, cannot tell" in finding.evidence["why_no_rank"]
        assert finding.evidence["agreed_until"] is None

    def test_two_against_two_is_no_majority(self):
        odd = equal(0)
        odd[2:] += 1
        (finding,) = feed(Desync(), [digests(0, odd)])

        assert finding.rank is None
        assert "no majority" in finding.evidence["why_no_rank"]

    def test_two_odd_ranks_of_five_are_the_minority_but_no_single_rank(self):
        odd = equal(0, ranks=5)
        odd[1] += 1
        odd[4] += 2
        (finding,) = feed(Desync(), [digests(0, odd)])

        assert finding.rank is None
        assert finding.evidence["minority"] == [1, 4]

    def test_a_rank_that_sent_nothing_is_not_compared(self):
        rows = equal(0)
        rows[1] = 0

        assert feed(Desync(), [digests(0, rows, [True, False, True, True])]) == []

    def test_one_rank_alone_is_not_checked(self):
        detector = Desync()

        assert feed(detector, [digests(0, equal(0, ranks=1))]) == []
        assert detector.status().state == "not_checked"

    def test_it_is_told_once(self):
        readings = []
        for step in range(0, 100, 10):
            rows = equal(step)
            rows[0] += step
            readings.append(digests(step, rows))

        assert [finding.step for finding in feed(Desync(), readings)] == [10]

    def test_hyper_parameters_are_a_finding_of_their_own(self):
        rows = equal(5, tensors=9)
        rows[1, 4] += 1
        (finding,) = feed(Desync(), [digests(5, rows, name="hyperparameter_digest")])

        assert finding.evidence["what"] == "hyper-parameters"
        assert (finding.rank, finding.subject) == (1, None)

    def test_sixteen_thousand_ranks_are_compared_at_once(self):
        rows = np.zeros((16_384, 40), dtype=np.int64)
        rows[777, 39] = 1
        (finding,) = feed(Desync(), [digests(0, rows)])

        assert (finding.rank, finding.subject) == (777, 39)


class TestDating:
    """Digests at every tenth step; sums, which say nothing of the tensor, between them."""

    def read(self, parts_at, sum_every=1, until=50, lacking=()):
        detector = Desync()
        for step in range(until):
            odd = step >= parts_at
            if step % sum_every == 0 and step not in lacking:
                found = detector.update(digests(step, [[step], [step + odd]], name="parameter_sum"))
                assert found == []
            if step % 10 == 0:
                rows = equal(step, ranks=2)
                rows[1, 3] += odd
                for finding in detector.update(digests(step, rows)):
                    return finding
        return None

    @pytest.mark.parametrize("parts_at", [1, 9, 10, 11, 19, 20, 37])
    def test_the_first_step_at_which_ranks_differ_is_named(self, parts_at):
        finding = self.read(parts_at)

        assert finding.first_step == parts_at
        assert finding.evidence["agreed_at"] == parts_at - 1
        assert finding.step == -(-parts_at // 10) * 10

    def test_with_sparse_sums_the_steps_between_which_it_was_are_named(self):
        finding = self.read(13, sum_every=4)

        assert (finding.evidence["agreed_at"], finding.first_step, finding.step) == (12, 16, 20)

    def test_without_sums_the_digests_say_between_which_steps(self):
        finding = self.read(13, sum_every=1000)

        assert (finding.evidence["agreed_at"], finding.first_step) == (10, 20)

    def between(self, name, parts_at=13, until=21):
        """Sums at every eighth step; ``name`` is told by both ranks at every step and differs from 13 on."""
        detector, found = Desync(), []
        for step in range(until):
            odd = step >= parts_at
            values = {"collectives": np.ones((2, 1))}
            if name == "tripwire_norm":
                values[name] = np.array([[0.1 + step], [0.1 + step + 0.01 * (step == parts_at)]])
            if step % 8 == 0:
                values["parameter_sum"] = np.array([[step], [step + odd]], dtype=float)
            present = {each: np.ones((2, 1), dtype=bool) for each in values}
            if name == "weights_overwritten" and step == parts_at:
                values[name], present[name] = np.ones((2, 1)), np.array([[False], [True]])
            found += detector.update(Reading(step, 0.0, values, present))
            if step % 10 == 0:
                rows = equal(step, ranks=2)
                rows[1, 3] += odd
                found += detector.update(digests(step, rows))
        return found

    @pytest.mark.parametrize("name", ["tripwire_norm", "weights_overwritten"])
    def test_between_two_sums_it_is_dated_by_what_differed_first(self, name):
        (finding,) = self.between(name)

        assert (finding.first_step, finding.evidence["dated_by"], finding.step) == (13, name, 20)

    def test_what_differed_and_made_no_difference_dates_nothing(self):
        """Gradients that differed at 3, ranks that were equal at 8: they parted later."""
        detector = Desync()
        for step in range(9):
            norms = np.array([[1.0], [1.0 + (step == 3)]])
            values = {"tripwire_norm": norms, "collectives": np.ones((2, 1))}
            detector.update(Reading(step, 0.0, values, dict.fromkeys(values, np.ones((2, 1), dtype=bool))))
        detector.update(digests(8, [[8], [8]], name="parameter_sum"))
        odd = equal(20, ranks=2)
        odd[1] += 1
        (finding,) = detector.update(digests(20, odd))

        assert (finding.first_step, finding.evidence["dated_by"]) == (20, None)

    def test_sums_alone_raise_no_alarm(self):
        """A float sum of a device may differ by the order of its parts: bits are what counts."""
        detector = Desync()
        for step in range(100):
            rows = np.array([[step], [step + (step > 20)]])
            assert detector.update(digests(step, rows, name="parameter_sum")) == []
            if step % 10 == 0:
                assert detector.update(digests(step, equal(step, ranks=2))) == []

    def test_sums_that_differed_before_the_digests_agreed_date_nothing(self):
        detector = Desync()
        detector.update(digests(5, [[1], [2]], name="parameter_sum"))
        detector.update(digests(10, equal(10, ranks=2)))
        odd = equal(20, ranks=2)
        odd[1] += 1
        (finding,) = detector.update(digests(20, odd))

        assert finding.first_step == 20


def test_a_shard_is_judged_by_those_who_hold_it():
    """Six ranks hold the first tensor, three the second; of those three one is odd."""
    rows = np.zeros((6, 2), dtype=np.int64)
    rows[4, 1] = 9
    held = np.array([[True, False]] * 3 + [[True, True]] * 3)
    (finding,) = Desync().update(Reading(0, 0.0, {"parameter_digest": rows}, {"parameter_digest": held}))

    assert (finding.subject, finding.rank) == (1, 4)
    assert finding.evidence["ranks_compared"] == 3


class TestUnsyncedBackward:
    def fire(self, *steps):
        readings = [Reading.of(step, collectives=counts) for step, counts in enumerate(steps)]
        return feed(UnsyncedBackward(), readings)

    def test_the_first_unshared_step_is_named(self):
        (finding,) = self.fire([3, 3], [1, 1], [1, 1], [1, 1], [0, 0], [0, 0])

        assert (finding.first_step, finding.rank, finding.subject) == (4, None, None)
        assert finding.evidence["ranks"] == [0, 1]

    def test_a_sweep_that_never_shares_is_silent(self):
        assert self.fire(*([[0, 0]] * 500)) == []

    def test_a_logged_reduction_now_and_then_is_not_sharing(self):
        assert self.fire(*([[1, 1] if step % 50 == 0 else [0, 0] for step in range(500)])) == []

    def test_a_rank_that_sends_nothing_has_shared_nothing_wrongly(self):
        readings = [
            Reading(step, 0.0, {"collectives": np.array([1.0, np.nan])}, {"collectives": np.array([True, False])})
            for step in range(20)
        ]

        assert feed(UnsyncedBackward(), readings) == []

    def test_one_rank_has_nobody_to_share_with(self):
        detector = UnsyncedBackward()

        assert feed(detector, [Reading.of(step, collectives=[step < 9]) for step in range(20)]) == []
        assert detector.status().state == "not_checked"

    def test_one_rank_of_four_is_named(self):
        (finding,) = self.fire(*([[1, 1, 1, 1]] * 5), [1, 1, 0, 1])

        assert finding.subject == 2

    def wrapped(self, steps, shared_until=0, averaged=(), **told):
        """Two ranks under a wrapper, found equal at the beginning of the steps ``averaged``."""
        for step in range(steps):
            shared = step < shared_until
            here = {"collectives": [shared, shared], "no_sync_passes": [0, 0]}
            here |= {} if shared else {name: [value, value] for name, value in told.items()}
            here |= {"parameter_sum_found": [step, step]} if step in averaged else {}
            yield Reading.of(step, **here)

    def test_what_a_wrapper_never_shared_is_told_from_the_first_step(self):
        (finding,) = feed(UnsyncedBackward(), self.wrapped(120))

        assert (finding.first_step, finding.step, finding.rank) == (0, 99, None)

    def test_a_wrapper_that_is_met_in_the_second_step_dates_it_no_later(self):
        first = Reading.of(0, collectives=[0, 0])
        (finding,) = feed(UnsyncedBackward(), [first, *list(self.wrapped(120))[1:]])

        assert finding.first_step == 0

    def test_a_short_job_tells_it_at_its_end(self):
        detector = UnsyncedBackward()

        assert feed(detector, self.wrapped(40)) == []
        assert [finding.first_step for finding in detector.conclude()] == [0]

    def test_weights_that_are_averaged_instead_are_well(self):
        detector = UnsyncedBackward()

        assert feed(detector, self.wrapped(500, averaged={64, 128}, no_sync_passes=1)) == []
        assert detector.conclude() == []

    def test_a_sum_on_which_ranks_differ_is_no_averaging(self):
        readings = [
            Reading.of(step, collectives=[0, 0], no_sync_passes=[0, 0], parameter_sum_found=[step, -step - 1])
            for step in range(120)
        ]

        assert [finding.first_step for finding in feed(UnsyncedBackward(), readings)] == [0]

    def test_post_local_averaging_is_awaited_and_what_never_comes_is_dated(self):
        apart = {"no_sync_passes": 1, "trains_apart": 1}
        averaged = feed(UnsyncedBackward(), self.wrapped(400, 50, averaged={58, 66}, **apart))
        (finding,) = feed(UnsyncedBackward(), self.wrapped(400, 50, **apart))

        assert averaged == []
        assert (finding.first_step, finding.step) == (50, 149)

    def test_a_step_that_was_only_counted_does_not_tell_the_intent(self):
        counted = [Reading.of(step, collectives=[0, 0]) for step in (50, 51)]
        told = Reading.of(52, collectives=[0, 0], no_sync_passes=[0, 0])
        told.present["no_sync_passes"][1] = False  # the other rank's third step was only counted as well
        (finding,) = feed(UnsyncedBackward(), [*self.wrapped(50, 50), *counted, told])

        assert (finding.first_step, finding.step, finding.rank) == (50, 52, None)

    def test_a_wrapper_that_is_bypassed_later_is_told_at_once(self):
        (finding,) = feed(UnsyncedBackward(), self.wrapped(400, 50))

        assert (finding.first_step, finding.step) == (50, 50)

    def test_where_no_code_could_average_weights_the_first_unshared_step_is_told(self):
        later = feed(UnsyncedBackward(), self.wrapped(400, 50, no_sync_passes=1, averaging_in_code=0))
        never = feed(UnsyncedBackward(), self.wrapped(400, averaging_in_code=0))
        counted = [*self.wrapped(50, 50), Reading.of(50, collectives=[0, 0], averaging_in_code=[0, 0])]

        assert [(finding.first_step, finding.step) for finding in later] == [(50, 50)]
        assert [(finding.first_step, finding.step) for finding in never] == [(0, 2)]
        assert [finding.step for finding in feed(UnsyncedBackward(), counted)] == [50]

    @pytest.mark.parametrize("shared_until", [0, 50])
    @pytest.mark.parametrize("told", [{"no_sync_passes": 1, "trains_apart": 1}, {}])
    def test_where_code_averages_weights_it_is_awaited_for_as_long_as_anybody_does_so(self, shared_until, told):
        meets = range(shared_until + 500, 2000, 500)
        averaged = UnsyncedBackward()
        found = feed(averaged, self.wrapped(2000, shared_until, averaged={*meets}, averaging_in_code=2, **told))
        short = UnsyncedBackward()
        cut_off = feed(short, self.wrapped(shared_until + 300, shared_until, averaging_in_code=2, **told))
        (never,) = feed(UnsyncedBackward(), self.wrapped(2000, shared_until, averaging_in_code=2, **told))

        assert found + averaged.conclude() == []
        assert cut_off + short.conclude() == []
        assert (never.first_step, never.step) == (shared_until, shared_until + 511)


class TestDuplicateData:
    def fire(self, rows, every=5):
        detector = DuplicateData()
        return feed(detector, [Reading.of(every * i, batch_digest=row) for i, row in enumerate(rows)]), detector

    def test_equal_batches_on_all_ranks_are_found(self):
        ((finding,), detector) = self.fire([[i, i, i] for i in range(20)])

        assert finding.first_step == 0
        assert finding.evidence["ranks"] == [0, 1, 2]
        assert detector.status().state == "alarm"

    @pytest.mark.parametrize(
        "rows",
        [
            [[i, -i - 1, 1000 + i] for i in range(200)],
            [[7, 7, 7]] * 200,
            [[i % 3, i % 3, i % 3] for i in range(200)],
            [[i, i if i % 3 == 0 else -i - 1] for i in range(200)],
            [[i] for i in range(200)],
            [[np.nan, np.nan]] * 200,
        ],
        ids=["shards", "constant", "cycle of three", "a third overlaps", "one rank", "non-finite"],
    )
    def test_healthy_batches_are_silent(self, rows):
        found, _ = self.fire(rows)

        assert found == []

    def test_the_onset_is_where_the_ranks_began_to_agree(self):
        rows = [[i, -i - 1] for i in range(10)] + [[i, i] for i in range(10, 20)]
        ((finding,), _) = self.fire(rows)

        assert finding.first_step == 50


def reading_of_apart(step: int, *, together: bool, shared: float = 0.0) -> Reading:
    """Two ranks that share no gradients; ``together``: they found equal weights when the step began."""
    sums = {
        "parameter_sum": np.array([[1.0], [2.0]]) + step,
        "parameter_sum_found": np.array([[1.0], [1.0 if together else 2.0]]) + step,
        "collectives": np.full((2, 1), shared),
    }
    rows = {"parameter_digest": np.array([[5, 6], [7, 8]]) + step}
    values = {**sums, **(rows if step % 10 == 0 else {})}
    return Reading(step, 0.0, values, dict.fromkeys(values, np.ones(2, dtype=bool)))


def found_in(steps: range, meets: Callable[[int], bool], shared: float = 0.0) -> list[Finding]:
    detector = Desync()
    readings = (reading_of_apart(step, together=meets(step), shared=shared) for step in steps)
    found = [finding for reading in readings for finding in detector.update(reading)]
    return [*found, *detector.conclude()]


@pytest.mark.parametrize("every", [1, 8, 100, 500])
def test_ranks_that_average_their_weights_now_and_then_are_well(every: int) -> None:
    assert found_in(range(1100), lambda step: step > 0 and step % every == 0) == []


def test_ranks_that_stop_averaging_are_told_and_since_when() -> None:
    (finding,) = found_in(range(400), lambda step: 0 < step <= 160 and step % 16 == 0)

    assert (finding.step, finding.first_step, finding.evidence["agreed_at"]) == (200, 176, 160)


@pytest.mark.parametrize(("steps", "told_at"), [(60, 50), (900, 520)])
def test_ranks_that_never_come_together_are_told_when_the_run_ends_or_it_has_been_long_enough(
    steps: int, told_at: int
) -> None:
    (finding,) = found_in(range(steps), lambda _step: False)

    assert (finding.step, finding.first_step, finding.evidence["agreed_at"]) == (told_at, 0, None)


def planned(reading: Reading) -> Reading:
    """In a job whose code averages weights, read where a step shares nothing."""
    if not reading.values["collectives"].any():
        reading.values["averaging_in_code"] = np.full((2, 1), 2.0)
        reading.present["averaging_in_code"] = np.ones(2, dtype=bool)
    return reading


@pytest.mark.parametrize("shared_until", [0, 40])
def test_ranks_whose_code_averages_weights_need_not_have_met_before_the_run_ends(shared_until: int) -> None:
    detector = Desync()
    equal = np.ones((2, 1))
    for step in range(300):
        reading = planned(reading_of_apart(step, together=False, shared=float(step < shared_until)))
        if step < shared_until:
            reading.values["parameter_sum"] = equal
            if "parameter_digest" in reading.values:
                reading.values["parameter_digest"] = np.ones((2, 2), dtype=np.int64)
        assert detector.update(reading) == []

    assert detector.conclude() == []


def test_ranks_that_share_gradients_and_differ_are_told_at_once() -> None:
    (finding,) = found_in(range(60), lambda _step: False, shared=3.0)

    assert finding.step == 0
