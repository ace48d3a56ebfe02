"""The leak hunt names who holds what grows, and says nothing when nothing does."""

import collections
import ctypes
import functools
import gc
import importlib.util
import queue
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics
from torch import nn
from torchvitals.hooks.growing_tensors import growths
from torchvitals.hooks.leaks import LeakHunt
from torchvitals.hooks.length_limit import length_limit

HERE = Path(__file__).parent
STEPS = 30
LOOKED_AT = 21
"""Steps up to the last census, after which a report is made at once: what is bound anew is not there later."""


class FakeMemory:
    """Resident memory that grows as told."""

    def __init__(self, per_step=0):
        self.per_step = per_step
        self.samples = 0

    def rss_bytes(self):
        self.samples += 1
        return 1_000_000_000 + self.per_step * 10 * self.samples

    def device(self):
        return {}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 1)
        self.history = []

    def forward(self, x):
        return self.layer(x)


class Batch:
    """A value of the job's own type, in a chain of its own making."""

    newest = None

    def __init__(self, before):
        self.before = before
        self.data = np.zeros(512)


class Tracker:
    seen = []  # noqa: RUF012 (that is the leak)


def line_with(mark, file=__file__):
    numbers = [n for n, text in enumerate(Path(file).read_text().splitlines(), 1) if text.endswith(f"# {mark}")]
    assert len(numbers) == 1
    return f"{Path(file).name}:{numbers[0]}"


class Job:
    """Trains a small model; samples as the recorder would, at the end of every tenth step."""

    def __init__(self, per_step=0):
        torch.manual_seed(0)
        self.model = Net()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.hunt = LeakHunt(memory=FakeMemory(per_step))

    def loss(self):
        return self.model(torch.randn(16, 8)).pow(2).mean()

    def step(self, number, loss):
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if number % 10 == 0:
            self.hunt.sample(number)


def test_a_list_of_losses_that_keep_their_graphs():
    job = Job(per_step=50_000)
    losses = []
    for number in range(STEPS):
        loss = job.loss()
        losses.append(loss)  # losses with graph
        job.step(number, loss)
    found = job.hunt.report()
    assert found["holder"] == "list `losses` in test_a_list_of_losses_that_keep_their_graphs"
    assert found["line"].endswith(line_with("losses with graph"))
    assert found["type"] == "torch.Tensor"
    assert found["shape"] == []
    assert found["graph"]
    assert not found["native"]
    assert found["count"] == STEPS
    assert found["growth_per_step"] == 1.0
    assert found["bytes_per_step"] >= 50_000


def test_a_total_that_is_never_detached():
    job = Job(per_step=50_000)
    total_loss = 0.0
    for number in range(STEPS):
        loss = job.loss()
        total_loss += loss  # total with graph
        job.step(number, loss)
    found = job.hunt.report()
    assert found["holder"].startswith("variable `total_loss` in test_a_total_that_is_never_detached")
    assert found["line"].endswith(line_with("total with graph"))
    assert found["graph"]
    assert STEPS / 2 < found["count"] / found["growth_per_step"] <= STEPS  # nodes of its graph at the last sample


def test_episodes_that_get_longer_keep_nothing():
    """Their lists are made anew, where earlier ones lay, and are longer each time; so are graphs, and tensors of both.

    Two episodes by turns, so that at each sample, ten steps apart, the list lies where it lay at the sample before.
    """
    job, rounds = Job(), [[], []]
    for number in range(STEPS):
        episode = rounds[number % 2]
        episode.clear()
        losses = [job.loss() for _ in range(4 + number)]
        episode.extend((loss, torch.zeros(512)) for loss in losses)
        outcome = torch.stack(losses)
        outputs = outcome[:, None] * torch.ones(2000)
        job.step(number, outcome.sum())
        if number == LOOKED_AT - 1:
            assert job.hunt.report() is None
    assert outputs.shape == (STEPS + 3, 2000)


def test_a_list_that_loses_some_of_what_it_held_still_leaks():
    job, waiting = Job(), []
    for number in range(LOOKED_AT):
        waiting.extend(torch.zeros(512) for _ in range(3))  # three in
        del waiting[0]
        job.step(number, job.loss())
    assert job.hunt.report()["line"].endswith(line_with("three in"))


