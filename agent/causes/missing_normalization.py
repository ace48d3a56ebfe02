"""Nothing holds the scale: raw inputs of hundreds, or a deep stack in which each layer multiplies."""

from typing import ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.step_evidence import largest_move, leap, raw_input, scalars

DEEP = 10
"""Weight layers from which a factor of 2 per layer is a factor of 1000."""
SPREAD = 1e3
STILL = 0.02
"""An update of a layer relative to its weights that cannot have made a loss grow ``GROWN`` times."""
SMALL = 0.05
"""One that would hardly have: blow-ups have 0.1 and more, a step that follows growing gradients 0.03."""
GROWN = 30.0
RISING = 8
"""Steps over which a loss must have gone on growing: one batch that is out of line is not what this is about."""
EARLY = 12
"""Steps within which unscaled inputs wreck a run, if they do."""


class MissingNormalization:
    """Speaks from the size of the inputs, from the architecture, and from gradients that change from layer to layer."""

    word: ClassVar[str] = "missing_normalization"
    explains: ClassVar[tuple[str, ...]] = ("explosion", "divergence", "vanishing", "nonfinite", "plateau", "dead_relu")
    prior: ClassVar[float] = -1.0

    def weigh(self, case: Case) -> Opinion | None:
        raw = raw_input(case)
        if raw and case.opening.first_step <= EARLY:
            return _of_inputs(case, raw)
        return _of_targets(case) or self._of_depth(case)

    def _of_depth(self, case: Case) -> Opinion | None:
        models = case.facts.get("models") or []
        layers = max((int(model.get("weight_layers") or 0) for model in models), default=0)
        if layers < DEEP or any(model.get("norms") for model in models):
            return None
        clues = [Clue(1.0, f"{layers} weight layers and no normalisation layer")]
        spread = _spread(case)
        if spread > SPREAD:
            clues.append(Clue(1.5, f"gradients of the layers differ by a factor of {spread:.2g}"))
        if case.opening.kind == "nonfinite":
            clues.append(Clue(-1.0, "values were ordinary until they were not finite"))
        return Opinion(
            clues=clues,
            title=f"{layers} layers without normalisation",
            explanation=(
                f"The model has {layers} weight layers and nothing that holds the scale of its activations, so a "
                "factor per layer becomes a power of the depth."
            ),
            remedy="Add LayerNorm or BatchNorm between the layers, or residual connections of small initial weight.",
        )


def _of_inputs(case: Case, raw: float) -> Opinion:
    step = case.opening.first_step
    return Opinion(
        clues=[Clue(4.0, f"the inputs reach {raw:.3g} unscaled, and it began at step {step}, with the first updates")],
        title=f"Inputs of up to {raw:.3g} go into the model unscaled",
        explanation=(
            f"The first batch reaches {raw:.3g}. Gradients of the first layer grow with its inputs, so a learning rate "
            f"that suits inputs near 1 overshoots: it began at step {step}."
        ),
        remedy=(
            "Standardise each feature with the mean and deviation of the training data (divide pixels by 255), or put "
            "a BatchNorm or LayerNorm in front of the first layer."
        ),
        where="input",
    )


def _of_targets(case: Case) -> Opinion | None:
    """The loss grows by orders of magnitude, and the weights, the rate and the inputs stay where they were."""
    opening, moved = case.opening, largest_move(case)
    if opening.kind not in ("explosion", "divergence") or moved is None or not moved < SMALL:
        return None
    loss, step = scalars(case, "loss"), opening.first_step
    before, since = np.abs(loss.before(step, 200)), np.abs(loss.values[loss.steps >= step])
    if len(before) < RISING or len(since) < 2 * RISING or not np.isfinite(since).all():
        return None
    grown = float(np.median(since[-RISING:]) / max(float(np.median(before)), 1e-12))
    lasting = np.median(since[-RISING:]) > np.median(since[:RISING]) > np.median(before)
    if not lasting or grown < GROWN or leap(case, "input_absmax"):
        return None
    return Opinion(
        clues=[
            Clue(
                3.5 if moved < STILL else 2.5,
                f"the loss grew {grown:.3g}-fold while no layer moved by more than {moved:.2g} of its weights",
            ),
            Clue(1.0, "the inputs are as large as ever: what the answers are compared with has grown"),
        ],
        title=f"What the loss compares with grows without bound from step {step}",
        explanation=(
            f"From step {step} on the loss grew {grown:.3g}-fold. No layer moved by more than {moved:.2g} of its "
            "weights in a step and the inputs did not change, so it is the targets (returns, rewards, sums) that grow."
        ),
        remedy=(
            "Bound what the loss is computed from: normalise returns or targets by a running mean and deviation, "
            "discount or clip rewards, average where something is summed over a growing length."
        ),
        where="target",
    )


def _spread(case: Case) -> float:
    """Largest over smallest gradient norm of the parameters at the first sample."""
    profiles = case.history.profiles("parameter_gradient_norm", case.opening.rank, case.opening.optimizer)
    if not profiles:
        return 1.0
    values = profiles[0].values[np.isfinite(profiles[0].values) & (profiles[0].values > 0)]
    return float(values.max() / values.min()) if len(values) > 1 else 1.0
