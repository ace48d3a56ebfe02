"""A compiled model is run again as its author wrote it: the place is named, and the job cannot tell."""

import contextlib

import pytest
import torch
from test_counted import in_debt
from torch import nn
from torchvitals.agent.offline import diagnose_directory
from torchvitals.hooks import attach


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.drop, self.last = (
            nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(0.2), nn.Linear(12, 1)
        )  # fmt: skip

    def forward(self, rows):
        rows = rows / rows.norm(dim=1, keepdim=True)
        return self.last(self.drop(torch.relu(self.norm(self.first(rows)))))


def train(watch):
    """Parameters, buffers and random state after 30 steps with one bad batch, and how often the model was compiled."""
    torch._dynamo.reset()
    torch.manual_seed(3)
    compiled = []

    def backend(graph, _inputs):
        compiled.append(graph)
        return graph.forward

    net = Net()
    model = torch.compile(net, backend=backend)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    with watch(model, optimizer):
        for step in range(30):
            rows = torch.randn(16, 6)
            if step == 20:
                rows[5] = 0.0
            loss = model(rows).square().mean()
            optimizer.zero_grad()
            loss.backward()
            if step != 20:
                optimizer.step()
            else:
                net.norm.reset_running_stats()  # the bad batch has spoilt them in both
    state = [*(value.clone() for value in net.state_dict().values()), torch.get_rng_state()]
    return state, len(compiled)


@pytest.mark.parametrize("counted", [False, True])
def test_the_place_is_named_and_the_job_cannot_tell(tmp_path, counted):
    def watch(*given):
        monitor = attach(*given, directory=tmp_path, overhead=1.0)
        return in_debt(monitor) if counted else monitor

    bare, compiled_bare = train(lambda *_: contextlib.nullcontext())
    watched, compiled = train(watch)
    (run,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    (incident,) = diagnose_directory(run).incidents

    assert (incident.kind, incident.cause, incident.first_step) == ("nonfinite", "numerical_domain_error", 20)
    assert "test_compiled_replay.py:" in incident.where
    assert compiled == compiled_bare == 1
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(watched, bare, strict=True))
