"""What is known around the first difference of two runs: which batches, which generators, which facts differ."""

import msgspec
import numpy as np
from torchvitals.agent.compare.fact_differences import FactDifference, Group
from torchvitals.agent.compare.first_difference import Agreement, Difference
from torchvitals.agent.compare.recorded import Rank, Recorded


class Generator(msgspec.Struct, frozen=True):
    """One random generator in both runs: where its states first differ, and whether anybody draws from it."""

    name: str
    step: int
    used: bool


class Scene(msgspec.Struct, kw_only=True):
    """What a reason may look at."""

    a: Recorded
    b: Recorded
    agreement: Agreement
    first: Difference
    facts: list[FactDifference]
    generators: list[Generator]
    batch: int | None
    """First step whose batches differ, of those both recorded."""
    batches: int
    """Batches both recorded up to the first difference."""

    def of(self, *groups: Group) -> list[FactDifference]:
        """The differing facts of some groups."""
        return [fact for fact in self.facts if fact.group in groups]

    @property
    def drawn(self) -> list[Generator]:
        """The generators in use that stood elsewhere no later than the first difference."""
        return [g for g in self.generators if g.used and g.step <= self.first.step]

    @property
    def data_differ(self) -> bool:
        """Whether other batches came first."""
        return self.batch is not None and self.batch <= self.first.step


def scene(a: Recorded, b: Recorded, agreement: Agreement, facts: list[FactDifference]) -> Scene:
    """Gather what the reasons look at.

    Raises:
        ValueError: nothing differs.

    """
    if agreement.first is None:
        raise ValueError("equal runs need no reason")
    mine, theirs = a.ranks[agreement.rank], b.ranks[agreement.rank]
    batch, batches = _first_batch(mine, theirs, agreement.first.step)
    return Scene(
        a=a, b=b, agreement=agreement, first=agreement.first, facts=facts,
        generators=_generators(mine, theirs), batch=batch, batches=batches,
    )  # fmt: skip


def _first_batch(a: Rank, b: Rank, step: int) -> tuple[int | None, int]:
    a_steps, a_values = a.series("batch_digest")
    b_steps, b_values = b.series("batch_digest")
    common, left, right = np.intersect1d(a_steps, b_steps, assume_unique=True, return_indices=True)
    other = common[a_values[left] != b_values[right]]
    return (int(other[0]) if len(other) else None), int((common <= step).sum())


def last_batch(seen: Scene) -> int:
    """The last step up to the first difference whose batches both recorded."""
    rank = seen.a.ranks[seen.agreement.rank]
    steps = np.intersect1d(rank.series("batch_digest")[0], seen.b.ranks[seen.agreement.rank].series("batch_digest")[0])
    return int(steps[steps <= seen.first.step][-1])


def _generators(a: Rank, b: Rank) -> list[Generator]:
    key = ("generator", "generator")
    mine, theirs = a.digests.get(key, {}), b.digests.get(key, {})
    names = a.entries.get("generator", [])
    common = sorted(mine.keys() & theirs.keys())
    found = []
    for index, name in enumerate(names):
        differing = [step for step in common if mine[step][index] != theirs[step][index]]
        if differing:
            used = any(len({int(run[step][index]) for step in run}) > 1 for run in (mine, theirs))
            found.append(Generator(name, differing[0], used))
    return found
