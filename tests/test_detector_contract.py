"""Every detector keeps the same promises: one suite over the whole list, no exceptions by name."""

import doctest
import importlib
import inspect
import math
import pickle
import re
import warnings

import numpy as np
import pytest
from torchvitals.detectors import DETECTORS, RECORD_DETECTORS
from torchvitals.detectors.detector import Finding, Reading
from torchvitals.signals.catalog import BY_NAME
from torchvitals.signals.records import Event, Hello

STEPS = 200
BLOCK = 16
STATE = 1024
"""Bytes of a rank that sends every signal, in all step detectors together; 0.4 kB of it is memory."""

all_detectors = pytest.mark.parametrize("make", DETECTORS, ids=lambda make: make.__name__)
all_record_detectors = pytest.mark.parametrize("make", RECORD_DETECTORS, ids=lambda make: make.__name__)


def ar1(rng, steps, subjects, phi=0.9):
    """Stationary, mean 0, variance 1, with memory."""
    noise = rng.normal(size=(steps, subjects)) * math.sqrt(1 - phi * phi)
    out = np.empty((steps, subjects))
    out[0] = rng.normal(size=subjects)
    for step in range(1, steps):
        out[step] = phi * out[step - 1] + noise[step]
    return out


def healthy(make, subjects, steps=STEPS, seed=0):
    """A quiet recording: what each signal looks like in a job that is well."""
    rng = np.random.default_rng(seed)
    wander = ar1(rng, steps, subjects)
    decay = (0.3 + 2 * np.exp(-np.arange(steps) / 80))[:, None]
    positive = np.exp(0.1 * wander)
    shaped = {
        "loss": decay * positive,
        "rss_bytes": 3e8 + 2e5 * wander + 2e7 * (1 - np.exp(-np.arange(steps) / 10))[:, None],
        "cuda_allocated_bytes": np.full((steps, subjects), 5e8),
        "cuda_reserved_bytes": np.full((steps, subjects), 6e8),
        "learning_rate": np.full((steps, subjects), 1e-3),
        "loss_scale": np.full((steps, subjects), 65536.0),
        "step_seconds": 0.05 * positive,
        "data_seconds": 0.002 * positive,
        "feature_mean": wander * 0.2,
        "feature_rows": np.full((steps, subjects), 256.0),
        "gradients_reset": np.ones((steps, subjects)),
        "backward_passes": np.ones((steps, subjects)),
        "collectives": np.ones((steps, subjects)),
        "batch_items": np.full((steps, subjects), 32.0),
        "parameter_rows": np.full((steps, subjects), 64.0),
        "parameter_weight_norm": 10 * np.exp(0.001 * wander),
        "parameter_update_norm": 0.01 * positive,
        "module_zero_share": np.full((steps, subjects), 0.5),
        "batch_digest": rng.integers(1, 1 << 50, (steps, subjects)).astype(float),
    }
    zero = {
        "skipped_steps", "feature_role", "feature_missing", "feature_zero", "cuda_alloc_retries", "input_nonfinite",
        "recompilations", "recompile_limit_hits",
        "parameter_zero_rows", "parameter_silent_rows", "parameter_nonfinite", "module_silent_units",
        "module_saturated_share", "optimizer_extra_parameters", "parameters_without_gradient",
        "cuda_inactive_split_bytes", "orphaned_parameters", "eval_mode_passes", "train_mode_evaluations",
        "neglected_parameters", "train_mode_items", "no_sync_passes", "trains_apart",
    }  # fmt: skip
    stride = BLOCK if make.axis == "feature" else 1
    for step in range(steps):
        values = {}
        for name in make.reads:
            series = np.zeros((steps, subjects)) if name in zero else shaped.get(name, positive)
            values[name] = replica(step, subjects) if make.axis == "replica" else series[step]
        yield Reading.of(step * stride, **values) if make.axis != "replica" else exact(step, values)


def replica(step, ranks, tensors=4):
    """The same digests on every rank, other ones at every step."""
    return np.tile(np.arange(tensors, dtype=np.int64) * 1009 + step, (ranks, 1))


def exact(step, values):
    """A reading of integers, which must not pass through floating point."""
    return Reading(step, 0.0, values, {name: np.ones(len(array), dtype=bool) for name, array in values.items()})


def spoiled(readings, rng):
    """The same with NaN, both infinities, huge and negative values, absent entries and gaps in the steps."""
    bad = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0])  # what the wire can hold
    for reading in readings:
        if rng.random() < 0.1:
            continue
        values, present = {}, {}
        for name, array in reading.values.items():
            hit = rng.random(array.shape) < 0.2
            spoilt = array.copy()
            if np.issubdtype(array.dtype, np.floating):
                spoilt[hit] = rng.choice(bad, int(hit.sum()))
            values[name], present[name] = spoilt, rng.random(len(array)) < 0.9
        yield Reading(reading.step, reading.time, values, present)


def played(detector, readings):
    """All findings of a recording, in order."""
    return [finding for reading in readings for finding in detector.update(reading)]


@all_detectors
def test_reads_signals_of_the_catalogue_along_its_axis(make):
    axis = {"rank": "none", "replica": None}.get(make.axis, make.axis)

    for name in make.reads:
        if axis is not None:
            assert BY_NAME[name].axis == axis
    assert make.kind.isidentifier()
    assert make.reads


