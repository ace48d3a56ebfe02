"""In which line of the job's own code its time goes, from one look a second: what gets slower is there most often."""

from collections import Counter, deque
from types import FrameType
from typing import Any

from torchvitals.hooks.source import Line, is_user_file, of_library

NEWEST = 16
"""Looks that count: a line that has come to take the time was not there in the first minutes."""
LEAST = 4
MOSTLY = 0.5
"""Share of the looks that the function must have."""


class Dwelling:
    """Remembers where the main thread was found; says where it dwells after 4, 8, 16 and so on looks.

    The function is the innermost one of the job's own files that any library was called from; the line is where that
    was met most often. Two integers and a name are kept of a look, and no frame.
    """

    def __init__(self) -> None:
        self._looks: deque[tuple[str, str, int]] = deque(maxlen=NEWEST)
        self._seen = 0
        self._next = LEAST

    def look(self, frame: FrameType | None) -> dict[str, Any] | None:
        """Look once; what is to be told, if it is time for it: `line`, `code`, `function`, `share`, `looks`."""
        found = _own(frame)
        self._looks.append(found)
        self._seen += 1
        if self._seen < self._next:
            return None
        self._next *= 2
        return self._told()

    def _told(self) -> dict[str, Any] | None:
        (file, function), often = Counter((file, name) for file, name, _ in self._looks).most_common(1)[0]
        share = often / len(self._looks)
        if not file or share < MOSTLY:
            return None
        numbers = Counter(number for where, name, number in self._looks if (where, name) == (file, function))
        line = Line(file, numbers.most_common(1)[0][0])
        return {
            "line": str(line), "code": line.code, "function": function, "share": share, "looks": len(self._looks),
        }  # fmt: skip


def _own(frame: FrameType | None) -> tuple[str, str, int]:
    """File, function and line of the innermost frame that is the job's own; empty where there is none."""
    while frame is not None:
        code = frame.f_code
        if is_user_file(code.co_filename) and not of_library(code.co_filename):
            return code.co_filename, code.co_name, frame.f_lineno or 0
        frame = frame.f_back
    return "", "", 0
