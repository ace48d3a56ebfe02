"""Norms of shards, put together from what each rank of FSDP tells of its part."""

import pytest
import torch
from torch import nn
from torchvitals.agent.rows import RowBatch
from torchvitals.agent.series import series
from torchvitals.agent.shards import with_wholes
from torchvitals.agent.store import RunRow, Store
from torchvitals.hooks.shards import holders_of, shard_norm
from torchvitals.signals.reader import Entry
from torchvitals.signals.records import Hello, Step

SHARD = "gradient_norm_shard"


def stored(parts: dict[int, list[float]], world_size: int) -> Store:
    """A store in which rank r sent ``parts[r]``, one norm a step."""
    batch = RowBatch()
    for rank, norms in parts.items():
        for step, norm in enumerate(norms):
            batch.add(Entry(Hello(run="r", rank=rank), Step(step, float(step), {SHARD: norm, "loss": 1.0})))
    store = Store(":memory:")
    store.commit(RunRow(run="r", world_size=world_size), batch=batch)
    return store


def test_the_series_of_the_whole_is_made_of_the_parts() -> None:
    with stored({0: [3.0, 5.0, 1.0], 1: [4.0, 12.0]}, world_size=2) as store:
        (whole,) = series(store, "r", ["gradient_norm"])
        assert (whole["signal"], whole["rank"], whole["step"]) == ("gradient_norm", 0, [0, 1])
        assert whole["last"] == pytest.approx([5.0, 13.0])
        assert series(store, "r", ["gradient_norm"], rank=1) == []
        assert {item["signal"] for item in series(store, "r", ["gradient_norm", SHARD, "loss"])} == {
            "gradient_norm",
            SHARD,
            "loss",
        }


def test_some_of_the_parts_are_no_whole() -> None:
    with stored({0: [3.0]}, world_size=2) as store:
        assert series(store, "r", ["gradient_norm"]) == []


def test_a_norm_that_a_rank_knows_itself_is_not_replaced() -> None:
    rows = {rank: Step(0, 0.0, {SHARD: 1.0, "gradient_norm": 7.0}) for rank in (0, 1)}

    assert with_wholes(rows, 2) == (rows, {})


class Mesh:
    def __init__(self, *sizes: int) -> None:
        self._sizes = sizes

    def size(self, dimension: int | None = None) -> int:
        return torch.Size(self._sizes).numel() if dimension is None else self._sizes[dimension]


class Placement:
    def __init__(self, kind: str) -> None:
        self._kind = kind

    def is_partial(self) -> bool:
        return self._kind == "partial"

    def is_replicate(self) -> bool:
        return self._kind == "replicate"


class Sharded:
    """As much of a DTensor as counts."""

    def __init__(self, mesh: Mesh, *kinds: str) -> None:
        self.device_mesh = mesh
        self.placements = [Placement(kind) for kind in kinds]


@pytest.mark.parametrize(
    ("kinds", "outside", "holders"),
    [
        (("shard", "shard"), False, 1),
        (("replicate", "shard"), False, 2),
        (("replicate", "replicate"), False, 8),
        (("shard", "shard"), True, 2),
        (("partial", "shard"), False, 0),
    ],
)
def test_how_many_ranks_hold_the_same(
    kinds: tuple[str, str], outside: bool, holders: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 16)

    assert holders_of(Sharded(Mesh(2, 4), *kinds), replicated_outside=outside) == holders


def test_plain_tensors_are_held_by_all() -> None:
    layer = nn.Linear(3, 2)
    layer(torch.ones(1, 3)).sum().backward()

    assert float(shard_norm(list(layer.parameters()))) == pytest.approx((2 * 3 + 2) ** 0.5)  # type: ignore[arg-type]
    assert shard_norm([nn.Parameter(torch.ones(2))]) is None
