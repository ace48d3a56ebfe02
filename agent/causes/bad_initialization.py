"""Weights drawn so wide (or so oddly) that the first forward is out of range, or so that none of them can learn."""

from typing import Any, ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.layer_names import layer_of
from torchvitals.agent.step_evidence import first_move, first_value, origin, raw_input

EARLY = 12
WIDE = 1e3
"""Outputs and gradients of a fresh net are of the order of 1; a thousand is no matter of taste."""
USUAL_GAIN = 10.0
"""Largest output over largest input; of fresh nets as the usual schemes draw them it is 0.3 to 3."""
MOVED = 0.1
"""Of the weights of a layer: a usual first update is 0.001 to 0.01 of them, one of a tenth makes another net."""
LONG_ROW = 4.0
"""Rows of weights as the usual schemes draw them have lengths of 0.6 to 1.4; on standardised inputs a unit behind a
longer one gets inputs of this size, where tanh and sigmoid are flat."""


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
        if broken := _not_finite(case):
            return broken
        if blocked := _all_zero(case):
            return blocked
        if flat := _flat_from_start(case):
            return flat
        layer, largest = _widest_output(case)
        norm = first_value(case, "gradient_norm_unclipped") or first_value(case, "gradient_norm")
        clues = _clues(case, norm, largest)
        if not any(clue.weight > 0 for clue in clues):
            return None
        return Opinion(
            clues=clues,
            title=f"Weights start far too large{f' in {layer}' if layer else ''}",
            explanation=f"Before any update {clues[0].text}: the weights as they were drawn are to blame, not a step.",
            remedy=(
                "Use the layers' own initialisation, or scale by 1/sqrt(fan_in) (torch.nn.init.kaiming_normal_, "
                "xavier_uniform_); normalise inputs and, in deep nets, activations."
            ),
            where=layer if largest > WIDE else "",
        )


def _not_finite(case: Case) -> Opinion | None:
    """A weight that was not finite before the first step: read from a file, or drawn so."""
    found = origin(case) or {}
    if case.opening.kind != "nonfinite" or case.opening.first_step > 0 or found.get("operation") != "parameter":
        return None
    name, entries = str(found.get("parameter") or ""), ", ".join(map(str, (found.get("elements") or [])[:4]))
    return Opinion(
        clues=[Clue(4.0, f"`{name}` was not finite before the first step")],
        title=f"`{name}` is not finite before the first step",
        explanation=(
            f"When the first forward pass began `{name}` held {found.get('value')} (flat index {entries}): it was "
            "drawn so, or came so from a checkpoint."
        ),
        remedy=(
            "If the weights are loaded, take an older checkpoint: this one was saved when the run was already broken. "
            "Else look at how this weight is drawn (uninitialised `torch.empty`, a division by a fan of 0)."
        ),
        where=name,
    )


def _all_zero(case: Case) -> Opinion | None:
    """No gradient from the first step on, and weights of exactly zero: where two of them follow, neither gets one."""
    nothing = [f for f in case.of_kind("vanishing") if f.evidence.get("everywhere")]
    dead = next((f for f in (*nothing, *case.of_kind("dead_relu")) if nothing or f.evidence.get("from_start")), None)
    profiles = case.history.profiles("parameter_weight_norm", case.opening.rank, case.opening.optimizer)
    if dead is None or dead.first_step > 1 or not profiles or profiles[0].step > 1:
        return None
    zero = np.flatnonzero(profiles[0].values == 0)
    matrices = [profiles[0].entries[int(i)] for i in zero if not profiles[0].entries[int(i)].endswith("bias")]
    if not matrices or (dead.kind == "dead_relu" and dead.name not in matrices):
        return None
    what = "no parameter has a gradient" if nothing else f"no unit of {layer_of(dead.name)} is ever active"
    said = f"{len(matrices)} trainable weights are exactly zero and {what}"
    return Opinion(
        clues=[Clue(4.5, said)],
        title=f"Weights start at zero: {matrices[0]} and others get no gradient",
        explanation=(
            f"From the first step on {said}. What is multiplied by zero passes no gradient on: of two factors one may "
            "start at zero, never both."
        ),
        remedy=(
            "Draw one of each pair at random: in a low-rank adapter A from kaiming_uniform_ and only B at zero, in a "
            "residual branch only the last layer at zero."
        ),
        where=matrices[0],
    )


