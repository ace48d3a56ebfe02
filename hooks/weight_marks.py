"""One element of a few weights, looked at after each step and before the next: has somebody else written to them?

Torch's version counters count all writing but that through ``.data``. A mark is a 0-d view into the weight's own
memory, so that reading it takes 0.4 µs and nothing is kept alive that the weight does not keep alive itself.
"""

import torch
from torch.nn import Parameter

MOST = 2
"""Weights that are marked, in two parts of the model: 2 µs a step."""
ALIKE = 0.01
"""Shares of the way back that two weights may differ by, in float32, and have gone back together."""
Mark = tuple[torch.Tensor, torch.Tensor, int]
"""A weight, a view of its middle element, and where its memory was."""


class WeightMarks:
    """The marks of one optimizer. Weights on a device, which would have to wait, are not marked.

    >>> weight = torch.nn.Parameter(torch.ones(3, 3))
    >>> marks = WeightMarks()
    >>> weights = [weight]
    >>> marks.keep(weights)
    >>> marks.written()
    0.0
    >>> _ = weight.data.mul_(2)
    >>> marks.written()
    1.0
    """

    __slots__ = ("_anchors", "_elements", "_first", "_found", "_kept", "_last", "_marks", "_weights")

    def __init__(self) -> None:
        self._marks: list[Mark] = []
        self._elements: list[torch.Tensor] = []
        """Theirs that can be read now."""
        self._first: torch.Tensor | None = None
        self._last: torch.Tensor | None = None
        """The same, where they are ``MOST``: one by one they are read in half the time."""
        self._kept: list[float] = []
        self._anchors: list[float] = []
        """Where the weights were when they were last written to, or before the first step."""
        self._found: list[float] = []
        """Where they have been found since the last step, if they were written to."""
        self._weights: list[torch.Tensor] = []

    def __bool__(self) -> bool:
        return bool(self._kept)

    def keep(self, weights: list[torch.Tensor]) -> None:
        """A step is over: what ``weights`` are now is what the next step must find. Another list has marks anew."""
        if weights is not self._weights:
            fit = [weight for weight in weights if weight.requires_grad and markable(weight)]
            self._marks = [_mark(weight) for weight in fit[:: -(-len(fit) // MOST) or 1]]
            self._weights = weights
            self._anchors = [element.item() for _, element, _ in self._marks]
        for place, (weight, _, memory) in enumerate(self._marks):
            here = weight.data_ptr()
            if not here:  # sharding takes the memory away between uses
                self._kept, self._elements, self._first = [], [], None
                return
            if here != memory:
                self._marks[place] = _mark(weight)
        self._elements = [element for _, element, _ in self._marks]
        self._first, self._last = self._elements if len(self._elements) == MOST else (None, None)
        self.keep_again()

    def keep_again(self) -> None:
        """The same after a step that is only counted: a weight that is put elsewhere is marked there a moment later."""
        if self._found:
            self._anchors, self._found = self._found, []
        if self._first is not None and self._last is not None:
            self._kept = [self._first.item(), self._last.item()]
        else:
            self._kept = [element.item() for element in self._elements]

    def as_kept(self) -> bool:
        """Whether nothing has been written, by the quickest look: NaN is equal to nothing here."""
        if self._first is not None and self._last is not None:
            return self._first.item() == self._kept[0] and self._last.item() == self._kept[1]
        return [element.item() for element in self._elements] == self._kept

    def written(self) -> float:
        """The share of the marked weights that are not what they were when the last step was over.

        A weight that was put elsewhere is compared there. NaN is equal to itself here: it stays what it was. Weights
        that all go the same part of the way back to where they were are an average that the job makes by hand.
        """
        if not self._kept:
            return 0.0
        moved, found = 0, []
        for (weight, element, memory), before in zip(self._marks, self._kept, strict=True):
            here = weight.data_ptr()
            now = before if not here else (element if here == memory else _mark(weight)[1]).item()
            found.append(now)
            moved += now != before and not (now != now and before != before)  # noqa: PLR0124
        if moved:
            self._found = found
        return 0.0 if moved and self._averaged(found) else moved / len(self._kept)

    def _averaged(self, found: list[float]) -> bool:
        """Whether all marked weights lie the same part of the way between the last writing and the last step.

        So do those of Reptile and of slow weights that follow fast ones; new ones and old ones that are loaded do not.
        """
        places = zip(found, self._anchors, self._kept, strict=True)
        shares = [(now - anchor) / (last - anchor) for now, anchor, last in places if last != anchor]
        if len(shares) < MOST:
            return False
        return min(shares) > 0.0 and max(shares) < 1.0 and max(shares) - min(shares) <= ALIKE


def markable(weight: torch.Tensor) -> bool:
    """Whether an element of ``weight`` can be read at once: it is dense, real and on the host."""
    plain = type(weight) in (Parameter, torch.Tensor) and weight.layout is torch.strided
    return plain and weight.is_cpu and weight.numel() > 0 and weight.is_floating_point()


def middle_element(weight: torch.Tensor) -> torch.Tensor:
    """A 0-d view of it: the first row of an embedding is often a padding that nothing ever moves."""
    plain = weight.detach()
    distance = sum((size // 2) * stride for size, stride in zip(plain.shape, plain.stride(), strict=True))
    return plain.as_strided((), (), plain.storage_offset() + distance)


def _mark(weight: torch.Tensor) -> Mark:
    return weight, middle_element(weight), weight.data_ptr()
