"""The kernel ended a process because memory ran out."""

from typing import Any, ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.exit_codes import counted_kills, ended
from torchvitals.detectors.detector import Finding

SIGKILL = 9
WORKER_KILLED = "killed by signal: Killed"
"""A worker of the loader was what the kernel chose; the process that trains only hears of it."""
SOARING = 3
"""Looks in a row at which memory must have grown: one jump is a batch, and a person kills at any moment."""
GROWN = 1.5
"""Memory at the end over its median: batches of unequal size stay below in the healthy jobs measured."""


class OutOfMemoryKill:
    """SIGKILL, and the control group's counter of out-of-memory kills says by whom.

    SIGKILL alone is not enough: people, schedulers and time limits send it, too.
    """

    word: ClassVar[str] = "out_of_memory_kill"
    explains: ClassVar[tuple[str, ...]] = ("crash",)
    prior: ClassVar[float] = -0.5

    def weigh(self, case: Case) -> Opinion | None:
        crashes = case.of_kind("crash")
        if not crashes:
            return None
        finding = crashes[0]
        evidence = finding.evidence
        kills = counted_kills(case, finding)
        code, number = ended(case, finding)
        killed = number == SIGKILL
        silent = bool(evidence.get("gone"))
        worker = bool(kills) and evidence.get("worker") == WORKER_KILLED
        if (evidence.get("type") and not worker) or not (kills or killed or (silent and code is None)):
            return None
        clues = []
        if kills:
            clues.append(Clue(4.0, f"the kernel counted {kills} out-of-memory kills in this control group meanwhile"))
        elif kills == 0:  # user-space killers are not in that count, so it is not the last word
            told = "the kernel counted no out-of-memory kill in this control group meanwhile"
            clues.append(Clue(-1.5 if _soared(case, finding.rank) else -3.0, told))
        if killed:
            clues.append(Clue(0.3, "the process was ended by SIGKILL, which nobody can catch"))
        elif silent:
            clues.append(Clue(0.3, "the process was gone without a word: no exception, no exit"))
        clues += [clue for clue in (_growth(case, finding.rank), _before(case)) if clue]
        who = "The job" if finding.rank is None or case.world_size < 2 else f"Rank {finding.rank}"
        if worker:
            who = f"A data loader worker of {who.lower()}"
        return Opinion(
            clues=clues,
            title=f"{who} was killed at step {finding.step}, out of memory",
            explanation=(
                f"{who} ended at step {finding.step} without an exception. "
                + " ".join(f"{c.text[:1].upper()}{c.text[1:]}." for c in clues)
            ),
            remedy=_remedy(case),
            where=_where(case.of_kind("memory_leak", "memory_pressure")),
        )


def _growth(case: Case, rank: int | None) -> Clue | None:
    """What the resident memory did before the end."""
    values = case.history.series("rss_bytes", rank).values
    values = values[np.isfinite(values)]
    if len(values) < 8:
        return None
    last, usual = float(values[-1]), float(np.median(values))
    text = f"resident memory was {last / 2**30:.2f} GiB at the end against a median of {usual / 2**30:.2f} GiB"
    if _soared(case, rank):
        return Clue(3.5, f"{text}, and rose at every one of the last {SOARING} looks")
    return Clue(1.5 if last > GROWN * usual else -0.5, text)


def _soared(case: Case, rank: int | None) -> bool:
    """Whether memory had grown far beyond its usual size and was still growing when it ended."""
    values = case.history.series("rss_bytes", rank).values
    values = values[np.isfinite(values)]
    if len(values) < 8 or not values[-1] > GROWN * np.median(values):
        return False
    seen = values[np.concatenate([[True], np.diff(values) != 0])]  # it is read every few steps and repeated between
    return len(seen) > SOARING and bool((np.diff(seen[-SOARING - 1 :]) > 0).all())


def _before(case: Case) -> Clue | None:
    memory = case.of_kind("memory_leak", "memory_pressure")
    return Clue(2.0, f"`{memory[0].kind}` was certain at step {memory[0].step}") if memory else None


def _where(memory: list[Finding]) -> str:
    return next((finding.name for finding in memory if finding.name), "")


def _remedy(case: Case) -> str:
    loader: dict[str, Any] = case.facts.get("loader") or {}
    workers = f"each of the {loader['workers']} loader workers holds its own copy; " if loader.get("workers") else ""
    return (
        f"Give the job more memory or make it need less: {workers}smaller batches, fewer prefetched batches, "
        "and whatever grows from step to step, if memory grew."
    )
