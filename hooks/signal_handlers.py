"""What a signal handler of the job raises while code of ours happens to run is the job's, and goes on to it.

torch's data loader raises from its handler of SIGCHLD when a worker has died, and scripts from theirs of SIGALRM when
the time is up. A handler runs between any two byte codes of the main thread: now and then between two of ours.
"""

import signal
from types import CodeType


def raised_in_handler(error: BaseException) -> bool:
    """Whether ``error`` came out of a signal handler that is installed now.

    >>> def handler(number, frame):
    ...     raise TimeoutError("the time is up")
    >>> before = signal.signal(signal.SIGUSR1, handler)
    >>> try:
    ...     signal.raise_signal(signal.SIGUSR1)
    ... except TimeoutError as caught:
    ...     raised_in_handler(caught)
    True
    >>> _ = signal.signal(signal.SIGUSR1, before)
    """
    codes, trace = _codes(), error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False


def _codes() -> set[CodeType]:
    handlers = map(signal.getsignal, signal.valid_signals())
    return {code for handler in handlers if isinstance(code := getattr(handler, "__code__", None), CodeType)}
