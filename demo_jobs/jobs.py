"""The demo jobs and what is to be found in each; ``python -m torchvitals.demo_jobs.jobs --json`` prints them."""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

JURY = 2
"""So many ranks, and fewer, have no majority."""


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
    """The rank that must be named; -1 is the last, however many there are."""
    jury: bool = False
    """Whether two ranks cannot tell which of them it is, so that none is named then."""
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

    def on(self, ranks: int) -> "Job":
        """The same job played by so many ranks."""
        return self._replace(ranks=ranks)

    def named(self) -> int | None:
        """The rank that must be named among as many as play it."""
        if self.rank is None or (self.jury and self.ranks <= JURY):
            return None
        return self.rank % self.ranks

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

RANK_JOBS: tuple[Job, ...] = (
    Job(
        "unsynced_forward",
        "Two ranks whose loss is computed past the wrapper that shares gradients.",
        "unsynced_backward",
        "unsynced_forward",
        first_step=(60, 60),
        ranks=2,
    ),
    Job(
        "no_sync_left_on",
        "Two ranks that accumulate gradients and never share them.",
        "unsynced_backward",
        "no_sync_left_on",
        first_step=(50, 50),
        ranks=2,
    ),
    Job(
        "rank_local_clip",
        "Four ranks, one of which clips its gradients when it logs.",
        "desync",
        "rank_local_update",
        rank=0,
        first_step=(39, 40),
        ranks=4,
        script="ddp_desync",
    ),
    Job(
        "bit_flip",
        "Four ranks, one of which loses a bit of one weight.",
        "desync",
        "corrupted_gradient",
        where="4.weight",
        rank=-1,
        jury=True,
        first_step=(74, 76),  # flipped after step 73 was applied; 74 unless sums cost too much, else the next digest
        ranks=4,
    ),
    Job(
        "bit_flip_of_two",
        "The same between two ranks, which cannot tell whose bit it was.",
        "desync",
        "corrupted_gradient",
        where="4.weight",
        rank=-1,
        jury=True,
        first_step=(74, 76),
        ranks=2,
        script="bit_flip",
    ),
    Job(
        "stale_optimizer",
        "Two ranks whose optimizer updates a head that was replaced.",
        "stuck_parameters",
        "stale_optimizer_parameters",
        where="10",
        first_step=(0, 1),
        ranks=2,
    ),
    Job(
        "duplicate_shard",
        "Two ranks that train on the same batches.",
        "duplicate_data",
        "duplicated_augmentation_seed",
        first_step=(0, 0),
        ranks=2,
    ),
    Job(
        "straggler_input",
        "Two ranks, one of which reads packed data and keeps the other waiting.",
        "straggler",
        "slow_input_rank",
        rank=-1,
        first_step=(0, 120),  # from the beginning; a busy machine hides it for a window or two
        ranks=2,
    ),
    Job(
        "straggler_compute",
        "Two ranks, one of which still has a hook on its model that computes spectra.",
        "straggler",
        "slow_compute_rank",
        rank=-1,
        first_step=(0, 120),
        ranks=2,
    ),
    Job(
        "straggler_communication",
        "Two ranks whose network becomes slow: nobody is late, and all wait.",
        "straggler",
        "slow_communication",
        first_step=(160, 162),
        ranks=2,
    ),
    Job(
        "unsynced_buffers",
        "Two ranks whose BatchNorm statistics are those of different cameras.",
        "desync",
        "unsynced_buffers",
        where="1[",
        first_step=(32, 64),  # they are looked at every 32 steps
        ranks=2,
    ),
    Job("healthy_ranks", "Two ranks that work unevenly but fairly.", ranks=2),
    Job("healthy_four", "Four ranks that train well.", ranks=4, script="healthy_ddp"),
)
"""What goes wrong between ranks; played with ``torchvitals demo --more``."""

ENDING_JOBS: tuple[Job, ...] = (
    Job(
        "hang_missing_collective",
        "Two ranks, one of which comes to a barrier that the other never sees.",
        "hang",
        "collective_mismatch",
        line="dist.barrier()",
        rank=0,
        jury=True,
        first_step=(80, 80),
        ranks=2,
        fails=True,
    ),
    Job(
        "hang_missing_of_four",
        "The same on four ranks, which can tell who is alone.",
        "hang",
        "collective_mismatch",
        line="dist.barrier()",
        rank=0,
        jury=True,
        first_step=(80, 80),
        ranks=4,
        script="hang_missing_collective",
        fails=True,
    ),
    Job(
        "hang_uneven_batches",
        "Two ranks, one of which has fewer batches and leaves the other waiting.",
        "hang",
        "collective_mismatch",
        first_step=(90, 90),
        ranks=2,
        fails=True,
    ),
    Job(
        "crash_one_rank",
        "Four ranks, one of which meets a label that does not exist.",
        "crash",
        "exception",
        line="raise ValueError",
        rank=-1,
        first_step=(70, 70),
        ranks=4,
        fails=True,
    ),
    Job(
        "oom_kill",
        "Two ranks, one of which is killed when its memory runs out.",
        "crash",
        "out_of_memory_kill",
        rank=1,
        first_step=(60, 90),  # memory is asked for from step 60 on, and how soon it is too much depends on the machine
        ranks=2,
        fails=True,
    ),
)
"""How jobs stop: hangs, crashes and kills; played with ``torchvitals demo --more``."""

SPEED_JOBS: tuple[Job, ...] = (
    Job(
        "recompile_storm",
        "A compiled model that is compiled anew for every new length of its sentences.",
        "recompile_storm",
        "dynamic_shapes",
        where="recompile_storm.py:",
        first_step=(10, 10),  # the first sentence of another length
    ),
    Job("healthy_compiled", "A compiled model with a smaller last batch and evaluations, which is well."),
)
"""What makes jobs slow; played with ``torchvitals demo --more``."""

MORE_JOBS = RANK_JOBS + ENDING_JOBS + SPEED_JOBS


def on_ranks(ranks: int) -> list[Job]:
    """Every job of several ranks, once, as so many play it."""
    scripts: dict[str, Job] = {}
    for job in (*JOBS, *MORE_JOBS):
        if job.ranks:
            scripts.setdefault(job.module, job.on(ranks))
    return list(scripts.values())


def main() -> None:
    """Print the table, as JSON with ``--json``; what is played only when asked for has ``more``."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--ranks", type=int, default=0, help="the jobs of several ranks only, played by so many")
    given = arguments.parse_args()
    jobs = on_ranks(given.ranks) if given.ranks else [*JOBS, *MORE_JOBS]
    more = {job.name for job in MORE_JOBS}
    if given.json:
        rows = [
            {**job._asdict(), "where": job.place(), "rank": job.named(), "command": job.command()}
            | {"more": job.name in more}
            for job in jobs
        ]
        print(json.dumps(rows))
        return
    for job in jobs:
        print(f"{job.name:22} {job.kind or '(silent)':20} {job.tells}{' (with --more)' if job.name in more else ''}")


if __name__ == "__main__":
    main()
