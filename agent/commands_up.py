"""``torchvitals up``: agent and dashboard side by side, until one of them or Ctrl-C ends both."""

import argparse
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

from torchvitals.agent.errors import CommandError
from torchvitals.agent.ports import require_free

HOST = "127.0.0.1"
AGENT_PORT, DASHBOARD_PORT = 7411, 7412
LOOK_SECONDS = 0.2
END_SECONDS = 10.0
"""What a part gets to end in peace: the agent commits what waits."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=AGENT_PORT, help="of the agent (default: %(default)s)")
    parser.add_argument("--dashboard-port", type=int, default=DASHBOARD_PORT, help="(default: %(default)s)")
    parser.add_argument("--dir", type=Path, default=None, help="where runs are recorded (TORCHVITALS_DIR)")


def execute(args: argparse.Namespace) -> int:
    _require_both()
    require_free(HOST, args.port, "--port")
    require_free(HOST, args.dashboard_port, "--dashboard-port")
    environ = {**os.environ, "TORCHVITALS_PORT": str(args.port), "TORCHVITALS_URL": f"http://{HOST}:{args.port}"}
    if args.dir is not None:
        environ["TORCHVITALS_DIR"] = str(args.dir.absolute())
    ourselves = [sys.executable, "-m", "torchvitals.agent.cli"]
    parts = [
        subprocess.Popen([*ourselves, *words], env=environ)  # noqa: S603 (our own commands)
        for words in (["agent"], ["dashboard", "--port", str(args.dashboard_port)])
    ]
    print(
        f"dashboard: http://{HOST}:{args.dashboard_port}  agent: http://{HOST}:{args.port}  (Ctrl-C ends both)",
        flush=True,
    )
    return _watch(parts)


def _require_both() -> None:
    """Say what is not installed before one part runs and the other does not."""
    missing = [extra for library, extra in (("uvicorn", "agent"), ("streamlit", "dashboard")) if not find_spec(library)]
    if missing:
        raise CommandError(f"not all of it is installed; type: pip install 'torchvitals[{','.join(missing)}]'")


def _watch(parts: "list[subprocess.Popen[bytes]]") -> int:
    """Wait until one part ends or we are told to; end the others; return the first failure."""
    told: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        told.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    while not told and all(part.poll() is None for part in parts):
        time.sleep(LOOK_SECONDS)
    codes = [part.poll() for part in parts]
    for part in parts:
        part.terminate()
    for part in parts:
        try:
            part.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            part.kill()
    return 0 if told else next((code for code in codes if code), 0)
