"""Colours that stay apart for colour-blind eyes on white and on near-black.

The set is Okabe and Ito's (Color Universal Design, 2008), ordered for contrast with the background. Colour is
never the only bearer: severities have shapes and words, lines have dashes, non-finite cells have a cross.
"""

from typing import Literal, NamedTuple


class Palette(NamedTuple):
    """The colours of one theme. ``lines`` are taken in order."""

    lines: tuple[str, ...]
    severity: dict[str, str]
    nonfinite: str
    """Where a value is NaN or Inf: it is on no colour scale."""
    on_nonfinite: str
    """The cross on a cell of that colour."""
    zero: str
    quiet: str
    scale: Literal["viridis", "cividis"]
    """Vega's name of the sequential scheme: its low end recedes into the background."""


LIGHT = Palette(
    lines=("#0072B2", "#D55E00", "#009E73", "#AA4499", "#B07D00", "#3B8FC4", "#555555", "#882255"),
    severity={"critical": "#B5190F", "error": "#C4500A", "warning": "#8A6A00", "info": "#0072B2"},
    nonfinite="#D41159",
    on_nonfinite="#FFFFFF",
    zero="#E3E3E8",
    quiet="#6B7280",
    scale="viridis",
)
DARK = Palette(
    lines=("#56B4E9", "#E69F00", "#2FC59B", "#E39AC6", "#F0E442", "#8CCBF2", "#BBBBBB", "#FF9E6B"),
    severity={"critical": "#FF6B5E", "error": "#FF9457", "warning": "#F0C94A", "info": "#56B4E9"},
    nonfinite="#FF5C9E",
    on_nonfinite="#16181D",
    zero="#4A4F5C",
    quiet="#9AA1AD",
    scale="viridis",
)
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [1, 0], [6, 3], [2, 2], [8, 3, 2, 3])


def palette(*, dark: bool) -> Palette:
    """The colours for the theme in force."""
    return DARK if dark else LIGHT
