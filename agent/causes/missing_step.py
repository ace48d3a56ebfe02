"""An optimizer was built for parameters that get gradients, and its ``step()`` is never called."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.layer_names import layer_of
from torchvitals.detectors.detector import Finding


class MissingStep:
    """Speaks from optimizers that have never stepped while another one has, hundreds of times."""

    word: ClassVar[str] = "missing_step"
    explains: ClassVar[tuple[str, ...]] = ("miswired",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = broken(case, "never_stepped")
        if finding is None:
            return None
        if finding.evidence.get("backward_passes"):
            return _never(finding)
        name, count = finding.evidence.get("optimizer", "optimizer"), finding.value
        layer = layer_of(str(finding.evidence.get("parameter", "")))
        return Opinion(
            clues=[Clue(3.5, f"an {name} holds {count:.0f} parameters with gradients and has not stepped once")],
            title=f"step() of the {name} of {layer} is never called",
            explanation=(
                f"By step {finding.step} of the other optimizer, the {name} that holds {count:.0f} parameters, {layer} "
                "first, has not stepped. They get gradients, and no other optimizer holds them: they do not learn."
            ),
            remedy="Call its step() in the training loop, or give its parameters to the optimizer that is stepped.",
            where=layer,
        )


def _never(finding: Finding) -> Opinion:
    """Nothing has stepped in the whole job."""
    name, passes = finding.evidence.get("optimizer", "optimizer"), finding.evidence["backward_passes"]
    return Opinion(
        clues=[
            Clue(4.0, f"{passes} backward passes, and the {name} did not step once"),
            Clue(1.0, "the weights are what they were after the first"),
        ],
        title=f"optimizer.step() is never called: the {name} has not stepped once",
        explanation=(
            f"The job ended after {passes} backward passes. The {name} holds {finding.value:.0f} parameters, which got "
            "gradients and never changed: nothing was learnt."
        ),
        remedy=(
            "Call optimizer.step() after backward(). If it stands behind a condition, as under accumulation, look "
            "whether that can hold: a count that begins anew with each epoch never reaches more than its batches."
        ),
        where=layer_of(str(finding.evidence.get("parameter", ""))),
        first_step=0,
    )
