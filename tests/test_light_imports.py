"""The agent runs where torch is not installed, and the hooks bring nothing of the agent into the job."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Adapters for frameworks that need not be installed: they are loaded only inside those frameworks.
OPTIONAL = {"lightning", "pytorch_lightning", "transformers", "apprise", "pynvml", "opentelemetry"}

PROBE = """
import importlib, sys
names, forbidden, optional = (set(argument.split(",")) for argument in sys.argv[1:4])
for name in sorted(names):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in optional:
            raise
loaded = sorted(f for f in forbidden if any(m == f or m.startswith(f + ".") for m in sys.modules))
if loaded:
    sys.exit("loaded: " + ", ".join(loaded))
"""


def modules(*rooms: str) -> set[str]:
    """Dotted names of every module in these rooms; scripts that are run and not imported are left out."""
    found = set()
    for room in rooms:
        for path in (ROOT / room).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if "zero_code" not in parts and parts[-1] != "__main__":
                found.add(".".join(("torchvitals", *(part for part in parts if part != "__init__"))))
    return found


def load(names: set[str], forbidden: set[str], path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Import ``names`` in a fresh interpreter and fail if anything of ``forbidden`` came along."""
    arguments = [",".join(sorted(names)), ",".join(sorted(forbidden)), ",".join(OPTIONAL)]
    return subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, cwd=path or ROOT / "tests"
    )


@pytest.mark.parametrize("room", ["signals", "detectors", "agent", "dashboard"])
def test_loads_without_torch(room):
    names = modules(room)

    result = load(names, {"torch", "torchvitals.hooks"})

    assert names
    assert result.returncode == 0, result.stderr


def test_signals_are_light():
    result = load(modules("signals"), {"torch", "scipy", "pandas", "duckdb", "httpx", "asyncio"})

    assert result.returncode == 0, result.stderr


def test_hooks_bring_nothing_of_the_agent_into_the_job():
    ours = {"torchvitals.agent", "torchvitals.detectors", "torchvitals.dashboard"}

    # An adapter brings its framework, and that what it likes; only a job of that framework imports it.
    hooks = {name for name in modules("hooks") if ".integrations." not in name}
    result = load(hooks, ours | {"duckdb", "fastapi", "pyarrow", "scipy", "streamlit"})

    assert result.returncode == 0, result.stderr


def test_a_planted_import_of_torch_is_seen(tmp_path):
    """The proof above can fail."""
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "planted.py").write_text("def f(): pass\nimport torch\n")

    result = load({"planted"}, {"torch"}, tmp_path)

    assert result.returncode == 1
    assert "loaded: torch" in result.stderr
