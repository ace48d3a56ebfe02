"""Digests of what every replica must hold alike, at steps every rank chooses alike without talking."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import Optimizer
from torchvitals.hooks import digests, replica_groups
from torchvitals.hooks.discovery import Model
from torchvitals.hooks.hyperparameters import digest_values, hyperparameters

SMALL_BYTES = 1 << 20
LARGE_BYTES = 64 << 20
"""13 GB/s on a core: 1 MiB takes 0.1 ms and 64 MiB 5 ms, against steps that grow with the model as well."""


DENSE_STEPS = 256
"""Steps in which a batch, and the weights of a small model, are looked at more often: what is wrong from the start is
known within seconds, and steps that are digested must be watched ones."""
DENSE_WEIGHTS, DENSE_BATCHES, BATCHES = 8, 4, 32
"""Steps between two digests, then and later. Powers of two, as all that is read now and then on one of several ranks:
what falls on one step needs one watched step, of 1 to 2 ms, instead of four."""


def interval(parameter_bytes: int) -> int:
    """Steps between digests of weights: of the model alone, so that all ranks digest the same steps.

    >>> interval(1000), interval(1 << 30)
    (32, 64)
    """
    return 32 if parameter_bytes <= LARGE_BYTES else 64


class ReplicaDigests:
    """Digests of one rank's replica.

    Args:
        parameter_bytes: of a replica.
    """

    def __init__(self, parameter_bytes: int) -> None:
        self._every = interval(parameter_bytes)
        self._dense = DENSE_WEIGHTS if parameter_bytes <= SMALL_BYTES else self._every

    @classmethod
    def when_replicated(cls, models: Sequence[Model]) -> "ReplicaDigests | None":
        """Digests for a job of several ranks; what each of its parameters is compared with, its axis tells.

        Ranks without a process group (a sweep under torchrun, one model each) share nothing and owe no equality.
        Of a sharded model the shards are digested, for those who hold the same ones.
        """
        if not replica_groups.grouped() or not models:
            return None
        return cls(sum(p.nbytes for model in models for p in model.inner.parameters()))

    def due(self, step: int) -> bool:
        """Whether ``step`` is one that all ranks digest; the first steps are, to see a wrong start."""
        return step < 2 or step % (self._dense if step < DENSE_STEPS else self._every) == 0

    def of(self, optimizer: Optimizer, parameters: Sequence[torch.Tensor]) -> dict[str, NDArray[np.int64]]:
        """Digest kind → int64 values: of each parameter, and of the optimizer's hyper-parameters."""
        _, plain = hyperparameters(optimizer)
        return {
            "parameter": digests.digest([p.detach() for p in parameters]),
            "hyperparameter": digest_values(plain),
        }

    def batch_due(self, step: int) -> bool:
        """Whether ``step`` is one whose batch all ranks digest."""
        return step % (DENSE_BATCHES if step < DENSE_STEPS else BATCHES) == 0