@all_detectors
def test_is_silent_on_healthy_recordings(make):
    for seed in range(2):
        for subjects in (1, 6):
            assert played(make(), healthy(make, subjects, seed=seed)) == []


@all_detectors
def test_takes_any_number_and_any_gap_without_a_word(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(3):
            findings = played(make(), spoiled(healthy(make, 5, seed=seed), np.random.default_rng(seed)))
            assert all(isinstance(finding, Finding) and finding.kind == make.kind for finding in findings)


@all_detectors
def test_is_deterministic(make):
    def findings():
        return played(make(), spoiled(healthy(make, 5), np.random.default_rng(7)))

    assert pickle.dumps(findings()) == pickle.dumps(findings())


@all_detectors
def test_goes_on_from_a_pickle_as_if_nothing_had_happened(make):
    readings = list(spoiled(healthy(make, 5), np.random.default_rng(11)))
    straight, resumed = make(), make()
    expected = played(straight, readings)
    actual = played(resumed, readings[: len(readings) // 2])
    resumed = pickle.loads(pickle.dumps(resumed))
    actual += played(resumed, readings[len(readings) // 2 :])

    assert repr(expected) == repr(actual)
    assert straight.status() == resumed.status()


@all_detectors
def test_tells_each_symptom_of_each_subject_once(make):
    findings = played(make(), spoiled(healthy(make, 5), np.random.default_rng(13)))
    keys = [(f.kind, f.subject, f.name, str(f.evidence.get("signal", ""))) for f in findings]

    assert len(keys) == len(set(keys))


@all_detectors
def test_subjects_may_grow(make):
    detector = make()
    for reading in healthy(make, 2, steps=60):
        detector.update(reading)
    stride = BLOCK if make.axis == "feature" else 1
    for reading in healthy(make, 7, steps=60, seed=1):
        later = Reading(reading.step + 60 * stride, 0.0, reading.values, reading.present)
        assert all(f.subject is None or f.subject < 7 for f in detector.update(later))


@all_detectors
def test_memory_is_bounded_in_time_and_small_by_subject(make):
    subjects = 64 if make.axis == "replica" else 10_000
    few, many, wide = make(), make(), make()
    played(few, healthy(make, 3, steps=400))
    played(many, healthy(make, 3, steps=1000))
    played(wide, healthy(make, subjects, steps=8))

    assert len(pickle.dumps(many)) <= 1.2 * len(pickle.dumps(few)) + 512
    assert len(pickle.dumps(wide)) <= 1024 * subjects + 65536


def kept_together(subjects):
    """Bytes of all step detectors now and then, where every rank sends every signal, by turns, which needs most."""
    kept, shared = [], {}
    detectors = [make() for make in DETECTORS if make.axis == "rank"]
    streams = [healthy(make, subjects, steps=80) for make in DETECTORS if make.axis == "rank"]
    for step, readings in enumerate(zip(*streams, strict=True)):
        values = {name: values for reading in readings for name, values in reading.values.items()}
        present = np.arange(subjects) % 7 != step % 7
        values = {name: np.where(present, each, np.nan) for name, each in values.items()}
        together = Reading(step, 0.1 * step, values, dict.fromkeys(values, present), masked=True)
        together.shared = shared
        assert [finding for each in detectors for finding in each.update(together)] == []
        if step % 10 == 9:
            kept.append(len(pickle.dumps([detectors, shared])))
    return np.array(kept)


def test_all_step_detectors_together_keep_little_of_a_rank():
    few, many = 128, 512

    assert max(kept_together(many) - kept_together(few)) <= STATE * (many - few)


@all_detectors
def test_says_that_it_looked_at_nothing(make):
    detector = make()

    assert detector.status().state == "not_checked"
    assert detector.status().reason
    detector.update(Reading.of(0))
    assert detector.status().state == "not_checked"


@all_detectors
def test_is_never_green_before_it_has_seen_enough(make):
    detector = make()
    detector.update(next(iter(healthy(make, 1))))

    assert detector.status().state in ("ok", "warming_up", "not_checked")
    assert detector.status().state == "ok" or detector.status().reason


@pytest.mark.parametrize("make", [*DETECTORS, *RECORD_DETECTORS], ids=lambda make: make.__name__)
def test_its_docstring_shows_it_firing(make):
    module = importlib.import_module(make.__module__)
    examples = doctest.DocTestFinder(recurse=False).find(make, make.__name__, module, vars(module))
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS, verbose=False)
    wanted = "".join(example.want for found in examples for example in found.examples)
    for found in examples:
        runner.run(found)

    assert runner.summarize(verbose=False).failed == 0
    assert re.search(r"\d", wanted), "the example must print at which step it fires"


@pytest.mark.parametrize("make", [*DETECTORS, *RECORD_DETECTORS], ids=lambda make: make.__name__)
def test_every_argument_has_a_default_and_it_has_a_repr(make):
    parameters = inspect.signature(make).parameters.values()

    assert all(parameter.default is not inspect.Parameter.empty for parameter in parameters)
    assert make.__name__ in repr(make())


@all_record_detectors
def test_a_record_detector_takes_any_event_and_survives_a_pickle(make):
    hello = Hello(run="r", pid=1)
    detector = make()
    for kind in ("eval", "exit", "attached", "of another version"):
        assert detector.observe(hello, Event(1.0, 5, kind, {})) == []
    copy = pickle.loads(pickle.dumps(detector))

    assert copy.finish([]) == detector.finish([])
    assert make().status().state in ("not_checked", "warming_up", "ok")
