"""Recorded trainings, faulty and healthy, kept on disk between runs of the benchmarks: making them takes minutes."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import torch

sys.path.append(str(Path(__file__).parent))

from recording import Recording, Tape

Training = Callable[[int], list[Tape]]


def healthy_names() -> list[str]:
    """Of all healthy trainings."""
    import healthy_trainings
    import restless_trainings  # noqa: F401 (adds to the list)

    return sorted(healthy_trainings.HEALTHY)


def healthy(cache: Path, seed: int) -> Iterator[Recording]:
    """Every healthy training once, one recording for each of its optimizers."""
    from healthy_trainings import HEALTHY

    for name in healthy_names():
        yield from _kept(cache / f"healthy-{name}-{seed}.msgpack", partial(_tapes, name, HEALTHY[name], seed))


def faulty(cache: Path, seed: int) -> Iterator[Recording]:
    """Every fault in every task it fits."""
    import faulty_trainings

    yield from _kept(cache / f"faulty-{seed}.msgpack", lambda: list(faulty_trainings.faulty(seed)))


def _tapes(name: str, training: Training, seed: int) -> list[Recording]:
    return [
        Recording(family="healthy", name=f"{name}/{place}", seed=seed, steps=tape.steps)
        for place, tape in enumerate(training(seed))
    ]


def _kept(path: Path, make: Callable[[], list[Recording]]) -> list[Recording]:
    if not path.exists():
        torch.set_num_threads(1)
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.msgpack.encode(made))
        part.rename(path)
    return msgspec.msgpack.decode(path.read_bytes(), type=list[Recording])
