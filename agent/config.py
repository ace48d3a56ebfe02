"""Settings of the agent: argument, then environment (``TORCHVITALS_*``), then ``torchvitals.toml``, then default.

The file is ``./torchvitals.toml``, else ``torchvitals/torchvitals.toml`` in the XDG configuration home. Its
``[agent]`` table holds the fields of :class:`Settings`, each ``[[sinks]]`` table one receiver of alerts.
"""

import argparse
import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from torchvitals.agent.false_alarms import LEAST, MOST
from torchvitals.detectors.detector import Severity
from torchvitals.signals.spool import default_directory

FILE_NAME = "torchvitals.toml"
PREFIX = "TORCHVITALS_"
OTHER_TABLES = ("dashboard", "run")
"""Tables of the same file that other commands read."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ConfigError(Exception):
    """A setting that cannot be used; the message names its place and what is accepted."""


class _Sink(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    url: str
    """Where it listens, ``http://`` or ``https://``."""
    severity: Severity = "warning"
    """Incidents below this severity are not sent."""
    token: str = ""
    """Bearer token: ``env:NAME`` or ``file:PATH``; secrets are never written into the file itself."""
    timeout: float = 5.0
    """Seconds for one delivery."""


class AlertmanagerSink(_Sink, tag="alertmanager", kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An Alertmanager with API v2 (0.16 and newer); ``url`` without a path."""


class WebhookSink(_Sink, tag="webhook", kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Anything that accepts Alertmanager's webhook format, version 4; ``url`` as it is to be posted to."""


SinkSettings = AlertmanagerSink | WebhookSink


class Settings(msgspec.Struct, kw_only=True, frozen=True):
    """What the agent can be told. Durations are seconds."""

    directory: str = ""
    """Where runs are spooled; ``TORCHVITALS_DIR`` in the environment. Default: see ``signals/spool.py``."""
    also: tuple[str, ...] = ()
    """Directories in which other hosts spool: a run found in several is one run; in the environment with `:` between.
    """
    database: str = ""
    """The DuckDB file; ``agent.duckdb`` in the directory by default."""
    host: str = "127.0.0.1"
    """Address to listen on; anything but loopback needs ``token``."""
    port: int = 7411
    """Port to listen on; 0 takes a free one."""
    token: str = ""
    """Bearer token for the API: ``env:NAME`` or ``file:PATH`` in the file; the value itself in the environment."""
    since: float = 7 * 86400.0
    """Runs last written longer ago than this when the agent starts are left unread."""
    poll_seconds: float = 0.2
    """How soon new records are looked for while a run is writing."""
    idle_seconds: float = 2.0
    """How slowly the agent looks when nothing has been written for a while."""
    lost_after: float = 120.0
    """A process of another host that is silent for this long is taken for gone."""
    resolve_after: float = 300.0
    """Alerts of a run resolve this long after it has ended."""
    alert_horizon: float = 3600.0
    """A run that had ended longer ago than this when the agent first read it raises no alert."""
    retention: float = 30 * 86400.0
    """Rows of runs that ended longer ago than this are deleted; 0 keeps everything."""
    rank_series: int = 64
    """Up to this world size /metrics has one series per rank, above it the minimum, median and maximum."""
    false_alarms_per_month: float = 1.0
    """Expected in a month of a run, of all statistical detectors together, unless the run was started with a number."""
    memory_limit: str = "1GB"
    """What DuckDB may use."""
    log_format: str = "auto"
    """``json`` (one object a line), ``text``, or ``auto``: text on a terminal, else json."""
    dashboard_url: str = "http://127.0.0.1:7412"
    """Put into alerts so that a person can click."""
    runbook_url: str = ""
    """A page of yours with a section per kind of incident; alerts link to ``<runbook_url>#<kind>``."""
    alertmanager: str = ""
    """Short form of an ``alertmanager`` sink: its URL."""
    webhook: str = ""
    """Short form of a ``webhook`` sink: its URL."""
    sinks: tuple[SinkSettings, ...] = ()
    """Who is told; ``[[sinks]]`` in the file."""

    @property
    def runs_directory(self) -> Path:
        """The directory of all runs."""
        return Path(self.directory).expanduser() if self.directory else default_directory()

    @property
    def runs_directories(self) -> list[Path]:
        """That one, and those of other hosts."""
        return [self.runs_directory, *(Path(each).expanduser() for each in self.also)]

    @property
    def database_path(self) -> Path:
        """The store's file."""
        return Path(self.database).expanduser() if self.database else self.runs_directory / "agent.duckdb"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the API."""
        return self.host in LOOPBACK

    @property
    def all_sinks(self) -> tuple[SinkSettings, ...]:
        """The sinks of the file and the short forms."""
        short: list[SinkSettings] = [AlertmanagerSink(url=self.alertmanager)] if self.alertmanager else []
        short += [WebhookSink(url=self.webhook)] if self.webhook else []
        return (*self.sinks, *short)


FIELDS = Settings.__struct_fields__
FILE_ONLY = ("sinks",)
LISTS = ("also",)


def load(
    arguments: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
    file: Path | None = None,
) -> Settings:
    """Put the settings together.

    Args:
        arguments: what was typed; ``None`` values were not.
        environ: the environment.
        file: the settings file; found by :func:`find_file` when not given.

    Raises:
        ConfigError: an unknown key, a wrong type, a missing file or secret, or no token off loopback.

    """
    chosen = file or find_file(environ)
    values = _read_file(chosen) if chosen else {}
    values |= _from_environment(environ)
    values |= {name: value for name, value in (arguments or {}).items() if value is not None}
    _refuse_unknown(values, FIELDS, "argument")
    settings = _convert(values, "settings")
    return _checked(msgspec.structs.replace(settings, token=secret(settings.token, environ)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Hang the settings that are often typed on a command line; their defaults come from :func:`load`."""
    parser.add_argument("--directory", metavar="DIR", help="where runs are spooled (TORCHVITALS_DIR)")
    parser.add_argument(
        "--also", metavar="DIR", action="append", help="where another host spools the same runs; may be given again"
    )
    parser.add_argument("--database", metavar="FILE", help="the DuckDB file of the agent")
    parser.add_argument("--host", help="address to listen on; off loopback a token is needed")
    parser.add_argument("--port", type=int, help="port to listen on, 7411 by default; 0 takes a free one")
    parser.add_argument("--since", type=float, metavar="SECONDS", help="leave runs unread that are older than this")
    parser.add_argument("--alertmanager", metavar="URL", help="send alerts to this Alertmanager")
    parser.add_argument("--webhook", metavar="URL", help="post alerts there in Alertmanager's webhook format")
    parser.add_argument("--log-format", choices=("auto", "json", "text"), help="readable, or JSON lines")


def typed(args: argparse.Namespace) -> dict[str, Any]:
    """The settings among parsed arguments."""
    return {name: value for name, value in vars(args).items() if name in FIELDS and value is not None}


def find_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The settings file in force, if there is one."""
    config_home = environ.get("XDG_CONFIG_HOME")
    base = Path(config_home) if config_home else Path.home() / ".config"
    candidates = (Path.cwd() / FILE_NAME, base / "torchvitals" / FILE_NAME)
    return next((path for path in candidates if path.is_file()), None)


def usual_false_alarms(environ: Mapping[str, str] = os.environ) -> float:
    """``false_alarms_per_month`` alone, for commands that are no agent and need no secrets.

    Raises:
        ConfigError: the file cannot be read, or the number makes no sense.

    """
    chosen = find_file(environ)
    values = (_read_file(chosen) if chosen else {}) | _from_environment(environ)
    mine = {name: value for name, value in values.items() if name == "false_alarms_per_month"}
    return _checked(_convert(mine, "settings")).false_alarms_per_month


def secret(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The value behind ``env:NAME`` or ``file:PATH``; other text stands for itself.

    >>> secret("env:PAGER", {"PAGER": "s3cret"})
    's3cret'
    """
    where, _, name = text.partition(":")
    if where == "env":
        if not environ.get(name):
            raise ConfigError(f"{text}: the environment has no {name}; set it with: export {name}=...")
        return environ[name]
    if where == "file":
        try:
            return Path(name).expanduser().read_text().strip()
        except OSError as error:
            raise ConfigError(f"{text}: {error.strerror}") from error
    return text


def _read_file(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    _refuse_unknown(document, ("agent", "sinks", *OTHER_TABLES), str(path))
    table = document.get("agent", {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: `agent` must be a table: [agent]")
    _refuse_unknown(table, [name for name in FIELDS if name not in FILE_ONLY], f"{path} [agent]")
    values = {**table, "sinks": document.get("sinks", [])}
    settings = _convert(values, str(path), strict=True)
    for sink in (settings, *settings.sinks):
        _refuse_literal(sink.token, path)
    return values


def _refuse_literal(token: str, path: Path) -> None:
    if token and not token.startswith(("env:", "file:")):
        raise ConfigError(f'{path}: a token is not written here; use token = "env:NAME" or "file:PATH"')


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in FIELDS:
        if name not in FILE_ONLY and (text := environ.get(PREFIX + name.upper())):
            values[name] = text.split(os.pathsep) if name in LISTS else text
            _convert({name: values[name]}, f"environment {PREFIX}{name.upper()}")
    if chosen := environ.get("TORCHVITALS_DIR"):
        values["directory"] = chosen
    return values


def _refuse_unknown(values: Iterable[str], known: Iterable[str], where: str) -> None:
    names = list(known)
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(names)}"
            raise ConfigError(f"{where}: unknown setting `{key}`; {hint}")


def _convert(values: Mapping[str, Any], where: str, *, strict: bool = False) -> Settings:
    try:
        return msgspec.convert(dict(values), Settings, strict=strict)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error


def _checked(settings: Settings) -> Settings:
    if not settings.is_loopback and not settings.token:
        raise ConfigError(
            f"listening on {settings.host} needs a token, as others can reach it; "
            "set one with: export TORCHVITALS_TOKEN=$(openssl rand -hex 16)"
        )
    if not 0 <= settings.port <= 65535:
        raise ConfigError(f"port {settings.port} is not between 0 and 65535")
    if not LEAST <= settings.false_alarms_per_month <= MOST:
        raise ConfigError(f"false_alarms_per_month must be between {LEAST:g} and {MOST:g}, 1 by default")
    if settings.log_format not in ("auto", "json", "text"):
        raise ConfigError(f"log_format `{settings.log_format}` is none of auto, json, text")
    for sink in settings.all_sinks:
        if not sink.url.startswith(("http://", "https://")):
            raise ConfigError(f"sink url `{sink.url}` must begin with http:// or https://")
    return settings
