"""What is in the tree is in the wheel: a package or data file that is forgotten works from a checkout only."""

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
