"""Streams in which nothing ever happens: whatever a detector says of them is a false alarm.

Telemetry is neither independent nor normal, so each kind of stream is one way in which it is not: memory, heavy tails,
cycles, a level that wanders, noise that comes in bursts. All are stationary: their past tells their future.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from torchvitals.detectors.detector import DetectorAxis, Reading

Floats = NDArray[np.float64]
Process = Callable[[int, Floats, "Memory"], Floats]
CHUNK = 2048
"""Steps made at once."""
BLOCK = 16
"""Requests in a block of a service."""
LAYERS = 24
SAMPLED = 50
"""Steps between profiles of parameters and modules."""
EVALUATED = 100
"""Steps between validation losses."""
BEAT = 5
"""Steps between looks at the machine: one a second."""
RUNNING = 32
"""Steps between looks at the running statistics of batch norm, as the hooks take them."""
MOMENTUM = 0.1
"""Of a batch in the running statistics of batch norm."""


class Memory:
    """Filters that go on from one chunk to the next, one for each time that it is asked in a chunk."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._states: list[Floats] = []
        self._asked = 0

    def begin(self) -> None:
        """A new chunk."""
        self._asked = 0

    def autoregressive(self, noise: Floats, phi: float) -> Floats:
        """AR(1) with unit variance out of white noise with unit variance, along the first axis."""
        if self._asked == len(self._states):
            self._states.append(phi * self.rng.normal(size=noise.shape[1:])[None])
        series, self._states[self._asked] = lfilter(
            [np.sqrt(1 - phi * phi)], [1, -phi], noise, axis=0, zi=self._states[self._asked]
        )
        self._asked += 1
        return np.asarray(series)


def _white(_first: int, noise: Floats, _memory: Memory) -> Floats:
    return noise


def _remembering(phi: float) -> Process:
    return lambda _first, noise, memory: memory.autoregressive(noise, phi)


def _heavy(_first: int, noise: Floats, memory: Memory) -> Floats:
    """Logarithm of 1 + 0.3 |t₂| in tenths: values with a Pareto tail of index 2."""
    return np.asarray(10 * np.log1p(0.3 * np.abs(memory.rng.standard_t(2, noise.shape))) - 3)


def _cycle(period: int, height: float) -> Process:
    def process(first: int, noise: Floats, memory: Memory) -> Floats:
        time = first + np.arange(len(noise))[(slice(None), *[None] * (noise.ndim - 1))]
        return np.asarray(0.5 * memory.autoregressive(noise, 0.9) + height * np.sin(2 * np.pi * time / period))

    return process


def _wandering(_first: int, noise: Floats, memory: Memory) -> Floats:
    """A level that takes ten thousand steps to come back, and noise on it."""
    level = memory.autoregressive(memory.rng.normal(size=noise.shape), 0.9999)
    return np.asarray(2 * level + 0.5 * noise)


def _bursts(_first: int, noise: Floats, memory: Memory) -> Floats:
    """Noise whose spread wanders itself, by a factor of e."""
    return np.asarray(noise * np.exp(memory.autoregressive(memory.rng.normal(size=noise.shape), 0.99) - 0.5))


NULLS: dict[str, Process] = {
    "white": _white,
    "ar 0.5": _remembering(0.5),
    "ar 0.9": _remembering(0.9),
    "ar 0.99": _remembering(0.99),
    "heavy tails": _heavy,
    "cycle of 97": _cycle(97, 2.0),
    "cycle of 5000": _cycle(5000, 2.0),
    "wandering": _wandering,
    "bursts": _bursts,
}


def processes(kind: str, steps: int, shape: tuple[int, ...], seed: int) -> Iterator[Floats]:
    """``steps`` arrays of ``shape``, unit variance or thereabouts, each entry a stream of its own."""
    memory = Memory(np.random.default_rng(seed))
    for first in range(0, steps, CHUNK):
        memory.begin()
        noise = memory.rng.normal(size=(min(CHUNK, steps - first), *shape))
        yield from NULLS[kind](first, noise, memory)


def readings(axis: DetectorAxis, kind: str, steps: int, subjects: int, seed: int = 0) -> Iterator[Reading]:
    """What a healthy job says along one axis; of a service one block of requests by reading."""
    make: dict[DetectorAxis, Callable[[int, Floats, np.random.Generator], Reading]] = {
        "rank": _scalars,
        "parameter": _layers,
        "module": _modules,
        "feature": _features,
        "replica": _Replicas(),
    }
    rng = np.random.default_rng(seed + 1)
    for place, noise in enumerate(processes(kind, steps, (6, subjects), seed)):
        yield make[axis](place, noise, rng)


def _reading(step: int, values: dict[str, NDArray[np.float64]]) -> Reading:
    present = np.ones(len(next(iter(values.values()))), dtype=bool)
    return Reading(step, 0.2 * step, values, dict.fromkeys(values, present), masked=True)


def _share(usual: float, x: Floats) -> Floats:
    """A share of units around ``usual``; it cannot leave 0 to 1 and has no heavy tail."""
    return np.asarray(1 / (1 + (1 / usual - 1) * np.exp(-2 * np.tanh(0.1 * x))))


