"""An operation asked for what does not exist: the logarithm of zero, the root of a negative number, 0/0."""

from typing import Any, ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.step_evidence import at_onset, culprit, few_spoilt, grew, origin, place, settings
from torchvitals.detectors.detector import Finding

DOMAINS: dict[str, str] = {
    "log": "needs arguments above 0",
    "log2": "needs arguments above 0",
    "log10": "needs arguments above 0",
    "log1p": "needs arguments above -1",
    "logit": "needs arguments between 0 and 1",
    "xlogy": "needs arguments above 0",
    "sqrt": "needs arguments above 0 (at 0 its gradient is infinite)",
    "rsqrt": "needs arguments above 0",
    "div": "must not divide by 0",
    "reciprocal": "must not divide by 0",
    "pow": "has no real value, or an infinite gradient, there",
    "acos": "needs arguments inside (-1, 1)",
    "asin": "needs arguments inside (-1, 1)",
    "acosh": "needs arguments above 1",
    "atanh": "needs arguments inside (-1, 1)",
    "erfinv": "needs arguments inside (-1, 1)",
    "exp": "overflows float32 above 88",
    "expm1": "overflows float32 above 88",
    "norm": "has no gradient at 0",
    "linalg_vector_norm": "has no gradient at 0",
    "std": "has no gradient for equal values",
    "var": "needs two values",
    "softmax": "has no value when every entry is -inf",
    "_softmax": "has no value when every entry is -inf",
    "_log_softmax": "has no value when every entry is -inf",
    "atan2": "has no gradient at (0, 0)",
    "fmod": "must not divide by 0",
    "remainder": "must not divide by 0",
    "binary_cross_entropy": "needs probabilities",
    "linalg_solve": "needs a matrix of full rank",
    "linalg_inv": "needs a matrix of full rank",
    "linalg_cholesky": "needs a positive definite matrix",
    "mean": "has no value over nothing",
    "nll_loss": "has no mean where every target is ignored",
    "nll_loss2d": "has no mean where every target is ignored",
}
MEANS = ("mean", "nll_loss", "nll_loss2d", "mse_loss", "smooth_l1_loss", "huber_loss",
         "binary_cross_entropy_with_logits", "binary_cross_entropy")  # fmt: skip
"""Operations that divide a sum by the number of what they were given, which may be none."""

OVERFLOWING = ("pow", "norm", "linalg_vector_norm", "std", "var", "div", "mean")
"""Operations that also end where float32 ends; there what fed them is to blame, not they."""
HUGE = 1e15
"""Inputs of this size are no edge of a domain: the square of 2e19 is infinite whatever the operation meant."""


