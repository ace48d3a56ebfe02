"""The one knob of all detectors: how many false alarms are expected in a month of a run.

It belongs to the run: ``torchvitals run --false-alarms-per-month 10 ...`` is written down by the launcher, so that
the agent and ``diagnose`` judge it alike. Runs that were started otherwise are judged by the agent's setting.
"""

import argparse
from collections.abc import Iterable, Mapping

from torchvitals.signals.records import Event

VARIABLE = "TORCHVITALS_FALSE_ALARMS_PER_MONTH"
LEAST, MOST = 1e-6, 1e6


def rate(text: str) -> float:
    """The number that was typed.

    Raises:
        argparse.ArgumentTypeError: it is none, or none that makes sense.

    >>> rate("0.1")
    0.1
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not LEAST <= value <= MOST:
        raise argparse.ArgumentTypeError(f"`{text}` is no number of false alarms in a month, such as 1 or 0.1")
    return value


def asked_of(events: Iterable[Event]) -> float | None:
    """What the launcher of a run was told; ``None`` when nobody told it anything that can be read."""
    for event in events:
        environment = event.details.get("environment")
        if event.kind == "command" and isinstance(environment, Mapping) and VARIABLE in environment:
            try:
                return rate(str(environment[VARIABLE]))
            except argparse.ArgumentTypeError:
                return None
    return None


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Hang the option on a command."""
    parser.add_argument(
        "--false-alarms-per-month",
        type=rate,
        metavar="N",
        help=f"false alarms expected in a month of a run, 1 by default ({VARIABLE}): docs/calibration.md",
    )
