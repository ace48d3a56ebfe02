"""Running statistics of ranks may differ as their batches do, and no further."""

import numpy as np
import pytest
import torch
from made_up import goodbye, writer
from torchvitals.agent.case import Case
from torchvitals.agent.causes.corrupted_gradient import CorruptedGradient
from torchvitals.agent.causes.rank_local_load import RankLocalLoad
from torchvitals.agent.causes.rank_local_update import RankLocalUpdate
from torchvitals.agent.causes.unknown import Unknown
from torchvitals.agent.causes.unsynced_buffers import UnsyncedBuffers
from torchvitals.agent.diagnosis import rank_causes
from torchvitals.agent.history import History
from torchvitals.agent.offline import diagnose_directory
from torchvitals.detectors.buffer_spread import BufferSpread
from torchvitals.detectors.detector import Finding, Reading
from torchvitals.hooks.discovery import unwrap
from torchvitals.hooks.recorder import Recorder
from torchvitals.hooks.running_statistics import EVERY, RunningStatistics
from torchvitals.signals.records import Axis, Profile, pack_floats, unpack_floats


def remembered(generator, batches, size, *, shift=0.0, scale=1.0, momentum=0.1, channels=8):
    """Running mean and variance after each of so many batches of normal numbers."""
    layer = torch.nn.BatchNorm1d(channels, momentum=momentum)
    for _ in range(batches):
        layer(scale * torch.randn(size, channels, generator=generator) + shift)
        yield layer.running_mean.numpy().copy(), layer.running_var.numpy().copy()


