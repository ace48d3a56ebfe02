"""The demo: what each job must bring, how it is judged, and two jobs for real beside agent and dashboard."""

import importlib.util
import io
import json
import socket
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import msgspec
import pytest
from rich.console import Console
from torchvitals.agent import commands_demo
from torchvitals.agent.cli import main
from torchvitals.agent.commands_demo import known_jobs
from torchvitals.agent.commands_up import AGENT_PORT
from torchvitals.agent.demo_judgement import Job, Outcome, disagreement, misjudged, told
from torchvitals.agent.demo_table import print_table
from torchvitals.agent.kinds import CAUSAL_RANK

INCIDENT = told(
    {
        "kind": "desync", "severity": "critical", "first_step": 39, "detected_step": 40, "rank": 0,
        "where": "tokens.weight", "cause": "rank_local_update", "confidence": 0.9,
        "causes": [{"cause": "rank_local_update", "confidence": 0.9, "evidence": ["it clips"]}],
        "title": "t", "explanation": "e", "remedy": "r", "status": "open",
    }
)  # fmt: skip
RIGHT = Job(
    "ranks", "", (), kind="desync", cause="rank_local_update", where="tokens", rank=0, first_step=(39, 41), ranks=2
)


def test_every_job_is_a_script_and_says_what_must_be_found() -> None:
    jobs = known_jobs()

    assert [job.name for job in jobs if not job.more] == [
        "explosion", "nan_loss", "dead_relu", "data_drift", "memory_leak", "ddp_desync", "amp_overflow",
        "healthy", "healthy_ddp",
    ]  # fmt: skip
    for job in jobs:
        assert importlib.util.find_spec(job.command[-1]) is not None
        assert job.command[0] == sys.executable
        assert job.kind is None or (job.kind in CAUSAL_RANK and job.cause and job.first_step)


def test_a_line_that_must_be_named_is_found_in_the_script() -> None:
    """Its number is looked up, so that an edit of the script does not move it away from the expectation."""
    (job,) = (job for job in known_jobs() if job.name == "memory_leak")
    name, _, number = job.where.partition(":")
    script = importlib.util.find_spec("torchvitals.demo_jobs.memory_leak")

    assert name == "memory_leak.py"
    assert "losses.append(" in Path(script.origin).read_text().splitlines()[int(number) - 1]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, ""),
        ({"kind": "divergence"}, "divergence instead of desync"),
        ({"cause": "unknown"}, "unknown instead of rank_local_update"),
        ({"where": ""}, "at no place instead of tokens"),
        ({"rank": 1}, "rank 1 instead of 0"),
        ({"first_step": 42}, "from step 42 instead of 39"),
    ],
)
def test_a_job_is_right_only_when_all_of_it_is(changed: dict[str, object], why: str) -> None:
    assert misjudged(RIGHT, [msgspec.structs.replace(INCIDENT, **changed)]) == why


def test_silence_is_right_for_healthy_jobs_only() -> None:
    healthy = Job("healthy", "", ())

    assert misjudged(healthy, []) == ""
    assert misjudged(healthy, [INCIDENT]) == "1 incidents instead of 0: desync"
    assert misjudged(RIGHT, []) == "0 incidents instead of 1: none"
    assert misjudged(RIGHT, [INCIDENT, INCIDENT]) == "2 incidents instead of 1: desync, desync"


def test_agent_and_diagnose_must_tell_the_same() -> None:
    later = msgspec.structs.replace(INCIDENT, detected_step=80)

    assert disagreement([INCIDENT], [INCIDENT]) == ""
    assert disagreement([INCIDENT], []) == "the agent has 1 incidents, diagnose 0"
    assert disagreement([later], [INCIDENT]) == "agent and diagnose differ in detected_step: 80 and 40"


def test_the_table_has_every_word_of_an_outcome() -> None:
    out = io.StringIO()
    outcomes = [Outcome(RIGHT, [INCIDENT], "", 12.0), Outcome(Job("quiet", "", ()), [], "it recorded no step", 3.0)]
    print_table(outcomes, Console(file=out))

    printed = out.getvalue()
    words = ("desync", "critical", "tokens.weight, rank 0, step 39", "rank_local_update (90%)", "right")
    assert [word for word in words if word not in printed] == []
    assert "WRONG: it recorded no step" in printed


def test_a_failure_and_a_silence_beside_agent_and_dashboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One job that is judged right by the agent's store, one that is not what it says: the exit code is 1.

    The agent's own port is taken, so another is used and said; both servers are gone afterwards.
    """
    (right,) = (job for job in known_jobs() if job.name == "nan_loss")
    wrong = Job("sham", "trains nothing", (sys.executable, "-c", "pass"), kind="explosion")
    monkeypatch.setattr(commands_demo, "known_jobs", lambda _: [right, wrong])
    with socket.socket() as taken:
        with suppress(OSError):  # whoever else has it keeps it from us just as well
            taken.bind(("127.0.0.1", AGENT_PORT))
            taken.listen()
        code = main(["demo", "--json", "--dir", str(tmp_path / "demo")])
    out, err = capsys.readouterr()
    outcomes = {outcome["job"]: outcome for outcome in json.loads(out)}

    assert outcomes["nan_loss"]["wrong"] == "", outcomes
    assert outcomes["sham"]["wrong"]
    assert code == 1
    assert f"port {AGENT_PORT} is taken, using " in err
    (line,) = (line for line in err.splitlines() if line.startswith("dashboard: "))
    for url in line.split()[1:4:2]:
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)


def test_a_demo_job_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "nonsense"]) == 2
    assert "there are: explosion, nan_loss" in capsys.readouterr().err
