"""Prometheus exposition of the agent's present state; names and labels are listed in ``metric_names.py``.

A custom collector: each scrape is made from snapshots, so a rank that is gone has no value instead of its
last one. Run ids, steps and layer names are no labels: a job of 64 ranks and 100 layers stays in the hundreds.
"""

import math
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import accumulate
from statistics import median
from typing import Protocol, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from torchvitals.agent.layer_groups import group_means
from torchvitals.agent.metric_names import METRICS, Name
from torchvitals.agent.vitals import Histogram, Vitals

Family = TypeVar("Family", GaugeMetricFamily, CounterMetricFamily)


class Source(Protocol):
    """Where the collector reads the agent's state; every property may be read from any thread."""

    @property
    def vitals(self) -> dict[str, Vitals]: ...
    @property
    def firing(self) -> dict[str, int]: ...
    @property
    def records(self) -> int: ...
    @property
    def dropped(self) -> dict[str, int]: ...
    @property
    def lag_seconds(self) -> float: ...
    @property
    def spool_bytes(self) -> int: ...
    @property
    def errors(self) -> dict[str, int]: ...


class StateCollector(Collector):
    """Makes all families at each scrape.

    Args:
        source: the state.
        rank_series: up to this world size each rank has series of its own; above it they are the
            minimum, median and maximum over the ranks.

    """

    def __init__(self, source: Source, rank_series: int = 64) -> None:
        self._source = source
        self._rank_series = rank_series

    def collect(self) -> Iterator[Metric]:
        """All families that have something to say."""
        newest = newest_by_job(self._source.vitals.values())
        running = [vitals for vitals in newest if vitals.state == "running"]
        families = [
            *self._ranks(newest, running),
            *_training(running),
            *_layers(running),
            *_serving([vitals for vitals in self._source.vitals.values() if vitals.state == "running"]),
            *self._agent(),
        ]
        yield from (family for family in families if family.samples)

    def _ranks(self, newest: list[Vitals], running: list[Vitals]) -> Iterator[Metric]:
        info = _info("run_info")
        up, seen, lag = _gauge("rank_up"), _gauge("rank_last_record_timestamp_seconds"), _gauge("collective_lag")
        for vitals in newest:
            info.add_metric((), _run_info(vitals))
            self._fill(up, vitals, {rank: float(alive) for rank, alive in vitals.alive.items()})
        for vitals in running:
            self._fill(seen, vitals, _of_living(vitals, vitals.last_seen))
            counts = _of_living(vitals, vitals.collectives)
            self._fill(lag, vitals, {rank: max(counts.values()) - count for rank, count in counts.items()})
        yield from (info, up, seen, lag)
        for name, signal in RANK_SIGNALS.items():
            family = _gauge(name)
            for vitals in running:
                latest = {rank: values[signal] for rank, values in vitals.latest.items() if signal in values}
                self._fill(family, vitals, _of_living(vitals, latest))
            yield family

    def _fill(self, family: GaugeMetricFamily, vitals: Vitals, values: dict[int, float]) -> None:
        if len(values) <= self._rank_series:
            for rank, value in sorted(values.items()):
                family.add_metric((vitals.name, str(rank)), value)
            return
        for word, pick in (("min", min), ("median", median), ("max", max)):
            family.add_metric((vitals.name, word), pick(values.values()))

    def _agent(self) -> Iterator[Metric]:
        source = self._source
        build = _info("build_info")
        build.add_metric((), {"version": version("torchvitals")})
        yield build
        yield _filled(_gauge("incidents_open"), source.firing)
        yield _filled(_counter("agent_dropped_records_total"), source.dropped)
        yield _filled(_counter("agent_errors_total"), source.errors)
        records, lag, size = _counter("agent_records_total"), _gauge("agent_lag_seconds"), _gauge("agent_spool_bytes")
        records.add_metric((), source.records)
        lag.add_metric((), source.lag_seconds)
        size.add_metric((), source.spool_bytes)
        yield from (records, lag, size)
        found = _counter("findings_total")
        counts: dict[tuple[str, str], int] = {}
        for vitals in source.vitals.values():
            for key, count in vitals.findings.items():
                counts[key] = counts.get(key, 0) + count
        for key, count in sorted(counts.items()):
            found.add_metric(key, count)
        yield found


RANK_SIGNALS = {
    "memory_allocated_bytes": "cuda_allocated_bytes",
    "memory_reserved_bytes": "cuda_reserved_bytes",
    "memory_resident_bytes": "rss_bytes",
}
JOB_SIGNALS = {
    "training_loss": "loss",
    "training_gradient_norm": "gradient_norm",
    "training_learning_rate": "learning_rate",
    "training_loss_scale": "loss_scale",
    "hook_overhead_ratio": "overhead_ratio",
}


def make_registry(source: Source, rank_series: int) -> CollectorRegistry:
    """The registry behind ``/metrics``: the state, and the agent's own process."""
    registry = CollectorRegistry()
    registry.register(StateCollector(source, rank_series))
    ProcessCollector(registry=registry)
    return registry


