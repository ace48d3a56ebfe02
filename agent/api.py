"""The agent's HTTP interface: ``/api/v1`` for the dashboard and the command line, probes and metrics at the root.

Errors are ``{"error": {"what": ..., "hint": what to type next}}``.
"""

import hmac
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.exceptions import HTTPException
from torchvitals.agent.config import LOOPBACK
from torchvitals.agent.lifecycle import NoSuchIncidentError, ResolvedError
from torchvitals.agent.routes import BadRequestError, Parts, make_router
from torchvitals.agent.store import StoreFailure
from torchvitals.agent.views import NoSuchRunError

HINTS = {
    401: "send the agent's token: Authorization: Bearer ...",
    403: "call the agent from this machine, or with a token",
    404: "see what there is: GET /docs",
    405: "see what there is: GET /docs",
}


def make_app(parts: Parts, registry: CollectorRegistry, *, token: str, is_ready: Callable[[], bool]) -> FastAPI:
    """The whole application.

    Args:
        parts: what the resources are made from.
        registry: what ``/metrics`` shows.
        token: bearer token; empty on loopback only.
        is_ready: whether all that was there at the start has been read.

    """
    app = FastAPI(title="torchvitals agent", version=version("torchvitals"), redoc_url=None)
    guard = [Depends(_door(token))]
    app.include_router(make_router(parts), dependencies=guard)
    _add_probes(app, registry, is_ready, guard)
    _add_errors(app)
    return app


def _add_probes(app: FastAPI, registry: CollectorRegistry, is_ready: Callable[[], bool], guard: list[Any]) -> None:
    @app.get("/healthz", summary="Whether the agent lives")
    def healthz() -> Response:
        return PlainTextResponse("ok\n")

    @app.get("/readyz", summary="Whether it has read all that was there at its start")
    def readyz() -> Response:
        return PlainTextResponse("ok\n") if is_ready() else PlainTextResponse("reading\n", 503)

    @app.get("/metrics", summary="Prometheus exposition", dependencies=guard)
    def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), headers={"Content-Type": content_type})


def _door(token: str) -> Callable[[Request], None]:
    expected = f"Bearer {token}".encode()

    def check(request: Request) -> None:
        """Refuse strangers, and web pages of strangers that ask on behalf of a browser on this machine."""
        if token and not hmac.compare_digest(request.headers.get("Authorization", "").encode(), expected):
            raise HTTPException(401, "this agent wants a token", {"WWW-Authenticate": "Bearer"})
        origin = request.headers.get("Origin")
        if not token and origin and urlsplit(origin).hostname not in LOOPBACK:
            raise HTTPException(403, f"a page from {origin} may not ask this agent")

    return check


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    def http(_: Request, error: HTTPException) -> Response:
        hint = HINTS.get(error.status_code, "see GET /docs")
        return _refusal(error.status_code, str(error.detail), hint, error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return _refusal(422, f"{where}: {first['msg']}", "see GET /docs for what is accepted")

    @app.exception_handler(NoSuchRunError)
    def no_run(_: Request, error: NoSuchRunError) -> Response:
        return _refusal(404, f"no run `{error.args[0]}`", "list the runs with: torchvitals runs")

    @app.exception_handler(NoSuchIncidentError)
    def no_incident(_: Request, error: NoSuchIncidentError) -> Response:
        return _refusal(404, f"no incident `{error.args[0]}`", "list them with: torchvitals incidents")

    @app.exception_handler(ResolvedError)
    def resolved(_: Request, error: ResolvedError) -> Response:
        return _refusal(409, f"incident `{error.args[0]}` is resolved", "a resolved incident takes no more changes")

    @app.exception_handler(BadRequestError)
    def bad(_: Request, error: BadRequestError) -> Response:
        return _refusal(400, str(error), "see GET /docs for what is accepted")

    @app.exception_handler(StoreFailure)
    def store(_: Request, error: Exception) -> Response:
        return _refusal(503, f"the store failed: {str(error).splitlines()[0]}", "see the agent's log, then try again")


def _refusal(status: int, what: str, hint: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"what": what, "hint": hint}}, status, headers)
