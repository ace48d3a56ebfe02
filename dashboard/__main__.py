"""``python -m torchvitals.dashboard``: the dashboard on loopback, port 7412.

Options are Streamlit's own settings: nothing is sent anywhere, no browser is opened, and light or dark is the
reader's choice.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from torchvitals.dashboard.client import DEFAULT_URL

PORT = 7412


def settings(address: str, port: int) -> dict[str, str]:
    """What Streamlit is told."""
    return {
        "server.address": address,
        "server.port": str(port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "theme.light.primaryColor": "#0072B2",
        "theme.dark.primaryColor": "#56B4E9",
    }


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="torchvitals dashboard", description="Show runs and incidents in a browser.")
    parser.add_argument("--url", default=os.environ.get("TORCHVITALS_URL") or DEFAULT_URL, help="the agent's address")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="port to listen on (default: %(default)s)")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Become Streamlit."""
    chosen = arguments(given)
    os.environ["TORCHVITALS_URL"] = chosen.url
    # What a person has exported for other Streamlit programs does not apply here.
    told = [f"--{name}={value}" for name, value in settings(chosen.host, chosen.port).items()]
    app = Path(__file__).with_name("app.py")
    command = [sys.executable, "-m", "streamlit", "run", str(app), *told]
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606  our own interpreter and file


if __name__ == "__main__":
    main()