class NumericalDomainError:
    """Speaks from the operation that the replay named; without one, only from how sudden it was."""

    word: ClassVar[str] = "numerical_domain_error"
    explains: ClassVar[tuple[str, ...]] = ("nonfinite",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        broken = case.of_kind("nonfinite")
        if not broken:
            return None
        if broken[0].evidence.get("signal") == "answers":
            return _of_answers(case, broken[0])
        found = origin(case)
        name = _operation(found) if found else ""
        step = broken[0].first_step
        if found and name == "parameter" and 0.0 in settings(case, "eps"):
            return _update_without_eps(found, step)
        if found and name == "parameter" and not few_spoilt(found) and not grew(case) and _unread(case, step - 1):
            return _unread_update(found, step - 1)
        return Opinion(
            clues=[*_of_origin(found, name), *_of_course(case)],
            title=_title(found, name, step),
            explanation=_explanation(found, name, step),
            remedy=_remedy(found, name),
            where=place(found),
            rank=culprit(case),
        )


def _of_answers(case: Case, finding: Finding) -> Opinion | None:
    """A service was given numbers and answered NaN."""
    evidence, request = finding.evidence, finding.first_step
    if evidence.get("given"):
        return None
    found = origin(case)
    name = _operation(found) if found else ""
    model, rows, zero = evidence.get("model") or "the model", int(finding.value), evidence.get("zero")
    clues = [
        Clue(2.0, f"no input of request {request} was NaN, and {rows} rows of its answer were"),
        *_of_origin(found, name),
    ]
    if zero:
        clues.append(
            Clue(1.0, f"such a row of {zero} was exactly zero: its norm, sum or spread is nothing to divide by")
        )
    return Opinion(
        clues=clues,
        title=(
            _title(found, name, request).replace(", step ", ", request ")
            if name
            else f"Answers are NaN from request {request} on"
        ),
        explanation=(
            f"From request {request} on {model} answers NaN at times: {'; '.join(clue.text for clue in clues)}."
        ),
        remedy=_remedy(found, name)
        if name
        else (
            f"Look in the forward of {model} for what has no value for some inputs: divisions by a norm, a sum or a "
            "count, logarithms, roots, a softmax over nothing. Add a small constant there, and refuse such requests."
        ),
        where=place(found) or finding.name,
    )


def _update_without_eps(found: dict[str, Any], step: int) -> Opinion:
    where = str(found.get("parameter") or "")
    return Opinion(
        clues=[Clue(4.0, f"the optimizer's eps is 0 and `{where}` was not finite after its update")],
        title=f"The update of `{where}` divided 0 by 0 before step {step}",
        explanation=(
            f"When step {step} began `{where}` was not finite, though loss and gradients had been. The optimizer "
            "divides by the root of its squared gradients plus eps, and eps is 0: a weight that has never had a "
            "gradient gets 0 / 0."
        ),
        remedy="Give the optimizer an eps above 0 (1e-8 is the usual one; in float16 1e-4).",
        where=where,
    )


def _unread(case: Case, step: int) -> bool:
    """Whether ``step`` was made and its gradient not read as a whole.

    Where steps are short, fifteen of sixteen gradients are not read, or only those of the parameters nearest the input:
    what is born beyond them, in backward alone, does not reach those.
    """
    rank, optimizer = case.opening.rank, case.opening.optimizer
    at = {name: case.history.series(name, rank, optimizer).at(step) for name in ("loss", "gradient_norm")}
    return at["loss"] is not None and at["gradient_norm"] is None


def _unread_update(found: dict[str, Any], step: int) -> Opinion:
    where = str(found.get("parameter") or "")
    return Opinion(
        clues=[
            Clue(2.0, f"`{where}` was not finite already when the forward pass of step {step + 1} began"),
            Clue(1.0, f"the loss of step {step} was finite, and its gradient was not read as a whole"),
        ],
        title=f"The update of step {step} made `{where}` non-finite",
        explanation=(
            f"The loss of step {step} was finite and `{where}` was not when the next step began: the gradient of step "
            f"{step}, or what was done with it before the optimizer applied it, was not. Of steps this short few "
            "gradients are read, and this one was not: which operation made it is not known."
        ),
        remedy=(
            "Look at what the job does with gradients between `backward` and `step`, and at hooks on them. Run again "
            f"from a checkpoint before step {step} with TORCHVITALS_OVERHEAD=1: then each gradient is read before it "
            "is applied, and the operation is named."
        ),
        where=where,
        first_step=step,
    )


def _operation(found: dict[str, Any]) -> str:
    """The plain name of the operation to blame; in the backward pass the one that the forward pass had called."""
    names = [_plain(str(found.get(key) or "")) for key in ("forward_operation", "operation")]
    return next((name for name in names if name in DOMAINS), next(filter(None, names), ""))


def _plain(operation: str) -> str:
    """``aten.log.default`` → ``log``; ``aten.sqrt_backward.default`` → ``sqrt``."""
    parts = operation.split(".")
    name = parts[1] if len(parts) > 1 else parts[0]
    return name.removesuffix("_backward").removesuffix("_backward_data").removesuffix("_forward").rstrip("_")


def _of_nothing(found: dict[str, Any], name: str) -> bool:
    """Whether a mean was taken of no element, 0 / 0: births are of finite inputs, so one without was empty."""
    empty = "min" not in (found.get("inputs") or {}) or name.startswith("nll_loss")
    return name in MEANS and found.get("value") == "nan" and empty


def _of_origin(found: dict[str, Any] | None, name: str) -> list[Clue]:
    if not found or found.get("operation") == "batch":
        return []
    clues = []
    largest = float((found.get("inputs") or {}).get("absmax") or 0.0)
    if largest >= HUGE and (name in OVERFLOWING or name not in DOMAINS):
        clues.append(Clue(-3.0, f"the input of `{name}` had grown to {largest:.2g}: it overflowed, no domain was left"))
    elif _of_nothing(found, name):
        clues.append(Clue(3.0, f"the first bad value came out of `{name}`, which was a mean over nothing"))
    elif name in DOMAINS:
        clues.append(Clue(3.0, f"the first bad value came out of `{name}`, which {DOMAINS[name]}{_of_inputs(found)}"))
    elif name:
        clues.append(Clue(-0.5, f"the first bad value came out of `{name}`"))
    if found.get("batch_finite") and found.get("parameters_finite"):
        clues.append(Clue(1.0, "batch and parameters were finite"))
    elif found.get("parameters_finite") is False:
        clues.append(Clue(-2.0, "a parameter was not finite already"))
    if found.get("dtype") in ("float16", "torch.float16") and name not in DOMAINS:
        clues.append(Clue(-2.0, "the value is float16, which ends at 65504"))
    return clues


def _of_inputs(found: dict[str, Any]) -> str:
    inputs = found.get("inputs") or {}
    low, high = inputs.get("min"), inputs.get("max")
    if low is None or high is None:
        return ""
    besides = f" where it was finite ({count:.0f} values were not)" if (count := inputs.get("nonfinite") or 0.0) else ""
    span = f"its input was {low:.3g}" if low == high else f"its input went from {low:.3g} to {high:.3g}"
    return f"; {span}{besides}"


def _of_course(case: Case) -> list[Clue]:
    if grew(case):
        return [Clue(-3.0, "loss and gradient had been growing before")]
    clues = [Clue(1.0, "loss and gradient were ordinary one step before")]
    if at_onset(case, "input_nonfinite"):
        clues.append(Clue(-2.5, "the input was not finite already"))
    return clues


def _title(found: dict[str, Any] | None, name: str, step: int) -> str:
    if not found or not name:
        return f"Loss or gradient not finite from step {step}"
    where = f" at {found['line']}" if found.get("line") else ""
    if _of_nothing(found, name):
        return f"`{name}` was a mean over nothing{where}, step {step}"
    back = "Gradient of " if found.get("phase") == "backward" else ""
    return f"{back}`{name}` outside its domain{where}, step {step}"


def _explanation(found: dict[str, Any] | None, name: str, step: int) -> str:
    if not found or not name:
        missing = str((found or {}).get("why_incomplete") or "no replay was seen")
        return f"At step {step} a finite run became non-finite at once. The operation was not named: {missing}."
    code = f" (`{found['code']}`)" if found.get("code") else ""
    module = f" in `{found['module']}`" if found.get("module") else ""
    if _of_nothing(found, name):
        ignored = ", or all targets were ignored" if name.startswith("nll") else ""
        return (
            f"At step {step} `{name}`{module}{code} was the mean of no element, which is 0 / 0: a mask or a selection "
            f"left nothing of the batch{ignored}."
        )
    why = f" It {DOMAINS[name]}." if name in DOMAINS else ""
    return (
        f"At step {step} `{name}`{module}{code} made a value that is not finite, in the "
        f"{found.get('phase', 'forward')} pass{_of_inputs(found)}.{why}"
    )


def _remedy(found: dict[str, Any] | None, name: str) -> str:
    line = (found or {}).get("line") or "that line"
    if found and _of_nothing(found, name):
        return f"At {line} divide the sum by max(count, 1) instead, or leave out the term when nothing was selected."
    if not name:
        return f"Look at the values behind {line} for divisions, logarithms and means that may be of nothing."
    if name in ("sqrt", "rsqrt", "norm", "linalg_vector_norm", "std", "pow"):
        return (
            f"At {line} add a small constant inside `{name}`, for example x + 1e-8, or clamp its argument from below."
        )
    if name.startswith("log") or name in ("xlogy", "binary_cross_entropy"):
        return (
            f"At {line} clamp the argument from below (x.clamp_min(1e-8)), or use a fused form: log_softmax, "
            "logsumexp, binary_cross_entropy_with_logits, log1p."
        )
    if name in ("div", "reciprocal", "fmod", "remainder"):
        return f"At {line} add a small constant to the denominator, or skip the rows in which it is 0."
    if name in ("exp", "expm1"):
        return f"At {line} subtract the largest value before exp, or clamp its argument (below 80)."
    if "softmax" in name:
        return f"At {line} see that no row is masked completely; use a large negative number instead of -inf."
    return f"Keep the argument of `{name}` inside its domain at {line}: clamp it or add a constant."