def test_outputs_that_are_kept_beside_a_detached_loss():
    job = Job(per_step=50_000)
    records = []
    for number in range(STEPS):
        loss = job.loss()
        records.append({"loss": loss.detach(), "output": loss * torch.ones(4, 3)})  # detached in part
        job.step(number, loss)
    found = job.hunt.report()
    assert found["holder"].startswith("list `records` in test_outputs_that_are_kept")
    assert found["line"].endswith(line_with("detached in part"))
    assert found["graph"]
    assert found["shape"] == [4, 3]
    assert found["bytes_per_step"] >= 50_000


def test_a_state_whose_graph_gains_three_thousand_nodes_a_step():
    job = Job(per_step=50_000)
    state = torch.zeros(())
    for number in range(STEPS):
        loss = job.loss()
        unrolled = loss
        for _ in range(3000):
            unrolled = unrolled * 1.0
        state = 0.9 * state + unrolled  # unrolled state
        outputs = [loss * torch.ones(3) for _ in range(100)]  # of a net that is called in a loop, and newer
        job.step(number, loss)
    assert len(outputs) == 100
    found = job.hunt.report()
    assert found["holder"].startswith("variable `state` in test_a_state_whose_graph")
    assert found["line"].endswith(line_with("unrolled state"))
    assert found["growth_per_step"] == pytest.approx(3000, rel=0.1)


def test_a_dictionary_keyed_by_step():
    job = Job()
    cache = {}
    for number in range(STEPS):
        job.step(number, job.loss())
        cache[number] = torch.zeros(100, 20)  # cache by step
    found = job.hunt.report()
    assert found["holder"].startswith("dict `cache` in test_a_dictionary")
    assert found["line"].endswith(line_with("cache by step"))
    assert found["shape"] == [100, 20]
    assert not found["graph"]
    assert 8000 <= found["bytes_per_step"] < 9000


class Remembering:
    """Remembers what it was shown, all of it or the newest hundred rows."""

    def __init__(self, most=None):
        self.rows, self.most = torch.zeros(0, 50), most

    def show(self, rows):
        self.rows = torch.cat([self.rows, rows])[-(self.most or 10**9) :]  # one tensor, ever longer


@pytest.mark.parametrize("most", [None, 80])
def test_a_tensor_that_every_step_is_concatenated_to(most):
    job, memory = Job(), Remembering(most)
    for number in range(LOOKED_AT):
        memory.show(torch.randn(16, 50))
        job.step(number, job.loss())
    found = job.hunt.report()
    if most:
        assert found is None
        return
    assert found["holder"] == "Tensor attribute `Remembering.rows`"
    assert found["line"].endswith(line_with("one tensor, ever longer"))
    assert (found["shape"], found["growth_per_step"], found["bytes_per_step"]) == ([LOOKED_AT * 16, 50], 16, 3200)


def test_a_local_tensor_of_all_predictions():
    job, predictions = Job(), torch.zeros(0, 50)
    model = [torch.zeros(256, 256) for _ in range(300)]  # larger, more, and all alike
    for number in range(LOOKED_AT):
        predictions = torch.cat([predictions, torch.randn(16, 50)])  # predictions so far
        job.step(number, job.loss())
    found = job.hunt.report()
    assert found["holder"].startswith("Tensor `predictions` in test_a_local_tensor")
    assert found["line"].endswith(line_with("predictions so far"))
    assert len(model) == 300


def test_batches_of_many_lengths_are_no_growth():
    looks = [{(torch.float32, (length, 8)) for length in lengths} for lengths in ((30, 41), (44, 90), (95, 12))]

    assert growths(looks) == []


class Results:
    """Keeps what the garbage collector does not watch: a dictionary of arrays, and one of such inside another."""

    def __init__(self):
        self.arrays = {}
        self.by_split = {"train": {}, "test": {}}


def test_a_dictionary_of_nothing_but_arrays():
    job, results = Job(), Results()
    for number in range(STEPS):
        job.step(number, job.loss())
        results.arrays[number] = np.zeros(1000)  # an array by step
    assert not gc.is_tracked(results.arrays)
    found = job.hunt.report()
    assert found["holder"] == "dict attribute `Results.arrays`"
    assert found["line"].endswith(line_with("an array by step"))
    assert found["type"] == "numpy.ndarray"


