"""How a worker process of a data loader died, in the words of torch."""

import re
from collections.abc import Mapping
from typing import Any

_DIED = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) "
    r"(?:is killed by signal: (?P<signal>[\w ]+)|exited unexpectedly(?: with exit code (?P<code>\d+))?)"
)


def how_worker_died(exception: Mapping[str, Any]) -> str:
    """From the details of an exception of the main process; empty where no worker died.

    >>> how_worker_died({"message": "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible ..."})
    'killed by signal: Bus error'
    >>> how_worker_died({"message": "DataLoader worker (pid(s) 7, 8) exited unexpectedly"})
    'gone without a word'
    >>> how_worker_died({"message": "Connection reset by peer"})
    ''
    """
    texts = " ".join(str(exception.get(key) or "") for key in ("meanwhile", "message", "cause"))
    found = _DIED.search(texts)
    if found is None:
        return ""
    if found["signal"]:
        return f"killed by signal: {found['signal'].strip()}"
    return f"ended with exit code {found['code']}" if found["code"] else "gone without a word"
