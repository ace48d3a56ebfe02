"""Who wrote to the weights? Tensors count how often they were written to, and a step writes as often as the last."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torchvitals.hooks.optimizers import OptimizerWatch


class Written(NamedTuple):
    """How often each of a few weights had been written to when a step had ended, and how often that step had."""

    calls: int
    versions: dict[int, int]
    by_step: dict[int, int]


class Writes:
    """Compares, between steps of each optimizer, the version counters of its trip-wire's weights.

    Steps that nobody looked at in between are taken to have written as often as the last one that was. What is
    written through ``.data`` is not counted by torch: see hooks/weight_marks.py.
    """

    def __init__(self) -> None:
        self._before: dict[int, dict[int, int]] = {}
        self._after: dict[int, Written] = {}

    def before(self, watch: "OptimizerWatch") -> float:
        """``watch`` is about to step: the share of the weights that somebody else has written to since it did."""
        now = _versions(watch)
        self._before[watch.index] = now
        last = self._after.get(watch.index)
        if last is None:
            return 0.0
        steps = watch.calls - last.calls - 1
        known = [key for key in now if key in last.versions]
        more = sum(now[key] > last.versions[key] + steps * last.by_step.get(key, 0) for key in known)
        return more / len(known) if known else 0.0

    def after(self, watch: "OptimizerWatch") -> None:
        """It has stepped."""
        now, before = _versions(watch), self._before.get(watch.index, {})
        by_step = {key: version - before.get(key, version) for key, version in now.items()}
        self._after[watch.index] = Written(watch.calls, now, by_step)


def _versions(watch: "OptimizerWatch") -> dict[int, int]:
    return {id(parameter): parameter._version for parameter in watch.tripwire}
