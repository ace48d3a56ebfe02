"""The client: what the agent answers becomes types, and whatever goes wrong says what to type."""

import math

import httpx
import pytest
from torchvitals.dashboard.client import (
    AgentAbsentError,
    AgentError,
    AgentRefusedError,
    Client,
    NotThereError,
)

RUN = "20260101-120000-nan_loss-0000"


def client(answer, **options) -> Client:
    """A client whose agent is a function of the request."""
    return Client("http://agent:1", transport=httpx.MockTransport(answer), **options)


@pytest.fixture
def connected():
    """Clients that are closed after the test."""
    made = []
    yield lambda ours: made.append(ours) or ours
    for ours in made:
        ours.close()


def test_the_staged_agent_is_understood(staged, connected):
    stage = staged()
    ours = connected(Client(stage.url))

    run = next(run for run in ours.runs() if run.run == RUN)
    assert (run.name, run.state, run.worst, run.incidents["critical"]) == ("nan_loss", "failed", "critical", 1)
    assert math.isnan(run.loss)
    details = ours.run(RUN)
    assert {"loss", "gradient_norm"} <= details.sends
    assert [process.rank for process in details.processes] == [-1, 0]
    assert [incident.run for incident in ours.incidents(RUN)] == [RUN]
    assert ours.incident("nan_loss-nonfinite").causes[0].evidence
    assert ours.agent().version == "0.1.0"


def test_numbers_that_are_not_finite_come_through(staged, connected):
    ours = connected(Client(staged().url))

    (series,) = ours.series(RUN, ["loss"], points=10_000)
    profiles = ours.profiles(RUN, "parameter_gradient_norm")

    assert sum(series.nonfinite) == 4
    assert math.isnan(series.last[-1])
    assert series.min[-1] is None
    assert profiles.values[-1][0] == math.inf
    assert math.isnan(profiles.values[-2][-1])


def test_a_range_of_steps_and_a_rank_are_asked_for(staged, connected):
    stage = staged()
    ours = connected(Client(stage.url))

    (series,) = ours.series("20260101-120000-ddp_desync-0000", ["loss"], 1, start=100, end=199)

    assert (series.rank, series.step[0], series.step[-1]) == (1, 100, 199)
    assert connected(Client(stage.url)).series(RUN, []) == []


def test_unknown_fields_are_ignored_and_absent_ones_filled():
    body = {"runs": [{"run": "a", "loss": "Infinity", "from_the_future": {"x": 1}}], "more": 1}

    (run,) = client(lambda _: httpx.Response(200, json=body)).runs()

    assert (run.run, run.loss, run.name, run.incidents) == ("a", math.inf, "", {})


def test_the_token_is_sent_and_its_absence_is_explained(staged, connected):
    stage = staged(token="secret")

    assert connected(Client(stage.url, token="secret")).runs()
    with pytest.raises(AgentRefusedError) as refused:
        connected(Client(stage.url)).runs()
    assert "TORCHVITALS_TOKEN" in refused.value.hint


def test_names_are_quoted_into_the_address():
    seen = []

    def answer(request):
        seen.append(request.url.raw_path)
        return httpx.Response(200, json={"run": "a/../b?c#d", "id": "x"})

    client(answer).run("a/../b?c#d")

    assert seen == [b"/api/v1/runs/a%2F..%2Fb%3Fc%23d"]


def test_an_unknown_run_is_told_in_the_agents_words(staged, connected):
    with pytest.raises(NotThereError, match="There is no") as missing:
        connected(Client(staged().url)).run("nobody")

    assert missing.value.hint == "list the runs with: torchvitals runs"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://127.0.0.1:notaport", "http://"])
def test_nobody_there_says_how_to_start_an_agent(url, connected):
    with pytest.raises(AgentAbsentError) as absent:
        connected(Client(url)).runs()
    assert absent.value.hint


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"runs": [{"run": 3}]}', b'{"runs": {}}', b"\xff"])
def test_what_is_no_answer_of_an_agent_is_said(body):
    with pytest.raises(AgentError, match="something else than the agent's API"):
        client(lambda _: httpx.Response(200, content=body)).runs()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"error": "text"}', b'{"detail": "x"}'])
def test_an_error_without_words_is_still_an_error(body):
    with pytest.raises(AgentError, match="answered 500"):
        client(lambda _: httpx.Response(500, content=body)).runs()


def test_the_environment_names_the_agent():
    ours = Client.from_environment({"TORCHVITALS_URL": "http://gpu-1:7411/"})

    assert ours.url == "http://gpu-1:7411"
    assert Client.from_environment({}).url == "http://127.0.0.1:7411"
