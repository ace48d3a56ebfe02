r"""What a process leaves that dies where no Python runs: the stack that the C code of ``faulthandler`` writes.

It lies beside the spool, since a signal handler can append to a file and to nothing else; who sees from outside that
the process is gone (the launcher) puts it into a record.
"""

import re
from pathlib import Path

NAME = "last_words"
"""The file in the directory of a process; empty unless a fatal signal came."""
FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$')
CURRENT = "Current thread"
MOST_BYTES = 1 << 16


def last_words(path: Path) -> list[str]:
    """The stack of the thread in which the process at ``path`` died; empty where it had nothing to say.

    A thread without Python, as gloo's, has none: then that of the main thread, which is the one that began in a module.
    """
    try:
        with (path / NAME).open("rb") as file:
            text = file.read(MOST_BYTES).decode(errors="replace")
    except OSError:
        return []
    _, found, current = text.partition(CURRENT)
    stacks = [stack_of(part) for part in ([current.split("\n\n")[0]] if found else text.split("\n\n"))]
    began = (stack for stack in stacks if stack and stack[0].endswith(" <module>"))
    return stacks[0] if found and stacks[0] else next(began, [])


def stack_of(text: str) -> list[str]:
    r"""A stack as ``faulthandler`` writes it, turned round: ``file:line function``, innermost last.

    >>> stack_of('Stack (most recent call first):\n  File "a.py", line 3 in get\n  File "b.py", line 9 in main\n')
    ['b.py:9 main', 'a.py:3 get']
    """
    lines = [match.groups() for line in text.splitlines() if (match := FRAME.match(line))]
    return [f"{file}:{line} {name}" for file, line, name in reversed(lines)]
