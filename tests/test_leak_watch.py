"""A slow leak is hunted as well, a rare reading is enough, and the onset is read off what the holder holds."""

import numpy as np
import pytest
from torchvitals.agent.case import Case
from torchvitals.agent.history import History
from torchvitals.agent.memory_words import onset_of
from torchvitals.detectors.detector import Finding, Reading
from torchvitals.detectors.drift import Drift
from torchvitals.detectors.memory_leak import MemoryLeak
from torchvitals.hooks import leak_watch
from torchvitals.hooks.leak_watch import LeakWatch
from torchvitals.signals.records import Event


class Hunt:
    """Instead of a walk over all objects: remembers where it sampled and finds what it is told to."""

    sampled: list[int]
    found: dict[str, str] | None

    def sample(self, step):
        self.sampled.append(step)

    def report(self):
        return self.found


class Told:
    def __init__(self):
        self.events = []

    def event(self, kind, **details):
        self.events.append((kind, details))


@pytest.fixture
def watch(monkeypatch):
    """A watch whose process holds what ``resident`` says at each step, in bytes."""
    monkeypatch.setattr(Hunt, "sampled", [], raising=False)
    monkeypatch.setattr(Hunt, "found", {"holder": "list `kept`"}, raising=False)
    monkeypatch.setattr(leak_watch, "LeakHunt", Hunt)
    monkeypatch.setattr(leak_watch, "give_back", lambda: None)

    def run(steps, resident):
        told = Told()
        watched = LeakWatch(told)
        for step in range(steps):
            monkeypatch.setattr(watched._memory, "rss_bytes", lambda step=step: int(resident(step)))
            watched.step(step)
        return told.events

    return run


