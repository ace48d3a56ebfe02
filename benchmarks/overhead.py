"""What watching costs: interleaved blocks of steps, watched and bare, in one process.

    python -m benchmarks.overhead                       # the table below, and overhead.json
    python -m benchmarks.overhead --workloads mlp --contenders torchvitals --blocks 40
    python -m benchmarks.overhead --device cuda

Each contender trains its own copy of the model, from one seed, on one batch. Blocks of all contenders run
in turn, so that a slow minute of the machine hits them alike; each block's CPU time (wall time on CUDA) is
divided by that of the bare block next to it. The table shows the median ratio and the middle half.

torchvitals is measured after its starting allowance (a second of work, see hooks/budget.py) is spent:
what it costs for the rest of the run. ``--with-allowance`` measures the first steps.
"""

import argparse
import contextlib
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvitals.hooks import Monitor, attach, sources

BLOCK_SECONDS = 0.4


class Job:
    """A model, an optimizer, a batch and one step of training."""

    def __init__(self, build: Callable[[], nn.Module], batch: Callable[[], Any], device: str) -> None:
        torch.manual_seed(0)
        self.model = build().to(device)
        # Hardly any rate: on one batch that is learnt the loss falls to zero, and a restless job is looked at more.
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-7)
        self.x, self.y = (tensor.to(device) for tensor in batch())

    def loss(self) -> torch.Tensor:
        output = self.model(self.x)
        output = output[0] if isinstance(output, tuple) else output
        return nn.functional.cross_entropy(output.flatten(0, -2), self.y.flatten())

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()


class Transformer(nn.Module):
    """A decoder-only language model of ``width`` with ``depth`` layers."""

    def __init__(self, width: int = 256, depth: int = 4, vocabulary: int = 512, length: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(torch.zeros(length, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embed(tokens) + self.place, mask=self.mask, is_causal=True))


class Recurrent(nn.Module):
    """An LSTM classifier of every position."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 128, num_layers=2, batch_first=True)
        self.head = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0])


def mlp() -> nn.Module:
    """Three layers; a step of about 2 ms."""
    return nn.Sequential(nn.Linear(128, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def cnn() -> nn.Module:
    """A small convolutional classifier with batch norm."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 10))


def images() -> Any:
    return torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))


def rows() -> Any:
    return torch.randn(64, 128), torch.randint(0, 10, (64,))


def sequences() -> Any:
    return torch.randn(16, 32, 64), torch.randint(0, 10, (16, 32))


def tokens() -> Any:
    return torch.randint(0, 512, (8, 64)), torch.randint(0, 512, (8, 64))


WORKLOADS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "mlp": (mlp, rows),
    "cnn": (cnn, images),
    "lstm": (Recurrent, sequences),
    "transformer": (Transformer, tokens),
}


class Contender:
    """One way of watching a job. ``active`` surrounds a timed block, outside the clock."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        yield

    def step(self) -> None:
        self.job.step()

    def close(self) -> None:
        """Undo what was set up."""


class Torchvitals(Contender):
    """Ours with its default budget."""

    overhead = 0.01

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._directory = tempfile.TemporaryDirectory()
        self.monitor: Monitor = attach(job.model, job.optimizer, directory=self._directory.name, overhead=self.overhead)
        self.monitor._taps.remove()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The taps are global: they are there in our blocks and in no other."""
        sources.install(self.monitor._taps, self.monitor.observer, self.monitor.recorder.fuse.guard)
        self.monitor.observer.interrupted = True  # the time since our last block is not a step's
        yield
        self.monitor._taps.remove()

    def spend_allowance(self) -> None:
        """Train until the starting allowance is gone."""
        with self.active():
            for _ in range(100_000):
                self.step()
                if self.monitor.recorder.budget.tokens <= 0.01:
                    return

    def close(self) -> None:
        self.monitor.detach()
        self._directory.cleanup()


class EverythingEveryStep(Torchvitals):
    """Ours with a budget that never says no."""

    overhead = 1000.0


class Anomaly(Contender):
    """torch.autograd.set_detect_anomaly."""

    def step(self) -> None:
        with torch.autograd.detect_anomaly(check_nan=True):
            self.job.step()


