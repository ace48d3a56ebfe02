"""When the evidence is thin: say so, and say what to collect."""

from typing import ClassVar

from torchvitals.agent.case import Case, Opinion

LOOK_AT = {
    "nonfinite": "run the job again under `torchvitals run` with replay on, to name the first operation",
    "explosion": "look at the learning rate, the batch and the gradient norms just before the first step",
    "vanishing": "look at the layer profile of gradient norms from the first steps on",
    "memory_leak": "look for a list, dict or cache that grows with every step",
    "desync": "look for code that only some ranks run between the steps where the digests still agreed",
    "crash": "look at the process's own output and the kernel log at that moment",
}


class Unknown:
    """Explains everything with no evidence at all: the others must beat it."""

    word: ClassVar[str] = "unknown"
    explains: ClassVar[tuple[str, ...]] = ()
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion:
        finding = case.opening
        place = f" in {finding.name}" if finding.name else ""
        return Opinion(
            clues=[],
            title=f"{finding.kind.replace('_', ' ').capitalize()}{place} from step {finding.first_step}"[:79],
            explanation=(
                f"`{finding.kind}` was certain at step {finding.step}: {finding.value:.4g} against a limit of "
                f"{finding.threshold:.4g}. None of the known causes has enough evidence here."
            ),
            remedy=f"To find the cause, {LOOK_AT.get(finding.kind, 'compare with a run that was well')}.",
        )
