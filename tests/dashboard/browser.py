"""A headless Chromium spoken to over its debugging socket: open a page, wait for text, ask, photograph.

``python tests/dashboard/browser.py URL picture.png [--dark] [--wait TEXT]`` photographs a page by hand.
"""

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self
from urllib.request import urlopen

from websockets.sync.client import connect

PATIENCE = 60.0
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--hide-scrollbars", "--remote-debugging-port=0"),
)


class Browser:
    """One tab. Use it as a context manager; the browser and its profile are gone afterwards."""

    def __init__(self, *, dark: bool = False, width: int = 1400, height: int = 1000) -> None:
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        program = shutil.which("chromium") or "chromium"
        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self.profile}", f"--window-size={width},{height}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self.profile},
        )
        self.size = (width, height)
        self.number = 0
        self.troubles: list[str] = []
        """Uncaught exceptions of the page's scripts."""
        self.socket = connect(self._tab(), max_size=None).__enter__()  # left in our own __exit__
        self.ask("Page.enable")
        self.ask("Runtime.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def _tab(self) -> str:
        port_file = Path(self.profile) / "DevToolsActivePort"
        port = self._until(lambda: port_file.exists() and port_file.read_text().split("\n")[0], "Chromium's port")
        tabs = json.loads(urlopen(f"http://127.0.0.1:{port}/json").read())
        return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def ask(self, method: str, **parameters: object) -> dict:
        """One command and its answer."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(timeout=PATIENCE))
            if answer.get("method") == "Runtime.exceptionThrown":
                details = answer["params"]["exceptionDetails"]
                self.troubles.append(details.get("exception", {}).get("description", details.get("text", "")))
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(answer["error"]["message"])
                return answer["result"]

    def open(self, url: str, text: str = "") -> None:
        """Go to ``url`` and wait until ``text`` is on the page and Streamlit has nothing running."""
        self.ask("Page.navigate", url=url)
        self.wait(text)

    def wait(self, text: str = "") -> None:
        """Wait until ``text`` is on the page and nothing is running."""
        idle = "!document.querySelector('[data-testid=stStatusWidget]') && !!document.querySelector('.stApp')"
        found = f"document.body.innerText.includes({json.dumps(text)})"
        self._until(lambda: self.evaluate(f"{idle} && {found}"), f"{text!r} on the page")

    def evaluate(self, expression: str):
        """The value of a JavaScript expression."""
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    def click(self, text: str) -> None:
        """Click the first link, button or tab whose text contains ``text``."""
        wanted = json.dumps(text)
        find = f"[...document.querySelectorAll('a, button, [role=tab]')].find(e => e.innerText.includes({wanted}))"
        self._until(lambda: self.evaluate(f"!!{find}"), f"something to click that says {text!r}")
        self.evaluate(f"{find}.click()")

    def photograph(self, path: Path, *, whole: bool = True) -> None:
        """Save a picture of the page; ``whole`` is all that can be scrolled to."""
        width, height = self.size
        if whole:
            # Streamlit scrolls inside an element, so the window is made as tall as that.
            expression = "Math.max(...[...document.querySelectorAll('.stMain, .stApp')].map(e => e.scrollHeight))"
            height = max(height, int(self.evaluate(expression) or height))
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._until(lambda: self.evaluate("document.fonts.status === 'loaded'"), "fonts")
        picture = self.ask("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(picture["data"]))

    @staticmethod
    def _until(ready, what: str):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if value := ready():
                return value
            time.sleep(0.1)
        raise TimeoutError(f"waited {PATIENCE:.0f} s for {what}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--wait", default="")
    parser.add_argument("--click", default="")
    chosen = parser.parse_args()
    with Browser(dark=chosen.dark) as browser:
        browser.open(chosen.url, chosen.wait)
        if chosen.click:
            browser.click(chosen.click)
        time.sleep(2)
        browser.photograph(chosen.picture)
        if browser.troubles:
            sys.exit("\n".join(browser.troubles))
