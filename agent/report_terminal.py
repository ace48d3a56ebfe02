"""What ``diagnose`` prints for a person at a terminal."""

from rich.console import Console
from rich.panel import Panel
from rich.text import Text
from torchvitals.agent.incident import Incident
from torchvitals.agent.offline import Report
from torchvitals.agent.report import headline, place, verdict

COLOURS = {"critical": "bold red", "error": "red", "warning": "yellow", "info": "cyan"}
OTHER_CAUSES = 3
"""More than this many alternatives are noise."""


def print_report(report: Report, console: Console | None = None) -> None:
    """Run, incidents, what was checked and what was not."""
    console = console or Console(highlight=False)
    console.print(Text.assemble((report.name, "bold"), f"  {report.run}"))
    console.print(headline(report), markup=False)
    for incident in report.incidents:
        console.print(incident_panel(incident))
    colour = "bold" if report.incidents else "green" if report.checked else "yellow"
    console.print(Text(verdict(report), colour))
    console.print(Text(f"Checked: {', '.join(report.checked) or 'nothing'}", "dim"))
    for item in report.not_checked:
        console.print(Text(f"Not checked: {item.what}: {item.why}", "dim"))


def incident_panel(incident: Incident) -> Panel:
    """One incident in a frame."""
    colour = COLOURS[incident.severity]
    text = Text()
    text.append(f"{incident.title}\n", "bold")
    text.append(f"{incident.kind}, {place(incident)}, certain at step {incident.detected_step}\n\n")
    text.append(f"{incident.explanation}\n")
    text.append("\nWhat to do: ", "bold")
    text.append(f"{incident.remedy}\n")
    first, *others = incident.causes
    text.append(f"\nCause: {first.cause} ({first.confidence:.0%})", "bold")
    for sentence in first.evidence:
        text.append(f"\n  + {sentence}")
    for sentence in first.against:
        text.append(f"\n  - {sentence}")
    for cause in others[:OTHER_CAUSES]:
        text.append(f"\nOr: {cause.cause} ({cause.confidence:.0%})", "dim")
    return Panel(text, title=incident.severity, title_align="left", border_style=colour)
