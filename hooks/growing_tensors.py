"""A tensor that is longer each time it is looked at: a memory that every step is concatenated to."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch

_MOST = 256
"""Of the largest shapes that are remembered; what grows is among them by the time that it matters."""
Form = tuple[torch.dtype, tuple[int, ...]]


class Growth(NamedTuple):
    """What a tensor has become, and how it came there."""

    form: Form
    extents: list[int]
    """Of the dimension that grew, at each look."""
    unit: int
    """Bytes of one more."""


def forms(tensors: Iterable[torch.Tensor]) -> set[Form]:
    """Types and shapes of the largest, which keeps none of them alive; a model has many tensors and few shapes."""
    sizes = {form_of(tensor): tensor.numel() * tensor.element_size() for tensor in tensors}
    return set(sorted(sizes, key=lambda form: -sizes[form])[:_MOST])


def form_of(tensor: torch.Tensor) -> Form:
    return tensor.dtype, tuple(tensor.shape)


def growths(looks: Sequence[set[Form]]) -> list[Growth]:
    """Those of the last look that were shorter at each look before, in one dimension, and are no longer there so.

    Tensors of one kind and many lengths, as batches of sequences are, come and go: of those nothing is certain.

    >>> looks = [{(torch.float32, (rows, 8)), (torch.float32, (64, 8))} for rows in (100, 110, 120)]
    >>> growths(looks)
    [Growth(form=(torch.float32, (120, 8)), extents=[100, 110, 120], unit=32)]
    """
    found = []
    for form in looks[-1] if len(looks) > 1 else ():
        for place in range(len(form[1])):
            extents = _course(looks, form, place)
            if extents:
                size = torch.empty(0, dtype=form[0]).element_size()
                for at, extent in enumerate(form[1]):
                    size *= extent if at != place else 1
                found.append(Growth(form, extents, size))
    return found


def _course(looks: Sequence[set[Form]], form: Form, place: int) -> list[int]:
    """The extent at each look, if it was always one and grew; empty else."""

    def only(look: set[Form]) -> list[int]:
        return [
            shape[place]
            for dtype, shape in look
            if dtype == form[0]
            and len(shape) == len(form[1])
            and all(a == b for at, (a, b) in enumerate(zip(shape, form[1], strict=True)) if at != place)
        ]

    alike = [set(only(look)) for look in looks]
    lasting = set.intersection(*alike)  # weights, and other tensors that stay as they are
    changing = [each - lasting for each in alike]
    if any(len(each) != 1 for each in changing):
        return []
    extents = [each.pop() for each in changing]
    return (
        extents
        if extents[-1] == form[1][place] and all(earlier < later for earlier, later in pairwise(extents))
        else []
    )
