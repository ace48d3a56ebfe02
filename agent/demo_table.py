"""The outcomes of the demo jobs, as a table for people and as JSON for programs."""

import json
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text
from torchvitals.agent.demo_judgement import Outcome, Told
from torchvitals.agent.report_terminal import COLOURS

HEADINGS = ("job", "incident", "severity", "where", "cause", "steps until flagged", "seconds", "judged")
NUMBERS = ("steps until flagged", "seconds")
PIPE_WIDTH = 180
"""Columns where no terminal says how many there are: wide enough that no cell is broken in a log."""


def print_table(outcomes: Iterable[Outcome], console: Console | None = None) -> None:
    """One line per incident, and one per job that stayed silent."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, PIPE_WIDTH)
    table = Table(title="What the demo jobs brought", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in NUMBERS else "left", overflow="fold")
    for outcome in outcomes:
        for cells in lines(outcome):
            table.add_row(*cells)
    console.print(table)


def lines(outcome: Outcome) -> Iterator[tuple[Text | str, ...]]:
    """The cells of one job."""
    judged = Text(f"WRONG: {outcome.wrong}", "bold red") if outcome.wrong else Text("right", "green")
    seconds = f"{outcome.seconds:.0f}"
    if not outcome.incidents:
        yield (outcome.job.name, "none", "", "", "", "", seconds, judged)
    for incident in outcome.incidents:
        yield (
            outcome.job.name,
            incident.kind,
            Text(incident.severity, COLOURS[incident.severity]),
            place(incident),
            f"{incident.cause} ({incident.confidence:.0%})",
            str(incident.detected_step - incident.first_step),
            seconds,
            judged,
        )


def place(incident: Told) -> str:
    """Where it is, and from which step on (of a service, the requests are counted)."""
    rank = f"rank {incident.rank}" if incident.rank is not None else ""
    return ", ".join(part for part in (incident.where, rank, f"step {incident.first_step}") if part)


def as_json(outcomes: Iterable[Outcome]) -> str:
    """For programs: a list of objects."""
    return json.dumps(
        [
            {
                "job": outcome.job.name,
                "expected": outcome.job.kind,
                "wrong": outcome.wrong,
                "seconds": round(outcome.seconds, 1),
                "incidents": [
                    {
                        "kind": incident.kind,
                        "severity": incident.severity,
                        "where": incident.where,
                        "rank": incident.rank,
                        "cause": incident.cause,
                        "first_step": incident.first_step,
                        "detected_step": incident.detected_step,
                    }
                    for incident in outcome.incidents
                ],
            }
            for outcome in outcomes
        ],
        indent=2,
    )
