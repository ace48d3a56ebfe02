"""The command line as a contract: forms of output, exit codes, and errors of one line that say what to type."""

import json
import socket
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up import goodbye, train, writer
from torchvitals.agent import cli
from torchvitals.agent.cli import main
from torchvitals.agent.offline import diagnose_directory
from torchvitals.agent.report import as_json
from torchvitals.signals.records import LAUNCHER_RANK, Event

FIELDS = ["run", "name", "ranks", "steps", "checked", "not_checked", "incidents"]
INCIDENT_FIELDS = [
    "kind", "severity", "first_step", "last_equal_step", "detected_step", "rank", "where", "cause", "confidence",
    "causes", "title", "explanation", "remedy", "stacks",
]  # fmt: skip
NAN = float("nan")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHVITALS_DIR", str(tmp_path / "runs"))
    return tmp_path / "runs"


def killed_job(directory: Path, steps: int = 413) -> None:
    """A job that was killed in the middle: no goodbye, no launcher."""
    spool = writer(directory)
    for step in range(steps):
        spool.step(step, 1000.0 + step, {"loss": 1.0, "gradient_norm": 1.0})
    spool.close()


def launched(directory: Path, **details: object) -> None:
    """What ``torchvitals run`` writes of a command."""
    spool = writer(directory, LAUNCHER_RANK, 0, role="launcher", pid=4_000_100)
    spool.write(Event(2000.0, -1, "command_exit", {"code": 0, "signal": None, "oom_kills": 0, **details}))
    spool.close()


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line on stderr."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("torchvitals: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


