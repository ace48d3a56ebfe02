"""What a loop does beside the usual: a state given back, a critic frozen for a moment, two forwards to one backward."""

import torch
from torch import nn
from torchvitals.hooks import attach, gradients
from torchvitals.signals.reader import RunReader
from torchvitals.signals.records import Step


class Recurrent(nn.Module):
    """A state that grows tenfold with each call."""

    def __init__(self):
        super().__init__()
        self.cell = nn.Linear(3, 3)

    def forward(self, x, state):
        return self.cell(x).sum(), state * 10


def recorded(directory):
    (run,) = directory.iterdir()
    steps = [entry.record for entry in RunReader(run).read() if isinstance(entry.record, Step)]
    return {record.step: record.values for record in steps}


def test_a_state_that_comes_back_is_not_read_as_input(tmp_path):
    model, state = Recurrent(), torch.ones(3)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with attach(model, optimizer, directory=tmp_path):
        for _ in range(6):
            loss, state = model(torch.full((2, 3), 0.5), state.detach())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    seen = [values["input_absmax"] for values in recorded(tmp_path).values() if "input_absmax" in values]
    assert seen[0] == 1.0  # the first state is the job's own
    assert set(seen[1:]) == {0.5}


def test_parameters_that_are_all_frozen_for_a_moment_are_watched_all_the_same():
    critic = nn.Linear(4, 1)
    watched = gradients.tripwire(list(critic.parameters()))
    critic.requires_grad_(False)
    assert [id(p) for p in gradients.tripwire(list(critic.parameters()))] == [id(p) for p in watched]


def test_two_forwards_for_one_backward_give_up_no_loss(tmp_path):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with attach(model, optimizer, directory=tmp_path):
        for step in range(40):
            x = torch.randn(4, 3)
            loss = model(x).pow(2).mean()
            if step >= 10:  # a term of consistency joins late, and it breaks the job
                loss = loss * (float("nan") if step >= 12 else 1.0) + model(x + 0.1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert max(recorded(tmp_path)) == 39