def newest_by_job(runs: Iterable[Vitals]) -> list[Vitals]:
    """The run that last wrote of each job name, by name: two runs of one name must not share a series."""
    newest: dict[str, Vitals] = {}
    for vitals in sorted(runs, key=lambda v: (v.state == "running", max(v.last_seen.values(), default=0.0))):
        newest[vitals.name] = vitals
    return [newest[name] for name in sorted(newest)]


def _training(running: list[Vitals]) -> Iterator[Metric]:
    steps, skipped = _counter("training_steps_total"), _counter("training_skipped_steps_total")
    phases, nonfinite = _counter("training_phase_duration_seconds_total"), _counter("nonfinite_total")
    durations = _histogram("training_step_duration_seconds")
    for vitals in (vitals for vitals in running if vitals.role == "train"):
        steps.add_metric((vitals.name,), vitals.steps)
        skipped.add_metric((vitals.name, "amp_overflow"), vitals.skipped)
        _add_histogram(durations, (vitals.name,), vitals.durations)
        for phase, seconds in vitals.phases.items():
            phases.add_metric((vitals.name, phase), seconds)
        for (where, kind), count in sorted(vitals.nonfinite.items()):
            nonfinite.add_metric((vitals.name, where, kind), count)
    yield from (steps, skipped, durations, phases, nonfinite)
    for name, signal in JOB_SIGNALS.items():
        family = _gauge(name)
        for vitals in running:
            values = [values[signal] for _, values in sorted(vitals.latest.items()) if signal in values]
            if values:
                family.add_metric((vitals.name,), values[0])
        yield family


def _layers(running: list[Vitals]) -> Iterator[Metric]:
    ratios, dead = _gauge("training_update_ratio"), _gauge("dead_units_ratio")
    for vitals in running:
        updates, weights = (vitals.profiles.get(f"parameter_{word}_norm") for word in ("update", "weight"))
        if updates and weights and updates[0] == weights[0]:
            shares = [u / w if w else 0.0 for u, w in zip(updates[1], weights[1], strict=True)]
            for group, value in group_means(updates[0], shares).items():
                ratios.add_metric((vitals.name, group), value)
        silent = vitals.profiles.get("parameter_silent_rows") or vitals.profiles.get("parameter_zero_rows")
        shares = [share if share >= 0 else math.nan for share in silent[1]] if silent else []  # -1: not judged yet
        for group, value in group_means(silent[0], shares).items() if silent else ():
            dead.add_metric((vitals.name, group), value)
    yield from (ratios, dead)


def _serving(running: list[Vitals]) -> Iterator[Metric]:
    requests, items = _histogram("inference_request_duration_seconds"), _histogram("inference_batch_size_items")
    counts = _counter("inference_requests_total")
    durations: dict[tuple[str, ...], Histogram] = {}
    sizes: dict[tuple[str, ...], Histogram] = {}
    for vitals in running:
        for key, histogram in vitals.requests.items():
            durations[key] = durations[key].plus(histogram) if key in durations else histogram
        for model, histogram in vitals.items.items():
            sizes[model,] = sizes[model,].plus(histogram) if (model,) in sizes else histogram
    for labels, histogram in sorted(durations.items()):
        _add_histogram(requests, labels, histogram)
        counts.add_metric(labels, sum(histogram.counts))
    for labels, histogram in sorted(sizes.items()):
        _add_histogram(items, labels, histogram)
    yield from (requests, counts, items)


def _of_living(vitals: Vitals, values: dict[int, float] | dict[int, int]) -> dict[int, float]:
    return {rank: float(value) for rank, value in values.items() if vitals.alive.get(rank)}


def _run_info(vitals: Vitals) -> dict[str, str]:
    return {
        "run_id": vitals.run,
        "job": vitals.name,
        "world_size": str(vitals.world_size),
        "torch": vitals.torch,
    }


def _of(name: str) -> Name:
    return METRICS[name]


def _gauge(name: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(_of(name).name, _of(name).tells, labels=_of(name).labels)


def _counter(name: str) -> CounterMetricFamily:
    return CounterMetricFamily(_of(name).name, _of(name).tells, labels=_of(name).labels)


def _histogram(name: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(_of(name).name, _of(name).tells, labels=_of(name).labels)


def _info(name: str) -> InfoMetricFamily:
    return InfoMetricFamily(_of(name).name.removesuffix("_info"), _of(name).tells)


def _filled(family: Family, values: dict[str, int]) -> Family:
    for word, value in sorted(values.items()):
        family.add_metric((word,), value)
    return family


def _add_histogram(family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram) -> None:
    """Prometheus counts cumulatively; a histogram nobody fed is left out."""
    if not histogram.counts:
        return
    words = [*(str(bound) for bound in histogram.bounds), "+Inf"]
    family.add_metric(labels, list(zip(words, accumulate(histogram.counts), strict=True)), histogram.total)
