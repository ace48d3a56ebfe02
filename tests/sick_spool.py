"""Spools as a job would write them, made in a moment: one that sickens in one known way, one that stays well."""

import os
import socket
import time
from pathlib import Path

import numpy as np
from torchvitals.signals.records import Axis, Event, Hello, Profile, pack_floats
from torchvitals.signals.spool import SpoolWriter

LAYERS = [f"layers.{n}.weight" for n in range(5)]
VANISHED = [1e-12, 1e-9, 1e-5, 1e-3, 1.0]
SOUND = [1.0, 0.9, 1.1, 1.0, 1.2]


class Job:
    """Writes the spool of one rank, step by step."""

    def __init__(self, directory: Path, run: str, *, rank: int = 0, world_size: int = 1, pid: int = 0) -> None:
        hello = Hello(
            run=run,
            name=run.partition("-")[0],
            rank=rank,
            world_size=world_size,
            host=socket.gethostname(),
            pid=pid or os.getpid(),
            torch="2.13.0",
            command="python train.py",
        )
        self.spool = SpoolWriter(directory, hello)
        self.steps = 0

    def train(self, steps: int, *, loss: float = 1.0, norms: list[float] | None = None) -> None:
        """Apply ``steps`` steps; with ``norms`` every tenth is sampled."""
        if norms is not None:
            self.spool.write(Axis("parameter:0", "parameter", LAYERS[: len(norms)]))
        for _ in range(steps):
            now = time.time()
            values = {"loss": loss, "gradient_norm": 1.0, "learning_rate": 1e-3, "step_seconds": 0.02, "rss_bytes": 1e9}
            self.spool.step(self.steps, now, values)
            if norms is not None and self.steps % 10 == 0:
                self._sample(now, norms)
            self.steps += 1

    def sicken(self) -> None:
        """Gradients of the input-most layers vanish; the incident is certain within these steps."""
        self.train(100, norms=VANISHED)

    def exit(self, code: int = 0) -> None:
        """Say goodbye."""
        self.spool.write(Event(time.time(), self.steps - 1, "exit", {"code": code}))

    def _sample(self, now: float, norms: list[float]) -> None:
        values = {
            "parameter_gradient_norm": norms,
            "parameter_weight_norm": [1.0] * len(norms),
            "parameter_rows": [64.0] * len(norms),
        }
        packed = {name: pack_floats(np.array(numbers)) for name, numbers in values.items()}
        self.spool.write(Profile(self.steps, now, "parameter:0", packed))


def sick_run(directory: Path, run: str = "sick-1") -> None:
    """A whole run with one incident."""
    job = Job(directory, run)
    job.sicken()
    job.exit()


def well_run(directory: Path, run: str = "well-1") -> None:
    """A whole run with none."""
    job = Job(directory, run)
    job.train(100, norms=SOUND)
    job.exit()
