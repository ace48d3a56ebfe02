"""Only ranks that belong together owe each other equal bits."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import Partial, Replicate, Shard
from torchvitals.hooks import fingerprints, replica_groups
from torchvitals.hooks.discovery import Model, sharing, unwrap
from torchvitals.hooks.rank_probes import RankProbes
from torchvitals.hooks.recorder import Recorder
from torchvitals.hooks.replicas import ReplicaDigests
from torchvitals.signals.records import ALONE


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    layer = torch.nn.Linear(2, 2)
    return Model(layer, layer, [])


def test_a_sweep_under_torchrun_is_not_compared(model):
    assert ReplicaDigests.when_replicated([model]) is None


def test_ranks_of_a_group_are_compared_but_not_a_group_of_one(model, monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)

    assert ReplicaDigests.when_replicated([model]) is not None
    assert ReplicaDigests.when_replicated([]) is None
    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    assert ReplicaDigests.when_replicated([model]) is None


def test_the_wrappers_that_can_be_told_not_to_share_are_found():
    layer = torch.nn.Linear(2, 2)
    wrapper = type("DistributedDataParallel", (torch.nn.Module,), {"require_backward_grad_sync": True})()
    wrapper.module = layer

    assert sharing(unwrap(wrapper)) == [wrapper]
    assert sharing(unwrap(layer)) == []


@pytest.fixture
def group(monkeypatch, model):
    """A process group of two, as far as it can be seen."""
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda *_: 2)
    return model


def held(*parameters, models=()):
    return replica_groups.replicas(parameters, models)


def test_what_each_rank_of_a_group_holds_is_a_whole_copy(group):
    assert held(*group.inner.parameters(), models=[group]) == ["", ""]


def test_a_process_alone_says_nothing_and_a_sweep_owes_nobody_anything(model, monkeypatch):
    assert held(*model.inner.parameters()) == [ALONE, ALONE]
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert held(*model.inner.parameters()) == []


class Mesh:
    """Two by two ranks: two replicas, each cut in two."""

    mesh_dim_names = ("replicate", "shard")
    ndim = 2

    def __init__(self, *coordinate):
        self.coordinate = coordinate

    def get_coordinate(self):
        return self.coordinate or None

    def size(self, _dimension):
        return 2


def distributed(mesh, *placements):
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.device_mesh, parameter.placements = mesh, placements
    return parameter


def test_a_shard_is_told_by_the_dimensions_that_cut_it(group):
    cut = (Replicate(), Shard(0))

    assert held(distributed(Mesh(0, 1), *cut)) == held(distributed(Mesh(1, 1), *cut)) == ["shard 1 of 2"]
    assert held(distributed(Mesh(0, 0), *cut)) == ["shard 0 of 2"]
    assert held(distributed(Mesh(0, 1), Shard(0), Shard(0))) == ["replicate 0 of 2, shard 1 of 2"]
    assert held(distributed(Mesh(0, 1), Replicate(), Replicate())) == [""]
    assert held(distributed(Mesh(0, 1), Replicate(), Partial())) == [ALONE]
    assert held(distributed(Mesh(), *cut)) == [ALONE]


def test_parts_that_are_plain_tensors_are_known_by_their_marks(group):
    megatron, deepspeed, whole = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    megatron.tensor_model_parallel, deepspeed.ds_id, whole.tensor_model_parallel = True, 0, False

    assert held(megatron, deepspeed, whole) == [ALONE, ALONE, ""]


def wrapped(kind, layer, **attributes):
    wrapper = type(kind, (torch.nn.Module,), attributes)()
    wrapper.module = layer
    return unwrap(wrapper)


def test_a_wrapper_tells_whom_it_keeps_equal(group, monkeypatch):
    layer, others = torch.nn.Linear(2, 2), type("Group", (), {"size": lambda _: 1})()
    monkeypatch.setattr(dist, "get_process_group_ranks", lambda _: [0, 2])
    some = wrapped("DistributedDataParallel", layer, process_group=others)
    but_bias = wrapped("DistributedDataParallel", layer, parameters_to_ignore={"bias"})
    flat = wrapped("FullyShardedDataParallel", layer)

    assert held(*layer.parameters(), models=[some]) == ["ranks 0, 2"] * 2
    assert held(*layer.parameters(), models=[but_bias]) == ["", ALONE]
    assert held(*layer.parameters(), models=[flat]) == [ALONE] * 2


def test_what_ranks_are_compared_by_is_read_at_the_same_few_steps(tmp_path):
    """Each step at which something is read must be a watched one."""
    readings, probes = ReplicaDigests(1 << 12), RankProbes(Recorder(tmp_path))

    def read(step):
        return readings.due(step) or readings.batch_due(step) or probes.due(step) or fingerprints.due(step)

    assert [step for step in range(1024, 1200) if read(step)] == [1024, 1056, 1088, 1120, 1152, 1184]
