"""The agent's log: one readable line per event on a terminal, one JSON object per event elsewhere."""

import json
import logging
import sys
import time
from typing import Literal, TextIO

Format = Literal["auto", "json", "text"]


class JsonLines(logging.Formatter):
    """``{"time": ..., "level": ..., "message": ...}``, with ``error`` when there is a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(wanted: str = "auto", stream: TextIO | None = None) -> None:
    """Send everything from ``torchvitals`` and warnings of the server to ``stream`` (stderr)."""
    target = stream or sys.stderr
    readable = wanted == "text" or (wanted == "auto" and target.isatty())
    handler = logging.StreamHandler(target)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s") if readable else JsonLines())
    for name, level in (("torchvitals", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
