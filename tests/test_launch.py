"""``torchvitals run``: the command's own exit code, its signals, its environment, and what is written down of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torchvitals.agent import launch
from torchvitals.agent.errors import CommandError
from torchvitals.agent.oom import OomKills
from torchvitals.signals.reader import RunReader, list_runs
from torchvitals.signals.records import LAUNCHER_RANK, Event

TRAINING = """
import sys, torch
layer = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
for _ in range(5):
    optimizer.zero_grad()
    layer(torch.ones(2, 3)).sum().backward()
    optimizer.step()
sys.exit(int(sys.argv[1]))
"""


def python(code: str, *words: str) -> list[str]:
    return [sys.executable, "-c", code, *words]


def run(command: list[str], directory: Path, **options: object) -> int:
    return launch.launch(command, directory=directory, name="job", **options)


def events(directory: Path) -> dict[str, Event]:
    """What the launcher wrote into the only run, by kind."""
    (listing,) = list_runs(directory)
    entries = [entry for entry in RunReader(listing.path).read() if entry.hello.rank == LAUNCHER_RANK]
    return {entry.record.kind: entry.record for entry in entries if isinstance(entry.record, Event)}


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_is_the_commands(tmp_path: Path, code: int) -> None:
    assert run(python(f"raise SystemExit({code})"), tmp_path) == code
    assert events(tmp_path)["command_exit"].details["code"] == code


def test_a_signal_becomes_128_and_its_number(tmp_path: Path) -> None:
    assert run(python("import os; os.kill(os.getpid(), 9)"), tmp_path) == 137
    assert events(tmp_path)["command_exit"].details["signal"] == 9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_handed_on(tmp_path: Path, number: signal.Signals) -> None:
    """The child says when it listens, we signal the launcher, the child answers with a code of its own."""
    child = (
        "import signal, sys\n"
        f"signal.signal({number.value}, lambda *_: sys.exit(42))\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    command = [sys.executable, "-m", "torchvitals.agent.cli", "run", "--dir", str(tmp_path), *python(child)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)

        assert process.wait(60) == 42


def test_a_training_is_recorded_without_its_help(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(python(TRAINING, "7"), tmp_path) == 7
    (listing,) = list_runs(tmp_path)

    assert (listing.name, listing.processes, listing.world_size) == ("job", 1, 1)
    assert f"torchvitals diagnose {listing.run}" in capfd.readouterr().err


def test_the_children_are_told_who_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/their/own")
    seen = launch.environment(os.environ, "the-run", "job", tmp_path)

    assert (seen["TORCHVITALS_RUN"], seen["TORCHVITALS_NAME"]) == ("the-run", "job")
    assert seen["TORCHVITALS_DIR"] == str(tmp_path)
    first, second = seen["PYTHONPATH"].split(os.pathsep)
    assert (Path(first) / "sitecustomize.py").is_file()
    assert second == "/their/own"


def test_a_relative_directory_holds_where_the_child_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert launch.environment({}, "r", "n", Path("runs"))["TORCHVITALS_DIR"] == str(tmp_path / "runs")


def test_the_zero_code_directory_is_found_without_torch() -> None:
    code = (
        "import sys; from torchvitals.agent import launch; launch.zero_code_directory(); print('torch' in sys.modules)"
    )
    done = subprocess.run(python(code), capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"command not found: no-such-command; .*torchvitals run") as error:
        run(["no-such-command"], tmp_path)
    assert error.value.status == 127
    assert not list_runs(tmp_path)


def test_a_file_that_cannot_be_executed(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("print(1)", encoding="utf-8")
    with pytest.raises(CommandError, match="torchvitals run python") as error:
        run([str(script)], tmp_path)
    assert error.value.status == 126


def test_an_unwritable_directory_does_not_stop_the_job(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")

    assert run(python("print('worked')"), blocked / "runs") == 0
    out, err = capfd.readouterr()
    assert out == "worked\n"
    assert err.count("\n") == 1
    assert "not recording" in err


@pytest.mark.parametrize(
    ("options", "why"),
    [([], "no Python process of it took an optimizer step"), (["-I"], "ignores PYTHONPATH"), (["-Es"], "ignores")],
)
def test_what_it_means_when_nothing_trained(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], options: list[str], why: str
) -> None:
    assert run([sys.executable, *options, "-c", "pass"], tmp_path) == 0
    err = capfd.readouterr().err

    assert err.count("\n") == 1
    assert "nothing was recorded" in err
    assert why in err


def test_quiet_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(python("pass"), tmp_path, quiet=True)

    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["python", "jobs/train.py", "--lr", "1"], "train"),
        (["torchrun", "--nproc-per-node=2", "pre train.py"], "pre-train"),
        (["python", "-m", "package.module"], "module"),
        (["/usr/bin/env"], "env"),
    ],
)
def test_runs_are_named_after_what_is_run(command: list[str], name: str) -> None:
    assert launch.name_of(command) == name


def test_run_ids_sort_by_start() -> None:
    early, late = (launch.run_id("job", clock=lambda at=at: at) for at in (1e9, 1.1e9))

    assert early < late
    assert early[15:20] == "-job-"


def test_kills_for_memory_are_counted_in_either_cgroup_version(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job\n", encoding="utf-8")
    group = tmp_path / "cgroup/job"
    group.mkdir(parents=True)
    (group / "memory.events").write_text("oom 4\noom_kill 2\n", encoding="utf-8")
    kills = OomKills(tmp_path / "proc", tmp_path / "cgroup")
    (group / "memory.events").write_text("oom 5\noom_kill 3\n", encoding="utf-8")

    assert kills.since() == 1


def test_without_a_control_group_kills_are_not_known(tmp_path: Path) -> None:
    assert OomKills(tmp_path, tmp_path).since() is None
