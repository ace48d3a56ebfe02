"""The digest sees every change that real faults make, whatever the size, the type and the number of threads."""

import itertools

import numpy as np
import pytest
import torch
from torchvitals.hooks import digests
from torchvitals.hooks.digests import BLOCK, LARGE_WORDS
from torchvitals.hooks.hyperparameters import digest_values, hyperparameters

SIZES = (1, 2, 3, 7, 8, 63, 1022, 1023, 1024, 2046, 2047, 8 * BLOCK, 2 * LARGE_WORDS, 100_001)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int8, torch.bool)


def one(tensor):
    return int(digests.digest([tensor])[0])


def random_tensor(size, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if dtype is torch.bool:
        return torch.rand(size, generator=generator) < 0.5
    if dtype is torch.int8:
        return torch.randint(-128, 128, (size,), generator=generator, dtype=dtype)
    return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_every_single_bit_flip_is_seen(size, dtype):
    tensor = random_tensor(size, dtype)
    clean = one(tensor)
    data = tensor.view(torch.uint8)
    width = tensor.itemsize
    for element, byte, bit in itertools.product({0, size // 2, size - 1}, range(width), range(8)):
        if dtype is torch.bool and bit:
            continue
        data[element * width + byte] ^= 1 << bit

        assert one(tensor) != clean

        data[element * width + byte] ^= 1 << bit
    assert one(tensor) == clean


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_every_uniform_change_of_a_constant_tensor_is_seen(dtype):
    sizes = [*SIZES, *(2**power for power in range(3, 21))]
    for size in sizes:
        values = [torch.full((size,), value, dtype=dtype) for value in (0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 1024.0)]

        found = {one(value) for value in values}

        assert len(found) == len(values), f"{size} elements"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [2, 1000, 2 * BLOCK, 2 * LARGE_WORDS, 100_001])
def test_structured_changes_of_a_random_tensor_are_seen(size, dtype):
    tensor = random_tensor(size, dtype)
    changed = {
        "double": tensor * 2,
        "negate": -tensor,
        "zero": tensor * 0,
        "flip": tensor.flip(0),
        "roll": tensor.roll(BLOCK * 8),
    }
    if size <= BLOCK or BLOCK * 8 % size == 0:
        # inside one block a permutation is out of sight by construction
        changed = {name: value for name, value in changed.items() if name not in ("flip", "roll")}

    clean = one(tensor)

    assert [name for name, value in changed.items() if one(value) == clean] == []


def test_swapped_blocks_are_seen():
    tensor = random_tensor(3 * LARGE_WORDS, torch.float64)
    swapped = tensor.clone()
    swapped[:BLOCK], swapped[BLOCK : 2 * BLOCK] = tensor[BLOCK : 2 * BLOCK], tensor[:BLOCK]

    assert one(tensor) != one(swapped)


def test_the_least_change_of_one_weight_is_seen():
    tensor = random_tensor(1_000_000, torch.float32)
    nudged = tensor.clone()
    nudged[777_777] = torch.nextafter(tensor[777_777], torch.tensor(9.0))

    assert one(tensor) != one(nudged)


def test_a_tensor_has_one_digest_whatever_stands_beside_it():
    tensors = [random_tensor(size, dtype) for size, dtype in itertools.product(SIZES, DTYPES)]

    together = digests.digest(tensors)

    assert together.tolist() == [one(tensor) for tensor in tensors]
    assert digests.digest(tensors[::-1]).tolist() == together.tolist()[::-1]


def test_the_number_of_threads_does_not_matter():
    tensor = random_tensor(3_000_000, torch.float32)
    before = torch.get_num_threads()
    found = set()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.add(one(tensor))
    torch.set_num_threads(before)

    assert len(found) == 1


@pytest.mark.parametrize("size", [3, 5000, 100_001])
def test_a_view_that_is_not_aligned_or_not_contiguous_has_the_digest_of_its_copy(size):
    odd = random_tensor(size + 1, torch.float32)[1:]
    wide = random_tensor(2 * size, torch.float32).view(size, 2).t()

    assert one(odd) == one(odd.clone())
    assert one(wide) == one(wide.contiguous())


def test_without_the_private_flatten_nothing_changes(monkeypatch):
    tensors = [random_tensor(size, dtype) for size, dtype in itertools.product(SIZES, DTYPES)]
    expected = digests.digest(tensors).tolist()
    monkeypatch.setattr(digests, "_flatten", None)

    assert digests.digest(tensors).tolist() == expected


def test_parameters_are_left_as_they_were():
    layer = torch.nn.Linear(300, 300)
    layer(torch.ones(2, 300)).sum().backward()
    state = torch.get_rng_state()
    before = [parameter.clone() for parameter in layer.parameters()]
    versions = [parameter._version for parameter in layer.parameters()]

    digests.digest(list(layer.parameters()))

    assert all(torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))
    assert [parameter._version for parameter in layer.parameters()] == versions
    assert torch.equal(state, torch.get_rng_state())


def test_empty_lists_empty_and_scalar_tensors_have_digests():
    assert digests.digest([]).tolist() == []
    assert digests.digest([torch.empty(0)]).tolist() == [0]
    assert one(torch.tensor(1.0)) != one(torch.tensor(2.0))


def test_what_has_no_bytes_is_refused_by_name():
    for tensor in (torch.empty(3, device="meta"), torch.eye(3).to_sparse()):
        assert not digests.digestible(tensor)
        with pytest.raises(ValueError, match="cannot digest"):
            digests.digest([tensor])


def test_a_local_shard_stands_for_a_distributed_tensor():
    class Sharded(torch.Tensor):
        def to_local(self):
            return torch.ones(4)

    assert one(torch.zeros(8).as_subclass(Sharded)) == one(torch.ones(4))


def test_results_that_wait_for_a_device_are_read_in_order():
    class Passed:
        def __init__(self):
            self.waited = False

        def query(self):
            return self.waited

        def synchronize(self):
            self.waited = True

    passed = Passed()
    parts = [
        digests.Part([0, 2], torch.tensor([10, 30]), passed),
        digests.Part([1], torch.tensor([20]), None),
    ]
    pending = digests.Pending(3, parts)

    assert not pending.ready()
    assert pending.read().tolist() == [10, 20, 30]
    assert pending.ready()


@pytest.mark.gpu
def test_cpu_and_cuda_agree():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    tensors = [random_tensor(size, dtype) for size, dtype in itertools.product(SIZES, DTYPES)]

    assert digests.digest([t.cuda() for t in tensors]).tolist() == digests.digest(tensors).tolist()


@pytest.mark.parametrize("shape", [(8,), (32, 16), (64, 3, 32, 32), (5, 7, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8, torch.float16], ids=str)
def test_batches_are_told_apart_and_recognised(shape, dtype):
    batch = (torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 200).to(dtype)
    other = (torch.rand(shape, generator=torch.Generator().manual_seed(2)) * 200).to(dtype)

    value = digests.digest_batch(batch)

    assert value == digests.digest_batch(batch.clone())
    assert value != digests.digest_batch(other)
    assert value.is_integer()
    assert 0 <= value < 2**52


def test_a_batch_that_is_not_contiguous_is_digested_too():
    batch = torch.rand(64, 3, 32, 32).to(memory_format=torch.channels_last)

    assert digests.digest_batch(batch) == digests.digest_batch(batch.contiguous())


def test_each_hyperparameter_is_compared_by_its_own_digest():
    def of(**changes):
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], **{"lr": 1e-3, **changes})
        names, values = hyperparameters(optimizer, {"loss_scale": 1024.0})
        return dict(zip(names, digest_values(values).tolist(), strict=True))

    base, same, other = of(), of(lr=np.float64(1e-3)), of(lr=1.0000001e-3, betas=(0.9, 0.99))

    assert base == same
    assert sorted(name for name in base if base[name] != other[name]) == ["0.betas", "0.lr"]
    assert "loss_scale" in base
    assert "0.params" not in base


def test_a_tensor_learning_rate_reads_like_the_number():
    assert digest_values([torch.tensor(0.5)]).tolist() == digest_values([0.5]).tolist()
