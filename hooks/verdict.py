"""What a replay found, as the details of the event `origin`."""

from typing import Any, NamedTuple

import torch
from torchvitals.hooks.births import Birth, kind_of

Origin = dict[str, Any]
_FEW = 32
"""Rows and columns named at most: more are no location any more."""


class Scene(NamedTuple):
    """What there was before the origin."""

    parameters: dict[str, torch.nn.Parameter]
    batch: list[torch.Tensor] | None
    """The tensors the model was called with; ``None`` if that is not known."""


def tell(birth: Birth, scene: Scene, *, phase: str, why: str) -> Origin:
    """The event's details.

    Keys beyond the plain ones: ``value`` (``nan``, ``inf``, ``-inf``), ``dtype`` and ``shape`` of the first
    non-finite result, ``node`` (autograd's name, backward only), ``forward_operation`` (which created it),
    ``columns`` and ``outside`` (of a bad batch: whether it is in a target, which the model does not get), and
    ``parameter`` (the first non-finite one).
    """
    bad_parameter = next((name for name, p in scene.parameters.items() if kind_of(p.detach())), "")
    from_batch = birth.source == "batch"
    origin: Origin = {
        "operation": birth.operation or birth.source.split()[0] if birth.source else birth.operation,
        "module": birth.place.module,
        "line": str(birth.place.line),
        "code": birth.place.line.code,
        "phase": phase,
        "inputs": birth.inputs,
        "parameters_finite": not bad_parameter,
        "batch_finite": not from_batch and _batch_finite(scene.batch),
        "elements": birth.elements,
        "batch_rows": _batch_rows(birth, scene.batch),
        "complete": not why,
        "why_incomplete": why,
        "value": birth.value,
        "dtype": birth.dtype,
        "shape": list(birth.shape),
        "node": birth.node,
        "forward_operation": birth.place.operation if birth.backward else "",
        "columns": _columns(scene.batch) if from_batch else [],
        "parameter": bad_parameter,
    }
    if from_batch:
        origin["operation"] = "batch"
        # what the model was called with is finite: it is in a tensor that only the loss has seen
        origin["outside"] = scene.batch is not None and _batch_finite(scene.batch)
    return origin


def _batch_finite(batch: list[torch.Tensor] | None) -> bool:
    """A ``-inf`` alone is a mask that was passed in."""
    kinds = [kind_of(tensor.detach()) for tensor in batch or []]
    return all(kind is None or kind.worst == "-inf" for kind in kinds)


def _batch_rows(birth: Birth, batch: list[torch.Tensor] | None) -> list[int]:
    """Rows of the batch that the birth's rows belong to; several rows of a result may belong to one (sequences)."""
    size = next((tensor.shape[0] for tensor in batch or [] if tensor.dim()), 0)
    if (
        not size
        or not birth.shape
        or birth.shape[0] % size
        or (birth.backward and birth.operation.startswith("aten.mm"))
    ):
        return []
    share = birth.shape[0] // size
    return sorted({row // share for row in birth.rows})[:_FEW]


def _columns(batch: list[torch.Tensor] | None) -> list[int]:
    """Last-dimension indices that are not finite, of the first tensor that has any."""
    for tensor in batch or []:
        if tensor.dim() > 1 and kind_of(tensor.detach()):
            bad = ~torch.isfinite(tensor.detach())
            return bad.flatten(0, -2).any(0).nonzero()[:_FEW, 0].tolist()
    return []
