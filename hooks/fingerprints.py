"""Exact digests of weights, batches and generators, at steps that depend on nothing but their number.

Two runs are compared bit by bit only if both digested the same steps; what the budget can afford differs from run
to run, so it has no say here. The cost is bounded by the schedule instead: dense at first, where runs part, then a
fixed number per doubling of steps, so that its share of the run falls with its length.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import Optimizer
from torchvitals.hooks import digests, generators
from torchvitals.hooks.budget import Budget
from torchvitals.hooks.code_facts import describe_code
from torchvitals.hooks.discovery import Model
from torchvitals.hooks.environment import describe_environment
from torchvitals.hooks.nested import tensors
from torchvitals.hooks.repeats import Repeats
from torchvitals.hooks.replicas import LARGE_BYTES, SMALL_BYTES, ReplicaDigests
from torchvitals.signals.records import Axis, Digest, pack_integers

if TYPE_CHECKING:
    from torchvitals.hooks.optimizers import OptimizerWatch
    from torchvitals.hooks.recorder import Recorder

BEFORE_FIRST = -1
"""The step of what was so before the first step: the initial weights, the generators when the first batch came."""
DENSEST, SPARSEST = 16, 1024
"""Digests per doubling of steps of a small model, and steps between two at most."""
VARIABLE = "TORCHVITALS_EXACT"
"""Set by ``torchvitals run --exact``: digest everything at every step, whatever it costs."""
AXIS = "generator"
ALWAYS = 1 << 40
"""Dense for so many steps: profiles are taken at every one."""


def wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process was asked to record every step to the last bit."""
    return environ.get(VARIABLE, "") not in ("", "0")


def per_doubling(parameter_bytes: int) -> int:
    """How many digests a doubling of steps may hold: 13 GB/s on a core, so 1 MiB takes 0.1 ms and 64 MiB 5 ms.

    >>> per_doubling(1000), per_doubling(10 << 20), per_doubling(1 << 30)
    (16, 4, 1)
    """
    return DENSEST if parameter_bytes <= SMALL_BYTES else 4 if parameter_bytes <= LARGE_BYTES else 1


def due(step: int, density: int = DENSEST) -> bool:
    """Whether ``step`` is one that every run digests.

    >>> [step for step in range(100) if due(step, 4)]
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96]
    """
    return next_due(step, density) == step


