"""Memory that a loader's workers keep: measured in their processes, named by the code, and not told where it ends."""

import functools
import mmap
from collections import deque

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset
from torchvitals.agent.case import Case
from torchvitals.agent.causes.growing_cache import GrowingCache
from torchvitals.agent.causes.retained_graph import RetainedGraph
from torchvitals.agent.history import History
from torchvitals.agent.memory_words import fills_up
from torchvitals.detectors.detector import Finding
from torchvitals.hooks.worker_memory import SUSPICIOUS_BYTES, WorkerMemory, growing, keyed_by_index, parts_of
from torchvitals.signals.records import Event

KEPT_BYTES = 1 << 16
SEEN: list[int] = []
RECENT: deque[int] = deque(maxlen=4)


def fresh_pages():
    """Memory that no heap has lying about: a forked worker inherits what its parent had freed."""
    pages = mmap.mmap(-1, KEPT_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages[:] = b"x" * KEPT_BYTES
    return pages


class Keeps(Dataset):
    def __init__(self):
        self.kept, self.cache, self.names = [], {}, ["a"]

    def __len__(self):
        return 64

    def __getitem__(self, index):
        self.kept.append(fresh_pages())
        return torch.ones(4)


class Numbers(Keeps):
    def __getitem__(self, index):
        if index not in self.cache:
            self.cache[index] = torch.ones(4)
        return self.cache[index]


class Empties(Keeps):
    def __getitem__(self, index):
        self.cache[str(index)] = torch.ones(4)
        if len(self.cache) > 9:
            self.cache.popitem()
        return torch.ones(4)


class Reads(Keeps):
    def __getitem__(self, index):
        return torch.full((4,), float(len(self.names)))


@functools.lru_cache(maxsize=4)
def remembered(index):
    return torch.full((4,), float(index))


def noted(index):
    SEEN.append(index)
    return torch.ones(4)


class Global(IterableDataset):
    def __iter__(self):
        yield from map(remembered, range(9))
        while True:
            yield noted(3)


@pytest.mark.parametrize(
    ("dataset", "holders"),
    [(Keeps(), ["`self.kept` of Keeps"]), (Numbers(), ["`self.cache` of Numbers"]), (Empties(), []), (Reads(), []),
     (range(9), []), (None, [])],
)  # fmt: skip
def test_containers_that_only_grow_are_named(dataset, holders):
    assert [holder for holder, _ in growing(dataset)] == holders


def test_a_global_that_a_called_function_adds_to_is_named_with_its_line():
    ((holder, line),) = growing(Global())

    assert holder.startswith("`SEEN`, global of")
    assert line.code == "SEEN.append(index)"


def test_a_cache_by_number_has_an_end_and_a_list_has_none():
    (line,) = [line for _, line in growing(Numbers())]
    (endless,) = [line for _, line in growing(Keeps())]

    assert keyed_by_index(Numbers(), line)
    assert not keyed_by_index(Keeps(), endless)


def test_a_data_set_inside_others_is_found():
    inner = Keeps()

    assert inner in list(parts_of(ConcatDataset([Subset(Reads(), [1]), Subset(inner, [2])])))


def test_what_workers_keep_is_measured_and_their_end_is_noticed():
    memory = WorkerMemory()
    loader = DataLoader(Keeps(), batch_size=16, num_workers=1, persistent_workers=True)
    iterator = iter(loader)
    memory.met(iterator)
    list(iterator)
    before = memory.private_bytes()
    for _ in range(4):
        list(iterator := iter(loader))
    after = memory.private_bytes()

    assert before is not None
    assert after is not None
    assert after - before > 3 * 64 * KEPT_BYTES
    iterator._shutdown_workers()
    assert memory.private_bytes() is None
    memory.met(iter([1]))
    assert memory.private_bytes() is None


def test_the_code_is_searched_once_and_only_after_growth(monkeypatch):
    memory = WorkerMemory()
    monkeypatch.setattr(memory, "_dataset", Keeps())
    monkeypatch.setattr(memory, "_readings", 20)

    assert memory.suspect(SUSPICIOUS_BYTES - 1) is None
    found = memory.suspect(SUSPICIOUS_BYTES)
    assert (found["holder"], found["limit"]) == ("`self.kept` of Keeps", 0)
    assert memory.suspect(2 * SUSPICIOUS_BYTES) is None


def case_of(limit, room):
    history = History()
    history.add("memory_headroom_bytes", 0, room)
    finding = Finding(
        kind="memory_leak", severity="error", first_step=4, step=90, value=1e6, threshold=2e3,
        evidence={"signal": "worker_bytes", "bytes_per_step": 1e6},
    )  # fmt: skip
    details = {"holder": "`self.cache` of Rows", "line": "data.py:9", "limit": limit}
    facts = {"loader": {"batch_size": 10, "workers": 2}}
    return Case(
        findings=[finding], history=history, facts=facts, events=[(0, Event(1.0, 60, "worker_holder", details))]
    )


def test_growth_in_workers_is_a_cache_and_no_graph():
    opinion = GrowingCache().weigh(case_of(0, 1e9))

    assert opinion is not None
    assert (opinion.where, opinion.first_step) == ("data.py:9", 4)
    assert RetainedGraph().weigh(case_of(0, 1e9)) is None


@pytest.mark.parametrize(("limit", "room", "ends"), [(0, 1e9, False), (1000, 1e9, True), (10_000, 1e9, False)])
def test_a_cache_that_ends_before_the_memory_does_is_no_leak(limit, room, ends):
    assert bool(fills_up(case_of(limit, room))) is ends