def test_json_has_the_fields_of_the_contract(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(writer(directory), [1.0] * 30 + [NAN] * 5, gradient_norm=NAN)

    assert main(["diagnose", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == FIELDS
    assert (report["run"], report["name"], report["ranks"], report["steps"]) == ("made-up", "made", 1, 35)
    for incident in report["incidents"]:
        assert list(incident) == INCIDENT_FIELDS
        assert set(incident["causes"][0]) == {"cause", "confidence", "evidence"}
    assert all(set(item) == {"what", "why"} for item in report["not_checked"])


def test_a_killed_job_is_diagnosed_to_its_last_step(directory: Path) -> None:
    killed_job(directory)
    report = diagnose_directory(directory / "made-up")

    assert (report.state, report.steps) == ("killed", 413)
    assert report.ending == "no exit was recorded; last completed step 412"


@pytest.mark.parametrize(
    ("details", "state", "ending"),
    [
        ({}, "finished", "the command's exit code was 0; last completed step 2"),
        ({"code": 3}, "failed", "the command's exit code was 3; last completed step 2"),
        ({"code": -9, "signal": 9}, "killed", "killed by signal 9; last completed step 2"),
        (
            {"code": -9, "signal": 9, "oom_kills": 1},
            "killed",
            "killed by signal 9; the kernel killed 1 for memory meanwhile; last completed step 2",
        ),
    ],
)
def test_the_launcher_saw_the_end(directory: Path, details: dict[str, object], state: str, ending: str) -> None:
    killed_job(directory, 3)
    launched(directory, **details)
    report = diagnose_directory(directory / "made-up")

    assert (report.state, report.ending) == (state, ending)


def test_a_job_that_said_goodbye_with_a_code_has_failed(directory: Path) -> None:
    spool = writer(directory)
    spool.step(0, 1000.0, {"loss": 1.0})
    goodbye(spool, 1, details={"code": 4})

    assert diagnose_directory(directory / "made-up").state == "failed"


@pytest.mark.parametrize("form", [[], ["--markdown"], ["--json"]])
def test_every_form_names_run_and_what_was_checked(
    directory: Path, capsys: pytest.CaptureFixture[str], form: list[str]
) -> None:
    train(writer(directory), [1.0] * 30)
    assert main(["diagnose", "made-up", *form]) == 0

    out = capsys.readouterr().out
    assert "made-up" in out
    assert "checked" in out.lower()


def test_the_page_stands_alone(directory: Path, tmp_path: Path) -> None:
    """Well-formed, with plots, and with nothing that would have to be fetched; names from the job are escaped."""
    train(writer(directory), [2.0, 1.0, NAN, 3.0] * 300)
    page = tmp_path / "report.html"
    assert main(["diagnose", "--html", str(page)]) == 0
    tags: list[str] = []
    links: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            links.extend(value or "" for name, value in attrs if name in ("src", "href"))

    Reader().feed(page.read_text(encoding="utf-8"))
    assert tags.count("svg") >= 1
    assert links == []
    assert "script" not in tags


@pytest.mark.parametrize(("loss", "code"), [(1.0, 0), (NAN, 1)])
def test_fail_on_is_the_exit_code(directory: Path, loss: float, code: int) -> None:
    train(writer(directory), [1.0] * 30 + [loss] * 10)

    assert main(["diagnose", "--json", "--fail-on", "error"]) == code
    assert main(["diagnose", "--json"]) == 0


def test_runs_lists_them_latest_last(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in ("first", "second"):
        train(writer(directory, run=run), [1.0])

    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["run", "first", "second"]


def test_tail_prints_steps_in_order(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(writer(directory), [0.5, 0.25])

    assert main(["tail", "--no-follow", "--signals", "loss"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["rank 0 step 0  loss=0.5", "rank 0 step 1  loss=0.25"]


def test_export_as_lines_and_csv(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(writer(directory), [0.5, NAN], gradient_norm=2.0)

    assert main(["export", "--signals", "loss"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["step"], row["signal"], row["value"]) for row in rows] == [(0, "loss", 0.5), (1, "loss", "NaN")]
    assert main(["export", "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "step,time,rank,optimizer,signal,entry,value"


def test_export_as_parquet(directory: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    train(writer(directory), [0.5, NAN])
    file = tmp_path / "run.parquet"

    assert main(["export", "--format", "parquet", "--output", str(file)]) == 0
    assert parquet.read_table(file).column("step").to_pylist() == [0, 1]


def test_unknown_commands_are_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnos"]) == 2
    assert "type: torchvitals diagnose" in one_line(capsys)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["diagnose"], "no runs yet"),
        (["diagnose", "made-up"], "torchvitals run"),
        (["incidents"], "torchvitals run"),
        (["run"], "torchvitals run python train.py"),
        (["diagnose", "--no-such-option"], "--help"),
        ([], "--help"),
    ],
)
def test_errors_are_one_line_with_what_to_type(capsys: pytest.CaptureFixture[str], words: list[str], hint: str) -> None:
    assert main(words) == 2
    assert hint in one_line(capsys)


def test_an_unknown_run_is_told_near_ones(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(writer(directory, run="20261123-150000-mnist-1a2b"), [1.0])

    assert main(["diagnose", "20261123-150000-mnits-1a2b"]) == 2
    assert "20261123-150000-mnist-1a2b" in one_line(capsys)


@pytest.mark.parametrize("foreign", [True, False])
def test_an_empty_or_foreign_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str], foreign: bool) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    if foreign:
        (place / "notes.txt").write_text("not ours", encoding="utf-8")

    assert main(["diagnose", str(place)]) == 2
    assert "nothing to diagnose; record a job with: torchvitals run" in one_line(capsys)


def test_a_directory_whose_files_hold_no_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "0.1").mkdir()
    (tmp_path / "0.1" / "1.spool").write_bytes(b"not a spool")

    assert main(["diagnose", str(tmp_path)]) == 2
    assert "torchvitals runs" in one_line(capsys)


def test_a_command_that_never_trained(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launched(directory)

    assert main(["diagnose", "--json"]) == 2
    assert "no process took an optimizer step" in one_line(capsys)


def test_a_report_that_cannot_be_written(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(writer(directory), [1.0])

    assert main(["diagnose", "--html", str(tmp_path / "no" / "such" / "page.html")]) == 2
    assert "give another file after --html" in one_line(capsys)


def test_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("streamlit")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert main(["dashboard", "--port", str(port)]) == 2
    assert "choose another with --port" in one_line(capsys)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "_module", _needs_scipy)

    assert main(["runs"]) == 2
    assert "pip install 'torchvitals[agent]'" in one_line(capsys)


def _needs_scipy(command: str) -> None:
    raise ModuleNotFoundError(f"for {command}", name="scipy.stats")


def test_run_needs_nothing_but_the_base_installation() -> None:
    """The launcher starts where only the hooks are installed: it loads no library of the agent's."""
    code = (
        "import sys; from torchvitals.agent.cli import main; main(['run', '--quiet', 'true']);"
        "print(sorted({'torch', 'scipy', 'rich', 'duckdb', 'fastapi', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in cli.COMMANDS:
        if command not in cli.FORWARDED:
            with pytest.raises(SystemExit, match="0"):
                main([command, "--help"])
    assert capsys.readouterr().out.count("usage: torchvitals ") == len(cli.COMMANDS) - len(cli.FORWARDED)


def test_json_is_strict_even_for_values_that_are_not_finite(directory: Path) -> None:
    train(writer(directory), [1.0] * 30 + [float("inf")] * 20, gradient_norm=NAN)

    json.loads(as_json(diagnose_directory(directory / "made-up")), parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise AssertionError(constant)
