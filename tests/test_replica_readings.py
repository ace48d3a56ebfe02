"""Only true replicas are laid side by side, under names that say which they are."""

import numpy as np
from torchvitals.agent.replicas import Replicas
from torchvitals.detectors.desync import Desync
from torchvitals.signals.records import ALONE, Axis, Digest, Step, pack_integers

NAMES = ["weight", "bias", "norm"]


def digest(step, values, kind="parameter"):
    return Digest(step, float(step), "parameter:0", kind, pack_integers(np.array(values)))


def put(replicas, step, rows):
    """``rows``: rank → (what it holds, digests)."""
    for rank, (held, values) in rows.items():
        replicas.put(rank, digest(step, values), AXES.setdefault((rank, tuple(held)), axis(held)))
    return list(replicas.ready(rows))


AXES: dict[object, Axis] = {}
"""A reader hands out one axis object per process."""


def axis(held):
    return Axis("parameter:0", "parameter", NAMES, {"replicas": list(held)} if held else {})


def table(reading, name="parameter_digest"):
    """Rank × column, ``None`` where a rank holds nothing."""
    pairs = zip(reading.values[name].tolist(), reading.present[name].tolist(), strict=True)
    return [[v if there else None for v, there in zip(*pair, strict=True)] for pair in pairs]


def test_whole_copies_are_compared_entry_by_entry():
    replicas = Replicas(2)
    (reading,) = put(replicas, 10, {0: ((), [1, 2, 3]), 1: ((), [1, 2, 4])})

    assert replicas.columns == NAMES
    assert table(reading) == [[1, 2, 3], [1, 2, 4]]
    assert replicas.share_work


def test_shards_are_compared_with_their_own_replicas():
    """Two by two ranks: of ``weight`` two shards, each twice; ``norm`` whole; ``bias`` everybody's own."""
    replicas = Replicas(4)
    rows = {r: ([f"shard {r % 2} of 2", ALONE, ""], [100 + r % 2, r, 7]) for r in range(4)}
    (reading,) = put(replicas, 10, rows)

    assert sorted(replicas.columns) == ["norm", "weight (shard 0 of 2)", "weight (shard 1 of 2)"]
    assert Desync().update(reading) == []
    assert not replicas.share_work

    rows[3] = (rows[3][0], [999, 3, 7])
    (reading,) = put(replicas, 20, rows)
    (finding,) = Desync().update(reading)

    assert replicas.columns[finding.subject] == "weight (shard 1 of 2)"
    assert finding.evidence["ranks_compared"] == 2
    assert finding.evidence["tensors_compared"] == 3


def test_where_every_rank_has_a_shard_of_its_own_nothing_is_compared():
    replicas, detector = Replicas(3), Desync()
    for step in range(0, 50, 10):
        for reading in put(replicas, step, {r: ([f"shard {r} of 3"] * 3, [r, r, r]) for r in range(3)}):
            assert detector.update(reading) == []

    assert replicas.columns == []
    assert detector.status().state == "not_checked"


def test_stages_of_a_pipeline_hold_other_tensors():
    replicas = Replicas(2)
    for rank, name in enumerate(("first.weight", "second.weight")):
        replicas.put(rank, digest(0, [rank]), Axis("parameter:0", "parameter", [name]))

    assert [table(reading) for reading in replicas.ready([0, 1])] == [[[], []]]


def test_hyper_parameters_are_compared_whatever_is_sharded():
    replicas = Replicas(2)
    for rank in range(2):
        replicas.put(rank, digest(0, [5, 6], "hyperparameter"), axis([f"shard {rank} of 2"] * 3))
    (reading,) = replicas.ready([0, 1])

    assert reading.values["hyperparameter_digest"].tolist() == [[5, 6], [5, 6]]


def step(number, **values):
    return Step(number, float(number), values)


def test_sums_are_compared_within_those_who_hold_the_same():
    replicas = Replicas(4)
    put(replicas, 0, {r: ([f"shard {r % 2} of 2"] * 3, [0, 0, 0]) for r in range(4)})
    reading = replicas.sums(1, {r: step(1, parameter_sum=float(r % 2)) for r in range(4)})

    assert table(reading, "parameter_sum") == [[0.0, None], [None, 1.0], [0.0, None], [None, 1.0]]
    assert replicas.sums(2, {0: step(2, parameter_sum=1.0), 1: step(2, parameter_sum=2.0)}) is None
    assert replicas.sums(3, {0: step(3, loss=1.0), 1: step(3, loss=1.0)}) is None


def test_a_rank_that_comes_late_gets_its_column_and_moves_none():
    replicas = Replicas(3)
    put(replicas, 0, {0: ((), [1, 2, 3]), 1: ((), [1, 2, 3])})
    before = list(replicas.columns)
    replicas.put(2, digest(10, [1, 2, 3, 4]), Axis("parameter:0", "parameter", [*NAMES, "head"]))
    replicas.put(0, digest(10, [1, 2, 3, 4]), Axis("parameter:0", "parameter", [*NAMES, "head"]))

    assert replicas.columns == [*before, "head"]
