"""Only ranks that belong together owe each other equal bits."""

import pytest
import torch
import torch.distributed as dist
from torchvitals.hooks.discovery import Model, sharing, unwrap
from torchvitals.hooks.replicas import ReplicaDigests


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    layer = torch.nn.Linear(2, 2)
    return Model(layer, layer, [])


def test_a_sweep_under_torchrun_is_not_compared(model):
    assert ReplicaDigests.when_replicated([model], sharded=False) is None


def test_ranks_of_a_group_are_compared_but_not_shards_nor_a_group_of_one(model, monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)

    assert ReplicaDigests.when_replicated([model], sharded=False) is not None
    assert ReplicaDigests.when_replicated([model], sharded=True) is None
    assert ReplicaDigests.when_replicated([], sharded=False) is None
    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    assert ReplicaDigests.when_replicated([model], sharded=False) is None


def test_the_wrappers_that_can_be_told_not_to_share_are_found():
    layer = torch.nn.Linear(2, 2)
    wrapper = type("DistributedDataParallel", (torch.nn.Module,), {"require_backward_grad_sync": True})()
    wrapper.module = layer

    assert sharing(unwrap(wrapper)) == [wrapper]
    assert sharing(unwrap(layer)) == []
