"""The agent as a service: everything is put together here, started, and ended cleanly."""

import argparse
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from torchvitals.agent import logs, views
from torchvitals.agent.alerts import Alerting
from torchvitals.agent.api import make_app
from torchvitals.agent.config import ConfigError, Settings, add_arguments, load, typed
from torchvitals.agent.incident import Incident
from torchvitals.agent.intake import Intake
from torchvitals.agent.lifecycle import incident as told_incident
from torchvitals.agent.liveness import Liveness
from torchvitals.agent.metrics import make_registry
from torchvitals.agent.routes import Parts
from torchvitals.agent.run_state import RunState
from torchvitals.agent.sinks import make_sink
from torchvitals.agent.store import Store, StoreError
from torchvitals.agent.stream import Broadcast
from torchvitals.agent.vitals import Vitals
from torchvitals.detectors.allowance import Allowance

log = logging.getLogger("torchvitals.agent")

SHUTDOWN_SECONDS = 3
"""Requests in progress at the end get this long."""
JOIN_SECONDS = 10.0
"""The intake may be in the middle of a large commit when it is told to stop."""


class ListenError(Exception):
    """The address cannot be listened on; the message says what to type."""


class Service:
    """Store, intake, alerting and API of one agent.

    Args:
        settings: what it was told.

    Raises:
        StoreError: the store is held by another agent or cannot be opened.
        ConfigError: a sink's secret is missing.

    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.broadcast = Broadcast()
        sinks = [make_sink(sink, settings.dashboard_url) for sink in settings.all_sinks]
        self.store = Store(settings.database_path, memory_limit=settings.memory_limit)
        self.alerting = Alerting(
            self.store,
            sinks,
            dashboard_url=settings.dashboard_url,
            runbooks=settings.runbook_url,
            resolve_after=settings.resolve_after,
            horizon=settings.alert_horizon,
        )
        self.intake = Intake(
            settings.runs_directories,
            self.store,
            partial(RunState, allowance=Allowance(settings.false_alarms_per_month)),
            liveness=Liveness(silent_after=settings.lost_after),
            since=settings.since,
            poll_seconds=settings.poll_seconds,
            idle_seconds=settings.idle_seconds,
            retention=settings.retention,
            on_commit=self._committed,
        )
        registry = make_registry(self, settings.rank_series)
        parts = Parts(self.store, self.broadcast, self.about)
        self.app = make_app(parts, registry, token=settings.token, is_ready=lambda: self.intake.caught_up)
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self.intake.follow, args=(self._stop,), name="intake"),
            threading.Thread(target=self.alerting.follow, args=(self._stop,), name="alerting"),
        ]

    def start(self) -> None:
        """Begin to read and to alert."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Commit what waits and let go of the store."""
        self._stop.set()
        self.alerting.wake()
        self.broadcast.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(JOIN_SECONDS)
        self.store.close()

    def about(self) -> dict[str, Any]:
        """The agent itself, as ``GET /agent`` tells it."""
        return {
            "version": version("torchvitals"),
            "directory": str(self.settings.runs_directory),
            "also": [str(directory) for directory in self.settings.runs_directories[1:]],
            "database": str(self.settings.database_path),
            "pid": os.getpid(),
            "uptime_seconds": time.monotonic() - self._started,
            "caught_up": self.intake.caught_up,
            "lag_seconds": self.lag_seconds,
            "records": self.records,
            "dropped": self.dropped,
            "errors": self.errors,
            "sinks": self.alerting.standings,
        }

    @property
    def vitals(self) -> dict[str, Vitals]:
        """Snapshots of the runs at hand."""
        return self.intake.vitals

    @property
    def firing(self) -> dict[str, int]:
        """Severity → incidents whose alert is not over."""
        return self.alerting.firing

    @property
    def records(self) -> int:
        """Records read since the start."""
        return self.intake.records

    @property
    def dropped(self) -> dict[str, int]:
        """Reason → records that never arrived."""
        return self.intake.dropped()

    @property
    def lag_seconds(self) -> float:
        """How far the intake is behind."""
        return self.intake.lag_seconds

    @property
    def spool_bytes(self) -> int:
        """Size of the files of the runs at hand."""
        return self.intake.spool_bytes()

    @property
    def errors(self) -> dict[str, int]:
        """Part → errors since the start."""
        failed = sum(standing["failed"] for standing in self.alerting.standings.values())
        return {**self.intake.errors, "alerting": self.alerting.errors, "sinks": failed}

    def _committed(self, run: str, incidents: Sequence[Incident]) -> None:
        self.broadcast.publish("run", views.run(self.store, run))
        for incident in incidents:
            self.broadcast.publish("incident", told_incident(self.store, incident.id))
        if incidents:
            self.alerting.wake()


class _Server(uvicorn.Server):
    """Uvicorn without its signal handling, which would raise the signal again after a clean end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ListenError: the port is taken, or the address is not ours.

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ListenError(
            f"cannot listen on {host}:{port} ({getattr(error, 'strerror', error)}); "
            f"choose another port with: torchvitals agent --port {port + 1 if port < 65535 else 0}"
        ) from error
    return listener


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """``torchvitals agent``: run until SIGTERM or SIGINT; return the exit code. Errors are one line on stderr.

    Args:
        arguments: the words behind the command.
        environ: the environment.

    """
    parser = argparse.ArgumentParser(
        prog="torchvitals agent", description="Follow all runs: diagnose, store, serve, alert."
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file, instead of the one that is found")
    add_arguments(parser)
    args = parser.parse_args(arguments)
    try:
        settings = load(typed(args), environ, args.config)
        with listen(settings.host, settings.port) as listener:
            return serve(Service(settings), listener)
    except (ConfigError, StoreError, ListenError) as error:
        print(f"torchvitals: {error}", file=sys.stderr)  # noqa: T201  the command's one-line error
        return 2


def serve(service: Service, listener: socket.socket) -> int:
    """Serve until a signal comes; only the main thread can be told by signals."""
    settings = service.settings
    logs.configure(settings.log_format)
    config = uvicorn.Config(
        service.app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=SHUTDOWN_SECONDS
    )
    server = _Server(config)

    def end(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True
        service.broadcast.close()

    previous = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    host, port = listener.getsockname()[:2]
    service.start()
    places = ", ".join(map(str, settings.runs_directories))
    log.info("torchvitals %s on http://%s:%d, runs in %s", version("torchvitals"), host, port, places)
    try:
        server.run([listener])
    finally:
        service.stop()
        for number, handler in previous.items():
            signal.signal(number, handler)
    log.info("ended")
    return 0
