"""Weights that are divided by an estimate of their largest singular value which is none yet.

Spectral normalisation keeps two vectors of a power iteration, which training forwards alone improve (pytorch-51800).
``torch.nn.utils.spectral_norm`` begins with random ones, the newer parametrization with those of the weight that was
there; an evaluation before any training, weights drawn or loaded afterwards and averaged copies are all far off.
"""

import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.nn import Module, functional
from torch.nn.utils import parametrize
from torchvitals.hooks import readback
from torchvitals.hooks.nested import tensors

_HOOK = getattr(sys.modules.get("torch.nn.utils.spectral_norm"), "SpectralNorm", ())
"""The older kind, which torch has deprecated: one day there is none."""
LOOKS = 4
"""Evaluation forwards of a model that are looked at: a look costs a dozen products with each weight."""
ROWS = 2
"""Answers that an evaluation gives: a single row is how somebody asks a model for its shapes."""
ROUNDS = 6
"""Power iterations of our own: what they reach is a lower bound of the norm, after so many a good one."""
TIMES = 2.0
"""How far the true norm must be above the estimate. After a single training forward it is 1.4 times as large in a
square weight of random numbers, and less from then on."""


class Normalised(NamedTuple):
    """A weight as a matrix, and the two vectors with which its norm is estimated."""

    name: str
    matrix: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor


class SpectralNorms:
    """Looks at the normalised weights of models that answer in evaluation mode, on copies.

    Args:
        tell: is called with the details of the relation, once.

    >>> layer = torch.nn.utils.spectral_norm(torch.nn.Linear(64, 64)).eval()
    >>> found = []
    >>> SpectralNorms(lambda **details: found.append(details)).evaluated(layer, torch.ones(8, 64))
    >>> [(each["parameter"], each["norm"] > 2) for each in found]
    [('weight', True)]
    """

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell
        self._left: weakref.WeakKeyDictionary[Module, int] = weakref.WeakKeyDictionary()
        self._rows: weakref.WeakKeyDictionary[Module, int] = weakref.WeakKeyDictionary()
        self._arriving: readback.Arriving | None = None
        """What a device still computes."""

    def evaluated(self, module: Module | None, inputs: Any) -> None:
        """``module``, a root, has answered; in evaluation mode that left the vectors as they are."""
        if self._arriving is not None and self._arriving.ready():
            arrived, self._arriving = self._arriving, None
            self._judge(arrived.values())
        if module is None or module.training or self._left.get(module, LOOKS) <= 0:
            return
        rows = next((len(tensor) for tensor in tensors(inputs) if tensor.dim()), 1)
        self._rows[module] = self._rows.get(module, 0) + rows
        if self._rows[module] >= ROWS:
            self._look(module)

    @torch.no_grad()
    def _look(self, module: Module) -> None:
        found = list(_normalised(module))
        self._left[module] = self._left.get(module, LOOKS) - 1 if found else 0
        if not found:
            return
        norms: dict[str, torch.Tensor | float] = {}
        with torch.autocast(found[0].matrix.device.type, enabled=False):
            for each in found:
                norms[each.name] = norm_left(each)
        now, later = readback.read(norms)
        self._arriving = later or self._arriving
        self._judge(now)

    def _judge(self, norms: dict[str, float]) -> None:
        """``norms`` of what is left of each weight when its estimate has been taken off; 1 is what is promised."""
        wide = {name: norm for name, norm in norms.items() if norm > TIMES}
        if wide:
            worst = max(wide, key=lambda name: wide[name])
            self._tell(parameter=worst, parameters=len(wide), norm=wide[worst])


def norm_left(given: Normalised) -> torch.Tensor:
    """A lower bound of the norm that the weight has after it was divided by the estimate; 0 where there is none.

    >>> good = Normalised("w", torch.diag(torch.tensor([3.0, 1.0])), torch.tensor([1.0, 0]), torch.tensor([1.0, 0]))
    >>> bad = good._replace(left=torch.tensor([0.0, 1]), right=torch.tensor([0.0, 1]))
    >>> round(norm_left(good).item(), 2), round(norm_left(bad).item(), 2)
    (1.0, 3.0)
    """
    matrix = given.matrix.detach().float()
    estimate = torch.dot(given.left.float(), torch.mv(matrix, given.right.float()))
    vector = torch.linspace(1.0, 2.0, matrix.shape[1], device=matrix.device)  # the job's random numbers are its own
    for _ in range(ROUNDS):
        vector = functional.normalize(vector, dim=0)
        vector = torch.mv(matrix.t(), torch.mv(matrix, vector))
    norm = torch.linalg.vector_norm(torch.mv(matrix, functional.normalize(vector, dim=0)))
    left = (norm / estimate).abs()
    return torch.where(torch.isfinite(norm) & (norm > 0), torch.nan_to_num(left, nan=torch.inf), 0.0)


def _normalised(module: Module) -> Iterator[Normalised]:
    """The weights of ``module`` under spectral normalisation in evaluation mode, of both of torch's kinds."""
    for path, part in module.named_modules():
        for hook in part._forward_pre_hooks.values():
            if isinstance(hook, _HOOK) and not part.training:
                weight, left, right = (getattr(part, f"{hook.name}_{end}", None) for end in ("orig", "u", "v"))
                if left is not None and right is not None and _plain(weight):
                    name = ".".join(filter(None, (path, hook.name)))
                    yield Normalised(name, hook.reshape_weight_to_matrix(weight), left, right)
        if isinstance(part, parametrize.ParametrizationList):
            first = part[0]  # of several the others are given what it makes
            left, right = getattr(first, "_u", None), getattr(first, "_v", None)
            as_matrix = getattr(first, "_reshape_weight_to_matrix", None)
            weight = getattr(part, "original", None)
            if not (first.training or left is None or right is None or as_matrix is None) and _plain(weight):
                yield Normalised(path.replace("parametrizations.", ""), as_matrix(weight), left, right)


def _plain(weight: Any) -> bool:
    """A whole tensor of real numbers, and no shard of one."""
    return type(weight) in (torch.Tensor, torch.nn.Parameter) and weight.is_floating_point() and weight.numel() > 0