@pytest.mark.parametrize("rate", [1 << 20, 5_000])
def test_leaks_of_a_megabyte_and_of_five_kilobytes_a_step_are_hunted_once(watch, rate):
    arena = 132 << 10  # the heap grows by whole arenas
    events = watch(2000, lambda step: 3e8 + step * rate // arena * arena)

    assert events == [("holder", {"holder": "list `kept`"})]


@pytest.mark.parametrize(("rate", "given_back"), [(20_000, 3), (1 << 20, 0)])
def test_the_memory_of_a_hunt_is_given_back_where_it_would_hide_the_leak(watch, monkeypatch, rate, given_back):
    calls = []
    monkeypatch.setattr(leak_watch, "give_back", lambda: calls.append(1))
    watch(400, lambda step: 3e8 + step * rate)

    assert len(calls) == given_back


def test_a_process_that_has_settled_is_not_hunted(watch, monkeypatch):
    monkeypatch.setattr(Hunt, "found", None)
    events = watch(5000, lambda step: 3e8 + 2e7 * (1 - np.exp(-step / 10)) + 4096 * (step % 7))

    assert events == []
    assert all(step < 500 for step in Hunt.sampled)


def test_what_is_kept_at_each_evaluation_is_hunted_from_one_to_the_next(watch, monkeypatch):
    """It grows by 400 kB every 32 steps: a hunt of three samples 16 steps apart sees nothing grow twice."""

    def report(hunt):
        gaps = np.diff(hunt.sampled[-3:])
        return {"holder": "list `history`"} if (gaps >= 32).all() else None

    monkeypatch.setattr(Hunt, "report", report)
    events = watch(600, lambda step: 3e8 + step // 32 * 400_000)

    assert events == [("holder", {"holder": "list `history`"})]
    assert len(Hunt.sampled) == 6


def test_what_no_longer_hunt_names_is_told_as_the_short_one_saw_it(watch, monkeypatch):
    native = {"holder": "", "native": True}
    found = iter([native, None])
    monkeypatch.setattr(Hunt, "report", lambda hunt: next(found, None))
    events = watch(600, lambda step: 3e8 + step // 32 * 400_000)

    assert events == [("holder", native)]


def test_a_pool_that_is_made_once_behind_a_few_small_samples_is_not_hunted(watch, monkeypatch):
    """As an MLP's process was seen to grow: 4, 16 and 4 kB, and then an arena of a megabyte."""
    monkeypatch.setattr(Hunt, "found", None)
    growths = [0, 4 << 10, 16 << 10, 4 << 10, 1025 << 10]
    watch(2000, lambda step: 3e8 + sum(growths[: 1 + step // 16]))

    assert Hunt.sampled == []


@pytest.mark.parametrize("onset", [0, 300])
@pytest.mark.parametrize("rare_until", [0, 130])
def test_rare_readings_of_memory_are_enough(rare_until, onset):
    """Jobs with short steps send one reading in eight, at times; 40 kB a step."""
    detector = MemoryLeak()
    steps = [step for step in range(800) if step % 8 == 0 or step < rare_until]
    curve = [(step, 3e8 + 4e4 * max(0, step - onset)) for step in steps]
    found = [finding for step, rss in curve for finding in detector.update(Reading.of(step, rss_bytes=[rss]))]

    assert [finding.kind for finding in found] == ["memory_leak"]
    assert found[0].value == pytest.approx(4e4, rel=0.05)


@pytest.mark.parametrize(("rate", "leaks"), [(4e5, True), (0.0, False)])
def test_readings_that_become_rare_before_it_leaks_are_enough(rate, leaks):
    """Each step at first, and then one in 16, in 32 and in 64, as steps are counted."""
    detector = MemoryLeak()
    steps = [*range(432), *range(432, 512, 16), *range(512, 1024, 32), *range(1024, 1601, 64)]
    curve = [(step, 3.44e8 + rate * max(0, step - 500)) for step in steps]
    found = [finding for step, rss in curve for finding in detector.update(Reading.of(step, rss_bytes=[rss]))]

    assert [finding.kind for finding in found] == ["memory_leak"] * leaks
    assert all(480 <= finding.first_step <= 560 for finding in found)


def test_rare_readings_of_memory_that_settles_are_no_leak():
    detector = MemoryLeak()
    curve = [(step, 3e8 + 3e7 * (1 - np.exp(-step / 60))) for step in range(0, 2000, 8)]

    assert [finding for step, rss in curve for finding in detector.update(Reading.of(step, rss_bytes=[rss]))] == []


def test_a_staircase_of_longer_sequences_is_no_leak():
    detector = MemoryLeak()
    curve = [(step, 3.26e8 + 7e5 * min(step // 60, 4) + 100 * step) for step in range(0, 400, 4)]

    assert [finding for step, rss in curve for finding in detector.update(Reading.of(step, rss_bytes=[rss]))] == []


def leak_case(**holder):
    leak = Finding(kind="memory_leak", severity="error", first_step=368, step=400, value=1e5, threshold=2e3)
    event = Event(0.0, 360, "holder", {"holder": "list `kept`", "bytes_per_step": 1e5, **holder})
    return Case(findings=[leak], history=History(), facts={}, events=[(0, event)], world_size=1)


@pytest.mark.parametrize(
    ("count", "rate", "onset"),
    [
        (360, 1.0, 0),  # one entry at every step since the first
        (240, 4.0, 300),  # four at every step since step 300
        (5000, 1.0, None),  # it held much before: no onset can be read off it
        (1, 8.0, None),  # one thing cannot have grown by eight a step
    ],
)
def test_the_onset_is_when_the_holder_was_empty(count, rate, onset):
    assert onset_of(leak_case(count=count, growth_per_step=rate)) == onset


def test_a_ramp_that_begins_early_does_not_hide_itself_in_the_reference():
    rng, detector, found = np.random.default_rng(1), Drift(), []
    for block in range(125):
        rows = rng.normal(size=(128, 4))
        rows[:, 2] += 5.0 * max(0, block - 25) / 100
        zeros = np.zeros(4)
        found += detector.update(
            Reading.of(
                16 * block, feature_mean=rows.mean(0), feature_std=rows.std(0), feature_missing=zeros,
                feature_zero=zeros, feature_rows=np.full(4, 128), feature_role=zeros,
            )
        )  # fmt: skip

    assert [finding.subject for finding in found] == [2]
