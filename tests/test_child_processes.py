"""Trainings in processes that the script starts itself: they are watched to their end, however they end."""

import os
import subprocess
import sys
import textwrap

import pytest
from torchvitals.agent.offline import diagnose_directory

JOB = """
    import os, sys
    import torch
    import torch.multiprocessing as mp

    class Trainer(mp.get_context("@START@").Process):
        def run(self):
            torch.manual_seed(0)
            model = torch.nn.Linear(4, 2)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
            for step in range(60):
                if step == 40:
                    @FAULT@
                optimizer.zero_grad()
                model(torch.randn(8, 4)).square().mean().backward()
                optimizer.step()

    if __name__ == "__main__":
        child = Trainer()
        child.start()
        child.join()
        print("code", child.exitcode)
"""


def diagnosed(tmp_path, start, fault):
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent(JOB).replace("@START@", start).replace("@FAULT@", fault))
    environment = {**os.environ, "TORCHVITALS_DIR": str(tmp_path / "runs")}
    command = [sys.executable, "-m", "torchvitals.agent.cli", "run", sys.executable, str(script)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    (run,) = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    return ran, diagnose_directory(run)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_an_exception_that_multiprocessing_prints_is_a_crash_with_its_line(tmp_path, start):
    ran, report = diagnosed(tmp_path, start, 'raise ValueError("shard 7 is truncated")')
    (incident,) = report.incidents

    assert "code 1" in ran.stdout
    assert (incident.kind, incident.cause, incident.where) == ("crash", "exception", "job.py:13")
    assert (incident.first_step, report.steps) == (40, 40)
    assert "shard 7 is truncated" in incident.explanation


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_code_that_was_asked_for_is_a_crash_as_well(tmp_path, start):
    ran, report = diagnosed(tmp_path, start, "sys.exit(3)")
    (incident,) = report.incidents

    assert "code 3" in ran.stdout
    assert (incident.kind, incident.cause, incident.first_step) == ("crash", "exception", 40)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_child_that_ends_well_is_recorded_to_its_last_step(tmp_path, start):
    _, report = diagnosed(tmp_path, start, "pass")

    assert (report.incidents, report.steps) == ([], 60)
