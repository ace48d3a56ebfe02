"""What the causes of a recompile storm have in common: the finding, and which guards failed, as dynamo told them."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from torchvitals.agent.case import Case
from torchvitals.detectors.detector import Finding

SHAPE = re.compile(r"size mismatch|stride mismatch|rank mismatch|dimension|\.size\(|\.shape|\bs\d+\b")
"""How guards on the shape of a tensor are told; the others are on values that Python code reads."""
STATE = re.compile(r"GLOBAL_STATE|grad_mode|requires_grad|___check_obj_id|training")
"""Guards that fail once or twice in a healthy job: on modes, and on which module it is."""


def storm_of(case: Case) -> tuple[Finding, list[dict[str, Any]]] | None:
    """The storm, and the recompilations of the function that was compiled most often."""
    finding = next(iter(case.of_kind("recompile_storm")), None)
    if finding is None:
        return None
    told = [event.details for rank, event in case.events_of("recompiled") if finding.rank in (None, rank)]
    places = Counter((str(details.get("line")), str(details.get("function"))) for details in told)
    worst = next((place for place, _ in places.most_common(1)), ("", ""))
    return finding, [d for d in told if (str(d.get("line")), str(d.get("function"))) == worst]


def share_of_shapes(told: Sequence[dict[str, Any]]) -> float:
    """The share of the failed guards that are on shapes, among those that are not on modes.

    >>> share_of_shapes([{"reason": "tensor 'x' size mismatch at index 0. expected 2, actual 3"},
    ...                  {"reason": "GLOBAL_STATE changed: grad_mode"}, {"reason": "self.n == 3"}])
    0.5
    """
    reasons = [str(details.get("reason", "")) for details in told]
    counted = [reason for reason in reasons if not STATE.search(reason)]
    return sum(bool(SHAPE.search(reason)) for reason in counted) / len(counted) if counted else 0.0


def cost_of(finding: Finding) -> str:
    """What the storm has cost so far, in a sentence."""
    seconds, total = finding.evidence.get("compile_seconds", 0.0), finding.evidence.get("seconds", 0.0)
    share = f", {seconds / total:.0%} of the time since step {finding.first_step}" if total > seconds > 0 else ""
    ended = (
        " Torch has given it up: whatever comes new runs without compilation." if finding.evidence["gave_up"] else ""
    )
    return f"Compiling took {seconds:.3g} s{share}.{ended}"


def name_of(told: Sequence[dict[str, Any]]) -> str:
    """The function, as a person calls it."""
    return next((f"`{details['function']}`" for details in told if details.get("function")), "a function")


def line_of(told: Sequence[dict[str, Any]]) -> str:
    """Where it is defined; empty when that is in torch itself."""
    return next((str(details["line"]) for details in told if details.get("line")), "")
