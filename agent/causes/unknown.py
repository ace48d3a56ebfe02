"""When the evidence is thin: say so, and say what to collect."""

from typing import ClassVar

from torchvitals.agent.case import Case, Opinion
from torchvitals.agent.exit_codes import FATAL, LAST_WRITTEN, ended, signal_name
from torchvitals.detectors.detector import Finding

LOOK_AT = {
    "nonfinite": "run the job again under `torchvitals run` with replay on, to name the first operation",
    "explosion": "look at the learning rate, the batch and the gradient norms just before the first step",
    "vanishing": "look at the layer profile of gradient norms from the first steps on",
    "memory_leak": "look for a list, dict or cache that grows with every step",
    "desync": "look for code that only some ranks run between the steps where the digests still agreed",
    "crash": "look at the process's own output and the kernel log at that moment",
}


class Unknown:
    """Explains everything with no evidence at all: the others must beat it."""

    word: ClassVar[str] = "unknown"
    explains: ClassVar[tuple[str, ...]] = ()
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion:
        finding = case.opening
        return Opinion(
            clues=[],
            title=_title(case, finding),
            explanation=f"{_symptom(case, finding)} None of the known causes has enough evidence here.",
            remedy=f"To find the cause, {_look_at(finding)}.",
        )


def _look_at(finding: Finding) -> str:
    if finding.kind == "crash" and finding.name:
        return f"start at {finding.name}, which called the native code that did not come back"
    return LOOK_AT.get(finding.kind, "compare with a run that was well")


def _title(case: Case, finding: Finding) -> str:
    if finding.kind == "crash" and (number := ended(case, finding).signal):
        whose = "" if finding.rank is None or case.world_size < 2 else f"Rank {finding.rank} "
        at = f" in {finding.name}" if finding.name else ""
        when = f"at step {finding.step}" if number in FATAL else f"at step {finding.step} or soon after"
        return f"{whose}ended by {signal_name(number)} {when}{at}".replace("ended", "Ended", not whose)
    if finding.kind == "crash" and finding.evidence.get("gone"):
        who = "The process" if finding.rank is None or case.world_size < 2 else f"Rank {finding.rank}"
        return f"{who} was gone at step {finding.step} without a word"
    place = f" in {finding.name}" if finding.name else ""
    return f"{finding.kind.replace('_', ' ').capitalize()}{place} from step {finding.first_step}"


def _symptom(case: Case, finding: Finding) -> str:
    if finding.kind != "crash":
        return (
            f"`{finding.kind}` was certain at step {finding.step}: {finding.value:.4g} against a limit of "
            f"{finding.threshold:.4g}.{_doing(finding)}"
        )
    if number := ended(case, finding).signal:
        counted = finding.evidence.get("oom_kills") == 0
        memory = ", and the kernel counted no out-of-memory kill in its control group" if counted else ""
        last = f" at step {finding.step}" if number in FATAL else ""
        more = "" if last else f" {LAST_WRITTEN.format(step=finding.step)}"
        return f"{signal_name(number)} ended the process{last}{memory}.{more}"
    return f"The process ended at step {finding.step} without an exception and without an exit of its own."


def _doing(finding: Finding) -> str:
    sentence = str(finding.evidence.get("sentence", ""))
    return f" {sentence[:1].upper()}{sentence[1:]}." if sentence else ""
