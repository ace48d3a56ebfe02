"""The report as one HTML file that opens anywhere, offline: text and inline SVG, nothing else."""

import time
from collections.abc import Iterator
from html import escape

from torchvitals.agent.heat_map import heat_map
from torchvitals.agent.history import History
from torchvitals.agent.incident import Incident
from torchvitals.agent.offline import Report
from torchvitals.agent.plots import line_plot
from torchvitals.agent.report import headline, place, verdict
from torchvitals.agent.what_ran import what_ran
from torchvitals.signals.catalog import BY_NAME

OVERVIEW = ("loss", "gradient_norm", "learning_rate", "rss_bytes", "step_seconds", "latency_seconds")
MOST_RANKS = 8
"""Lines in one plot; more cannot be told apart."""
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:760px;margin:2rem auto;padding:0 1rem;color:#1f2937;background:#fff}
h1{font-size:1.4rem;margin-bottom:0}h2{font-size:1.1rem}.dim{color:#6b7280}
section{border-left:4px solid #9ca3af;padding:.2rem 1rem;margin:1.5rem 0}
.critical,.error{border-color:#dc2626}.warning{border-color:#d97706}.info{border-color:#0891b2}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;
border-bottom:1px solid #e5e7eb}
svg{width:100%;height:auto;font:11px system-ui,sans-serif;fill:#6b7280}polyline{fill:none;stroke-width:1.5}
.axis{fill:none;stroke:#d1d5db}.mark{stroke:#dc2626;stroke-dasharray:4 3}.bad{fill:#dc2626;font-weight:bold}
.title{fill:#1f2937}
"""


def as_html(report: Report) -> str:
    """The whole page."""
    return "\n".join(_page(report)) + "\n"


def _page(report: Report) -> Iterator[str]:
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(report.started))
    yield "<!doctype html>"
    yield f'<html lang="en"><head><meta charset="utf-8"><title>{escape(report.name)}: torchvitals</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
    yield f'<h1>{escape(report.name)}</h1><p class="dim">{escape(report.run)}, {started}, {escape(report.host)}<br>'
    yield f"<code>{escape(report.command)}</code></p>"
    yield f"<p>{escape(headline(report))} <b>{escape(verdict(report))}</b></p>"
    for incident in report.incidents:
        yield from _incident(incident, report.engine.history)
    yield "<h2>The run</h2>"
    yield from _plots(report.engine.history, OVERVIEW, None)
    if ran := what_ran(report.engine):
        yield "<h2>What ran</h2><table>"
        yield from (f"<tr><td>{escape(what)}<td>{escape(told)}</tr>" for what, told in ran)
        yield "</table>"
    yield f"<h2>Checked</h2><p>{escape(', '.join(report.checked) or 'nothing')}</p>"
    if report.not_checked:
        yield "<h2>Not checked</h2><ul>"
        yield from (f"<li>{escape(item.what)}: {escape(item.why)}</li>" for item in report.not_checked)
        yield "</ul>"
    yield "</body></html>"


def _incident(incident: Incident, history: History) -> Iterator[str]:
    yield f'<section class="{incident.severity}"><h2>{escape(incident.title)}</h2>'
    yield f'<p class="dim">{incident.severity}, {escape(incident.kind)}, {escape(place(incident))}, '
    yield f"certain at step {incident.detected_step}</p>"
    yield f"<p>{escape(incident.explanation)}</p><p><b>What to do:</b> {escape(incident.remedy)}</p>"
    yield from _plots(history, incident.links.get("signals", ()), incident.first_step)
    for name in (name for name in incident.links.get("profiles", ()) if BY_NAME[name].axis != "feature"):
        yield heat_map(name, history.profiles(name, incident.rank))
    yield from cause_table(incident)
    yield "</section>"


def cause_table(incident: Incident) -> Iterator[str]:
    """The causes with their evidence."""
    yield "<table><tr><th>cause<th>confidence<th>evidence</tr>"
    for cause in incident.causes:
        told = [*cause.evidence, *(f"against: {text}" for text in cause.against)]
        evidence = "<br>".join(escape(text) for text in told)
        yield f"<tr><td>{escape(cause.cause)}<td>{cause.confidence:.0%}<td>{evidence}</tr>"
    yield "</table>"


def _plots(history: History, signals: tuple[str, ...] | list[str], mark: int | None) -> Iterator[str]:
    for name in signals:
        unit = BY_NAME[name].unit if name in BY_NAME else "1"
        ranks = history.ranks(name)[:MOST_RANKS]
        lines = [(f"rank {rank}", history.series(name, rank)) for rank in ranks]
        yield line_plot(name, lines, mark=mark, unit=unit)
