"""Ranks or loader workers draw the same random numbers where each should draw its own: the same batches again."""

from typing import Any, ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.ranks import ranks_text
from torchvitals.detectors.detector import Finding

SPLITS = ("DistributedSampler", "DistributedBatchSampler", "BatchSamplerShard")
"""Samplers that give each rank a part of its own."""
DRAWS = ("RandomSampler", "WeightedRandomSampler", "SubsetRandomSampler")
"""Samplers that follow the process's own seed."""


class DuplicatedAugmentationSeed:
    """The batches of several ranks, or of a loader's workers, are equal, and the sampler says how that can be."""

    word: ClassVar[str] = "duplicated_augmentation_seed"
    explains: ClassVar[tuple[str, ...]] = ("duplicate_data", "miswired")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        if workers := broken(case, "cloned_workers"):
            return _of_workers(workers)
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
            title=f"{who} train on the same batches from step {finding.first_step}",
            explanation=(
                f"{who} had equal batches, to the last bit, in {equal} of {checks} checks from "
                f"step {finding.first_step} on: the job pays for {case.world_size} ranks and learns from fewer batches."
            ),
            remedy=(
                "Give each rank a part of its own: `DistributedSampler` with `set_epoch(epoch)`; for data or "
                "augmentation drawn at random, seed with the rank in it, for example `torch.manual_seed(seed + rank)`."
            ),
        )


def _of_workers(finding: Finding) -> Opinion:
    workers, batches, distinct = (int(finding.evidence.get(key, 0)) for key in ("workers", "batches", "distinct"))
    return Opinion(
        clues=[Clue(4.0, f"of {batches} batches of {workers} loader workers only {distinct} were different")],
        title=f"All {workers} loader workers give the same batches",
        explanation=(
            f"Of the first {batches} batches only {distinct} were different: each worker process has a copy of one "
            "random generator, so all of them draw the same samples. The job learns from a part of its data, "
            f"{workers} times over."
        ),
        remedy=(
            "Seed the dataset's own generator in each worker: `worker_init_fn`, or `torch.utils.data.get_worker_info()"
            ".seed` where it is made. A generator kept in the dataset or its class is copied as it stands."
        ),
        where="data loader",
    )


def _sampler(loader: dict[str, Any]) -> list[Clue]:
    name = str(loader.get("sampler") or "")
    if name in SPLITS:
        return [Clue(-0.5, f"the loader's sampler is a {name}, which splits, unless it was told another rank or size")]
    if name in DRAWS:
        return [Clue(1.0, f"the loader's sampler is a {name}, which draws by the process's seed: it is the same here")]
    return [Clue(0.5, f"the loader's sampler is a {name}, which gives every rank all of the data")] if name else []
