"""Which compiled graphs have a gradient that cannot fail alone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from recorded import series
from test_counted import in_debt, train
from test_light_steps import net
from torch import nn
from torchvitals.hooks import attach
from torchvitals.hooks.bounded_gradients import bounded
from torchvitals.hooks.compiled_gradients import bounded_inside
from torchvitals.hooks.counted import LIGHT

pytestmark = pytest.mark.filterwarnings("ignore")  # dynamo and inductor warn of themselves

WIDTH = 8
TRACED = "aot_eager_decomp_partition"
"""The graphs that inductor is given, run as they are: no compiler is needed."""


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def loss_of(forward: Callable[[torch.Tensor], torch.Tensor], backend: str) -> torch.Tensor:
    compiled = torch.compile(forward, backend=backend)
    torch.manual_seed(0)
    answer: torch.Tensor = compiled(torch.randn(4, WIDTH))
    return answer.square().mean()


def block(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), *layers)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x[:, None, :].expand(-1, 3, -1))


class Behind(nn.Module):
    """A linear layer, and a function of what it says."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.layer(x))


BOUNDED: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: block(nn.ReLU(), nn.Linear(WIDTH, 3)),
    "layer norm and gelu": lambda: block(nn.LayerNorm(WIDTH), nn.GELU(), nn.Linear(WIDTH, 3)),
    "batch norm": lambda: block(nn.BatchNorm1d(WIDTH), nn.Tanh()),
    "dropout": lambda: block(nn.Dropout(0.1), nn.SiLU()),
    "softmax": lambda: block(nn.Softmax(-1)),
    "attention": Attention,
    "rms norm": lambda: Behind(lambda x: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)),
    "division by a number": lambda: Behind(lambda x: x / 3.0),
}
POLES: dict[str, Callable[[], nn.Module]] = {
    "square root": lambda: Behind(lambda x: x.abs().sqrt()),
    "norm": lambda: Behind(lambda x: x.norm(dim=-1)),
    "cosine": lambda: Behind(lambda x: nn.functional.normalize(x, dim=-1)),
    "masked logarithm": lambda: Behind(lambda x: torch.where(x > 0, x.clamp(min=0).log(), x)),
    "masked exponential": lambda: Behind(lambda x: torch.where(x > 5, x, x.exp())),
    "power below one": lambda: Behind(lambda x: x.abs() ** 0.3),
    "division by a tensor": lambda: Behind(lambda x: x / x.detach().flip(0)),
}


@pytest.mark.parametrize("build", BOUNDED.values(), ids=BOUNDED)
def test_layers_are_bounded_in_their_gradients(build: Callable[[], nn.Module]) -> None:
    assert bounded(loss_of(build(), TRACED))


@pytest.mark.parametrize("build", POLES.values(), ids=POLES)
def test_what_has_a_pole_is_not(build: Callable[[], nn.Module]) -> None:
    assert not bounded(loss_of(build(), TRACED))


def test_a_hook_on_a_parameter_of_a_compiled_graph_is_seen() -> None:
    model = BOUNDED["relu"]()
    model.get_parameter("0.weight").register_hook(lambda gradient: gradient * 2)
    assert not bounded(loss_of(model, TRACED))


def test_an_autograd_function_is_no_compiled_graph() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return gradient * 2

    answer = Twice.apply(torch.ones(2, requires_grad=True))
    assert not bounded_inside(answer.grad_fn)
    assert not bounded(answer.sum())


def test_a_torch_that_does_not_keep_the_graph_has_no_light_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = loss_of(BOUNDED["relu"](), TRACED)
    monkeypatch.setattr(compiled_node(loss)._forward_cls, "_lazy_backward_info", None)
    assert not bounded(loss)


def compiled_node(loss: torch.Tensor) -> Any:
    node: Any = loss.grad_fn
    while "Compiled" not in node.name():
        node = node.next_functions[0][0]
    return node


def test_a_graph_that_comes_out_of_the_cache_of_inductor_is_unpacked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = loss_of(BOUNDED["relu"](), TRACED)
    compiled = compiled_node(loss)._forward_cls
    unpack = Mock(return_value=compiled._lazy_backward_info.bw_module)
    monkeypatch.setattr(compiled, "_lazy_backward_info", SimpleNamespace(bw_module_fn=unpack))
    assert bounded(loss)
    assert bounded(loss)
    unpack.assert_called_once_with()


def test_a_compiled_model_has_light_steps(tmp_path: Path) -> None:
    inner = net()
    model = torch.compile(inner, backend=TRACED)
    optimizer = torch.optim.Adam(inner.parameters(), lr=0.001)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        losses = train(model, optimizer, 600)
        assert not model._forward_hooks  # nobody hears when a forward ends that is like all others
        assert monitor.observer.counted.light

    assert list(series(tmp_path, "loss").values()) == pytest.approx(losses, rel=1e-6)
    norms = sorted(series(tmp_path, "tripwire_norm"))
    assert norms[-1] - norms[-2] == LIGHT + 1
