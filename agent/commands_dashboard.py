"""``torchvitals dashboard``: Streamlit over the agent's API, in a process of its own."""

import importlib.util
import subprocess
import sys
from collections.abc import Sequence

from torchvitals.agent.errors import CommandError
from torchvitals.agent.ports import require_free

HOST, PORT = "127.0.0.1", 7412


def main(arguments: Sequence[str]) -> int:
    """Hand the arguments to the dashboard, after looking for what would make it fail with a traceback."""
    if importlib.util.find_spec("streamlit") is None:
        raise CommandError("the dashboard needs streamlit; type: pip install 'torchvitals[dashboard]'")
    if not {"-h", "--help"} & set(arguments):
        port = option(arguments, "--port", str(PORT))
        if not port.isdigit():
            raise CommandError(f"--port {port} is not a number; give one, for example --port {PORT}")
        require_free(option(arguments, "--host", HOST), int(port), "--port")
    command = [sys.executable, "-m", "torchvitals.dashboard", *arguments]
    try:
        return subprocess.run(command, check=False).returncode  # noqa: S603 (our own module)
    except KeyboardInterrupt:
        return 0  # Ctrl-C is how a dashboard is ended, and Streamlit got it too


def option(arguments: Sequence[str], name: str, default: str) -> str:
    """The value of an option, given as two words or with an equals sign."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == name and following:
            return following
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return default
