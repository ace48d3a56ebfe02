"""What one record costs the job: `python benchmarks/spool.py [--directory DIR]`; medians of many short batches."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torchvitals.signals.reader import ProcessReader
from torchvitals.signals.records import Axis, Event, Hello, Profile, pack_floats
from torchvitals.signals.spool import SpoolWriter

BATCH = 200
BATCHES = 50
SCALARS = [
    *("loss", "learning_rate", "gradient_norm", "loss_scale", "step_seconds", "data_seconds", "forward_seconds"),
    *("backward_seconds", "optimizer_seconds", "rss_bytes", "batch_items", "overhead_ratio"),
]
PARAMETERS = 2400
"""Tensors of a 200-layer model: 12 a layer."""


def cost(write: Callable[[int], object]) -> tuple[float, float]:
    """Median and 99th-percentile microseconds per call, over batches: one clock reading is not worth a record."""
    times = []
    for batch in range(BATCHES):
        start = time.perf_counter()
        for number in range(BATCH):
            write(batch * BATCH + number)
        times.append((time.perf_counter() - start) / BATCH * 1e6)
    return statistics.median(times), float(np.percentile(times, 99))


def writers(spool: SpoolWriter) -> dict[str, Callable[[int], object]]:
    """The kinds of record that a step may write."""
    values = dict.fromkeys(SCALARS, 0.125)
    spool.write(Axis("parameter:0", "parameter", [f"layers.{n}.weight" for n in range(PARAMETERS)]))
    norms = np.random.default_rng(0).random(PARAMETERS)
    return {
        "step, 2 scalars": lambda n: spool.step(n, 0.0, {"loss": 0.5, "learning_rate": 0.1}),
        f"step, {len(SCALARS)} scalars": lambda n: spool.step(n, 0.0, values),
        f"profile, {PARAMETERS} entries": lambda n: spool.write(
            Profile(n, 0.0, "parameter:0", {"parameter_gradient_norm": pack_floats(norms)})
        ),
        "event": lambda n: spool.write(Event(0.0, n, "eval", {"why": "epoch"})),
    }


def read_rate(path: Path) -> tuple[float, float]:
    """Records and megabytes per second that a reader takes in."""
    size = sum(file.stat().st_size for file in path.iterdir())
    start = time.perf_counter()
    count = sum(1 for _ in ProcessReader(path).read())
    seconds = time.perf_counter() - start
    return count / seconds, size / seconds / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, help="where to write; the default is a temporary directory")
    chosen = parser.parse_args().directory
    with tempfile.TemporaryDirectory(dir=chosen) as directory:
        print(f"{'record':24} {'median µs':>10} {'p99 µs':>10}")
        for number, name in enumerate(writers(SpoolWriter(Path(directory), Hello(run="none")))):
            spool = SpoolWriter(Path(directory), Hello(run="bench", rank=number, pid=1))
            median, worst = cost(writers(spool)[name])
            spool.close()
            print(f"{name:24} {median:10.1f} {worst:10.1f}")
            if number == 1:
                records, megabytes = read_rate(spool.path)
        print(f"reading steps: {records:,.0f} records/s, {megabytes:.0f} MB/s")


if __name__ == "__main__":
    main()
