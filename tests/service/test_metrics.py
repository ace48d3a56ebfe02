"""The exposition: names of the table, bounded cardinality, nothing stale."""

import math
import time

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from torchvitals.agent.layer_groups import layer_groups
from torchvitals.agent.metric_names import METRICS
from torchvitals.agent.metrics import StateCollector
from torchvitals.agent.vitals import PROFILES, Histogram, Vitals
from torchvitals.signals.reader import Entry
from torchvitals.signals.records import Axis, Hello, Profile, Requests, Step, pack_floats

FAMILY_TYPES = {"info": "gauge"}


class State:
    """What the collector reads, without an agent around it."""

    records, lag_seconds, spool_bytes = 7, 0.5, 1024

    def __init__(self, *runs: Vitals) -> None:
        self.vitals = {vitals.run: vitals for vitals in runs}
        self.firing = {"critical": 0, "error": 2, "warning": 0, "info": 0}
        self.dropped = {"corrupt": 1, "unknown": 0, "writer": 0}
        self.errors = {"intake": 0, "store": 0}


def run_of(ranks: int = 1, layers: int = 3, name: str = "job", run: str = "r-1") -> Vitals:
    """A run that has sent everything there is."""
    vitals = Vitals(run=run, name=name, world_size=ranks, alive=dict.fromkeys(range(ranks), True))
    axis = Axis("parameter:0", "parameter", [f"blocks.{n}.linear.weight" for n in range(layers)])
    values = {"loss": 0.5, "gradient_norm": 2.0, "learning_rate": 1e-3, "loss_scale": 1024.0, "overhead_ratio": 0.004}
    values |= {"cuda_allocated_bytes": 1e9, "cuda_reserved_bytes": 2e9, "rss_bytes": 3e9, "skipped_steps": 1.0}
    values |= {"step_seconds": 0.02, "data_seconds": 0.01, "collectives": 3.0}
    for rank in range(ranks):
        hello = Hello(run=run, name=name, rank=rank, world_size=ranks)
        vitals.add(Entry(hello, Step(0, time.time(), values)))
        vitals.add(Entry(hello, Step(1, time.time(), {**values, "gradient_norm": math.nan})))
        vitals.add(Entry(hello, Step(2, time.time(), values)))
        profile = {signal: pack_floats(np.ones(layers)) for signal in PROFILES}
        vitals.add(Entry(hello, Profile(2, time.time(), "parameter:0", profile), axis))
    vitals.findings = {("vanishing", "error"): 1}
    return vitals


def service() -> Vitals:
    vitals = Vitals(run="s-1", name="api", role="serve", alive={0: True})
    requests = Requests(0, 1.0, "ranker", pack_floats(np.array([0.02, 0.3, np.nan])), [1], b"\x04\0\0\0" * 3)
    vitals.add(Entry(Hello(run="s-1", role="serve"), requests))
    return vitals