def test_a_dictionary_of_arrays_inside_another():
    job, results = Job(), Results()
    for number in range(STEPS):
        job.step(number, job.loss())
        results.by_split["train"][number] = np.zeros(1000)  # an array by split and step
    assert not gc.is_tracked(results.by_split["train"])
    found = job.hunt.report()
    assert found["holder"] == "dict attribute `Results.by_split`"
    assert found["line"].endswith(line_with("an array by split and step"))


def test_a_local_dictionary_of_texts():
    job, texts = Job(), {}
    for number in range(STEPS):
        job.step(number, job.loss())
        texts[f"sample {number}"] = "x" * 5000 + str(number)  # a text by name
    found = job.hunt.report()
    assert found["holder"].startswith("dict `texts` in test_a_local")
    assert found["line"].endswith(line_with("a text by name"))


def test_a_list_that_is_an_attribute_of_the_model():
    job = Job()
    for number in range(STEPS):
        job.step(number, job.loss())
        job.model.history.append(torch.zeros(1000))  # history of the model
    found = job.hunt.report()
    assert found["holder"] == "list attribute `Net.history`"
    assert found["line"].endswith(line_with("history of the model"))
    assert found["shape"] == [1000]


def test_a_global_list_in_another_module():
    spec = importlib.util.spec_from_file_location("leaking_cache", HERE / "leaking_cache.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["leaking_cache"] = module
    try:
        spec.loader.exec_module(module)
        job = Job()
        for number in range(STEPS):
            job.step(number, job.loss())
            module.keep(torch.zeros(1000))
        found = job.hunt.report()
    finally:
        del sys.modules["leaking_cache"]
    assert found["holder"] == "list `CACHE`, global of leaking_cache"
    assert found["line"].endswith(line_with("keep in another module", HERE / "leaking_cache.py"))


def test_a_class_attribute():
    job = Job()
    for number in range(STEPS):
        job.step(number, job.loss())
        Tracker.seen.append((number, {"out": torch.zeros(1000)}))  # class attribute
    found = job.hunt.report()
    Tracker.seen.clear()
    assert found["holder"] == "list class attribute `Tracker.seen`"
    assert found["line"].endswith(line_with("class attribute"))
    assert found["type"] == "torch.Tensor"


def test_what_an_object_of_a_library_keeps_is_placed_where_the_job_feeds_it():
    job = Job()
    metric = torchmetrics.CatMetric()
    for number in range(STEPS):
        job.step(number, job.loss())
        metric.update(torch.zeros(1000))  # feeds the metric
    found = job.hunt.report()
    assert found["holder"] == "list attribute `CatMetric.value`"
    assert found["line"].endswith(line_with("feeds the metric"))


def test_a_queue_that_is_filled_faster_than_it_is_emptied():
    job = Job()
    waiting = queue.Queue()
    for number in range(STEPS):
        job.step(number, job.loss())
        waiting.put(torch.zeros(1000))  # fills the queue
    found = job.hunt.report()
    assert found["holder"] == "deque attribute `Queue.queue`"
    assert found["line"].endswith(line_with("fills the queue"))


def test_parameters_that_are_added_at_every_step():
    job = Job()
    for number in range(STEPS):
        job.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1000))]})  # another group
        job.step(number, job.loss())
    found = job.hunt.report()
    assert "`param_groups` of SGD: parameters that are never removed" in found["holder"]
    assert found["line"].endswith(line_with("another group"))


def test_an_lru_cache_without_a_limit():
    @functools.cache
    def encode(number):  # cached function
        return torch.full((1000,), float(number))

    job = Job()
    for number in range(STEPS):
        job.step(number, job.loss())
        encode(number)
    found = job.hunt.report()
    assert "lru_cache of" in found["holder"]
    assert "encode" in found["holder"]
    first = int(line_with("cached function").split(":")[1])
    assert int(found["line"].split(":")[1]) in (first - 1, first)


