"""The model waits for its data."""

from typing import Any, ClassVar

from torchvitals.agent.case import Case, Clue, Opinion


class SlowDataloader:
    """Speaks from the share of each step that is spent waiting for the loader."""

    word: ClassVar[str] = "slow_dataloader"
    explains: ClassVar[tuple[str, ...]] = ("input_bound", "slowdown")
    prior: ClassVar[float] = 0.2

    def weigh(self, case: Case) -> Opinion | None:
        bound = case.of_kind("input_bound")
        if not bound:
            return None
        finding = bound[0]
        share = float(finding.evidence.get("share", finding.value))
        loader: dict[str, Any] = case.facts.get("loader") or {}
        workers = loader.get("workers")
        clues = [
            Clue(2.5, f"{share:.0%} of each step is spent waiting for the loader from step {finding.first_step} on")
        ]
        if workers == 0:
            clues.append(Clue(1.0, "the loader has no worker processes: it works while the model waits"))
        late = [f.rank for f in case.of_kind("straggler") if f.evidence.get("phase") == "input"]
        if late and {f.rank for f in bound} <= set(late):
            clues.append(Clue(-3.0, f"only rank {late[0]} waits for its loader, and the others for it"))
        return Opinion(
            clues=clues,
            title=f"{share:.0%} of each step is waiting for data"[:79],
            explanation=(
                f"From step {finding.first_step} on, {share:.0%} of the step time is the data loader; without the wait "
                f"the job would be up to {float(finding.evidence.get('speedup', 1.0)):.1f} times as fast."
            ),
            remedy=(
                (
                    "Give the DataLoader worker processes (num_workers=2 or more, persistent_workers=True)"
                    if not workers
                    else f"Raise num_workers above {workers} or make an item cheaper to produce"
                )
                + ", decode or cache the data once instead of in every epoch, and set pin_memory for a GPU."
            ),
        )