def exposed(*runs: Vitals, rank_series: int = 64) -> dict[str, dict[tuple, float]]:
    """Metric → labels → value, by the official parser."""
    registry = CollectorRegistry()
    registry.register(StateCollector(State(*runs), rank_series))
    found: dict[str, dict[tuple, float]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_everything_exposed_is_in_the_table_and_everything_in_the_table_exposed() -> None:
    registry = CollectorRegistry()
    registry.register(StateCollector(State(run_of(), service())))
    families = {family.name: family for family in text_string_to_metric_families(generate_latest(registry).decode())}
    expected = {metric.name.removesuffix("_total"): metric for metric in METRICS.values()}
    assert set(families) == set(expected)
    for name, family in families.items():
        assert family.type == FAMILY_TYPES.get(expected[name].type, expected[name].type)
        assert family.documentation == expected[name].tells
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert labels == set(expected[name].labels)


def test_values() -> None:
    found = exposed(run_of(ranks=2), service())
    job = (("job", "job"),)
    assert found["torchvitals_training_steps_total"][job] == 3
    assert found["torchvitals_training_skipped_steps_total"][(*job, ("reason", "amp_overflow"))] == 3
    assert found["torchvitals_training_gradient_norm"][job] == 2.0
    assert found["torchvitals_nonfinite_total"] == {(*job, ("kind", "nan"), ("where", "gradient")): 1}
    assert found["torchvitals_training_step_duration_seconds_count"][job] == 3
    assert found["torchvitals_training_phase_duration_seconds_total"][(*job, ("phase", "data"))] == pytest.approx(0.03)
    assert found["torchvitals_memory_resident_bytes"][(*job, ("rank", "1"))] == 3e9
    assert found["torchvitals_incidents_open"][(("severity", "error"),)] == 2
    model = (("model", "ranker"),)
    assert found["torchvitals_inference_requests_total"] == {
        (*model, ("outcome", "error")): 1,
        (*model, ("outcome", "ok")): 2,
    }


def test_a_hundred_layers_on_64_ranks_stay_within_a_thousand_series_and_few_per_metric() -> None:
    found = exposed(run_of(ranks=64, layers=100))
    counts = {name: len(series) for name, series in found.items() if not name.endswith("_bucket")}
    assert max(counts.values()) <= 64
    assert counts["torchvitals_training_update_ratio"] <= 20
    assert sum(counts.values()) < 1000


def test_above_the_limit_ranks_are_aggregated() -> None:
    found = exposed(run_of(ranks=65))
    assert {dict(labels)["rank"] for labels in found["torchvitals_memory_resident_bytes"]} == {"min", "median", "max"}
    assert len(found["torchvitals_rank_up"]) == 3


def test_what_is_gone_has_no_value_but_is_down() -> None:
    vitals = run_of(ranks=2)
    vitals.alive[1] = False
    found = exposed(vitals)
    gone = (("job", "job"), ("rank", "1"))
    assert found["torchvitals_rank_up"][gone] == 0
    assert gone not in found["torchvitals_memory_resident_bytes"]
    assert gone not in found["torchvitals_rank_last_record_timestamp_seconds"]

    vitals.state = "finished"
    found = exposed(vitals)
    assert not [name for name in found if "training" in name or "memory" in name]


def test_two_runs_of_one_name_share_no_series() -> None:
    old, new = run_of(run="r-1"), run_of(run="r-2")
    old.state = "failed"
    new.latest[0]["loss"] = 0.25
    found = exposed(new, old)
    assert found["torchvitals_training_loss"] == {(("job", "job"),): 0.25}
    assert len(found["torchvitals_run_info"]) == 1


def test_a_nan_is_a_legal_value() -> None:
    vitals = run_of()
    vitals.latest[0]["loss"] = math.nan
    assert math.isnan(exposed(vitals)["torchvitals_training_loss"][(("job", "job"),)])


def test_a_share_that_was_not_judged_yet_has_no_value() -> None:
    vitals = run_of()
    entries = vitals.profiles["parameter_silent_rows"][0]
    vitals.profiles["parameter_silent_rows"] = (entries, [-1.0] * len(entries))
    assert "torchvitals_dead_units_ratio" not in exposed(vitals)


def test_a_snapshot_is_not_changed_by_later_records() -> None:
    vitals = run_of()
    snapshot = vitals.copy()
    vitals.add(Entry(Hello(run="r-1", rank=0), Step(3, 1.0, {"loss": 9.0, "step_seconds": 1.0})))
    assert snapshot.latest[0]["loss"] == 0.5
    assert sum(snapshot.durations.counts) == 3


def test_histograms_count_cumulatively_and_put_nan_last() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0, math.nan):
        histogram.add(value)
    assert histogram.counts == [2, 1, 2]
    assert histogram.total == 12.0


def test_layer_groups_are_few_and_in_the_models_order() -> None:
    groups = layer_groups([f"blocks.{n}.attention.weight" for n in range(100)] + ["head.weight"])
    assert len(groups) == 101
    assert list(dict.fromkeys(groups)) == ["blocks", "head"]
    flat = layer_groups([f"layer{n}.weight" for n in range(100)])
    assert len(set(flat)) == 20
    assert flat[0] == "layer0…layer4"