def test_hooks_that_pile_up():
    job = Job()
    kept = 1000
    for number in range(STEPS):
        activation = torch.zeros(kept)

        def hook(*_, activation=activation):
            activation.zero_()

        job.model.layer.register_forward_hook(hook)  # a hook
        job.step(number, job.loss())
    found = job.hunt.report()
    assert "`_forward_hooks` of Linear" in found["holder"]
    assert found["line"].endswith(line_with("a hook"))
    assert found["bytes_per_step"] > 100


def test_numpy_arrays_in_a_list_of_lists():
    job = Job()
    records = {"train": []}
    for number in range(STEPS):
        job.step(number, job.loss())
        records["train"].append(np.zeros((10, 100)))  # arrays
    found = job.hunt.report()
    assert found["holder"].startswith("list inside dict `records` in test_numpy")
    assert found["line"].endswith(line_with("arrays"))
    assert found["type"] == "numpy.ndarray"
    assert found["shape"] == [10, 100]


def test_a_closure_that_collects():
    def collector():
        kept = []

        def collect(value):
            kept.append(value)  # in a closure

        return collect

    job = Job()
    collect = collector()
    for number in range(STEPS):
        job.step(number, job.loss())
        collect(b"x" * 5000)
    found = job.hunt.report()
    assert "`kept` in the closure of" in found["holder"]
    assert found["line"].endswith(line_with("in a closure"))
    assert found["type"] == "bytes"
    assert 5000 <= found["bytes_per_step"] < 5200


@pytest.mark.parametrize("collects", [False, True], ids=["young", "old"])
def test_a_linked_list_grows_without_any_container(collects):
    job = Job()
    for number in range(STEPS):
        job.step(number, job.loss())
        Batch.newest = Batch(Batch.newest)  # linked
        if collects:  # where a link stands among the collector's objects says nothing about its age then
            gc.collect(number % 3)
    found = job.hunt.report()
    Batch.newest = None
    assert found["type"] in ("numpy.ndarray", f"{__name__}.Batch")
    assert "Batch.newest" in found["holder"]
    assert found["line"].endswith(line_with("linked"))


def test_native_memory_is_called_native():
    job = Job(per_step=1_000_000)
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    blocks = [libc.malloc(ctypes.c_size_t(16)) for _ in range(3)]
    floats = []
    for number in range(STEPS):
        loss = job.loss()
        floats.append(loss.item())
        job.step(number, loss)
    found = job.hunt.report()
    for block in blocks:
        libc.free(ctypes.c_void_p(block))
    assert found["native"]
    assert found["bytes_per_step"] == 1_000_000
    assert found["holder"] == ""


def test_a_healthy_job_with_a_log_of_floats_holds_nothing():
    job = Job()
    log = []
    recent = {}
    for number in range(STEPS):
        loss = job.loss()
        log.append(loss.item())
        recent[number % 4] = torch.zeros(10_000)
        job.step(number, loss)
    assert job.hunt.report() is None
    assert len(log) == STEPS


def test_a_cache_that_fills_up_in_the_beginning_is_no_leak():
    job = Job()
    cache = {}
    for number in range(STEPS):
        job.step(number, job.loss())
        if number < 11:
            cache[number] = torch.zeros(1000)
    assert job.hunt.report() is None


def test_a_replay_buffer_is_told_with_its_limit_unless_there_is_a_leak_behind_it():
    for leaks in (False, True):
        job = Job(per_step=40_000)
        replay, kept = collections.deque(maxlen=10_000), []
        for number in range(STEPS):
            replay.append(torch.randn(4_000))
            if leaks:
                kept.append(torch.randn(2_000))
            job.step(number, job.loss())
        found = job.hunt.report()
        assert found is not None
        assert ("limit" in found, found["holder"].split("`")[1]) == ((False, "kept") if leaks else (True, "replay"))


class Memory:
    """Keeps what it is given."""

    def __init__(self):
        self.kept, self.place, self.room, self.learning_starts = [], 0, 10_000, 5_000

    def __len__(self):
        return len(self.kept)

    def put(self, value):
        self.kept.append(value)


class Overwrites(Memory):
    def put(self, value):
        if len(self.kept) < self.room:
            self.kept.append(None)
        self.kept[self.place % self.room] = value
        self.place += 1


