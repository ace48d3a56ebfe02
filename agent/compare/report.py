"""What ``compare`` says, as JSON, as Markdown and for a terminal."""

import json
import math
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from torchvitals.agent.compare.comparison import Comparison, Figure
from torchvitals.agent.compare.recorded import Recorded
from torchvitals.agent.report import incident_markdown, incident_object
from torchvitals.agent.report_terminal import incident_panel

COLOURS = {"equal": "bold green", "diverged": "bold yellow", "incomparable": "bold"}
SHOWN = 20
"""Differing facts listed for people; JSON has them all."""


def as_json(comparison: Comparison) -> str:
    """One object; fields are added, never renamed."""
    return json.dumps(_object(comparison), indent=2, allow_nan=False)


def _object(comparison: Comparison) -> dict[str, Any]:
    incident = comparison.incident
    parted = next(
        (each for each in comparison.agreements if each.first and incident and each.first.step == incident.first_step),
        None,
    )
    divergence = None
    if incident is not None and parted is not None and parted.first is not None:
        first = parted.first
        divergence = {
            **incident_object(incident),
            "step": first.step,
            "stage": first.stage,
            "signal": first.signal,
            "optimizer": first.optimizer,
            "values": [plain(value) for value in first.values] if first.values else None,
            "layers": parted.layers.names if parted.layers else [],
            "equal_weights_at": parted.equal_weights_at,
        }
    return {
        "a": _run_object(comparison.a),
        "b": _run_object(comparison.b),
        "verdict": comparison.verdict,
        "sentence": comparison.sentence,
        "divergence": divergence,
        "compared": [
            {"rank": each.rank, "steps": each.steps, "losses": each.losses, "weights": each.digests,
             "equal_weights_at": each.equal_weights_at}
            for each in comparison.agreements
        ],
        "differences": [
            {"group": fact.group, "what": fact.what, "a": fact.a, "b": fact.b} for fact in comparison.facts
        ],
        "figures": [
            {"what": f.what, "unit": f.unit, "a": plain(f.a), "b": plain(f.b)} for f in comparison.figures
        ],
        "not_compared": [{"what": item.what, "why": item.why} for item in comparison.not_compared],
    }  # fmt: skip


def _run_object(run: Recorded) -> dict[str, Any]:
    return {"run": run.run, "name": run.name, "ranks": len(run.ranks), "steps": run.steps}


def plain(value: float | None) -> float | str | None:
    """JSON knows no NaN: non-finite numbers are the strings that the API uses too."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def as_markdown(comparison: Comparison) -> str:
    """A page for an issue tracker or a chat."""
    return "\n".join(_markdown(comparison)) + "\n"


def _markdown(comparison: Comparison) -> Iterator[str]:
    yield f"# {comparison.a.run} (A) and {comparison.b.run} (B)"
    yield ""
    yield comparison.sentence
    if comparison.incident:
        yield from incident_markdown(comparison.incident)
    if comparison.facts:
        yield from ("", "## What else differs", "", "| | what | A | B |", "|---|---|---|---|")
        for fact in comparison.facts:
            yield f"| {fact.group} | {_cell(fact.what)} | {_cell(fact.a)} | {_cell(fact.b)} |"
    yield from ("", "## Side by side", "", "| | A | B | B/A |", "|---|---|---|---|")
    for figure in comparison.figures:
        yield f"| {figure.what} | {said(figure, figure.a)} | {said(figure, figure.b)} | {ratio(figure)} |"
    if comparison.not_compared:
        yield from ("", "**Not compared:**", "")
        for item in comparison.not_compared:
            yield f"- {item.what}: {item.why}"


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|")


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Verdict, the first difference, what else differs, the figures."""
    console = console or Console(highlight=False)
    for letter, run in (("A", comparison.a), ("B", comparison.b)):
        console.print(Text.assemble((f"{letter}: {run.name}", "bold"), f"  {run.run}, {run.steps} steps"))
    console.print(Text(comparison.sentence, COLOURS[comparison.verdict]))
    if comparison.incident:
        console.print(incident_panel(comparison.incident))
    if comparison.facts:
        console.print(_facts_table(comparison))
    console.print(_figures_table(comparison))
    for item in comparison.not_compared:
        console.print(Text(f"Not compared: {item.what}: {item.why}", "dim"))


def _facts_table(comparison: Comparison) -> Table:
    table = Table(title="What else differs", title_justify="left")
    for heading in ("", "what", "A", "B"):
        table.add_column(heading, overflow="fold")
    for fact in comparison.facts[:SHOWN]:
        table.add_row(*map(Text, (fact.group, fact.what, _cell(fact.a), _cell(fact.b))))
    if len(comparison.facts) > SHOWN:
        table.add_row("", f"and {len(comparison.facts) - SHOWN} more (--json has all)", "", "")
    return table


def _figures_table(comparison: Comparison) -> Table:
    table = Table(title="Side by side", title_justify="left")
    table.add_column("")
    for heading in ("A", "B", "B/A"):
        table.add_column(heading, justify="right")
    for figure in comparison.figures:
        table.add_row(figure.what, said(figure, figure.a), said(figure, figure.b), ratio(figure))
    return table


def said(figure: Figure, value: float | None) -> str:
    """A number as people read it.

    >>> said(Figure("step", "s", 0.0123, None), 0.0123), said(Figure("memory", "By", 1.0, 1.0), 3 * 2**20)
    ('12.3 ms', '3.0 MiB')
    """
    if value is None:
        return "none"
    if figure.unit == "By" and math.isfinite(value):
        return f"{value / 2**20:.1f} MiB" if value < 2**30 else f"{value / 2**30:.2f} GiB"
    if figure.unit == "s" and math.isfinite(value):
        return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.4g} s"
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"


def ratio(figure: Figure) -> str:
    """B over A, where that means something."""
    if figure.a is None or figure.b is None or not figure.a > 0 or not math.isfinite(figure.b):
        return ""
    return f"{figure.b / figure.a:.3f}"
