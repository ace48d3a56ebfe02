"""How the process of a crash ended, by whoever knows: itself, its parent, the launcher. Some of it is told later."""

import signal
from typing import NamedTuple

from torchvitals.agent.case import Case
from torchvitals.detectors.detector import Finding

FATAL = frozenset({signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV})
"""Signals that code brings upon itself; nobody sends them from outside to end a job."""


LAST_WRITTEN = (
    "The last step that was written is {step}; of steps too light to be written one by one up to a second is lost."
)
"""After a signal from outside, which leaves a process no time for what it keeps."""


class Ended(NamedTuple):
    """Exit code and signal; ``None`` where nobody knows."""

    code: int | None
    signal: int | None


def ended(case: Case, crash: Finding) -> Ended:
    """What the finding says, or what torchrun or ``mp.spawn`` said after it."""
    number, code = crash.evidence.get("signal"), crash.evidence.get("exit_code")
    if crash.evidence.get("gone"):
        for _, event in case.events_of("children"):
            for child in event.details.get("children", ()):
                if child.get("pid") == crash.evidence.get("pid"):
                    code = int(child["code"])
                    number = -code if code < 0 else None
    return Ended(None if code is None else int(code), None if number is None else int(number))


def counted_kills(case: Case, finding: Finding) -> int | None:
    """Out-of-memory kills in the control group meanwhile, by the kernel's count; ``None`` where there is none.

    An exception is told before the command has ended, and the launcher counts when it has.
    """
    told = [event.details.get("oom_kills") for _, event in case.events_of("command_exit")]
    found = [kills for kills in (finding.evidence.get("oom_kills"), *told) if kills is not None]
    return max(map(int, found), default=None)


def signal_name(number: int) -> str:
    """``SIGKILL``, or the number of one without a name.

    >>> signal_name(9)
    'SIGKILL'
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
