"""A worker process of a data loader dies: torch raises from a signal handler then, wherever the main process is."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from torchvitals.agent.offline import diagnose_directory
from torchvitals.hooks.fuse import Fuse
from torchvitals.hooks.worker_failure import LOADER as LOADER_FILE
from torchvitals.hooks.worker_failure import failure_behind
from torchvitals.signals.records import LAUNCHER_RANK, Event, Hello, Step
from torchvitals.signals.spool import SpoolWriter

LOADER = ["/job/train.py:12 <module>", "/lib/python3/site-packages/torch/utils/data/dataloader.py:725 __next__"]
KILLED = "DataLoader worker (pid 28498) is killed by signal: Killed. "
JOB = """
    import os, signal, sys
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvitals.hooks import attach

    class Rows(Dataset):
        def __len__(self):
            return 400
        def __getitem__(self, index):
            if index == 200:
                os.kill(os.getpid(), signal.SIGKILL)
            return torch.ones(4)

    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = attach(model, optimizer, directory=sys.argv[1])
    for rows in DataLoader(Rows(), batch_size=8, num_workers=1):
        optimizer.zero_grad()
        model(rows).square().mean().backward()
        optimizer.step()
"""


def test_a_worker_that_is_killed_is_told_as_one(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent(JOB))
    ran = subprocess.run([sys.executable, script, tmp_path / "state"], capture_output=True, text=True, timeout=120)
    (run,) = (tmp_path / "state").iterdir()
    (incident,) = diagnose_directory(run).incidents

    assert ran.returncode == 1
    assert "Error in sys.excepthook" not in ran.stderr
    assert (incident.kind, incident.cause) == ("crash", "exception")
    assert incident.title.startswith("The job: a data loader worker was ")
    line = script.read_text().splitlines().index("for rows in DataLoader(Rows(), batch_size=8, num_workers=1):") + 1
    assert f"job.py:{line}" in incident.explanation
    assert "Connection refused" not in incident.explanation.partition(". ")[0]


def crashed(directory: Path, details: dict[str, object], kills: int = 0) -> list[tuple[str, str, str]]:
    hello = Hello(run="r", rank=0, world_size=1, pid=10, started=1.0)
    writer = SpoolWriter(directory, hello)
    for step in range(30):
        writer.write(Step(step, 10.0 + 0.1 * step, {"loss": 1.0}))
    writer.write(Event(13.1, 30, "exception", {"frames": LOADER, **details}))
    writer.write(Event(13.2, 30, "exit", {"code": 1}))
    writer.close()
    launcher = SpoolWriter(directory, Hello(run="r", rank=LAUNCHER_RANK, world_size=1, pid=9, started=1.0))
    launcher.write(Event(14.0, -1, "command_exit", {"code": 1, "oom_kills": kills}))
    launcher.close()
    return [(i.kind, i.cause, i.remedy) for i in diagnose_directory(directory / "r").incidents]


@pytest.mark.parametrize(
    ("details", "kills", "cause", "remedy"),
    [
        ({"type": "RuntimeError", "message": KILLED}, 0, "exception", "kernel's log"),
        ({"type": "RuntimeError", "message": KILLED}, 2, "out_of_memory_kill", ""),
        (
            {"type": "ConnectionResetError", "message": "[Errno 104] Connection reset by peer", "meanwhile": KILLED},
            0, "exception", "kernel's log",
        ),
        ({"type": "RuntimeError", "message": KILLED.replace("Killed", "Bus error")}, 0, "exception", "/dev/shm"),
        (
            {
                "type": "RuntimeError", "message": "DataLoader worker (pid(s) 29398) exited unexpectedly",
                "cause": "ConnectionRefusedError: [Errno 111] Connection refused",
            },
            0, "exception", "num_workers=0",
        ),
        (
            {"type": "RuntimeError", "message": "DataLoader worker (pid 7) exited unexpectedly with exit code 3."},
            0, "exception", "num_workers=0",
        ),
        ({"type": "RuntimeError", "message": "mat1 and mat2 cannot be multiplied"}, 0, "exception", "train.py:12"),
    ],
)  # fmt: skip
def test_each_end_of_a_worker_has_its_remedy(
    tmp_path: Path, details: dict[str, object], kills: int, cause: str, remedy: str
) -> None:
    ((kind, told, advice),) = crashed(tmp_path, details, kills)

    assert (kind, told) == ("crash", cause)
    assert remedy in advice


@pytest.mark.parametrize(("raised", "told"), [("ConnectionResetError", "gone"), ("KeyError", "")])
def test_a_connection_is_lost_a_moment_before_its_worker_is_gone(
    monkeypatch: pytest.MonkeyPatch, raised: str, told: str
) -> None:
    looks = iter(["", "", "gone"])

    def fails() -> None:
        if message := next(looks):
            raise RuntimeError(message)

    monkeypatch.setattr("torch._C._error_if_any_worker_fails", fails)
    with pytest.raises((ConnectionError, KeyError)) as caught:
        exec(compile(f"raise {raised}('item')", f"/lib/{LOADER_FILE}", "exec"))

    assert failure_behind(caught.value, caught.tb) == told
    assert failure_behind(caught.value, None) == ""


class TimeIsUpError(Exception):
    """Raised by a handler of the job."""


def test_what_a_signal_handler_of_the_job_raises_in_a_probe_goes_on_to_the_job() -> None:
    def handler(number: int, frame: object) -> None:
        raise TimeIsUpError

    blown: list[str] = []
    fuse = Fuse(lambda probe, error: blown.append(probe))
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        for probe in (
            fuse.guard("probe", signal.raise_signal),
            lambda number: fuse.hook("probe", lambda _: signal.raise_signal(number), lambda *_: None)(None, (), {}),
        ):
            with pytest.raises(TimeIsUpError):
                probe(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert not blown
    assert not fuse.blown