def next_due(step: int, density: int = DENSEST) -> int:
    """The first step from ``step`` on that every run digests.

    >>> next_due(81, 4), next_due(97, 4)
    (96, 112)
    """
    spacing = min(SPARSEST, 1 << max(0, step.bit_length() - density.bit_length()))
    return -(-step // spacing) * spacing


class Fingerprints:
    """What one process digests, and when.

    Args:
        recorder: where the records go.
        exact: every step, and gradients too; by default as the environment asks.
    """

    def __init__(self, recorder: "Recorder", *, exact: bool | None = None) -> None:
        self.exact = wanted() if exact is None else exact
        self._recorder = recorder
        self._replicas: ReplicaDigests | None = None
        self._density = DENSEST
        self._waiting: list[tuple[int, str, digests.Pending]] = []
        self._loaded: float | None = None
        self._on_device = False
        self._started = False
        self._repeats = Repeats(recorder)
        if self.exact:
            recorder.budget = Budget(1.0, dense=ALWAYS)

    def begin(self, models: Sequence[Model], *, sharded: bool) -> None:
        """A step has been made: how large the models are, whether ranks hold copies, and what else there is to tell."""
        del sharded  # what each shard is compared with its axis tells
        self._replicas = ReplicaDigests.when_replicated(models)
        self._density = per_doubling(sum(p.nbytes for model in models for p in model.inner.parameters()))
        self._recorder.learn(**describe_environment(), seeds=generators.describe_seeds(), code=describe_code())

    @property
    def compared(self) -> bool:
        """Whether other ranks may hold the same parameters."""
        return self._replicas is not None

    def due(self, step: int) -> bool:
        """Whether ``step`` is digested."""
        if self.exact or due(step, self._density):
            return True
        return self._replicas is not None and self._replicas.due(step)

    def steps_until_due(self, step: int, most: int, *, several: bool = False) -> int:
        """How many steps from ``step`` on, up to ``most``, nothing is digested, weights or batch.

        Of ``several`` optimizers the others may still have to make the step that the first has just closed.
        """
        if self.exact or (several and self.due(step - 1)):
            return 0
        if self._replicas is not None:
            steps = range(step, step + most)
            return next((ahead for ahead, due in enumerate(map(self._anything_due, steps)) if due), most)
        return min(most, next_due(step, self._density) - step, next_due(step) - step)

    def _anything_due(self, step: int) -> bool:
        return self.due(step) or self._batch_due(step)

    def before(self, watch: "OptimizerWatch", optimizer: Optimizer) -> None:
        """A step is about to be applied: the initial weights, and where every step is exact its gradients."""
        if watch.calls > 1 and not self.exact:
            return
        watch.declare()
        if watch.calls == 1:
            self._weights(optimizer, watch.parameters, BEFORE_FIRST, watch.axis)
        if self.exact:
            self._gradients(watch.parameters, watch.step, watch.axis)
            if due(watch.step, 1) and watch.leads:
                for root in watch.roots:
                    self._repeats.look(root.replay, watch.step)

    def after(self, watch: "OptimizerWatch", optimizer: Optimizer) -> None:
        """A step has been applied."""
        self.flush()
        if not self.due(watch.step):
            return
        watch.declare()
        self._weights(optimizer, watch.parameters, watch.step, watch.axis)
        if watch.leads:
            self._generators(watch.step)

    def close(self, watches: Iterable["OptimizerWatch"]) -> None:
        """The job ends: write what still waits, and a digest of the weights it ends with."""
        self.flush(wait=True)
        for watch in watches:
            held = [p.detach() for p in watch.parameters]
            # A device may be gone by now, or in a state in which asking it would hang.
            if held and watch.calls and all(digests.digestible(_local(p)) and p.device.type == "cpu" for p in held):
                self._write(watch.step - 1, watch.axis, "final", digests.digest(held))

    def _weights(self, optimizer: Optimizer, parameters: Sequence[torch.Tensor], step: int, axis: str) -> None:
        """Digest the ``parameters`` as they are now; what lies on a device is written when it has arrived.

        Ranks that are compared with each other digest their hyper-parameters too, and wait for the answer.
        """
        if self._replicas is not None and self._replicas.due(step):
            for kind, values in self._replicas.of(optimizer, parameters).items():
                self._write(step, axis, kind, values)
        elif all(digests.digestible(_local(p)) for p in parameters):
            self._waiting.append((step, axis, digests.start([p.detach() for p in parameters])))
            self.flush()

    def flush(self, *, wait: bool = False) -> None:
        """Write what has arrived from a device; with ``wait`` all of it, because the job ends."""
        while self._waiting and (wait or self._waiting[0][2].ready()):
            step, axis, pending = self._waiting.pop(0)
            self._write(step, axis, "parameter", pending.read())

    def _gradients(self, parameters: Sequence[torch.Tensor], step: int, axis: str) -> None:
        """Digest the gradients about to be applied, 0 where there is none."""
        found = [p.grad if p.grad is not None and digests.digestible(_local(p.grad)) else None for p in parameters]
        values = np.zeros(len(found), dtype=np.int64)
        there = [index for index, gradient in enumerate(found) if gradient is not None]
        if there:
            values[there] = digests.digest([gradient.detach() for gradient in found if gradient is not None])
        self._write(step, axis, "gradient", values)

    def _generators(self, step: int) -> None:
        """Write where the random generators stand after ``step``."""
        if not self._started:
            self._started = True
            self._recorder.write(Axis(AXIS, AXIS, list(generators.NAMES)))
        self._write(step, AXIS, AXIS, generators.positions())

    def loaded(self, batch: Any, step: int) -> None:
        """A data loader gave ``batch``: where the model gets it on a device, it can be read only here."""
        if not self._on_device or not self._batch_due(step):
            return
        first = next((t for t in tensors(batch) if t.device.type == "cpu" and t.numel()), None)
        self._loaded = None if first is None else digests.digest_batch(first.detach())

    def batch(self, tensor: torch.Tensor, step: int) -> float | None:
        """Digest of the batch that the model is called with; reading one off a device would wait."""
        if not self._started:
            self._generators(BEFORE_FIRST)
        if tensor.device.type != "cpu":
            self._on_device = True
            return self._loaded if self._batch_due(step) else None
        if not tensor.numel() or not self._batch_due(step):
            return None
        return digests.digest_batch(tensor.detach())

    def _batch_due(self, step: int) -> bool:
        if self.exact:
            return True
        return due(step) if self._replicas is None else self._replicas.batch_due(step)

    def _write(self, step: int, axis: str, kind: str, values: NDArray[np.int64]) -> None:
        self._recorder.write(Digest(step, self._recorder.clock(), axis, kind, pack_integers(values)))


def _local(tensor: torch.Tensor) -> torch.Tensor:
    local: torch.Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local