class TurnsAway(Memory):
    def put(self, value):
        if len(self) >= self.room:
            return
        self.kept.append(value)


class Counts(Memory):
    def put(self, value):
        if self.place < self.room:
            self.kept.append(value)
            self.place += 1


class DropsTheOldest(Memory):
    def put(self, value):
        super().put(value)
        while len(self.kept) > self.room:
            self.kept.pop(0)


class Waits(Memory):
    """Is compared with a number, and goes on."""

    def put(self, value):
        super().put(value)
        if len(self.kept) < self.learning_starts:
            return
        self.place = len(self.kept)


class Tells(Memory):
    def put(self, value):
        super().put(value)
        if len(self.kept) > self.room:
            self.place = len(self.kept)


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        (Overwrites, 10_000),
        (TurnsAway, 10_000),
        (Counts, 10_000),
        (DropsTheOldest, 10_000),
        (Memory, None),
        (Waits, None),
        (Tells, None),
    ],
)
def test_a_memory_is_told_with_the_limit_that_its_own_code_sets(kind, limit):
    job, memory = Job(per_step=40_000), kind()
    for number in range(STEPS):
        memory.put(torch.randn(4_000))
        job.step(number, job.loss())
    found = job.hunt.report()
    assert found is not None
    assert f"{kind.__name__}.kept" in found["holder"]
    assert found.get("limit") == limit


def test_limits_of_lengths_are_read_from_the_source(tmp_path):
    cases = {
        "if len(cache) < MOST:\n    cache[1] = 2\n": 500,
        "if len(cache) < MOST and 1:\n    cache[1] = 2\n": 500,
        "if len(cache) < MOST or 1:\n    cache[1] = 2\n": None,
        "if len(cache) > 500:\n    cache.popitem()\n": 500,
        "if len(cache) > 500 and 0:\n    cache.popitem()\n": None,
        "if len(other) > 500:\n    cache.popitem()\n": None,
        "if len(cache) > 10:\n    cache.popitem()\n": None,
        "if len(cache) == 500:\n    del cache[1]\n": 500,
        "if len(cache) > 500:\n    cache = {}\n": 500,
        "cache = cache[-MOST:]\n": 500,
        "del cache[:-MOST]\n": 500,
        "cache = cache[1:]\n": None,
    }
    for number, (code, limit) in enumerate(cases.items()):
        file = tmp_path / f"job{number}.py"
        file.write_text(code)
        assert length_limit([str(file)], "cache", {"MOST": 500}, 100) == limit, code


def test_small_tensors_weigh_what_they_take_not_what_they_hold():
    job = Job(per_step=2_500)
    replay = collections.deque(maxlen=10_000)
    for number in range(STEPS):
        replay.append((torch.randn(4), 1, 0.5, torch.randn(4), False))
        job.step(number, job.loss())
    found = job.hunt.report()
    assert found is not None
    assert found["limit"] == 10_000
    assert 900 <= found["bytes_per_step"] <= 2_500


def test_the_hunt_keeps_nothing_alive():
    job = Job()
    kept = [torch.zeros(10)]
    for number in range(STEPS):
        job.step(number, job.loss())
        kept.append(torch.zeros(1000))
    gone = weakref.ref(kept[5])
    job.hunt.report()
    kept.clear()
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("samples", [0, 1])
def test_too_few_samples_tell_nothing(samples):
    hunt = LeakHunt(memory=FakeMemory(1_000_000))
    for number in range(samples):
        hunt.sample(number)
    assert hunt.report() is None


def test_the_symbolic_tensors_of_a_compilation_are_passed_over():
    """torch.compile leaves fake tensors with grad_fn behind; their sizes are symbols, which cannot be looked up."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv
    from torchvitals.hooks.census import Census, has_numbers

    real = torch.ones(7, 3)
    fake = FakeTensorMode(shape_env=ShapeEnv()).from_tensor(real).requires_grad_() * 2
    census = Census(float("inf"))

    assert has_numbers(real)
    assert not has_numbers(fake)
    assert fake.grad_fn is not None
    assert all(type(size) is int for _, shape in census.graphs for size in shape)
