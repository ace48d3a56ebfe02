"""The comparison of two runs: verdict, first difference, what explains it, and the figures side by side."""

import hashlib
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from torchvitals.agent.case import headline
from torchvitals.agent.compare.fact_differences import FactDifference, fact_differences, same_model, untold
from torchvitals.agent.compare.first_difference import BEFORE_FIRST, Agreement, compare_ranks, order
from torchvitals.agent.compare.reasons import pair, rank_reasons
from torchvitals.agent.compare.recorded import Rank, Recorded, load
from torchvitals.agent.compare.scene import Scene, scene
from torchvitals.agent.engine import NotChecked
from torchvitals.agent.incident import Incident

Verdict = Literal["equal", "diverged", "incomparable"]
DECLARED = ("model", "setting", "seed", "code", "software", "flag", "command")
"""Facts that somebody decided; where they are equal, equal bits were to be expected."""


class Figure(msgspec.Struct, frozen=True):
    """One number of both runs; ``None`` where a run has none."""

    what: str
    unit: str
    a: float | None
    b: float | None


class Comparison(msgspec.Struct, kw_only=True):
    """Everything ``compare`` says."""

    a: Recorded
    b: Recorded
    verdict: Verdict
    sentence: str
    agreements: list[Agreement]
    incident: Incident | None
    """Where and why they part; kind ``nondeterminism`` where nothing that was decided differs, else ``changed``."""
    facts: list[FactDifference]
    figures: list[Figure]
    not_compared: list[NotChecked]


def compare_runs(path_a: Path, path_b: Path) -> Comparison:
    """Compare two runs from their files.

    Raises:
        CommandError: one of them took no step.
        SpoolError: one of them is no run, or of another schema version.

    """
    return compare(load(path_a), load(path_b))


def compare(a: Recorded, b: Recorded) -> Comparison:
    """Compare two runs that have been read."""
    facts = fact_differences(a, b)
    comparable = same_model(a, b)
    agreements = [compare_ranks(a.ranks[rank], b.ranks[rank], rank) for rank in _common(a, b)] if comparable else []
    parted = [agreement for agreement in agreements if agreement.first is not None]
    first = min(parted, key=lambda agreement: order(agreement.first) if agreement.first else (0,), default=None)
    incident = _incident(scene(a, b, first, facts)) if first is not None else None
    verdict: Verdict = "incomparable" if not agreements else "diverged" if incident else "equal"
    return Comparison(
        a=a, b=b, verdict=verdict, sentence=_sentence(a, b, verdict, agreements, first), agreements=agreements,
        incident=incident, facts=facts, figures=figures(a.first, b.first), not_compared=_not_compared(a, b, agreements),
    )  # fmt: skip


def figures(a: Rank, b: Rank) -> list[Figure]:
    """Speed, memory and loss of the lowest ranks."""
    rows: list[Figure] = [Figure("steps", "", float(a.steps), float(b.steps))]
    for what, unit, signal, how in _FIGURES:
        left, right = (_figure(rank, signal, how) for rank in (a, b))
        if left is not None or right is not None:
            rows.append(Figure(what, unit, left, right))
    rows.append(Figure("first to last step", "s", a.last_time - a.first_time, b.last_time - b.first_time))
    rows.append(Figure("steps per second, pauses included", "", _pace(a), _pace(b)))
    return rows


_FIGURES: tuple[tuple[str, str, str, Literal["first", "last", "least", "most", "median"]], ...] = (
    ("loss, first step", "", "loss", "first"),
    ("loss, least", "", "loss", "least"),
    ("loss, last step", "", "loss", "last"),
    ("validation loss, least", "", "validation_loss", "least"),
    ("step, median", "s", "step_seconds", "median"),
    ("waiting for data, median", "s", "data_seconds", "median"),
    ("forward, median", "s", "forward_seconds", "median"),
    ("backward, median", "s", "backward_seconds", "median"),
    ("optimizer, median", "s", "optimizer_seconds", "median"),
    ("items per step, median", "", "batch_items", "median"),
    ("resident memory, most", "By", "rss_bytes", "most"),
    ("device memory, most", "By", "cuda_allocated_bytes", "most"),
    ("device memory reserved, most", "By", "cuda_reserved_bytes", "most"),
    ("skipped steps", "", "skipped_steps", "most"),
    ("torchvitals' share of a step", "", "overhead_ratio", "last"),
)


_QUANTILES = {"least": 0.0, "median": 0.5, "most": 1.0}


def _figure(rank: Rank, signal: str, how: str) -> float | None:
    _, values = rank.series(signal)
    if not len(values):
        return None
    if signal == "skipped_steps":
        return float(np.nansum(values))
    if how in ("first", "last"):
        return float(values[0 if how == "first" else -1])
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan")
    return float(np.quantile(finite, _QUANTILES[how]))


def _pace(rank: Rank) -> float | None:
    seconds = rank.last_time - rank.first_time
    return (rank.steps - 1) / seconds if seconds > 0 else None


def _common(a: Recorded, b: Recorded) -> list[int]:
    return sorted(a.ranks.keys() & b.ranks.keys())


