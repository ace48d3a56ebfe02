"""The comparison as one HTML file that opens anywhere, offline: text, tables and inline SVG."""

from collections.abc import Iterator
from html import escape

from torchvitals.agent.compare.comparison import Comparison
from torchvitals.agent.compare.recorded import Rank
from torchvitals.agent.compare.report import ratio, said
from torchvitals.agent.history import Series
from torchvitals.agent.plots import line_plot
from torchvitals.agent.report_html import STYLE, cause_table
from torchvitals.signals.catalog import BY_NAME

PLOTS = (
    "loss", "validation_loss", "gradient_norm", "learning_rate", "step_seconds", "rss_bytes", "cuda_allocated_bytes",
)  # fmt: skip


def as_html(comparison: Comparison) -> str:
    """The whole page."""
    return "\n".join(_page(comparison)) + "\n"


def _page(comparison: Comparison) -> Iterator[str]:
    a, b = comparison.a, comparison.b
    title = f"{a.name} and {b.name}"
    yield "<!doctype html>"
    yield f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}: torchvitals</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
    yield f'<h1>{escape(title)}</h1><p class="dim">A: {escape(a.run)}, {a.steps} steps<br>'
    yield f"B: {escape(b.run)}, {b.steps} steps</p><p><b>{escape(comparison.sentence)}</b></p>"
    mark = None
    if incident := comparison.incident:
        mark = max(0, incident.first_step)
        yield f'<section class="{incident.severity}"><h2>{escape(incident.title)}</h2>'
        yield f"<p>{escape(incident.explanation)}</p><p><b>What to do:</b> {escape(incident.remedy)}</p>"
        yield from cause_table(incident)
        yield "</section>"
    yield from _facts(comparison)
    yield from _figures(comparison)
    yield "<h2>Over the steps</h2>"
    for name in PLOTS:
        lines = [("A", _series(a.first, name)), ("B", _series(b.first, name))]
        yield line_plot(name, lines, mark=mark, unit=BY_NAME[name].unit)
    if comparison.not_compared:
        yield "<h2>Not compared</h2><ul>"
        yield from (f"<li>{escape(item.what)}: {escape(item.why)}</li>" for item in comparison.not_compared)
        yield "</ul>"
    yield "</body></html>"


def _series(rank: Rank, signal: str) -> Series:
    return Series(*rank.series(signal))


def _facts(comparison: Comparison) -> Iterator[str]:
    if not comparison.facts:
        return
    yield "<h2>What else differs</h2><table><tr><th><th>what<th>A<th>B</tr>"
    for fact in comparison.facts:
        cells = "".join(f"<td>{escape(str(value))}" for value in (fact.group, fact.what, fact.a, fact.b))
        yield f"<tr>{cells}</tr>"
    yield "</table>"


def _figures(comparison: Comparison) -> Iterator[str]:
    yield "<h2>Side by side</h2><table><tr><th><th>A<th>B<th>B/A</tr>"
    for each in comparison.figures:
        yield f"<tr><td>{escape(each.what)}<td>{said(each, each.a)}<td>{said(each, each.b)}<td>{ratio(each)}</tr>"
    yield "</table>"
