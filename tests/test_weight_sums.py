"""Equal parameters have equal sums, a changed bit another one, and ranks sum the same steps without talking."""

import math

import pytest
import torch
from torchvitals.hooks import weight_sums
from torchvitals.hooks.weight_sums import WeightSums


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(64, 32), (32,), (3, 5, 7), (1,), (0, 4)]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def total(tensors):
    return WeightSums().of(tensors, 0)


def test_equal_replicas_have_equal_sums():
    assert total(parameters()) == total(parameters())
    assert total(parameters()) != total(parameters(1))
    assert float(total(parameters())).is_integer()


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("bit", [0, 13, 23, 31])
def test_a_flipped_bit_is_another_sum(position, bit):
    tensors = parameters()
    before = total(tensors)
    with torch.no_grad():
        tensors[position].view(-1)[-1:].view(torch.int32).bitwise_xor_(1 << bit if bit < 31 else -(1 << 31))

    assert total(tensors) != before


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_and_left_over_bytes(dtype):
    tensors = [tensor.detach().to(dtype) for tensor in parameters()]
    before = total(tensors)
    tensors[2][-1, -1, -1] += 1

    assert total(tensors) != before


def test_two_tensors_that_change_places_are_seen():
    first, *others = parameters()
    second = torch.randn_like(first)

    assert total([first, second, *others]) != total([second, first, *others])


def test_memory_that_moves_is_followed_and_not_kept():
    tensors = parameters()
    sums = WeightSums()
    before = sums.of(tensors, 0)
    with torch.no_grad():
        tensors[0].data = tensors[0] + 1

    assert sums.of(tensors, 128) == total(tensors) != before


def test_what_has_no_dense_bytes_is_not_summed():
    assert total([torch.ones(1, 3).expand(4, 3)]) is None
    assert total([]) is None
    assert total([torch.ones(4, 3, 2, 2).to(memory_format=torch.channels_last)]) is not None


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0
        reading = 0.001
        """Seconds that one sum takes: the clock is read before and after it."""

        def perf_counter(self):
            return self.now

        def thread_time(self):
            self.now += self.reading
            return self.now

    found = Clock()
    monkeypatch.setattr(weight_sums, "time", found)
    return found


@pytest.mark.parametrize("step_seconds", [10.0, 0.2, 0.05, 1e-6])
def test_sums_are_as_far_apart_as_their_share_of_the_step_asks(clock, step_seconds):
    """A sum of 1 ms may come at every step of a second; else every power of two that keeps to the share."""
    sums, tensors = WeightSums(share=0.002), parameters()
    taken = []
    for step in range(600):
        if sums.of(tensors, step) is not None:
            taken.append(step)
        clock.now += step_seconds
    needed = 0.001 / (0.002 * step_seconds)
    expected = min(weight_sums.SPARSEST, 2 ** math.ceil(math.log2(max(needed, 1.0))))

    assert sums.every == expected
    assert all(step % expected == 0 for step in taken[8:])
    assert len(taken) >= 600 // expected
