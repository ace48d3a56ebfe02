"""A model under spectral normalisation answers before the norms of its weights are known."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion


class UnconvergedSpectralNorm:
    """Speaks from the norm that is left of weights after they were divided by the estimate of it."""

    word: ClassVar[str] = "unconverged_spectral_norm"
    explains: ClassVar[tuple[str, ...]] = ("miswired",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = broken(case, "spectral_norm_unsettled")
        if finding is None:
            return None
        norm, when = finding.evidence.get("norm", 0.0), finding.first_step
        return Opinion(
            clues=[Clue(4.0, f"the normalised `{finding.name}` has a norm of at least {norm:.3g} in place of 1")],
            title=f"Spectral norm of `{finding.name}` is {norm:.3g} in an evaluation",
            explanation=(
                f"Before step {when} the model answered in evaluation mode, in which spectral normalisation does not "
                f"improve its estimate, and the estimates of {finding.value:.0f} weights have nothing to do with them: "
                f"what should have a norm of 1 has one of {norm:.3g}, and the answers are as far off in every layer."
            ),
            remedy=(
                "Let the estimate settle before the model is evaluated: a few forwards in training mode under "
                "`torch.no_grad()`, or `torch.nn.utils.parametrizations.spectral_norm` put on after the weights were "
                "drawn or loaded. Save, load and average the buffers (`u`, `v`) together with the weights."
            ),
            where=finding.name,
        )
