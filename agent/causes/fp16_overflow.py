"""Float16 ends at 65504: activations or gradients beyond it become Inf, and the loss scaler skips the step."""

from typing import Any, ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.step_evidence import origin, place, scalars


class Fp16Overflow:
    """Speaks from the scaler's skips, and from an origin whose value is float16."""

    word: ClassVar[str] = "fp16_overflow"
    explains: ClassVar[tuple[str, ...]] = ("loss_scale_collapse", "nonfinite")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        found = origin(case) or {}
        half = _half(case, found)
        collapsed = case.of_kind("loss_scale_collapse")
        if not half and not collapsed:
            return None
        forward = _forward(case, found)
        opening = case.opening
        return Opinion(
            clues=[*_clues(case, found, half=half), *forward],
            title=f"Float16 overflow: the loss scale collapsed from step {opening.first_step}"
            if collapsed
            else f"Float16 overflow at step {opening.first_step}",
            explanation=_explanation(case, bool(forward)),
            remedy=(
                "Use bfloat16 autocast, which has the range of float32; or run what overflows in float32 "
                "(torch.autocast(..., enabled=False) around it) and bound what goes in: normalise, scale or clamp it."
            ),
            where=place(found),
        )


def _half(case: Case, found: dict[str, Any]) -> bool:
    told = (case.facts.get("autocast"), found.get("dtype"))
    return any("float16" in str(value) and "bfloat16" not in str(value) for value in told if value)


def _clues(case: Case, found: dict[str, Any], *, half: bool) -> list[Clue]:
    clues = []
    if half:
        clues.append(Clue(1.0, "the job computes in float16"))
    elif case.facts.get("autocast") == "bfloat16":
        clues.append(Clue(-2.0, "the job computes in bfloat16"))
    collapsed = case.of_kind("loss_scale_collapse")
    if collapsed:
        evidence = collapsed[0].evidence
        fell = f"the loss scale fell from {evidence.get('first_scale', 0):.3g} to {collapsed[0].value:.3g}"
        clues.append(Clue(2.0, f"{fell}, with {evidence.get('skips_in_a_row', 0)} skipped steps in a row"))
    elif not len(scalars(case, "loss_scale").values):
        clues.append(Clue(-0.5, "no loss scaler was seen"))
    if case.opening.kind == "nonfinite" and found.get("value") == "nan" and found.get("phase") == "forward":
        clues.append(Clue(-1.0, "the first bad value is NaN, and an overflow makes Inf first"))
    return clues


def _forward(case: Case, found: dict[str, Any]) -> list[Clue]:
    """Evidence that the overflow is in the forward pass, where no scale can help."""
    clues = []
    if "float16" in str(found.get("dtype", "")) and "bfloat16" not in str(found.get("dtype")):
        value = found.get("value")
        weight = 2.0 if value in ("inf", "-inf") else 0.5
        clues.append(Clue(weight, f"the first bad value, {value}, is a float16 from `{found.get('operation')}`"))
    broken = max((f.evidence.get("nonfinite_losses", 0) for f in case.of_kind("loss_scale_collapse")), default=0)
    if broken:
        clues.append(Clue(1.0, f"the loss of {broken} skipped steps was not finite: the forward pass overflows"))
    return clues


def _explanation(case: Case, forward: bool) -> str:
    opening = case.opening
    part = (
        "Activations of the forward pass go beyond 65504, so no loss scale can help."
        if forward
        else "Gradients go beyond 65504 even at a small loss scale."
    )
    skips = " and the scaler skips steps" if case.facts.get("scaler") else ""
    return f"From step {opening.first_step} on float16 overflows{skips}. {part}"
