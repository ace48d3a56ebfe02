"""A likelihood, or a divergence, is given scores or probabilities where it takes the logarithms of probabilities."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion


class MissingLogSoftmax:
    """Speaks from what the loss was given, read off its graph: it is above 0, or comes out of a softmax."""

    word: ClassVar[str] = "missing_log_softmax"
    explains: ClassVar[tuple[str, ...]] = ("miswired", "divergence", "explosion")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = broken(case, "no_log_probabilities")
        if finding is None:
            return None
        given = str(finding.evidence.get("given") or "scores")
        loss = str(finding.evidence.get("loss") or "negative log-likelihood")
        harm = (
            "its gradients are not those of a likelihood, and the model trains slowly and badly"
            if given == "probabilities"
            else "it has no lowest value, the scores grow without end and the loss falls below zero"
        )
        return Opinion(
            clues=[Clue(5.0, f"the {loss} at {finding.name} is given {given}")],
            title=f"The loss at {finding.name} gets {given}, not their logarithms",
            explanation=(
                f"The {loss} at {finding.name} takes log-probabilities as they are, and is given {given}: {harm}."
            ),
            remedy=(
                "Give it log_softmax of the model's scores; where it is a likelihood of labels, the scores themselves "
                "can go to cross_entropy, which takes the logarithm itself and needs no softmax in the model."
            ),
            where=finding.name,
        )
