"""What the engine costs: `python benchmarks/engine.py [--steps N] [--ranks R] [--subjects S]`.

Records a made-up healthy run of N steps and R ranks, plays it through an engine with all detectors, and prints
records per second, CPU microseconds per step for each detector, and one update of all step detectors for one rank and
at S subjects. Then what each of them keeps of a rank that sends all there is to send.
"""

import argparse
import io
import pickle
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchvitals.agent.engine import Engine
from torchvitals.agent.run_state import merged
from torchvitals.detectors import DETECTORS, RECORD_DETECTORS
from torchvitals.detectors.detector import Finding, Reading
from torchvitals.detectors.envelope import Steepness
from torchvitals.detectors.loss_past import LossPast
from torchvitals.detectors.rate_past import RatePast
from torchvitals.signals.reader import Entry, RunReader
from torchvitals.signals.records import Axis, Beat, Event, Hello, Profile, pack_floats
from torchvitals.signals.spool import SpoolWriter

SAMPLED = 50
"""Steps between profiles of parameters."""
LAYERS = 24
WARM_UP, MEASURED = 64, 256
"""Updates before the clock runs and under it; together they hold block ends of every detector."""
KEPT_STEPS = 100
"""After which every detector has all its tables."""
CONSTANTS = {
    **dict.fromkeys(("loss_scale", "backward_passes", "gradients_reset"), 1.0),
    **dict.fromkeys(("skipped_steps", "input_nonfinite", "optimizer_extra_parameters"), 0.0),
    **dict.fromkeys(("parameters_without_gradient", "parameters_not_optimized", "cuda_alloc_retries"), 0.0),
    "learning_rate": 1e-3,
    "batch_items": 32.0,
    "collectives": 3.0,
    "sampling_interval": float(SAMPLED),
}
"""What a job with a scaler on a GPU sends unchanged at every step."""
TROUBLES = {
    *("recompilations", "recompile_limit_hits", "orphaned_parameters", "neglected_parameters", "weights_overwritten"),
    *("eval_mode_passes", "train_mode_evaluations", "train_mode_items", "no_sync_passes", "trains_apart"),
}
"""What is sent only where there is something to tell; a job that is well has none."""


