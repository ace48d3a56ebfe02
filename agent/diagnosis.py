"""From findings to incidents: group what shares a root, name the root, rank its causes by evidence."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import msgspec
from torchvitals.agent.aftermath import leads
from torchvitals.agent.case import Case, Cause, Opinion
from torchvitals.agent.causes import CAUSES
from torchvitals.agent.causes.unknown import Unknown
from torchvitals.agent.crew import Crew
from torchvitals.agent.engine import Engine, NotChecked
from torchvitals.agent.flat_but_learning import flat_but_learning
from torchvitals.agent.grown_work import grown_up
from torchvitals.agent.guard import guarded
from torchvitals.agent.guard_words import guard_note, tempered
from torchvitals.agent.history import RECENT_STEPS, History
from torchvitals.agent.incident import Incident, RankedCause, by_severity
from torchvitals.agent.kinds import CAUSAL_RANK, same_fault
from torchvitals.agent.links import links
from torchvitals.agent.memory_words import fills_up
from torchvitals.agent.moving_targets import moving_targets
from torchvitals.agent.ranks import last_equal
from torchvitals.agent.standstill_words import duration_note, severity_of, title_of
from torchvitals.agent.switched_off import switched_off
from torchvitals.agent.trained_to_nothing import trained_to_nothing
from torchvitals.detectors.detector import Finding

LIKELY = 0.01
"""Causes with less belief than this are not listed: nobody acts on one in a hundred."""


APART = {"drift", "memory_leak"}
"""Never one fault, though an effect may be of either."""


class Group(msgspec.Struct):
    """Findings with a common root, in the order in which they arrived."""

    id: str
    crew: Crew
    findings: list[Finding]
    incident: Incident | None = None
    weighed: tuple[int, int] = (0, 0)
    """Findings and events that the incident was made from."""

    def takes(self, finding: Finding) -> bool:
        """Whether ``finding`` belongs here, as consequence, as cause, or as the same fault elsewhere.

        Requests that change have nothing to do with memory, though either may be why the answers do.
        """
        if finding.kind in APART and APART & self.kinds - {finding.kind}:
            return False
        history = self.crew.history
        return any(
            same_fault(member, finding) or leads(member, finding, history) or leads(finding, member, history)
            for member in self.findings
        )

    @property
    def kinds(self) -> set[str]:
        return {member.kind for member in self.findings}


class Diagnosis:
    """Keeps the incidents of one run up to date.

    Args:
        engine: the run's engine; its findings are taken in the order in which it noted them.
        causes: the causes that are weighed.

    """

    def __init__(self, engine: Engine, causes: Sequence[type[Cause]] = CAUSES) -> None:
        self.groups: list[Group] = []
        self.absorbed: dict[str, str] = {}
        """Incident id → id of the incident that turned out to be its root."""
        self.problems: list[NotChecked] = []
        self._engine = engine
        self._causes: list[Cause] = [cause() for cause in causes]
        self._taken = 0

    @property
    def incidents(self) -> list[Incident]:
        """Most severe first, then the earliest."""
        return by_severity([group.incident for group in self.groups if group.incident])

    def update(self) -> list[Incident]:
        """Take the engine's new findings and events; return the incidents that are new or say something else."""
        for crew, finding in self._engine.noted[self._taken :]:
            self._place(crew, finding)
        self._taken = len(self._engine.noted)
        return self._weigh_again([group for group in self.groups if self._is_stale(group)])

    def conclude(self) -> list[Incident]:
        """Weigh once more at the end, while the steps around an incident are still remembered in full."""
        recent = [group for group in self.groups if self._is_recent(group)]
        return self._weigh_again(recent)

    def _place(self, crew: Crew, finding: Finding) -> None:
        homes = [group for group in self.groups if group.crew is crew and group.takes(finding)]
        if finding.kind == "prediction_drift" and len(homes) > 1:
            homes = [group for group in homes if "drift" in group.kinds] or homes
        if not homes:
            self.groups.append(Group(self._name(crew, finding), crew, [finding]))
            return
        home = homes[0]
        home.findings.append(finding)
        for other in homes[1:]:
            home.findings.extend(other.findings)
            self.groups.remove(other)
            self.absorbed[other.id] = home.id

    def _name(self, crew: Crew, finding: Finding) -> str:
        who = f"{self._engine.run_id}/{crew.hello.incarnation}/{crew.hello.started}"
        text = f"{who}/{finding.kind}/{finding.optimizer}/{finding.first_step}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _is_stale(self, group: Group) -> bool:
        counts = self._counts(group)
        return counts[0] != group.weighed[0] or (counts != group.weighed and self._is_recent(group))

    def _counts(self, group: Group) -> tuple[int, int]:
        return len(group.findings), len(group.crew.events) + len(self._engine.launcher_events)

    def _is_recent(self, group: Group) -> bool:
        last = max(group.crew.history.last_step.values(), default=0)
        return last - max(finding.step for finding in group.findings) < RECENT_STEPS

    def _weigh_again(self, groups: list[Group]) -> list[Incident]:
        changed = []
        for group in groups:
            group.weighed = self._counts(group)
            incident = self._incident(group)
            if incident != group.incident:
                group.incident = incident
                changed += [incident] if incident else []
        return changed

    def _incident(self, group: Group) -> Incident | None:
        """What the group amounts to; ``None`` when the evidence that came later shows nothing is wrong."""
        findings = sorted(group.findings, key=_by_onset)
        root = root_of(findings, group.crew.history)
        case = self._case(group.crew, root, findings)
        if innocent := _innocent(case):
            self._note(NotChecked(root.kind, innocent))
            return None
        ranked = rank_causes(self._opinions(case))
        best, opinion = ranked[0]
        first_step = root.first_step if opinion.first_step is None else opinion.first_step
        return Incident(
            id=group.id,
            kind=root.kind,
            severity=tempered(severity_of(group.findings), case, root),
            first_step=first_step,
            # what was found before it began was a sign of something else, or dated too early
            detected_step=max(first_step, min(finding.step for finding in findings)),
            rank=_rank(root, findings, group.crew.world_size) if opinion.rank is None else opinion.rank,
            where=opinion.where or next((f.name for f in (root, *findings) if f.name), ""),
            cause=best.cause,
            confidence=best.confidence,
            causes=[cause for cause, _ in ranked if cause.confidence >= LIKELY],
            title=title_of(opinion.title, group.findings),
            explanation=" ".join(
                filter(None, (opinion.explanation, guard_note(case, root), duration_note(group.findings)))
            ),
            remedy=opinion.remedy,
            last_equal_step=_last_equal(root, first_step),
            findings=findings,
            stacks=next((f.evidence["groups"] for f in findings if f.evidence.get("groups")), []),
            links=links(root, findings),
        )

    def _note(self, problem: NotChecked) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _case(self, crew: Crew, root: Finding, findings: list[Finding]) -> Case:
        events = self._engine.events(crew)
        facts: dict[str, Any] = {}
        for _, event in events:
            if event.kind == "facts":
                facts.update(event.details)
        return Case(
            findings=[root, *(finding for finding in findings if finding is not root)],
            history=crew.history,
            facts=facts,
            events=[(rank, event) for rank, event in events if event.kind != "facts"],
            world_size=crew.world_size,
            role=crew.hello.role,
        )

    def _opinions(self, case: Case) -> list[tuple[Cause, Opinion]]:
        kinds = {finding.kind for finding in case.findings}
        found: list[tuple[Cause, Opinion]] = []
        for cause in list(self._causes):
            if cause.explains and not kinds & set(cause.explains):
                continue
            opinion, problem = guarded(cause.word, lambda: cause.weigh(case))  # noqa: B023
            if problem:
                self._causes.remove(cause)
                self.problems.append(NotChecked(f"cause {cause.word}", problem))
            elif opinion is not None:
                found.append((cause, opinion))
        return found or [(Unknown(), Unknown().weigh(case))]


