"""What is in the tree is in the wheel: a package or data file that is forgotten works from a checkout only."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("signals", "hooks", "detectors", "agent", "dashboard", "demo_jobs")


def tree() -> set[str]:
    """Every file of the rooms as the wheel should name it; what git ignores and caches leave behind is out."""
    return {
        f"torchvitals/{path.relative_to(ROOT)}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in {".pyc", ".spool"}
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy so that no build folder is left in the tree."""
    source = tmp_path_factory.mktemp("source")
    for name in (*ROOMS, "pyproject.toml", "README.md", "LICENSE"):
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, source / name)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out)]
    result = subprocess.run([*command, str(source)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_whole_tree_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert sorted(names - tree()) == []
    assert sorted(tree() - names) == []


def test_the_wheel_says_its_licence_and_its_command(wheel):
    archive = zipfile.ZipFile(wheel)
    named = {name.rpartition("/")[2]: name for name in archive.namelist() if ".dist-info/" in name}

    assert "torchvitals = torchvitals.agent.cli:main" in archive.read(named["entry_points.txt"]).decode()
    assert "License-Expression: Apache-2.0" in archive.read(named["METADATA"]).decode()
    assert "Apache License" in archive.read(named["LICENSE"]).decode()


def test_the_wheel_imports_from_an_empty_directory(wheel, tmp_path):
    """Unpacked elsewhere it loads from there and not from this checkout."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "import torchvitals.signals.spool as s, torchvitals.agent.causes as c; print(s.__file__, c.__file__)"

    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout.count(str(tmp_path / "site")) == 2


BARE = """
import sys
for name in ("altair", "duckdb", "fastapi", "httpx", "pandas", "prometheus_client", "pyarrow", "rich", "scipy",
             "streamlit", "uvicorn"):
    sys.modules[name] = None  # as if it were not installed
from torchvitals.agent.cli import main
code = main(sys.argv[1:])
import torchvitals.agent.cli as cli
print(cli.__file__, code)
"""
TRAINING = """
import torch
layer = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
for _ in range(5):
    optimizer.zero_grad()
    layer(torch.ones(2, 3)).sum().backward()
    optimizer.step()
"""


def test_without_extras_jobs_are_recorded_and_the_rest_says_what_is_missing(wheel, tmp_path):
    """From an empty directory, off the wheel, with nothing installed but what the wheel itself asks for."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "train.py").write_text(TRAINING)
    environ = {"PYTHONPATH": str(tmp_path / "site"), "TORCHVITALS_DIR": str(tmp_path / "runs"), "PATH": os.defpath}

    def bare(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", BARE, *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=empty, env=environ)

    recorded = bare("run", sys.executable, str(tmp_path / "train.py"))
    assert recorded.stdout.split() == [str(tmp_path / "site/torchvitals/agent/cli.py"), "0"], recorded.stderr
    assert "recorded as" in recorded.stderr
    assert len(list(tmp_path.glob("runs/*/0.*/*.spool"))) == 1
    for command, extra in {"diagnose": "agent", "demo": "agent", "agent": "agent", "up": "agent,dashboard"}.items():
        refused = bare(command)
        assert refused.stdout.split()[-1] == "2", refused
        assert f"type: pip install 'torchvitals[{extra}]'" in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert "pip install 'torchvitals[dashboard]'" in bare("dashboard").stderr
