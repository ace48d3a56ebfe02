"""The resources under ``/api/v1``."""

import time
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Body, Path, Query
from fastapi.responses import Response, StreamingResponse
from torchvitals.agent import external, lifecycle, series, views
from torchvitals.agent.external import WebhookBody
from torchvitals.agent.rows import encode_json
from torchvitals.agent.store import Store
from torchvitals.agent.stream import Broadcast

RunId = Annotated[str, Path(description="Id of a run, as `GET /runs` tells it")]
IncidentId = Annotated[str, Path(description="Id of an incident, as `GET /incidents` tells it")]
LONGEST_SILENCE = 30 * 86400.0


class Parts(NamedTuple):
    """What the resources are made from."""

    store: Store
    broadcast: Broadcast
    about: Callable[[], dict[str, Any]]
    """The body of ``GET /agent``."""


class BadRequestError(ValueError):
    """A parameter that cannot be used: what it was, and what to type."""


def answer(content: Any) -> Response:
    """JSON with non-finite numbers as strings."""
    return Response(encode_json(content), media_type="application/json")


def make_router(parts: Parts) -> APIRouter:
    """All resources."""
    router = APIRouter(prefix="/api/v1")
    _add_runs(router, parts.store)
    _add_incidents(router, parts.store, parts.broadcast)
    _add_agent(router, parts)
    return router


def _add_runs(router: APIRouter, store: Store) -> None:
    @router.get("/runs", summary="All runs, newest first")
    def get_runs() -> Response:
        return answer({"runs": views.runs(store)})

    @router.get("/runs/{run}", summary="One run: facts, processes, signals, what was checked, events")
    def get_run(run: RunId) -> Response:
        return answer(views.detail(store, run))

    @router.get("/runs/{run}/series", summary="Scalars, down-sampled: min, max, last and non-finite counts per bucket")
    def get_series(
        run: RunId,
        *,
        signals: Annotated[str, Query(description="Names, separated by commas")],
        rank: Annotated[str, Query(description="A rank, or `all`")] = "all",
        points: Annotated[int, Query(ge=1, le=series.MAX_POINTS)] = series.DEFAULT_POINTS,
        start: Annotated[int | None, Query(description="First step")] = None,
        end: Annotated[int | None, Query(description="Last step")] = None,
    ) -> Response:
        views.run(store, run)
        names = [name.strip() for name in signals.split(",") if name.strip()]
        found = series.series(store, run, names, _rank(rank), points=points, start=start, end=end)
        return answer({"run": run, "series": found})

    @router.get("/runs/{run}/profiles", summary="One signal along its axis over the sampled steps")
    def get_profiles(
        run: RunId,
        signal: Annotated[str, Query(description="One of the run's `profiles`")],
        rank: Annotated[int, Query()] = 0,
        points: Annotated[int, Query(ge=1, le=series.MAX_POINTS)] = 200,
    ) -> Response:
        views.run(store, run)
        return answer(series.profiles(store, run, signal, rank, points=points))

    @router.get("/runs/{run}/incidents", summary="The incidents of one run")
    def get_run_incidents(run: RunId) -> Response:
        views.run(store, run)
        return answer({"incidents": lifecycle.incidents(store, run=run)})


def _add_incidents(router: APIRouter, store: Store, broadcast: Broadcast) -> None:
    def changed(incident: dict[str, Any]) -> Response:
        broadcast.publish("incident", incident)
        return answer(incident)

    @router.get("/incidents", summary="Incidents of all runs, most severe first")
    def get_incidents(
        status: Annotated[str, Query(description="`open`, `acknowledged`, `resolved`, separated by commas")] = "",
        run: Annotated[str | None, Query(description="Of this run only")] = None,
    ) -> Response:
        return answer({"incidents": lifecycle.incidents(store, run=run, statuses=_statuses(status))})

    @router.get("/incidents/{incident}", summary="One incident")
    def get_incident(incident: IncidentId) -> Response:
        return answer(lifecycle.incident(store, incident))

    @router.post("/incidents/{incident}/acknowledge", summary="Say who takes care of it")
    def post_acknowledge(incident: IncidentId, by: Annotated[str, Body(embed=True, min_length=1)]) -> Response:
        return changed(lifecycle.acknowledge(store, incident, by))

    @router.post("/incidents/{incident}/resolve", summary="Say that it is over")
    def post_resolve(incident: IncidentId) -> Response:
        return changed(lifecycle.resolve(store, incident, time.time()))

    @router.post("/incidents/{incident}/silence", summary="Send no alert for a while")
    def post_silence(
        incident: IncidentId, seconds: Annotated[float, Body(embed=True, gt=0, le=LONGEST_SILENCE)]
    ) -> Response:
        return changed(lifecycle.silence(store, incident, time.time() + seconds))


def _add_agent(router: APIRouter, parts: Parts) -> None:
    @router.get("/agent", summary="The agent itself")
    def get_agent() -> Response:
        return answer(parts.about())

    @router.get("/stream", summary="Server-sent events `run` and `incident` as things change")
    async def get_stream() -> StreamingResponse:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(parts.broadcast.listen(), media_type="text/event-stream", headers=headers)

    @router.post("/alerts", summary="Take alerts from Alertmanager or Grafana (webhook, version 4)")
    def post_alerts(body: WebhookBody) -> Response:
        return answer({"stored": external.store_alerts(parts.store, body.alerts, time.time())})

    @router.get("/alerts", summary="The alerts that were sent to us, newest first")
    def get_alerts() -> Response:
        return answer({"alerts": external.alerts(parts.store)})


def _rank(text: str) -> int | None:
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError:
        raise BadRequestError(f"rank `{text}` is neither a number nor `all`") from None


def _statuses(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in lifecycle.STATUSES:
            raise BadRequestError(f"status `{word}` is none of {', '.join(lifecycle.STATUSES)}")
    return words or list(lifecycle.STATUSES)
