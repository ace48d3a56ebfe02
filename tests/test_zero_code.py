"""Unmodified scripts in a real child process, started as ``torchvitals run`` starts them."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from recorded import events, records, series, steps
from torchvitals.signals.records import LAUNCHER_RANK, Axis, Hello

TRAIN = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
data = torch.utils.data.TensorDataset(torch.randn(64, 6), torch.randint(0, 3, (64,)))
for epoch in range(2):
    for x, y in torch.utils.data.DataLoader(data, batch_size=8, shuffle=True):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(loss.item())
print(sum(p.double().sum().item() for p in model.parameters()))
"""


def run(tmp_path: Path, script: str, *, watched: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``script`` as a file of its own in an empty directory."""
    path = tmp_path / "script.py"
    path.write_text(script)
    spec = find_spec("torchvitals.hooks")
    assert spec is not None
    assert spec.submodule_search_locations
    zero_code = str(Path(spec.submodule_search_locations[0]) / "zero_code")
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    if watched:
        env |= {"TORCHVITALS_RUN": "test", "TORCHVITALS_DIR": str(tmp_path / "runs")}
        env["PYTHONPATH"] = os.pathsep.join([zero_code, *filter(None, [environment.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, cwd=tmp_path, env=env, timeout=120
    )


def test_an_unmodified_script_is_recorded_and_computes_the_same(tmp_path: Path) -> None:
    bare = run(tmp_path, TRAIN, watched=False)
    watched = run(tmp_path, TRAIN)

    assert watched.stderr == bare.stderr == ""
    assert watched.stdout == bare.stdout
    printed = [float(line) for line in watched.stdout.split()[:-1]]
    assert list(series(tmp_path / "runs", "loss").values()) == pytest.approx(printed, rel=1e-6)
    assert len(series(tmp_path / "runs", "gradient_norm")) == 16
    assert {"data_seconds", "forward_seconds", "backward_seconds", "optimizer_seconds"} <= set(
        steps(tmp_path / "runs")[5].values
    )
    facts = {key: value for event in events(tmp_path / "runs", "facts") for key, value in event.details.items()}
    assert facts["models"][0]["activations"] == {"ReLU": 1}
    assert facts["optimizers"][0]["class"] == "Adam"
    assert facts["loader"]["batch_size"] == 8
    axes = [record for record in records(tmp_path / "runs") if isinstance(record, Axis)]
    assert next(a.entries for a in axes if a.kind == "parameter") == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert [event.details["code"] for event in events(tmp_path / "runs", "exit")] == [0]


def test_nothing_is_left_behind_by_a_script_that_trains_nothing(tmp_path: Path) -> None:
    for script in (
        "import torch; print(torch.ones(2).sum())",
        "print('no torch here')",
        "import torch, sys; sys.exit(3)",
    ):
        run(tmp_path, script)

    assert not (tmp_path / "runs").exists()


def test_a_process_without_torch_loads_nothing_for_us(tmp_path: Path) -> None:
    script = "import sys; print(*sorted(sys.modules))"
    bare, watched = run(tmp_path, script, watched=False), run(tmp_path, script)

    assert set(watched.stdout.split()) - set(bare.stdout.split()) <= {"sitecustomize"}


def test_an_exception_before_training_is_recorded(tmp_path: Path) -> None:
    done = run(tmp_path, "import torch\ntorch.nn.Linear(2, 3)(torch.ones(5))\n")

    assert done.returncode == 1
    (event,) = events(tmp_path / "runs", "exception")
    assert event.details["type"] == "RuntimeError"
    assert any("script.py:2" in frame for frame in event.details["frames"])


def test_the_users_own_sitecustomize_still_runs(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import builtins\nbuiltins.from_the_user = 41\n")

    done = run(tmp_path, "import torch\nprint(from_the_user + 1)\n", PYTHONPATH=str(own))

    assert done.stdout.strip() == "42", done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loader_workers_write_nothing_of_their_own(tmp_path: Path, method: str) -> None:
    script = TRAIN.replace("shuffle=True", "num_workers=1").replace("for epoch in range(2)", "for epoch in range(1)")
    script = script.replace("for epoch", "if __name__ == '__main__':\n for epoch")
    start = f"import torch.multiprocessing as mp\nif __name__ == '__main__': mp.set_start_method('{method}')\n"
    done = run(tmp_path, start + script)

    assert done.returncode == 0, done.stderr
    hellos = {(record.rank, record.pid) for record in records(tmp_path / "runs") if isinstance(record, Hello)}
    assert len(hellos) == 1
    assert all(rank != LAUNCHER_RANK for rank, _ in hellos)


def test_a_service_is_recorded_as_requests(tmp_path: Path) -> None:
    script = """
import torch
model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()
with torch.inference_mode():
    for _ in range(100):
        model(torch.randn(4, 6))
"""
    run(tmp_path, script)

    from torchvitals.signals.records import Requests, Window, unpack_floats

    found = list(records(tmp_path / "runs"))
    assert sum(len(unpack_floats(r.latencies)) for r in found if isinstance(r, Requests)) == 100
    windows = [r for r in found if isinstance(r, Window)]
    assert sum(window.requests for window in windows) == 96
    assert [window.first for window in windows] == list(range(0, 96, 16))


def test_a_scripted_module_trains_unseen_forwards_and_all(tmp_path: Path) -> None:
    script = TRAIN.replace("optimizer = ", "model = torch.jit.script(model)\noptimizer = ", 1)
    bare, watched = run(tmp_path, script, watched=False), run(tmp_path, script)

    assert watched.stdout == bare.stdout
    assert "torchvitals" not in watched.stderr
    assert len(series(tmp_path / "runs", "loss")) == 16
    assert not events(tmp_path / "runs", "fuse")
    assert "forward" in [event.details["what"] for event in events(tmp_path / "runs", "not_checked")]


@pytest.mark.parametrize(("dataset", "traffic"), [("TensorDataset(torch.randn(200, 6))", False), ("Stream()", True)])
def test_the_order_of_a_stored_data_set_is_no_traffic(tmp_path: Path, dataset: str, *, traffic: bool) -> None:
    script = f"""
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
class Stream(IterableDataset):
    def __iter__(self):
        for _ in range(200):
            yield (torch.randn(6),)
model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()
with torch.no_grad():
    for (x,) in DataLoader({dataset}, batch_size=2):
        model(x)
"""
    run(tmp_path, script)

    from torchvitals.signals.records import Requests, Window, unpack_floats

    found = list(records(tmp_path / "runs"))
    assert sum(len(unpack_floats(r.latencies)) for r in found if isinstance(r, Requests)) == 100
    assert any(isinstance(record, Window) for record in found) is traffic
    told = [event.details["what"] for event in events(tmp_path / "runs", "not_checked")]
    assert ("drift" in told) is not traffic


@pytest.mark.parametrize("late", [False, True])
def test_compiled_code_is_not_touched(tmp_path: Path, late: bool) -> None:
    optimizer = "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
    script = f"""
import torch
from torch import nn
from torch._dynamo.utils import counters
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
{optimizer if late else ""}
model = torch.compile(model, backend="eager", fullgraph=True)
{"" if late else optimizer}
for _ in range(12):
    x = torch.randn(8, 6)
    loss = nn.functional.cross_entropy(model(x), x[:, :3].argmax(1))
    optimizer.zero_grad(); loss.backward(); optimizer.step()
print(loss.item(), dict(counters["stats"]), dict(counters["graph_break"]), dict(counters["frames"]))
"""
    bare, watched = run(tmp_path, script, watched=False), run(tmp_path, script)

    assert watched.returncode == 0, watched.stderr
    assert watched.stderr == bare.stderr
    assert watched.stdout == bare.stdout
    assert len(series(tmp_path / "runs", "gradient_norm")) == 12
    assert len(series(tmp_path / "runs", "batch_items")) == 12


GIVES_UP = """
import math, sys, torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(40):
    p = model(torch.randn(8, 6)).sigmoid() - (2.0 if step == 30 else 0.0)
    loss = -torch.log(p).mean()
    if not math.isfinite(loss.item()):
        {how}
    optimizer.zero_grad(); loss.backward(); optimizer.step()
"""


@pytest.mark.parametrize("how", ["sys.exit(1)", "raise ValueError('diverged')", "break", "continue"])
def test_a_loss_that_the_job_gave_up_on_has_an_origin(tmp_path: Path, how: str) -> None:
    run(tmp_path, GIVES_UP.format(how=how))

    (origin,) = events(tmp_path / "runs", "origin")
    assert origin.step == 30
    assert origin.details["operation"] == "aten.log"
    assert origin.details["line"].endswith("script.py:9")
    assert math_isnan(series(tmp_path / "runs", "loss")[30])


def math_isnan(value: float) -> bool:
    return value != value  # noqa: PLR0124 (that is what NaN is)


def test_a_rank_that_spawn_made_knows_its_rank(tmp_path: Path) -> None:
    script = """
import os, torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

def work(rank, path):
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(11):
        optimizer.zero_grad(); model(torch.randn(8, 4)).pow(2).mean().backward(); optimizer.step()
    dist.destroy_process_group()

if __name__ == "__main__":
    mp.spawn(work, args=(os.path.abspath("rendezvous"),), nprocs=2)
"""
    done = run(tmp_path, script)

    assert done.returncode == 0, done.stderr
    hellos = [record for record in records(tmp_path / "runs") if isinstance(record, Hello)]
    assert sorted((hello.rank, hello.world_size) for hello in hellos) == [(0, 2), (1, 2)]
    assert set(series(tmp_path / "runs", "collectives").values()) - {0.0}


SEVERAL = """
import torch
from torch import nn
torch.manual_seed(0)
teacher, encoder, decoder = nn.Linear(6, 6), nn.Linear(6, 4), nn.Linear(4, 6)
optimizer = torch.optim.SGD([*encoder.parameters(), *decoder.parameters()], lr=0.01)
for step in range(6):
    x = torch.randn(8, 6)
    with torch.no_grad():
        target = teacher(x)
    out = decoder(encoder(x).detach() if step else encoder(x))
    loss = ((out - target) ** 2).mean()
    if step == 4:
        loss = (out - out.detach()).log().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""


def test_of_several_models_each_is_found_at_the_first_step(tmp_path: Path) -> None:
    run(tmp_path, SEVERAL)
    (origin, *_) = events(tmp_path / "runs", "origin")

    assert series(tmp_path / "runs", "optimizer_extra_parameters").get(1, 0.0) == 0
    assert (origin.step, origin.details["operation"], origin.details["complete"]) == (4, "aten.log", True)