def _incident(seen: Scene) -> Incident:
    ranked = rank_reasons(seen)
    best, remedy = ranked[0]
    first, layers = seen.first, seen.agreement.layers
    expected_equal = not any(fact.group in DECLARED and fact.what != "working directory" for fact in seen.facts)
    kind = "nondeterminism" if expected_equal else "changed"
    identity = f"{seen.a.run}/{seen.b.run}/{first.step}/{first.signal}"
    return Incident(
        id=hashlib.sha256(identity.encode()).hexdigest()[:12],
        kind=kind,
        severity="warning" if expected_equal else "info",
        first_step=first.step,
        detected_step=first.step,
        rank=first.rank if len(_common(seen.a, seen.b)) > 1 else None,
        where=layers.place if layers else "",
        cause=best.cause,
        confidence=best.confidence,
        causes=[cause for cause, _ in ranked],
        title=_title(seen, kind),
        explanation=_explanation(seen),
        remedy=remedy,
        links={"signals": [first.signal if not first.axis else "loss", "loss"]},
    )


def _title(seen: Scene, kind: str) -> str:
    at = "before the first step" if seen.first.step == BEFORE_FIRST else f"at step {seen.first.step}"
    what = "Runs that should be equal part" if kind == "nondeterminism" else "The runs part"
    return headline(f"{what} {at}: {_subject(seen)}")


def _subject(seen: Scene) -> str:
    first, layers = seen.first, seen.agreement.layers
    if first.step == BEFORE_FIRST:
        return "other initial weights"
    if layers is not None and layers.place and first.stage != "batch":
        return f"{_SPOKEN[layers.stage]} of {layers.place}"
    return {"batch": "other batches", "setting": "another learning rate"}.get(first.stage, first.signal)


_SPOKEN = {
    "forward": "the output", "backward": "the gradient", "update": "the weights", "batch": "the batch",
    "loss": "the loss", "setting": "the setting",
}  # fmt: skip


def _explanation(seen: Scene) -> str:
    return " ".join(text for text in (_until(seen.agreement), _what(seen), _which_layers(seen)) if text)


def _until(agreement: Agreement) -> str:
    until = agreement.equal_weights_at
    if until is None:
        return "No step was seen at which all weights were equal." if agreement.digests else ""
    return f"All weights were equal to the last bit {_after(until)}."


def _after(step: int) -> str:
    return "before the first step" if step == BEFORE_FIRST else f"after step {step}"


def _what(seen: Scene) -> str:
    first = seen.first
    if first.step == BEFORE_FIRST:
        return "The weights differ before the first step."
    values = f": {pair(first)}" if first.values is not None and first.signal != "batch_digest" else ""
    return f"The first difference that lasts is `{first.signal}` at step {first.step} ({first.stage}){values}."


def _which_layers(seen: Scene) -> str:
    layers = seen.agreement.layers
    if layers is None:
        until = seen.agreement.equal_weights_at
        gap = f" between step {until} and then" if until is not None else ""
        return f"Which layer was first cannot be told: no layer was recorded{gap} in both runs."
    shown = ", ".join(layers.names[:3]) + (" ..." if len(layers.names) > 3 else "")
    return f"In it {len(layers.names)} of {layers.of} entries of `{layers.signal}` differ: {shown}."


def _sentence(a: Recorded, b: Recorded, verdict: Verdict, agreements: list[Agreement], first: Agreement | None) -> str:
    if verdict == "incomparable":
        if same_model(a, b):
            return "No rank is in both runs, so nothing is compared to the last bit."
        return "The models have other parameters, so nothing is compared to the last bit; the figures are."
    if first is not None and first.first is not None:
        step = first.first.step
        if not step:
            return "Different from step 0 on; the weights it began with were equal to the last bit."
        return (
            "Different before the first step."
            if step < 0
            else f"Bitwise equal up to step {step - 1}, different from {step} on."
        )
    least = min(agreements, key=lambda agreement: agreement.steps)
    told = f"loss at {least.losses} steps"
    if least.digests and least.equal_weights_at is not None:
        told += f", all weights at {least.digests}, the last time {_after(least.equal_weights_at)}"
        told += " and when the job ended" if least.final else ""
    else:
        told += "; weights were not digested"
    return f"Bitwise equal up to step {least.steps - 1}, as far as recorded: {told}."


def _not_compared(a: Recorded, b: Recorded, agreements: list[Agreement]) -> list[NotChecked]:
    found = [NotChecked(section, "only one of the runs told it") for section in untold(a, b)]
    only = sorted(a.ranks.keys() ^ b.ranks.keys())
    if only:
        found.append(NotChecked(f"ranks {', '.join(map(str, only))}", "they are in one of the runs only"))
    if a.steps != b.steps:
        found.append(NotChecked(f"steps from {min(a.steps, b.steps)} on", "one of the runs made no more"))
    if agreements and not any(agreement.digests for agreement in agreements):
        found.append(NotChecked("weights", "no step at which both digested them"))
    for agreement in agreements:
        if agreement.passing:
            signals = ", ".join(dict.fromkeys(f"`{difference.signal}`" for difference in agreement.passing))
            step = agreement.passing[0].step
            found.append(
                NotChecked(
                    f"{signals} of rank {agreement.rank}",
                    f"differed from step {step} on while the weights stayed equal",
                )
            )
    if agreements:
        found.append(NotChecked("buffers", "running statistics are not digested; in training they steer nothing"))
    return found
