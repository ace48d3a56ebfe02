"""``torchvitals dashboard``: Streamlit over the agent's API, in the place of this process."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from torchvitals.agent.errors import CommandError
from torchvitals.agent.ports import require_free

HOST, PORT = "127.0.0.1", 7412


def main(arguments: Sequence[str]) -> NoReturn:
    """Hand the arguments to the dashboard, after looking for what would make it fail with a traceback."""
    if importlib.util.find_spec("streamlit") is None:
        raise CommandError("the dashboard needs streamlit; type: pip install 'torchvitals[dashboard]'")
    if not {"-h", "--help"} & set(arguments):
        port = option(arguments, "--port", str(PORT))
        if not port.isdigit():
            raise CommandError(f"--port {port} is not a number; give one, for example --port {PORT}")
        require_free(option(arguments, "--host", HOST), int(port), "--port")
    command = [sys.executable, "-m", "torchvitals.dashboard", *arguments]
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 (our own module; whoever ends this process ends the dashboard)


def option(arguments: Sequence[str], name: str, default: str) -> str:
    """The value of an option, given as two words or with an equals sign."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == name and following:
            return following
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return default
