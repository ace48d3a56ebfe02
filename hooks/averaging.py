"""Ranks that share no gradients but, every so many steps, their weights, as LocalSGD and DiLoCo do: do they meet?

After each of their steps such ranks differ, as they should. They are equal, if at all, when the next step begins: so
the weights are summed once more there, in steps before which the ranks have talked. A job that shares its gradients
pays nothing for it.
"""


class Averaging:
    """Whether ranks may have averaged their weights since the last step; counts collectives and nothing else.

    >>> averaging = Averaging()
    >>> averaging.step_over(shared=0.0, issued=10)
    >>> averaging.due(issued=10), averaging.due(issued=14)
    (False, True)
    >>> averaging.step_over(shared=2.0, issued=16)
    >>> averaging.due(issued=18)
    False
    """

    def __init__(self) -> None:
        self._issued: int | None = None
        """Collectives when the last step was over, if it shared no gradients."""

    def step_over(self, shared: float | None, issued: int) -> None:
        """A step has ended in whose backward ``shared`` collectives were issued; ``issued`` are all so far."""
        self._issued = issued if shared == 0 else None

    def due(self, issued: int | None) -> bool:
        """Whether ranks have talked between the last step and a backward before which ``issued`` collectives were."""
        return self._issued is not None and issued is not None and issued > self._issued
