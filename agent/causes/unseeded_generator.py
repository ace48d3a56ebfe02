"""Something in the forward pass draws numbers that no seed of torch decides."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion


class UnseededGenerator:
    """A generator of the job's own, the time, another library: a step differs although torch's state was put back."""

    word: ClassVar[str] = "unseeded_generator"
    explains: ClassVar[tuple[str, ...]] = ("nondeterminism",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = case.findings[0]
        told = finding.evidence
        how = told.get("differs")
        if how not in ("draws", "inputs", "path"):
            return None
        operation, line = str(told["operation"]), told.get("line") or "the model"
        clue = {
            "draws": f"{operation} at {line} drew other numbers although torch's generators stood at the same place",
            "inputs": f"{operation} at {line} was given other values, which no operation of torch made",
            "path": f"at {line} the step took another way: {operation} instead of {told.get('instead') or 'nothing'}",
        }[str(how)]
        return Opinion(
            clues=[Clue({"draws": 4.0, "inputs": 3.0, "path": 2.0}[str(how)], clue)],
            title=f"The model draws numbers of its own at {line}",
            explanation=(
                f"Step {finding.first_step} was run again from the same weights, batch and random numbers of torch, "
                f"Python and numpy: {clue}."
            ),
            remedy=(
                f"Seed the generator used at {line}, or draw from torch's; a state that the model keeps outside of "
                "parameters and buffers (a counter, a cache) can be the reason as well."
            ),
        )
