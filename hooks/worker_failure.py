"""Did a worker of a data loader die? Then what the main process raises is often only a connection that was lost.

Torch says so from a handler of SIGCHLD, which may come too late: the exception is on its way out by then.
"""

import sys
import time
from types import TracebackType
from typing import Any

LOADER = "torch/utils/data/dataloader.py"
LOST = (ConnectionError, EOFError)
"""What a loader raises when a worker's end of the pipe is gone, a moment before the worker itself is."""
PATIENCE, PAUSE = 1.0, 0.01
"""Seconds for a worker to be gone whose connection was lost, and between two looks; the job is over in any case."""


def failure_behind(error: BaseException, trace: TracebackType | None) -> str:
    """What torch says of a dead worker, if ``error`` came out of a loader; empty if none died.

    Private: ``torch._C._error_if_any_worker_fails``, which torch's own handler calls. Without it nothing is added.
    """
    while trace is not None and not trace.tb_frame.f_code.co_filename.endswith(LOADER):
        trace = trace.tb_next
    extension: Any = sys.modules.get("torch._C")
    fails = getattr(extension, "_error_if_any_worker_fails", None)
    if trace is None or fails is None:
        return ""
    try:
        fails()
        until = time.monotonic() + PATIENCE
        while isinstance(error, LOST) and time.monotonic() < until:
            time.sleep(PAUSE)
            fails()
    except RuntimeError as failure:  # of torch's handler as well, if the signal comes now
        return str(failure)
    return ""
