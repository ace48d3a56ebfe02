"""The demo jobs and what is to be found in each; ``python -m torchvitals.demo_jobs.jobs --json`` prints them."""

import json
import sys
from pathlib import Path
from typing import NamedTuple


class Job(NamedTuple):
    """A script beside this file, how it is started, and the one incident it must bring, if any.

    What must be found is read off the script, not off what was once found.
    """

    name: str
    tells: str
    kind: str | None = None
    """Kind of its one incident; ``None`` for a job that must stay silent."""
    cause: str = ""
    """The word for what the script does wrong."""
    where: str = ""
    """A part of the place that must be named; empty when the whole model is hit."""
    line: str = ""
    """Text of the script's line that must be named, instead of ``where``."""
    rank: int | None = None
    """The rank that must be named."""
    first_step: tuple[int, int] | None = None
    """Earliest and latest step (request) at which it may be said to begin: the first is where the script breaks,
    the second leaves room for values that are measured on sampled steps, in windows, or after the step."""
    ranks: int = 0
    """Processes that torchrun starts; 0 runs without it."""
    script: str = ""
    """The script's name where it is not the job's own: one script may be played by two ranks and by four."""
    fails: bool = False
    """Whether the job itself must end with an exit code other than 0."""
    patience: float = 0.0
    """Seconds after which a job that stands still for good is ended from outside; 0 for one that ends by itself."""

    @property
    def module(self) -> str:
        """The script without its ending."""
        return self.script or self.name

    def command(self, python: str = sys.executable) -> list[str]:
        """What to run, with ``python`` as the interpreter."""
        module = ["-m", f"torchvitals.demo_jobs.{self.module}"]
        if not self.ranks:
            return [python, *module]
        return [python, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.ranks}", *module]

    def place(self) -> str:
        """What ``where`` of the incident must contain: given, or the number of the line in the script."""
        if not self.line:
            return self.where
        lines = Path(__file__).with_name(f"{self.module}.py").read_text(encoding="utf-8").splitlines()
        (number,) = (number for number, text in enumerate(lines, 1) if self.line in text)
        return f"{self.module}.py:{number}"


JOBS: tuple[Job, ...] = (
    Job(
        "explosion",
        "A transformer whose schedule multiplies the learning rate by a hundred.",
        "explosion",
        "learning_rate_too_high",
        first_step=(150, 153),  # the milestone, and the steps it takes the gradients to grow
    ),
    Job(
        "nan_loss",
        "A logarithm of a variance that is zero for one batch.",
        "nonfinite",
        "numerical_domain_error",
        where="spread",
        first_step=(200, 200),
    ),
    Job(
        "dead_relu",
        "A hidden layer whose units never fire again after a calibration.",
        "dead_relu",
        "dying_relu",
        where="hidden",
        first_step=(160, 200),  # layers are looked at on sampled steps
    ),
    Job(
        "data_drift",
        "A service one of whose inputs arrives in another unit.",
        "drift",
        "feature_shift",
        where="[:,12]",
        first_step=(540, 660),  # request 600, dated by windows of requests
    ),
    Job(
        "memory_leak",
        "A training loop that keeps the loss of every step, and with it the graph.",
        "memory_leak",
        "retained_graph",
        line="losses.append(",
        first_step=(0, 80),  # from the beginning; dated by a corner in memory that healthy first steps raise as well
    ),
    Job(
        "ddp_desync",
        "Two ranks, one of which clips its gradients when it logs.",
        "desync",
        "rank_local_update",
        rank=0,
        first_step=(39, 79),  # parameters are compared every few steps; at 79 it parts a second time
        ranks=2,
    ),
    Job(
        "amp_overflow",
        "Float16 activations that overflow until the loss scale collapses.",
        "loss_scale_collapse",
        "fp16_overflow",
        line="energy = hidden * hidden",
        first_step=(70, 80),  # counts times 1.04 a step pass 256 there, whose square is too large for float16
    ),
    Job("healthy", "A training that is well."),
    Job("healthy_ddp", "Two ranks that train well.", ranks=2),
)
"""What ``make demo`` plays: under four minutes on two cores."""

RANK_JOBS: tuple[Job, ...] = ()
"""What goes wrong between ranks; played with ``torchvitals demo --more``."""

ENDING_JOBS: tuple[Job, ...] = ()
"""How jobs stop: hangs, crashes and kills; played with ``torchvitals demo --more``."""

MORE_JOBS = RANK_JOBS + ENDING_JOBS


def main() -> None:
    """Print the table, as JSON with ``--json``; what is played only when asked for has ``more``."""
    told = [(job, job in MORE_JOBS) for job in (*JOBS, *MORE_JOBS)]
    if "--json" in sys.argv[1:]:
        rows = [{**job._asdict(), "where": job.place(), "command": job.command(), "more": more} for job, more in told]
        print(json.dumps(rows))
        return
    for job, more in told:
        print(f"{job.name:22} {job.kind or '(silent)':20} {job.tells}{' (with --more)' if more else ''}")


if __name__ == "__main__":
    main()
