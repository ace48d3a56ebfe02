"""Every rank draws the same random numbers where each should draw its own: the same batches, many times over."""

from typing import Any, ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.ranks import ranks_text

SPLITS = ("DistributedSampler", "DistributedBatchSampler", "BatchSamplerShard")
"""Samplers that give each rank a part of its own."""
DRAWS = ("RandomSampler", "WeightedRandomSampler", "SubsetRandomSampler")
"""Samplers that follow the process's own seed."""


class DuplicatedAugmentationSeed:
    """The batches of several ranks are equal, and the loader's sampler says how that can be."""

    word: ClassVar[str] = "duplicated_augmentation_seed"
    explains: ClassVar[tuple[str, ...]] = ("duplicate_data",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        found = case.of_kind("duplicate_data")
        if not found:
            return None
        finding = found[0]
        equal, checks = finding.evidence.get("equal_checks"), finding.evidence.get("checks")
        ranks = ranks_text(list(finding.evidence.get("ranks", [])))
        who = ranks.capitalize()
        clues = [Clue(1.5, f"{ranks} had the same batch in {equal} of {checks} checks")]
        clues += _sampler(case.facts.get("loader") or {})
        return Opinion(
            clues=clues,
            title=f"{who} train on the same batches from step {finding.first_step}"[:79],
            explanation=(
                f"{who} had equal batches, to the last bit, in {equal} of {checks} checks from "
                f"step {finding.first_step} on: the job pays for {case.world_size} ranks and learns from fewer batches."
            ),
            remedy=(
                "Give each rank a part of its own: `DistributedSampler` with `set_epoch(epoch)`; for data or "
                "augmentation drawn at random, seed with the rank in it, for example `torch.manual_seed(seed + rank)`."
            ),
        )


def _sampler(loader: dict[str, Any]) -> list[Clue]:
    name = str(loader.get("sampler") or "")
    if name in SPLITS:
        return [Clue(-0.5, f"the loader's sampler is a {name}, which splits, unless it was told another rank or size")]
    if name in DRAWS:
        return [Clue(1.0, f"the loader's sampler is a {name}, which draws by the process's seed: it is the same here")]
    return [Clue(0.5, f"the loader's sampler is a {name}, which gives every rank all of the data")] if name else []