class NaiveHooks(Contender):
    """What people write first: a forward hook on every leaf that reads three numbers with ``.item()``."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.seen: dict[str, tuple[float, float, float]] = {}
        for name, module in job.model.named_modules():
            if not list(module.children()):
                module.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                self.seen[name] = (output.mean().item(), output.std().item(), output.abs().max().item())

        return hook


class WandbWatch(Contender):
    """``wandb.watch`` offline, logging each step."""

    every = 100

    def __init__(self, job: Job) -> None:
        import wandb

        super().__init__(job)
        self._run = wandb.init(mode="offline", dir=tempfile.mkdtemp(), settings=wandb.Settings(silent=True))
        self._run.watch(job.model, log="all", log_freq=self.every)

    def step(self) -> None:
        self.job.optimizer.zero_grad()
        loss = self.job.loss()
        loss.backward()
        self.job.optimizer.step()
        self._run.log({"loss": loss.item()})

    def close(self) -> None:
        self._run.finish()


class WandbWatchEveryStep(WandbWatch):
    """``wandb.watch`` of everything at every step."""

    every = 1


CONTENDERS: dict[str, type[Contender]] = {
    "bare": Contender,
    "torchvitals": Torchvitals,
    "torchvitals, everything every step": EverythingEveryStep,
    "wandb.watch all, every 100": WandbWatch,
    "wandb.watch all, every step": WandbWatchEveryStep,
    "set_detect_anomaly": Anomaly,
    "naive .item() hooks": NaiveHooks,
}


def measure(workload: str, names: list[str], blocks: int, device: str, *, allowance: bool) -> dict[str, Any]:
    """Ratios of each contender's blocks to the bare blocks beside them, and the bare step in milliseconds."""
    build, batch = WORKLOADS[workload]
    contenders = {name: CONTENDERS[name](Job(build, batch, device)) for name in names}
    for contender in contenders.values():
        if isinstance(contender, Torchvitals) and contender.overhead < 1 and not allowance:
            contender.spend_allowance()
        _block(contender, 5, device)
    steps = max(5, round(BLOCK_SECONDS / (_block(contenders["bare"], 10, device) / 10)))
    ratios: dict[str, list[float]] = {name: [] for name in names if name != "bare"}
    bare_seconds = []
    for _ in range(blocks):
        for name, found in ratios.items():
            bare = _block(contenders["bare"], steps, device)
            found.append(_block(contenders[name], steps, device) / bare)
            bare_seconds.append(bare / steps)
    for contender in contenders.values():
        contender.close()
    return {"workload": workload, "step_ms": statistics.median(bare_seconds) * 1e3, "steps": steps, "ratios": ratios}


def _block(contender: Contender, steps: int, device: str) -> float:
    """Seconds of ``steps`` steps: CPU time of this thread, or wall time up to an idle device."""
    with contender.active():
        if device == "cuda":
            torch.cuda.synchronize()
        clock = time.perf_counter if device == "cuda" else time.thread_time
        began = clock()
        for _ in range(steps):
            contender.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return clock() - began


def table(results: list[dict[str, Any]]) -> str:
    """The results as text."""
    lines = []
    for result in results:
        lines.append(f"{result['workload']}: bare step {result['step_ms']:.2f} ms, {result['steps']} steps a block")
        for name, ratios in result["ratios"].items():
            low, middle, high = statistics.quantiles(ratios, n=4)
            lines.append(f"  {name:36s} × {middle:.4f}   ({low:.4f} to {high:.4f})")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    parser.add_argument("--contenders", nargs="+", default=None, choices=sorted(CONTENDERS.keys() - {"bare"}))
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--with-allowance", action="store_true")
    parser.add_argument("--json", type=Path, default=Path("overhead.json"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    names = chosen.contenders or [name for name in CONTENDERS if name != "bare"]
    if importlib.util.find_spec("wandb") is None:
        left_out = [name for name in names if name.startswith("wandb")]
        names = [name for name in names if name not in left_out]
        if left_out:
            print("wandb is not installed, left out: pip install wandb")
    results = []
    for workload in chosen.workloads:
        results.append(
            measure(workload, ["bare", *names], chosen.blocks, chosen.device, allowance=chosen.with_allowance)
        )
        print(table(results[-1:]), flush=True)
    chosen.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