def _flat_from_start(case: Case) -> Opinion | None:
    """Units that were saturated before any update, by weights that are longer than any scheme draws them."""
    flat = next((f for f in case.of_kind("saturation") if f.evidence.get("from_start")), None)
    layer, length = _longest_rows(case)
    if flat is None or raw_input(case) or length < LONG_ROW:
        return None
    said = f"the weights of each unit in {layer} have a norm of {length:.3g} at the start; usual are 0.6 to 1.4"
    return Opinion(
        clues=[Clue(4.5, said)],
        title=f"Weights start too large in {layer}: {layer_of(flat.name)} is saturated",
        explanation=(
            f"{flat.value:.0%} of the outputs of {layer_of(flat.name)} are flat from the first step on, and {said}. "
            "Little gradient passes such units, so the layers before them learn slowly or not at all."
        ),
        remedy="Draw the weights with torch.nn.init.xavier_uniform_ and the gain of the activation.",
        where=layer,
    )


def _longest_rows(case: Case) -> tuple[str, float]:
    """The layer whose weights had the longest rows before the first update, and their usual length.

    Norms are taken after the step, and a step can be as long as the weights: what it added is taken off.
    """
    weights = case.history.profiles("parameter_weight_norm", case.opening.rank, case.opening.optimizer)
    counts = case.history.profiles("parameter_rows", case.opening.rank, case.opening.optimizer)
    if not weights or not counts or weights[0].step > 1 or weights[0].step != counts[0].step:
        return "", 0.0
    rows, norms = counts[0].values, weights[0].values
    updates = case.history.profiles("parameter_update_norm", case.opening.rank, case.opening.optimizer)
    if updates and updates[0].step == weights[0].step and len(updates[0].values) == len(norms):
        norms = np.maximum(norms - np.nan_to_num(updates[0].values, posinf=0.0), 0.0)
    length = np.where(rows > 0, norms / np.sqrt(np.maximum(rows, 1.0)), 0.0)
    longest = int(np.nanargmax(np.nan_to_num(length)))
    return layer_of(weights[0].entries[longest]), float(length[longest])


def _widest_output(case: Case) -> tuple[str, float]:
    """The first module whose output is far wider than its input, and the largest output at the first sample.

    Outputs are first seen in the second step: they tell of the weights as drawn where the first moved them by little.
    """
    profiles = case.history.profiles("module_output_absmax", case.opening.rank, case.opening.optimizer)
    if not profiles or profiles[0].step > 1 or (profiles[0].step == 1 and first_move(case) > MOVED):
        return "", 0.0
    values = np.nan_to_num(profiles[0].values, nan=0.0, posinf=np.inf)
    if not len(values):
        return "", 0.0
    wide = np.flatnonzero(values > WIDE)
    return (profiles[0].entries[int(wide[0])] if len(wide) else ""), float(values.max())


def _clues(case: Case, norm: float | None, largest: float) -> list[Clue]:
    clues = []
    if norm is not None and norm >= WIDE:  # NaN is no size
        clues.append(Clue(2.5, f"the gradient norm was {norm:.3g} already"))
    elif norm is not None and norm < WIDE / 10:
        clues.append(Clue(-2.0, f"the first gradient was ordinary ({norm:.3g})"))
    if largest > WIDE:
        clues.append(Clue(2.0, f"a module put out {largest:.3g}"))
    clues += [Clue(3.0, said) for f in case.of_kind("explosion") if (said := _wild(f.evidence, f.value))]
    raw = raw_input(case)
    if clues and raw:
        # outputs and gradients of a net as usual have the size of its inputs
        explained = 0 < largest <= USUAL_GAIN * raw
        clues.append(Clue(-6.0 if explained else -3.0, f"the inputs are {raw:.3g} large themselves"))
    if case.opening.kind == "nonfinite" and case.opening.first_step == 0 and _loss_broken(case):
        clues.append(Clue(1.5, "the very first loss was not finite"))
    return clues


def _wild(evidence: dict[str, Any], value: float) -> str:
    """What was out of proportion before any update."""
    if evidence.get("signal") == "first_loss":
        classes, chance = evidence["classes"], evidence["chance"]
        return f"the first loss is {value:.3g}, and guessing among {classes:.0f} classes costs {chance:.2g}"
    if evidence.get("signal") == "first_answers":
        targets, inputs = evidence["targets"], evidence["inputs"]
        return f"the first answers are {value:.3g} large, of inputs up to {inputs:.3g} and for targets of {targets:.3g}"
    return ""


def _loss_broken(case: Case) -> bool:
    """Whether it was the loss, and not a gradient of a finite one."""
    return "loss" in case.opening.evidence.get("signals", ["loss"])