def _scalars(step: int, x: Floats, rng: np.random.Generator) -> Reading:
    factor = np.exp(0.1 * x)
    ones = np.ones(x.shape[1])
    seconds = 0.2 * factor[2]
    values = {
        "loss": (0.3 + 2.0 * np.exp(-step / 300)) * factor[0],
        "gradient_norm": factor[1],
        "gradient_norm_unclipped": factor[1],
        "tripwire_norm": 0.2 * factor[1],
        "step_seconds": seconds,
        "data_seconds": 0.05 * seconds,
        "rss_bytes": 3e8 + 2e5 * x[3],
        "cuda_allocated_bytes": 5e8 + 1e5 * x[4],
        "batch_digest": rng.integers(1, 1 << 50, x.shape[1]).astype(np.float64),
        "learning_rate": 1e-3 * ones,
        "batch_items": 32.0 * ones,
    }
    values |= dict.fromkeys(("loss_scale", "backward_passes", "gradients_reset"), ones)
    values |= {"forward_seconds": 0.3 * seconds, "backward_seconds": 0.5 * seconds, "optimizer_seconds": 0.1 * seconds}
    values |= {"arrival_lateness": 0.002 * (x[5] - np.median(x[5])), "input_absmax": 2.0 * factor[5]}
    values |= {"collectives": 3.0 * ones, "gradient_norm_shard": values["tripwire_norm"]}
    values |= dict.fromkeys(("skipped_steps", "cuda_alloc_retries", "optimizer_extra_parameters"), 0 * ones)
    values |= dict.fromkeys(("parameters_without_gradient", "parameters_not_optimized"), 0 * ones)
    values |= dict.fromkeys(("input_nonfinite", "recompilations", "orphaned_parameters"), 0 * ones)
    if step % BEAT == 0:
        values["machine_load"] = 0.8 * factor[5]
        values["mapped_bytes"] = 1e9 + 2e5 * x[3]
        values["memory_headroom_bytes"], values["cuda_headroom_bytes"] = 1e10 - 2e5 * x[3], 2e10 - 1e5 * x[4]
    if step % EVALUATED == EVALUATED - 1:
        values["validation_loss"] = 0.6 * np.sqrt(factor[0] * factor[5])  # the same model, other data
    return _reading(step, values)


def _layers(place: int, x: Floats, _rng: np.random.Generator) -> Reading:
    factor = np.exp(0.3 * x)
    return _reading(
        SAMPLED * place,
        {
            "parameter_gradient_norm": factor[0],
            "parameter_weight_norm": 10 * np.exp(0.01 * x[1]),
            "parameter_update_norm": 0.01 * factor[2],
            "parameter_zero_rows": _share(0.1, x[3]),
            "parameter_silent_rows": _share(0.02, x[4]),
            "parameter_rows": np.full(x.shape[1], 64.0),
        },
    )


def _modules(place: int, x: Floats, _rng: np.random.Generator) -> Reading:
    return _reading(
        SAMPLED * place,
        {
            "module_output_absmax": 5 * np.exp(0.1 * x[0]),
            "module_output_std": np.exp(0.1 * x[1]),
            "module_zero_share": _share(0.5, x[2]),
            "module_silent_units": _share(0.02, x[3]),
            "module_saturated_share": _share(0.4, x[4]),
        },
    )


def _features(place: int, x: Floats, rng: np.random.Generator) -> Reading:
    """Half of a block mean's variance is the stream's own, the other half that of its 64 rows."""
    count, rows = x.shape[1], 64
    role = np.zeros(count)
    role[count // 2 :] = 1
    sampled = rng.normal(size=(2, count)) / np.sqrt(rows)
    return _reading(
        BLOCK * place,
        {
            "feature_mean": 5.0 + x[0] / np.sqrt(rows) + sampled[0],
            "feature_std": np.exp(0.05 * x[1] + sampled[1] / np.sqrt(2)),
            "feature_missing": rng.binomial(rows, 0.02, count) / rows,
            "feature_zero": rng.binomial(rows, 0.1, count) / rows,
            "feature_rows": np.full(count, float(rows)),
            "feature_role": role,
        },
    )


class _Replicas:
    """Ranks with equal weights, whose running statistics are those of their own batches: six channels in two layers.

    A batch's mean strays by a tenth of a standard deviation: a hundred vectors, or fewer that resemble each other.
    """

    def __init__(self) -> None:
        self._running: Floats | float = 0.0

    def __call__(self, step: int, x: Floats, _rng: np.random.Generator) -> Reading:
        ranks = x.shape[1]
        self._running += MOMENTUM * (0.1 * x.T - self._running)
        values: dict[str, NDArray[Any]] = {
            "parameter_digest": np.tile(np.arange(4, dtype=np.int64) * 1009 + step, (ranks, 1))
        }
        if step % RUNNING == 0:
            values["buffer_mean"] = 5.0 + self._running
            values["buffer_variance"] = np.exp(2 * self._running[:, ::-1])
            values["buffer_layer"] = np.tile([0.0, 0.0, 0.0, 1.0, 1.0, 1.0], (ranks, 1))
        return Reading(step, 0.2 * step, values, dict.fromkeys(values, np.ones(ranks, dtype=bool)))
