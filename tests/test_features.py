"""Block statistics of what goes into a model and what comes out."""

import gc
import weakref

import numpy as np
import pytest
import torch
from torchvitals.hooks.features import FeatureWindows


def block_of(windows, requests):
    """The first block that these requests fill."""
    for args, output in requests:
        block = windows.observe(args, {}, output)
        if block is not None:
            return block
    return None


def test_columns_have_the_statistics_of_their_rows():
    torch.manual_seed(0)
    inputs = [torch.randn(8, 3) * torch.tensor([1.0, 5.0, 0.1]) + 2 for _ in range(16)]
    block = block_of(FeatureWindows(), [((x,), x[:, 0]) for x in inputs])
    rows = torch.cat(inputs).double()

    assert block.entries == ["input[0][:,0]", "input[0][:,1]", "input[0][:,2]", "output"]
    assert (block.requests, block.items) == (16, 128)
    np.testing.assert_allclose(block.values["feature_mean"][:3], rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(block.values["feature_std"][:3], rows.std(0, correction=0), rtol=1e-5)
    assert block.values["feature_role"].tolist() == [0, 0, 0, 1]


def test_missing_values_are_counted_and_kept_out_of_the_mean():
    x = torch.tensor([[1.0, 0.0], [float("nan"), 0.0], [3.0, float("inf")]])
    block = block_of(FeatureWindows(block_requests=1), [((x,), torch.zeros(3))])

    np.testing.assert_allclose(block.values["feature_mean"], [2.0, 0.0, 0.0])
    np.testing.assert_allclose(block.values["feature_missing"], [1 / 3, 1 / 3, 0.0], rtol=1e-6)
    np.testing.assert_allclose(block.values["feature_zero"], [0.0, 2 / 3, 1.0], rtol=1e-6)


def test_logits_become_shares_entropy_and_confidence():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    block = block_of(FeatureWindows(block_requests=1), [((torch.zeros(2, 1),), logits)])
    values = dict(zip(block.entries, block.values["feature_mean"], strict=True))
    p = float(torch.softmax(logits[0], 0)[0])

    assert block.entries[1:] == ["output.p[0]", "output.p[1]", "output.entropy", "output.confidence"]
    assert values["output.p[0]"] == pytest.approx(0.5)
    assert values["output.confidence"] == pytest.approx(p)
    assert values["output.entropy"] == pytest.approx(-(p * np.log(p) + (1 - p) * np.log(1 - p)) / np.log(2))


def test_probabilities_and_log_probabilities_are_read_as_the_logits_they_came_from():
    logits = torch.randn(6, 4)
    means = []
    for output in (logits, logits.softmax(1), logits.log_softmax(1)):
        block = block_of(FeatureWindows(block_requests=1), [((torch.zeros(6, 1),), output)])
        means.append(block.values["feature_mean"][1:])

    np.testing.assert_allclose(means[0], means[1], atol=1e-5)
    np.testing.assert_allclose(means[0], means[2], atol=1e-5)


@pytest.mark.parametrize(
    ("args", "output"),
    [
        ((torch.randn(4, 3, 40, 40),), torch.randn(4, 1000)),
        ((torch.randint(0, 900, (4, 50)), torch.ones(4, 50, dtype=torch.bool)), {"logits": torch.randn(4, 50, 900)}),
        ((torch.randn(4, 25, 7).bfloat16(),), (torch.randn(4), [torch.randn(4, 2)])),
        (({"a": torch.randn(4), "b": torch.randint(0, 3, (4, 5))},), torch.randn(())),
        ((torch.randn(4, 700),), torch.randint(0, 9, (4,))),
        (("text", None, 3), None),
        ((torch.empty(0, 5),), torch.empty(0, 2)),
        ((torch.randn(4, 1, 2, 3, 5),), torch.randn(4, 3, 8, 8)),
    ],
)
def test_whatever_a_model_takes_and_gives_has_a_block(args, output):
    windows = FeatureWindows(block_requests=2)
    assert windows.observe(args, {"scale": 2.0, "x": torch.tensor(1.5)}, output) is None
    block = windows.observe(args, {"scale": 2.0, "x": torch.tensor(1.5)}, output)

    assert "input.x" in block.entries
    assert len(set(block.entries)) == len(block.entries) <= 256
    assert {len(values) for values in block.values.values()} == {len(block.entries)}
    assert np.isfinite(block.values["feature_mean"]).all()


def test_entries_keep_their_places_when_requests_change_their_shape():
    windows = FeatureWindows(block_requests=2)
    first = block_of(windows, [((torch.randn(2, 5),), torch.randn(2))] * 2)
    second = block_of(windows, [((torch.randn(2, 5),), torch.randn(2)), ((torch.randn(2, 9),), torch.randn(2))])
    third = block_of(windows, [((torch.randn(2, 3),), torch.randn(2))] * 2)

    assert second.entries[: len(first.entries)] == first.entries
    assert third.entries == second.entries
    assert third.values["feature_rows"][0] == 0
    assert third.values["feature_rows"][third.entries.index("input[0].length")] == 4


def test_buffers_of_an_inference_mode_serve_outside_of_it_and_no_tensor_is_kept():
    windows = FeatureWindows()
    x = torch.randn(4, 3)
    kept = weakref.ref(x)
    with torch.inference_mode():
        windows.observe((x,), {}, x.clone().sum(1))
    windows.observe((x.half(),), {}, x.sum(1, keepdim=False).requires_grad_())
    del x
    gc.collect()

    assert kept() is None


def test_the_random_state_is_not_touched():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    block_of(FeatureWindows(), [((torch.ones(500, 4),), torch.ones(500, 3))] * 16)

    assert torch.equal(before, torch.get_rng_state())
