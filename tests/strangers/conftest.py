"""Run a script that knows nothing of us."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from watched import LIMIT, Watched


@pytest.fixture
def watch(tmp_path: Path):
    """Run a command in an empty directory, under ``torchvitals run`` or by itself; what was seen of it."""

    def run(*command: str, zero_code: bool = True, **environment: str) -> Watched:
        # Every step is looked at closely, so that each has a norm: nothing here depends on how fast the machine is.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("TORCHVITALS_")}
        ours = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TORCHVITALS_OVERHEAD": "1"}
        env = {**inherited, **ours, "TORCHVITALS_DIR": str(tmp_path / "runs"), **environment}
        ahead = [sys.executable, "-m", "torchvitals.agent.cli", "run"] if zero_code else []
        done = subprocess.run([*ahead, *command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 0, done.stderr
        assert "failed and was removed" not in done.stderr
        return Watched(tmp_path)

    return run