def scalars(step: int, subjects: int, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """All scalars of one step of a healthy job with a scaler on a GPU: signal → one value per subject."""
    noise = np.exp(0.1 * rng.normal(size=(4, subjects)))
    seconds = 0.05 * noise[2]
    values = {name: np.full(subjects, value) for name, value in CONSTANTS.items()}
    values["loss"] = (0.3 + 2.0 * np.exp(-step / 300)) * noise[0]
    values["gradient_norm"] = values["gradient_norm_unclipped"] = noise[1]
    values["tripwire_norm"] = 0.2 * noise[1]
    values["step_seconds"], values["data_seconds"] = seconds, 0.05 * seconds
    values["forward_seconds"], values["backward_seconds"] = 0.3 * seconds, 0.5 * seconds
    values["optimizer_seconds"], values["overhead_ratio"] = 0.1 * seconds, np.full(subjects, 0.004)
    values["rss_bytes"] = 3e8 + 1e5 * noise[3]
    values["cuda_allocated_bytes"], values["cuda_reserved_bytes"] = np.full(subjects, 5e8), np.full(subjects, 6e8)
    values["input_absmax"] = 2.0 + noise[3]
    values["batch_digest"] = rng.integers(1, 1 << 50, subjects).astype(float)
    return values


def record(directory: Path, steps: int, ranks: int) -> None:
    """Write the run as the hooks would: a step each 50 ms, a beat a second, profiles now and then."""
    rng = np.random.default_rng(0)
    spools = [SpoolWriter(directory, Hello(run="bench", rank=r, world_size=ranks, pid=r + 1)) for r in range(ranks)]
    for spool in spools:
        spool.write(Axis("parameter:0", "parameter", [f"layers.{n}.weight" for n in range(LAYERS)]))
    names = ("parameter_gradient_norm", "parameter_weight_norm", "parameter_update_norm")
    for step in range(steps):
        now, values = 0.05 * step, scalars(step, ranks, rng)
        for rank, spool in enumerate(spools):
            if step % SAMPLED == 0:
                norms = {name: pack_floats(np.exp(0.1 * rng.normal(size=LAYERS))) for name in names}
                spool.write(Profile(step, now, "parameter:0", norms))
            spool.step(step, now, {name: float(array[rank]) for name, array in values.items()})
            if step % 20 == 0:
                spool.write(Beat(now, now, step, "forward", {"default": 3 * step}, 300_000_000, 4 * step))
    for spool in spools:
        spool.write(Event(0.05 * steps, steps, "exit", {"code": 0}))
        spool.close()


def timed(classes: tuple[type, ...], method: str, spent: dict[str, float]) -> list[Any]:
    """The same classes with a stop-watch over ``method``."""

    def wrap(cls: type) -> type:
        def measured(self: Any, *args: Any) -> list[Finding]:
            start = time.process_time()
            found: list[Finding] = getattr(super(made, self), method)(*args)
            spent[cls.__name__] += time.process_time() - start
            return found

        made = type(cls.__name__, (cls,), {method: measured})
        return made

    return [wrap(cls) for cls in classes]


def play(entries: list[Entry], spent: dict[str, float] | None = None) -> float:
    """CPU seconds of an engine over ``entries``; with ``spent`` also those of each detector, at some cost."""
    if spent is None:
        engine = Engine("bench")
    else:
        records = timed(RECORD_DETECTORS, "observe", spent)
        engine = Engine("bench", timed(DETECTORS, "update", spent), records)
    start = time.process_time()
    for entry in entries:
        engine.feed(entry)
    engine.finish()
    seconds = time.process_time() - start
    if engine.noted:
        raise RuntimeError(f"a healthy run gave {engine.noted[0].finding}")
    return seconds


def wide(subjects: int, updates: int = WARM_UP + MEASURED) -> Iterator[Reading]:
    """Readings of ``subjects`` ranks, all of them present."""
    rng = np.random.default_rng(1)
    present = np.ones(subjects, dtype=bool)
    for step in range(updates):
        values = scalars(step, subjects, rng)
        yield Reading(step, 0.05 * step, values, dict.fromkeys(values, present), masked=True)


def wide_cost(subjects: int) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of each update by step detector."""
    detectors = [cls() for cls in DETECTORS if cls.axis == "rank"]
    times: dict[str, list[float]] = {type(detector).__name__: [] for detector in detectors}
    shared: dict[str, Any] = {}
    for reading in wide(subjects):
        reading.shared = shared
        for detector in detectors:
            start = time.process_time()
            detector.update(reading)
            times[type(detector).__name__].append(1e3 * (time.process_time() - start))
    return {name: np.array(spent[WARM_UP:]) for name, spent in times.items()}


class _Alone(pickle.Pickler):
    """What a detector keeps for itself."""

    def persistent_id(self, thing: Any) -> str | None:
        return "shared" if isinstance(thing, LossPast | RatePast | Steepness) else None


def kept(subjects: int) -> dict[str, float]:
    """Bytes of state for each rank, by step detector, where ranks send every signal, by turns."""
    detectors = [cls() for cls in DETECTORS if cls.axis == "rank"]
    names = sorted({name for detector in detectors for name in detector.reads})
    rng, shared = np.random.default_rng(2), dict[str, Any]()
    for step in range(KEPT_STEPS):
        made = scalars(step, subjects, rng)
        other = {name: np.full(subjects, float(name not in TROUBLES)) for name in names}
        values = {name: made.get(name, other[name]) for name in names}
        present = np.ones(subjects, dtype=bool)
        present[step % 7 :: 7] = False
        values = {name: np.where(present, each, np.nan) for name, each in values.items()}
        reading = Reading(step, 0.05 * step, values, dict.fromkeys(values, present), masked=True)
        reading.shared = shared
        for detector in detectors:
            detector.update(reading)
    found = {}
    for detector in detectors:
        _Alone(stream := io.BytesIO()).dump(detector)
        found[type(detector).__name__] = stream.tell() / subjects
    return found | {f"shared {name}": len(pickle.dumps(each)) / subjects for name, each in shared.items()}


def lone_cost(updates: int) -> float:
    """Microseconds of one update of all step detectors for one rank: the mean, without a stop-watch in between."""
    readings = list(wide(1, updates))
    detectors = [cls() for cls in DETECTORS if cls.axis == "rank"]
    shared: dict[str, Any] = {}
    start = time.process_time()
    for reading in readings:
        reading.shared = shared
        for detector in detectors:
            detector.update(reading)
    return 1e6 * (time.process_time() - start) / updates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--subjects", type=int, default=16_384)
    parser.add_argument("--runs", type=int, default=1, help="of the wide part: each update counts at its quickest")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        record(Path(directory), chosen.steps, chosen.ranks)
        start = time.process_time()
        streams = [list(process.read()) for process in RunReader(Path(directory) / "bench").processes.values()]
        reading = time.process_time() - start
    entries = list(merged(streams))
    play(entries[: len(entries) // 10])
    total = min(play(entries) for _ in range(3))
    print(f"{chosen.ranks} ranks, {chosen.steps} steps, {len(entries)} records; CPU time")
    print(f"read     {len(entries) / reading:10,.0f} records/s {1e6 * reading / chosen.steps:8.1f} µs/step")
    print(f"engine   {len(entries) / total:10,.0f} records/s {1e6 * total / chosen.steps:8.1f} µs/step")
    lone = min(lone_cost(chosen.steps) for _ in range(3))
    print(f"all step detectors, one update for one rank: {lone:.0f} µs")
    spent: dict[str, float] = defaultdict(float)
    play(entries, spent)
    runs = [wide_cost(chosen.subjects) for _ in range(chosen.runs)]  # the same readings: what differs is the machine
    costs = {name: np.min([run[name] for run in runs], axis=0) for name in runs[0]}
    print(f"{'detector':24} {'µs/step':>8} {f'ms at {chosen.subjects} subjects, median':>32} {'worst':>8}")
    for name in sorted(spent, key=lambda name: -spent[name]):
        row = f"{name:24} {1e6 * spent[name] / chosen.steps:8.1f}"
        print(row + (f" {np.median(costs[name]):32.2f} {costs[name].max():8.2f}" if name in costs else ""))
    whole = sum(costs.values())
    print(f"{'all':24} {1e6 * sum(spent.values()) / chosen.steps:8.1f} {np.median(whole):32.2f} {np.max(whole):8.2f}")
    state = kept(1024)
    print(f"{'state':24} {'bytes by rank':>8}")
    for name in sorted(state, key=lambda name: -state[name]):
        print(f"{name:24} {state[name]:8.0f}")
    print(f"{'all':24} {sum(state.values()):8.0f}")


if __name__ == "__main__":
    main()
