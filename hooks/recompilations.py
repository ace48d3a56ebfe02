"""What torch.compile has compiled again since the last step, why, and how long the job waited for it.

Dynamo counts the frames it looks at and keeps a record of each: reading the counter takes 0.3 µs a step, and the
records are read only when it has moved. Both are private, and looked for at each start: without them nothing is said.
"""

import sys
from collections.abc import Callable
from typing import Any

from torchvitals.hooks.source import is_user_file, short

MOST_TOLD = 12
"""Recompilations whose reason is written down: dynamo itself gives up a function after 8 by default."""
REASON = 160
"""Characters of a reason: what follows repeats the source."""


class Recompilations:
    """Looks at dynamo's own records.

    Args:
        tell: writes an event.
    """

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell
        self._left = MOST_TOLD
        self._newest = 0
        dynamo = sys.modules.get("torch._dynamo.utils")
        self._frames = _frames(dynamo)
        if dynamo is not None:
            self._fresh(dynamo)  # what was compiled before anybody watched is not this job's affair

    def since(self) -> dict[str, float]:
        """Signals of the step that ends; empty where nothing was compiled."""
        dynamo = sys.modules.get("torch._dynamo.utils")
        if dynamo is None:
            return {}
        frames = _frames(dynamo)
        fewer, self._frames = frames <= self._frames, frames  # somebody may set the counters back
        if fewer:
            return {}
        fresh = self._fresh(dynamo)
        again = [record for record in fresh if getattr(record, "recompile_reason", None)]
        for record in again[: self._left]:
            self._left -= 1
            self._tell("recompiled", **_described(record))
        given_up = sum(_gave_up(record) for record in again)
        seconds = sum(float(getattr(record, "entire_frame_compile_time_s", None) or 0.0) for record in fresh)
        return {
            "compile_seconds": seconds,
            **({"recompilations": float(len(again))} if again else {}),
            **({"recompile_limit_hits": float(given_up)} if given_up else {}),
        }

    def _fresh(self, dynamo: Any) -> list[Any]:
        """Records that began after those seen last: there is no number to go by, and the oldest are thrown away."""
        read = getattr(dynamo, "get_compilation_metrics", None)
        records = [r for r in (read() if read else ()) if (getattr(r, "start_time_us", None) or 0) > self._newest]
        self._newest = max((record.start_time_us for record in records), default=self._newest)
        return records


def _frames(dynamo: Any) -> int:
    """How many frames dynamo has looked at; 0 while it is not there."""
    counters = getattr(dynamo, "counters", None) or {}
    return int(counters["frames"]["total"]) if "frames" in counters else 0


def _gave_up(record: Any) -> bool:
    return "recompile limit" in str(getattr(record, "fail_reason", "") or "").lower()


def _described(record: Any) -> dict[str, Any]:
    """Which function, where, and the guard that failed, without the number of the variant it belongs to."""
    reason = str(record.recompile_reason).splitlines()[0]
    file = str(getattr(record, "co_filename", "") or "")
    return {
        "function": str(getattr(record, "co_name", "") or ""),
        "line": f"{short(file)}:{record.co_firstlineno}" if file and is_user_file(file) else "",
        "reason": " ".join(reason.split(": ", 1)[-1].split("#", 1)[0].split())[:REASON],
        "seconds": float(getattr(record, "entire_frame_compile_time_s", None) or 0.0),
        "gave_up": _gave_up(record),
    }