def _innocent(case: Case) -> str:
    """Why what was found is no fault here; else empty."""
    excuses = (fills_up, grown_up, switched_off, trained_to_nothing, moving_targets, flat_but_learning)
    return next((why for excuse in excuses if (why := excuse(case))), "")


def root_of(findings: Sequence[Finding], history: History) -> Finding:
    """The finding that names the incident: nobody's mere consequence, the earliest, the first in causal order.

    ``findings`` are in order of onset. When two kinds may lead to each other, the earlier one is the root.
    """

    def is_consequence(finding: Finding) -> bool:
        return any(
            leads(other, finding, history) and not leads(finding, other, history)
            for other in findings
            if other.kind != finding.kind
        )

    return next((finding for finding in findings if not is_consequence(finding)), findings[0])


def rank_causes(opinions: Sequence[tuple[Cause, Opinion]]) -> list[tuple[RankedCause, Opinion]]:
    """Softmax of prior and clues, in nats: what remains is a matter of arithmetic, not of taste."""
    scores = [cause.prior + sum(clue.weight for clue in opinion.clues) for cause, opinion in opinions]
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    total = sum(weights)
    ranked = [
        (_ranked(cause, opinion, weight / total), opinion)
        for (cause, opinion), weight in zip(opinions, weights, strict=True)
    ]
    # At a tie nothing is claimed: `unknown` comes first.
    return sorted(ranked, key=lambda item: (-item[0].confidence, item[0].cause != Unknown.word, item[0].cause))


def _ranked(cause: Cause, opinion: Opinion, share: float) -> RankedCause:
    clues = sorted(opinion.clues, key=lambda clue: -abs(clue.weight))
    return RankedCause(
        cause=cause.word,
        confidence=round(share, 4),
        evidence=[clue.text for clue in clues if clue.weight > 0],
        against=[clue.text for clue in clues if clue.weight < 0],
    )


def _by_onset(finding: Finding) -> tuple[int, int, str, int, int, str]:
    rank = -1 if finding.rank is None else finding.rank
    place = CAUSAL_RANK.get(finding.kind, len(CAUSAL_RANK))
    return finding.first_step, place, finding.kind, finding.step, rank, finding.name


def _rank(root: Finding, findings: Sequence[Finding], world_size: int) -> int | None:
    """The one rank on which the root's kind began first; ``None`` when it began on several, or there is one rank."""
    ranks = {f.rank for f in findings if f.kind == root.kind and f.first_step == root.first_step}
    return root.rank if world_size > 1 and len(ranks) == 1 else None


def _last_equal(root: Finding, first: int) -> int | None:
    """The last step before ``first`` at which ranks that part are known to have been equal."""
    equal = last_equal(root)
    return None if equal is None else min(equal, first - 1) if first < root.first_step else equal
