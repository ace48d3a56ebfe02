"""Every Prometheus metric of the agent: a contract with dashboards and alert rules of others.

The documentation table is generated from this list, and a test compares the exposition with it.
"""

from typing import NamedTuple

JOB = ("job",)
RANK = ("job", "rank")


class Name(NamedTuple):
    """One metric: its type, labels, and what it tells."""

    name: str
    type: str
    labels: tuple[str, ...]
    tells: str


METRICS: dict[str, Name] = {
    metric.name.removeprefix("torchvitals_"): metric
    for metric in (
        Name("torchvitals_build_info", "info", ("version",), "The agent's version."),
        Name(
            "torchvitals_run_info", "info", ("run_id", "job", "world_size", "torch"), "Which run a job's values are of."
        ),
        Name("torchvitals_rank_up", "gauge", RANK, "1 while the rank's process is at work, 0 once it is gone."),
        Name("torchvitals_rank_last_record_timestamp_seconds", "gauge", RANK, "When the rank last wrote anything."),
        Name("torchvitals_training_steps_total", "counter", JOB, "Optimizer steps applied."),
        Name("torchvitals_training_skipped_steps_total", "counter", ("job", "reason"), "Steps that were not applied."),
        Name("torchvitals_training_step_duration_seconds", "histogram", JOB, "Wall time of one step."),
        Name(
            "torchvitals_training_phase_duration_seconds_total",
            "counter",
            ("job", "phase"),
            "Wall time spent in data loading, forward, backward and optimizer.",
        ),
        Name("torchvitals_training_loss", "gauge", JOB, "The newest loss of the lowest rank."),
        Name("torchvitals_training_gradient_norm", "gauge", JOB, "The newest global gradient norm."),
        Name("torchvitals_training_learning_rate", "gauge", JOB, "The learning rate in force."),
        Name("torchvitals_training_loss_scale", "gauge", JOB, "The AMP loss scale in force."),
        Name(
            "torchvitals_training_update_ratio",
            "gauge",
            ("job", "layer_group"),
            "Norm of the last sampled update as a share of the weight norm; near 0.001 in health.",
        ),
        Name("torchvitals_dead_units_ratio", "gauge", ("job", "layer_group"), "Share of units without any gradient."),
        Name("torchvitals_nonfinite_total", "counter", ("job", "where", "kind"), "Steps with NaN or Inf in a value."),
        Name("torchvitals_collective_lag", "gauge", RANK, "Collectives the rank is behind the leading one."),
        Name("torchvitals_memory_allocated_bytes", "gauge", RANK, "Device memory held by live tensors."),
        Name("torchvitals_memory_reserved_bytes", "gauge", RANK, "Device memory held by the caching allocator."),
        Name("torchvitals_memory_resident_bytes", "gauge", RANK, "Resident memory of the rank's process."),
        Name(
            "torchvitals_inference_request_duration_seconds",
            "histogram",
            ("model", "outcome"),
            "Duration of inference requests.",
        ),
        Name("torchvitals_inference_requests_total", "counter", ("model", "outcome"), "Inference requests answered."),
        Name("torchvitals_inference_batch_size_items", "histogram", ("model",), "Items per inference request."),
        Name("torchvitals_findings_total", "counter", ("detector", "severity"), "Symptoms found in the runs at hand."),
        Name("torchvitals_incidents_open", "gauge", ("severity",), "Incidents whose alert is not over."),
        Name("torchvitals_agent_records_total", "counter", (), "Records the agent has read since it started."),
        Name("torchvitals_agent_dropped_records_total", "counter", ("reason",), "Records that never arrived."),
        Name("torchvitals_agent_lag_seconds", "gauge", (), "Age of the newest record when the agent took it."),
        Name("torchvitals_agent_spool_bytes", "gauge", (), "Size of the spool files of the runs at hand."),
        Name("torchvitals_agent_errors_total", "counter", ("part",), "Errors inside the agent."),
        Name("torchvitals_hook_overhead_ratio", "gauge", JOB, "Measured cost of the hooks as a share of step time."),
    )
}