def play(ranks, *, looks=12, detector=None):
    """``ranks``: one stream of (mean, variance) each, looked at every ``EVERY`` batches."""
    detector, found = detector or BufferSpread(), []
    for step, row in enumerate(zip(*ranks, strict=True)):
        if step % EVERY == EVERY - 1:
            mean, variance = (np.stack(each).astype(float) for each in zip(*row, strict=True))
            layer = np.repeat(np.arange(2.0), mean.shape[1] // 2) * np.ones_like(mean)
            values = {"buffer_mean": mean, "buffer_variance": variance, "buffer_layer": layer}
            found += detector.update(Reading(step, 0.0, values, dict.fromkeys(values, np.ones(len(mean), dtype=bool))))
    assert step + 1 == looks * EVERY
    return found


def streams(ranks, size, seed=0, odd=None, **of_the_odd):
    return [
        remembered(torch.Generator().manual_seed(100 * seed + r), 12 * EVERY, size, **(of_the_odd if r == odd else {}))
        for r in range(ranks)
    ]


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("size", [4, 16, 256])
@pytest.mark.parametrize("seed", range(3))
def test_the_noise_of_batches_is_silent(ranks, size, seed):
    assert play(streams(ranks, size, seed)) == []


def test_a_layer_that_remembers_one_batch_only_is_silent():
    generators = (torch.Generator().manual_seed(rank) for rank in range(2))

    assert play([remembered(generator, 12 * EVERY, 8, momentum=1.0) for generator in generators]) == []


@pytest.mark.parametrize("of_the_odd", [{"shift": 1.5}, {"scale": 4.0}], ids=["shifted", "wider"])
def test_a_rank_that_sees_other_data_is_named(of_the_odd):
    (finding,) = play(streams(4, 32, odd=2, **of_the_odd))

    assert finding.rank == 2
    assert finding.evidence["minority"] == [2]
    assert finding.first_step == EVERY - 1
    assert finding.step == 4 * EVERY - 1


def test_of_two_ranks_none_is_named():
    (finding,) = play(streams(2, 32, odd=1, shift=2.0))

    assert finding.rank is None
    assert finding.evidence["minority"] is None


def test_numbers_that_are_none_say_nothing():
    broken = ([(mean * np.nan, variance * np.inf) for mean, variance in each] for each in streams(2, 4))

    assert play(list(broken)) == []


def test_a_rank_without_statistics_is_left_out():
    detector = BufferSpread()
    values = {name: np.ones((3, 4)) for name in BufferSpread.reads}
    for step in range(5):
        detector.update(Reading(step, 0.0, values, dict.fromkeys(values, np.array([True, False, False]))))

    assert detector.status().state == "not_checked"


def best(*findings):
    case = Case(findings=list(findings), history=History(), facts={}, events=[], world_size=4)
    causes = [UnsyncedBuffers(), RankLocalUpdate(), RankLocalLoad(), CorruptedGradient(), Unknown()]
    return rank_causes([(cause, opinion) for cause in causes if (opinion := cause.weigh(case))])[0]


def desync(what, **evidence):
    return Finding(
        kind="desync", severity="critical", first_step=39, step=159, value=3.0, threshold=1.0, name="norm[0]",
        evidence={"what": what, "ranks_compared": 4, "minority": [2], **evidence},
    )  # fmt: skip


BUFFERS = desync("buffers", times_the_limit=3.0, limit_deviations=0.6)


def test_statistics_alone_are_their_own_cause():
    ranked, opinion = best(BUFFERS)

    assert ranked.cause == "unsynced_buffers"
    assert ranked.confidence > 0.9
    assert (opinion.rank, len(opinion.title) < 80) == (2, True)


def test_where_the_weights_differ_the_statistics_follow():
    weights = desync("parameters", tensors_differing=1, tensors_compared=20, agreed_until=30)
    ranked, _ = best(BUFFERS, weights)

    assert ranked.cause != "unsynced_buffers"


def test_a_few_channels_of_each_layer_are_sent(monkeypatch, tmp_path):
    recorder, written = Recorder(tmp_path), []
    monkeypatch.setattr(recorder, "write", written.append)
    model = torch.nn.Sequential(
        torch.nn.BatchNorm1d(32),
        torch.nn.BatchNorm1d(32, track_running_stats=False),
        torch.nn.InstanceNorm1d(32),
        torch.nn.BatchNorm1d(3),
    )
    model[0].running_mean.copy_(torch.arange(32.0))
    statistics = RunningStatistics(recorder, [unwrap(model)])
    for step in range(1, 2 * EVERY + 1):
        statistics.step(step)
    axis, first, second = written

    assert isinstance(axis, Axis)
    assert axis.entries == [*(f"0[{i}]" for i in range(0, 32, 4)), "3[0]", "3[1]", "3[2]"]
    assert isinstance(first, Profile)
    assert (first.step, second.step) == (EVERY, 2 * EVERY)
    assert unpack_floats(first.values["buffer_mean"]).tolist() == [*range(0, 32, 4), 0, 0, 0]
    assert unpack_floats(first.values["buffer_layer"]).tolist() == [0] * 8 + [1] * 3


def test_a_model_without_batch_norm_sends_nothing(monkeypatch, tmp_path):
    recorder, written = Recorder(tmp_path), []
    monkeypatch.setattr(recorder, "write", written.append)
    RunningStatistics(recorder, [unwrap(torch.nn.Linear(2, 2))]).step(EVERY)

    assert written == []


def test_a_recording_of_three_ranks_is_diagnosed(tmp_path):
    entries = [f"norm[{i}]" for i in range(8)]
    for rank in range(3):
        spool = writer(tmp_path, rank, 3)
        spool.write(Axis("buffer:0", "buffer", entries))
        for step in range(8 * EVERY):
            now = 1000.0 + step / 10
            if step % EVERY == EVERY - 1:
                mean = np.full(8, -1.0 + 3.0 * (rank == 1 and step > 3 * EVERY))
                values = {"buffer_mean": mean, "buffer_variance": np.ones(8), "buffer_layer": np.zeros(8)}
                spool.write(Profile(step, now, "buffer:0", {name: pack_floats(v) for name, v in values.items()}))
            spool.step(step, now, {"step_seconds": 0.1})
        goodbye(spool, 8 * EVERY)
    (incident,) = diagnose_directory(tmp_path / "made-up").incidents

    assert (incident.kind, incident.cause, incident.rank, incident.where) == (
        "desync",
        "unsynced_buffers",
        1,
        "norm[0]",
    )
    assert incident.first_step == 4 * EVERY - 1
