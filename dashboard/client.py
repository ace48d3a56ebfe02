"""The agent's API as Python calls. Every failure is an :class:`AgentError` that says what to type next."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from torchvitals.dashboard.answers import (
    Agent,
    Answer,
    Incident,
    IncidentList,
    Profiles,
    Run,
    RunDetails,
    RunList,
    Series,
    SeriesList,
)

DEFAULT_URL = "http://127.0.0.1:7411"
TIMEOUT = 10.0
"""Seconds; the agent answers in milliseconds, and a page that waits longer looks dead."""

A = TypeVar("A", bound=Answer)


class AgentError(Exception):
    """The agent did not give what was asked; ``hint`` is what to do about it."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


class AgentAbsentError(AgentError):
    """Nobody answers at the address."""


class AgentRefusedError(AgentError):
    """The agent wants a token that we have not got."""


class NotThereError(AgentError):
    """No such run or incident."""


class Client:
    """Asks one agent.

    Args:
        url: where it listens, without a path.
        token: bearer token, needed when the agent listens beyond loopback.
        transport: injected for tests.

    Raises:
        AgentAbsentError: ``url`` is not an address.

    """

    def __init__(self, url: str = DEFAULT_URL, token: str = "", transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            # trust_env: a proxy of the office would be asked for 127.0.0.1
            self._http = httpx.Client(
                base_url=f"{self.url}/api/v1", headers=headers, timeout=TIMEOUT, transport=transport, trust_env=False
            )
        except httpx.InvalidURL as error:
            raise AgentAbsentError(
                f"{self.url} is not an address: {error}", f"export TORCHVITALS_URL={DEFAULT_URL}"
            ) from error

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Client":
        """The agent that ``TORCHVITALS_URL`` and ``TORCHVITALS_TOKEN`` name."""
        return cls(environ.get("TORCHVITALS_URL") or DEFAULT_URL, environ.get("TORCHVITALS_TOKEN", ""))

    def agent(self) -> Agent:
        """The agent about itself."""
        return self._get("/agent", Agent)

    def runs(self) -> list[Run]:
        """All runs, the newest first."""
        return self._get("/runs", RunList).runs

    def run(self, run: str) -> RunDetails:
        """One run.

        Raises:
            NotThereError: the agent does not know it.

        """
        return self._get(f"/runs/{_part(run)}", RunDetails)

    def series(
        self,
        run: str,
        signals: Sequence[str],
        rank: int | None = None,
        *,
        start: int | None = None,
        end: int | None = None,
        points: int = 600,
    ) -> list[Series]:
        """Down-sampled measurements; ``rank`` None is all ranks."""
        if not signals:
            return []
        query = {"signals": ",".join(signals), "rank": "all" if rank is None else rank, "points": points}
        limits = {name: step for name, step in (("start", start), ("end", end)) if step is not None}
        return self._get(f"/runs/{_part(run)}/series", SeriesList, {**query, **limits}).series

    def profiles(self, run: str, signal: str, rank: int = 0, points: int = 200) -> Profiles:
        """Sampled steps of one signal along its axis."""
        return self._get(f"/runs/{_part(run)}/profiles", Profiles, {"signal": signal, "rank": rank, "points": points})

    def incidents(self, run: str | None = None, status: Sequence[str] = ()) -> list[Incident]:
        """Incidents of one run or of all, the most severe first."""
        query = {"run": run, "status": ",".join(status)}
        return self._get("/incidents", IncidentList, {name: value for name, value in query.items() if value}).incidents

    def incident(self, incident: str) -> Incident:
        """One incident.

        Raises:
            NotThereError: the agent does not know it.

        """
        return self._get(f"/incidents/{_part(incident)}", Incident)

    def acknowledge(self, incident: str, by: str) -> None:
        """Say that somebody is at it."""
        self._ask("POST", f"/incidents/{_part(incident)}/acknowledge", json={"by": by})

    def resolve(self, incident: str) -> None:
        """Say that it is over."""
        self._ask("POST", f"/incidents/{_part(incident)}/resolve", json={})

    def silence(self, incident: str, seconds: float) -> None:
        """Send no alerts about it for a while."""
        self._ask("POST", f"/incidents/{_part(incident)}/silence", json={"seconds": seconds})

    def _get(self, path: str, kind: type[A], query: Mapping[str, Any] | None = None) -> A:
        body = self._ask("GET", path, params=query)
        try:
            return msgspec.convert(msgspec.json.decode(body), kind, strict=False)
        except (msgspec.MsgspecError, ValueError) as error:
            raise AgentError(
                f"{self.url} answered {path} with something else than the agent's API: {error}",
                "Is another program on that port, or an agent of another version? type: torchvitals doctor",
            ) from error

    def _ask(self, method: str, path: str, **options: Any) -> bytes:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TimeoutException as error:
            raise AgentAbsentError(
                f"The agent at {self.url} took longer than {TIMEOUT:.0f} s.", "torchvitals doctor"
            ) from error
        except httpx.HTTPError as error:
            raise AgentAbsentError(f"No agent answers at {self.url} ({error}).", "torchvitals agent") from error
        if response.is_success:
            return response.content
        raise _refusal(response, self.url)


def _part(name: str) -> str:
    """One path component; names come from people."""
    return quote(name, safe="")


def _refusal(response: httpx.Response, url: str) -> AgentError:
    """The error that an unsuccessful response tells of, in the agent's own words where it has any."""
    what, hint = _words(response)
    if response.status_code in (401, 403):
        return AgentRefusedError(what or f"The agent at {url} wants a token.", hint or "export TORCHVITALS_TOKEN=...")
    if response.status_code == 404:
        return NotThereError(what or f"{url} does not know {response.request.url.path}.", hint)
    return AgentError(what or f"The agent at {url} answered {response.status_code}.", hint)


def _words(response: httpx.Response) -> tuple[str, str]:
    try:
        error = msgspec.json.decode(response.content)["error"]
        return str(error["what"]), str(error.get("hint") or "")
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError, AttributeError):
        return "", ""
