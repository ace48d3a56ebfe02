"""Somebody wrote to the weights between two steps: drawn anew, loaded from elsewhere, swapped and not swapped back."""

from typing import Any, ClassVar

import numpy as np
from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.replaced_weights import replaced_before
from torchvitals.agent.step_evidence import at_onset, culprit, few_spoilt, grew, origin, settings
from torchvitals.detectors.detector import Finding

MOST = 0.6
"""Share of the weights that must have been written to; a layer that is calibrated is not the model."""
NEAR = 2
"""Steps between the writing and what it brings: the loss of the next step shows it."""
RARE = 0.05
"""Share of steps with writing beyond which it is a habit of the job: weight clipping, a swap with averages."""


class WeightsOverwritten:
    """Speaks from the version counters of the weights, which had moved between one step and the next.

    Of a weight that is suddenly not finite also from the replay, which found it so: the gradients before were finite.
    Of weights that were loaded from what is left of them when they are first used; of those of a service from one
    element of each, which was another from a request on.
    """

    word: ClassVar[str] = "weights_overwritten"
    explains: ClassVar[tuple[str, ...]] = (
        "lost_progress", "loss_spike", "explosion", "divergence", "update_ratio", "nonfinite", "miswired",
        "prediction_drift",
    )  # fmt: skip
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        opening = case.opening
        if opening.kind == "nonfinite":
            return _not_finite(case)
        if opening.kind == "miswired":
            return _after_loading(case)
        if served := case.of_kind("prediction_drift"):
            return _of_service(case, served)
        series = case.history.series("weights_overwritten", opening.rank, opening.optimizer)
        written = series.steps[series.values >= MOST]
        steps = case.history.series("loss", opening.rank, opening.optimizer).steps
        near = written[np.abs(written - opening.first_step) <= NEAR]
        if not len(near):
            return None
        step, habit = int(near[0]), len(written) > max(2.0, RARE * len(steps))
        clues = [Clue(4.0, f"the weights were written to just before step {step}, by something else than the step")]
        if habit:
            clues.append(Clue(-3.5, f"they are in {len(written)} of {len(steps)} steps"))
        if lost := case.of_kind("lost_progress"):
            clues.append(Clue(1.0, f"the loss went from {lost[0].evidence['before']:.3g} back to {lost[0].value:.3g}"))
        return Opinion(
            clues=clues,
            title=f"The weights were overwritten before step {step}",
            explanation=(
                f"Between step {step - 1} and step {step} something other than the optimizer wrote to the weights, and "
                "what had been learnt is gone. The optimizer's moments still belong to the weights that were there."
            ),
            remedy=(
                f"Look for what runs before step {step}: an initialisation (`apply`, `reset_parameters`), a "
                "`load_state_dict` of an old or partial checkpoint, averaged weights that were swapped in. After a "
                "reload the optimizer's state must be loaded, too."
            ),
            where="parameters",
            first_step=step,
        )


def _after_loading(case: Case) -> Opinion | None:
    """What was loaded was gone before anybody used it."""
    finding = broken(case, "loaded_then_overwritten")
    if finding is None:
        return None
    model = finding.evidence.get("model", "model")
    return Opinion(
        clues=[
            Clue(4.0, f"of {finding.value:.0f} weights that the {model} had loaded nothing was left at its first use")
        ],
        title=f"What the {model} had loaded was overwritten before its first use",
        explanation=(
            f"`load_state_dict` put a checkpoint into the {model}, and then its weights, `{finding.name}` first, got "
            "other values that have nothing to do with it: the training begins from nothing."
        ),
        remedy=(
            "Load after everything that draws weights: constructors, `apply`, `reset_parameters`, `post_init`. With "
            "several ranks, load before the wrapper shares the weights of the first rank, or on all of them."
        ),
        where="parameters",
    )


def _of_service(case: Case, drifted: list[Finding]) -> Opinion | None:
    """A service answers otherwise from the request on before which somebody replaced its weights."""
    event = replaced_before(case, drifted[0].first_step)
    if event is None:
        return None
    details = event.details
    request, names = details["request"], details["parameters"]
    named = ", ".join(f"`{name}`" for name in names[:3])
    count = f"{details['count']} of {details['of']}"
    return Opinion(
        clues=[Clue(4.0, f"{count} weights looked at were others before request {request} than before: {named}")],
        title=f"Other weights from request {request} on, and other answers",
        explanation=(
            f"Before request {request} something wrote to the weights of the model ({named}; {count} that were looked "
            "at are others than before), and from there on its answers are others, with inputs as they were: a reload "
            "brought another model, or only a part of one."
        ),
        remedy=(
            f"Look for what loads weights at request {request} (`load_state_dict`, also if not strict) and compare its "
            f"checkpoint with the one before, {named} first. Go back to the weights that answered until then, and "
            "try a new version on stored requests before it answers live ones."
        ),
        where=names[0],
        first_step=request,
    )


def _not_finite(case: Case) -> Opinion | None:
    """A weight that the last update cannot have made so."""
    found, step = origin(case), case.opening.first_step
    if not found or found.get("operation") != "parameter" or step <= 0 or grew(case) or culprit(case) is not None:
        return None
    rate = at_onset(case, "learning_rate")
    if 0.0 in settings(case, "eps") or (rate is not None and not np.isfinite(rate)):
        return None  # then an update of finite gradients need not be finite
    name, entries = str(found.get("parameter") or ""), found.get("elements") or []
    number = int((found.get("inputs") or {}).get("nonfinite") or len(entries))
    innocent = _update_was_finite(case, found, number)
    if not innocent:
        return None
    return Opinion(
        clues=[Clue(2.5, f"`{name}` was not finite already when the forward pass of step {step} began"), innocent],
        title=f"`{name}` was written to before step {step}",
        explanation=(
            f"When step {step} began {number} of the values of `{name}` were not finite ({found.get('value')}, flat "
            f"index {', '.join(map(str, entries[:4]))}), and no operation of that step made them so: something other "
            "than the optimizer wrote to the weight, or its memory was damaged."
        ),
        remedy=(
            f"Look for code that writes to `{name}` between steps (`no_grad`, `.data`, `copy_`, a custom update or "
            "averaging). If there is none, suspect the memory of the machine: run the job elsewhere, from a checkpoint."
        ),
        where=name,
        first_step=step,
    )


def _update_was_finite(case: Case, found: dict[str, Any], number: int) -> Clue | None:
    """Why the last step has not made ``number`` values so; ``None`` where its gradient was looked at in part only."""
    step = case.opening.first_step
    norms = case.history.series("gradient_norm", case.opening.rank, case.opening.optimizer)
    if np.isfinite(norms.values[norms.steps == step - 1]).any():
        return Clue(1.5, f"the gradients of step {step - 1} were finite, all of them")
    if few_spoilt(found):
        size = int(np.prod(found.get("shape") or [0]))
        return Clue(
            1.0, f"{number} of its {size} values are not finite; a gradient that is not would spoil more of them"
        )
    return None
