"""How soon and how rightly is each fault between ranks told, on 2 and on 4 ranks, by an agent that runs beside it?

``python benchmarks/rank_demos.py [--ranks 2,4] [--only bit_flip,oom_kill] [--healthy-steps 2000] [--output FILE]``
plays the jobs of several ranks one after the other and prints a table in Markdown. The figures are the agent's own:
when it opened the incident, against the last step that any rank had made (a hang) or the last word of the one that died
(a crash). Everything else is dated in steps.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from torchvitals.agent.commands_demo import known_jobs
from torchvitals.agent.demo_judgement import Job, misjudged, told
from torchvitals.agent.demo_stage import Stage
from torchvitals.agent.demo_troupe import Ended, Troupe
from torchvitals.agent.errors import CommandError
from torchvitals.agent.run_lookup import find_run
from torchvitals.signals.reader import RunReader
from torchvitals.signals.records import LAUNCHER_RANK, Step

CRASHES, HANGS = "crash", "hang"
SECONDS = 1200.0
"""Two thousand steps on four ranks take minutes where they share two cores."""
READ_SECONDS = 1.5
"""The agent looks twice a second at a job that has ended, and a few records may lie between."""


class Line(NamedTuple):
    """One job on so many ranks, and what was told of it."""

    job: str
    ranks: int
    told: str
    cause: str
    where: str
    rank: int | None
    first_step: int | None
    steps: int | None
    """From the first step to the one at which it was certain."""
    seconds: float | None
    """Of a hang or a crash: until the agent had opened the incident."""
    usual_step: float | None
    wrong: str


def chosen(ranks: int, only: str, healthy_steps: int) -> Iterator[Job]:
    """The jobs to play, healthy ones for so many steps."""
    for job in known_jobs(ranks):
        if only and job.name not in only.split(","):
            continue
        if job.kind is None:
            yield msgspec.structs.replace(job, command=(*job.command, "--steps", str(healthy_steps)))
        else:
            yield job


def played(job: Job, stage: Stage, directory: Path) -> Line:
    """Run one job and ask the agent what it knows."""
    (ended,) = Troupe(directory, len(os.sched_getaffinity(0)), print, seconds=SECONDS).perform([job])
    if ended.failure:
        return Line(job.name, job.ranks, "", "", "", None, None, None, None, None, ended.failure)
    return line(ended, stage, directory)


def line(ended: Ended, stage: Stage, directory: Path) -> Line:
    """What the agent's store holds of a job that is over."""
    job = ended.job
    path = find_run(job.name, directory)
    time.sleep(READ_SECONDS)
    incidents = stage.incidents(path.name)
    wrong = misjudged(job, [told(incident) for incident in incidents])
    if not incidents:
        return Line(job.name, job.ranks, "none", "", "", None, None, None, None, None, wrong)
    first = told(incidents[0])
    seconds, usual = delay(path, first.kind, first.rank, incidents[0]["opened_at"])
    return Line(
        job.name, job.ranks, first.kind, first.cause, first.where, first.rank, first.first_step,
        first.detected_step - first.first_step, seconds, usual, wrong,
    )  # fmt: skip


def delay(path: Path, kind: str, rank: int | None, opened: float) -> tuple[float | None, float | None]:
    """Seconds from the last sign that all was well to the incident, and the median step; ``None`` of other kinds."""
    if kind not in (CRASHES, HANGS):
        return None, None
    steps, words = [], []
    for entry in RunReader(path).read():
        if isinstance(entry.record, Step) and entry.record.counts:
            steps.append((entry.record.time, entry.record.values.get("step_seconds")))
        if entry.hello.rank == rank != LAUNCHER_RANK and hasattr(entry.record, "time"):
            words.append(entry.record.time)
    usual = sorted(seconds for _, seconds in steps if seconds)
    since = max(words) if kind == CRASHES and words else max(moment for moment, _ in steps)
    return opened - since, usual[len(usual) // 2] if usual else None


def table(lines: Iterable[Line]) -> str:
    """In Markdown."""
    heads = ("job", "ranks", "told", "cause", "where", "rank", "first step", "steps until told", "seconds", "judged")
    rows = [heads, ("---",) * len(heads)]
    for each in lines:
        named = [f"`{word}`" if word else "" for word in (each.cause, each.where)]
        numbers = ["" if value is None else str(value) for value in (each.rank, each.first_step, each.steps)]
        seconds = "" if each.seconds is None else f"{each.seconds:.1f}"
        rows.append((f"`{each.job}`", str(each.ranks), each.told, *named, *numbers, seconds, each.wrong or "right"))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Play, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="2,4")
    parser.add_argument("--only", default="", help="names of jobs, separated by commas")
    parser.add_argument("--healthy-steps", type=int, default=2000)
    parser.add_argument("--keep", type=Path, help="where the runs stay")
    parser.add_argument("--output", type=Path, help="a JSON file")
    given = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as temporary:
        for ranks in map(int, given.ranks.split(",")):
            directory = (given.keep or Path(temporary)) / str(ranks)
            directory.mkdir(parents=True, exist_ok=True)
            with Stage(directory, print) as stage:
                stage.wait_until_ready()
                for job in chosen(ranks, given.only, given.healthy_steps):
                    try:
                        lines.append(played(job, stage, directory))
                    except CommandError as error:
                        lines.append(Line(job.name, ranks, "", "", "", None, None, None, None, None, str(error)))
                    print(lines[-1], flush=True)
    print(table(lines))
    if given.output:
        document: list[dict[str, Any]] = [each._asdict() for each in lines]
        given.output.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
