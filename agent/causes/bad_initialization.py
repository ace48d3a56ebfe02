"""Weights drawn so wide (or so oddly) that the first forward pass is already out of range."""

from typing import ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.step_evidence import first_value, raw_input

EARLY = 12
WIDE = 1e3
"""Outputs and gradients of a fresh net are of the order of 1; a thousand is no matter of taste."""


class BadInitialization:
    """Speaks from the first step, before any update: gradient, loss and outputs as the weights were drawn."""

    word: ClassVar[str] = "bad_initialization"
    explains: ClassVar[tuple[str, ...]] = (
        "explosion",
        "nonfinite",
        "divergence",
        "vanishing",
        "saturation",
        "plateau",
        "dead_relu",
    )
    prior: ClassVar[float] = -0.5

    def weigh(self, case: Case) -> Opinion | None:
        if case.opening.first_step > EARLY:
            return None
        layer, largest = _widest_output(case)
        norm = first_value(case, "gradient_norm_unclipped") or first_value(case, "gradient_norm")
        clues = _clues(case, norm, largest)
        if not any(clue.weight > 0 for clue in clues):
            return None
        return Opinion(
            clues=clues,
            title=f"Weights start far too large{f' in {layer}' if layer else ''}"[:79],
            explanation=f"Before any update {clues[0].text}: the weights as they were drawn are to blame, not a step.",
            remedy=(
                "Use the layers' own initialisation, or scale by 1/sqrt(fan_in) (torch.nn.init.kaiming_normal_, "
                "xavier_uniform_); normalise inputs and, in deep nets, activations."
            ),
            where=layer if largest > WIDE else "",
        )


def _widest_output(case: Case) -> tuple[str, float]:
    """The first module whose output is far wider than its input, and the largest output at the first sample."""
    profiles = case.history.profiles("module_output_absmax", case.opening.rank, case.opening.optimizer)
    if not profiles or profiles[0].step > 1:
        return "", 0.0
    values = np.nan_to_num(profiles[0].values, nan=0.0, posinf=np.inf)
    if not len(values):
        return "", 0.0
    wide = np.flatnonzero(values > WIDE)
    return (profiles[0].entries[int(wide[0])] if len(wide) else ""), float(values.max())


def _clues(case: Case, norm: float | None, largest: float) -> list[Clue]:
    clues = []
    if norm is not None and not norm < WIDE:
        clues.append(Clue(2.5, f"the gradient norm was {norm:.3g} already"))
    elif norm is not None and norm < WIDE / 10:
        clues.append(Clue(-2.0, f"the first gradient was ordinary ({norm:.3g})"))
    if largest > WIDE:
        clues.append(Clue(2.0, f"a module put out {largest:.3g}"))
    raw = raw_input(case)
    if clues and raw:
        clues.append(Clue(-3.0, f"the inputs are {raw:.3g} large themselves"))
    if case.opening.kind == "nonfinite" and case.opening.first_step == 0:
        clues.append(Clue(1.5, "the very first loss was not finite"))
    return clues
