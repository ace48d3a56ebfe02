"""The demo jobs and what is to be found in each; ``python -m torchvitals.demo_jobs.jobs --json`` prints them."""

import json
import sys
from typing import NamedTuple


class Job(NamedTuple):
    """A script beside this file, how it is started, and the one incident it must bring, if any."""

    name: str
    tells: str
    kind: str | None = None
    """Kind of its one incident; ``None`` for a job that must stay silent."""
    causes: tuple[str, ...] = ()
    """Words any of which is the right cause."""
    where: str = ""
    """A part of the place that must be named."""
    ranks: int = 0
    """Processes that torchrun starts; 0 runs without it."""

    def command(self, python: str = sys.executable) -> list[str]:
        """What to run, with ``python`` as the interpreter."""
        module = ["-m", f"torchvitals.demo_jobs.{self.name}"]
        if not self.ranks:
            return [python, *module]
        return [python, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.ranks}", *module]


JOBS: tuple[Job, ...] = (
    Job("explosion", "A transformer whose learning rate is far too high.", "explosion", ("learning_rate_too_high",)),
    Job(
        "nan_loss", "A logarithm of something that is sometimes not positive.", "nonfinite", ("numerical_domain_error",)
    ),
    Job(
        "dead_relu",
        "A network whose ReLU units die and never wake.",
        "dead_relu",
        ("dying_relu", "learning_rate_too_high", "bad_initialization"),
    ),
    Job("data_drift", "A service whose inputs change after a while.", "drift", ("feature_shift", "missing_feature")),
    Job(
        "memory_leak",
        "A training loop that keeps something of every step.",
        "memory_leak",
        ("retained_graph", "growing_cache"),
    ),
    Job(
        "ddp_desync",
        "Two ranks that stop being the same model.",
        "desync",
        ("rank_local_update", "unsynced_forward", "no_sync_left_on"),
        ranks=2,
    ),
    Job(
        "amp_overflow",
        "Float16 activations that overflow until the loss scale collapses.",
        "loss_scale_collapse",
        ("fp16_overflow",),
    ),
    Job("healthy", "A training that is well."),
    Job("healthy_ddp", "Two ranks that train well.", ranks=2),
)


def main() -> None:
    """Print the table, as JSON with ``--json``."""
    if "--json" in sys.argv[1:]:
        print(json.dumps([{**job._asdict(), "command": job.command()} for job in JOBS]))
        return
    for job in JOBS:
        print(f"{job.name:14} {job.kind or '(silent)':20} {job.tells}")


if __name__ == "__main__":
    main()
