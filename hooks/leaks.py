"""Naming what keeps memory alive: which container grows, what is in it, and who holds it.

Only numbers survive from sample to sample: container lengths, type counts, sizes of graphs and of the
process. What has grown in every interval is looked up when the report is made.
"""

import contextlib
import gc
import time
import weakref
from collections.abc import Collection, Iterable
from itertools import islice, pairwise
from typing import Any, NamedTuple

import torch
from torchvitals.hooks.census import Census, Lengths, graph_key, graph_nodes, grown, has_numbers, objects, reaches_back
from torchvitals.hooks.graph_task import next_sequence_number
from torchvitals.hooks.growing_tensors import Form, form_of, growths
from torchvitals.hooks.holders import Holder, find_holder
from torchvitals.hooks.memory import Memory
from torchvitals.hooks.sizes import Weigher, first_leaf, leaves, type_name

Found = dict[str, Any]
"""The details of the event `holder`."""

_EXPLAINS = 0.25
"""Share of the growth for which a bounded buffer may stand; allocators add their own to what it holds."""
_NODE_BYTES = 300
"""An autograd node with its edges and its saved-tensor slots takes 200 to 500 bytes in C++."""
_PLAIN = {"builtins", "types", "functools", "collections", "weakref", "_thread", "abc", "typing"}


class _Sample(NamedTuple):
    step: int
    bytes: int
    """Resident and device memory."""
    types: dict[type, int]
    graphs: dict[tuple[str, tuple[int, ...]], int]
    forms: set[Form]
    node: int
    """The number of the next autograd node, 0 where torch does not tell."""


class LeakHunt:
    """Takes a census at a few steps, then says what grew.

    A sample costs one pass over all Python objects, 0.1 s for 290,000 of them; nothing runs between samples.

    Args:
        limit_seconds: of CPU time, for each sample and for the report; what is not looked at by then stays unknown. A
            hunt takes 0.2 s of it, and on a crowded machine ten times as long, as everything does.
        smallest_growth: bytes per step below which a growing container is no leak: 512 bytes a step are
            0.5 GB after a million steps, a list of losses as floats is 32.
        smallest_share: of the process's growth that a container must explain to be named as its cause.
        native_growth: bytes per step that, unexplained by Python objects, are called native.
        uneven: a container may grow this many times faster in one interval than in another; caches that fill
            up and one-time set-up are less even.
    """

    def __init__(
        self,
        *,
        limit_seconds: float = 3.0,
        smallest_growth: int = 512,
        smallest_share: float = 0.05,
        native_growth: int = 32 << 10,
        uneven: float = 4.0,
        memory: Memory | None = None,
    ) -> None:
        self._limit = limit_seconds
        self._smallest = smallest_growth
        self._share = smallest_share
        self._native = native_growth
        self._uneven = uneven
        self._memory = memory or Memory()
        self._samples: list[_Sample] = []
        self._first: Lengths | None = None
        self._growing: dict[int, list[int]] | None = None
        self._marks: dict[int, list[weakref.ref[Any]]] = {}
        """What the growing containers held last at the second sample."""

    def sample(self, step: int) -> None:
        """Count what there is, after optimizer step ``step``; always at the same point of a step."""
        resident = (self._memory.rss_bytes() or 0) + int(self._memory.device().get("cuda_allocated_bytes", 0))
        census, node = Census(time.thread_time() + self._limit), next_sequence_number()
        self._samples.append(_Sample(step, resident, census.types, census.graphs, census.forms, node))
        if self._first is None:
            self._first = census.lengths
        else:
            begins = self._growing is None
            self._growing = grown(self._first if self._growing is None else self._growing, census.lengths)
            if begins:
                self._marks = _marks(self._growing)

    def report(self) -> Found | None:
        """What holds what has grown, the largest first; ``None`` if nothing has."""
        if len(self._samples) < 2 or self._growing is None or self._steps <= 0:
            return None
        deadline = time.thread_time() + self._limit
        slope = self._slope([sample.bytes for sample in self._samples])
        searches = (self._containers, self._graphs, self._tensors, self._objects)
        found = next((found for search in searches if (found := search(slope, deadline))), None)
        return found or self._unseen(slope)

    @property
    def _steps(self) -> int:
        return self._samples[-1].step - self._samples[0].step

    def _renewed(self) -> set[int]:
        """Containers that are not those of before: nothing of what they held is left, as of the steps of an episode.

        A list that a loop makes anew often lies where that of two rounds before did, and is longer where rounds are.
        """
        return {key for key, marks in self._marks.items() if marks and all(mark() is None for mark in marks)}

    def _slope(self, values: list[int]) -> float:
        """Growth per step; 0 if it did not grow in every interval, or not evenly enough to go on for ever."""
        steps = [sample.step for sample in self._samples]
        rates = [
            (later - earlier) / max(after - before, 1)
            for (earlier, later), (before, after) in zip(pairwise(values), pairwise(steps), strict=True)
        ]
        if min(rates) <= 0 or max(rates) > self._uneven * min(rates):
            return 0.0
        return (values[-1] - values[0]) / self._steps

    # -- containers -------------------------------------------------------------------------------

    def _containers(self, slope: float, deadline: float) -> Found | None:
        rates = {key: rate for key, lengths in (self._growing or {}).items() if (rate := self._slope(lengths))}
        renewed = self._renewed()
        things = [thing for thing in objects() if id(thing) in rates and id(thing) not in renewed]
        weighed = [(thing, rates[id(thing)], _newest(thing)) for thing in things]
        entries = [(_bytes_each(newest) * rate, thing, rate, newest) for thing, rate, newest in weighed if newest]
        entries.sort(key=lambda entry: (-_has_graph(entry[3]), -entry[0]))
        ours = {id(things), id(weighed), id(entries), *map(id, weighed), *map(id, entries)}
        bounded = None
        for size, thing, rate, newest in entries[:8]:
            keeps_graph = _has_graph(newest)
            if not keeps_graph and (size < self._smallest or size < self._share * slope):
                continue
            holder = find_holder(thing, deadline, ours)
            if holder is None or holder.ours:
                continue
            grows = max(size, slope) if keeps_graph else size
            found = _told(newest[-1], len(thing), rate, grows, holder, graph=keeps_graph)
            if holder.limit is not None:
                bounded = bounded or found | {"limit": holder.limit}
                continue
            return found
        return bounded if bounded and bounded["bytes_per_step"] >= _EXPLAINS * slope else None

    # -- one variable, an ever longer graph -------------------------------------------------------

    def _graphs(self, slope: float, deadline: float) -> Found | None:
        keys = set.intersection(*(set(sample.graphs) for sample in self._samples))
        rates = {key: self._slope([sample.graphs[key] for sample in self._samples]) for key in keys}
        rates = {key: rate for key, rate in rates.items() if rate > 0}
        if not rates:
            return None
        tensors = [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor) and t.grad_fn is not None]
        tensors = [tensor for tensor in tensors if has_numbers(tensor) and graph_key(tensor) in rates]
        tensors.sort(key=graph_nodes, reverse=True)
        before = self._samples[-2].node
        for tensor in tensors[:4]:
            if before and not reaches_back(tensor, before):
                continue  # of longer sequences, or of longer episodes
            holder = find_holder(tensor, deadline, {id(tensors)})
            if holder is None or holder.ours:
                continue
            rate = rates[graph_key(tensor)]
            text = holder.text.replace(type(tensor).__name__, "variable", 1)
            holder = holder._replace(text=f"{text}, whose graph is never cut")
            nodes = self._samples[-1].graphs[graph_key(tensor)]
            return _told(tensor, nodes, rate, max(slope, rate * _NODE_BYTES), holder, graph=True)
        return None

    # -- one tensor, ever longer ------------------------------------------------------------------

    def _tensors(self, slope: float, deadline: float) -> Found | None:
        before = self._samples[-2].node
        for growth in growths([sample.forms for sample in self._samples]):
            rate = self._slope(growth.extents)
            size = rate * growth.unit
            if not rate or size < self._smallest or size < self._share * slope:
                continue
            alike = [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor) and has_numbers(t)]
            for tensor in [tensor for tensor in alike if form_of(tensor) == growth.form][:2]:
                if before and tensor.grad_fn is not None and not reaches_back(tensor, before):
                    continue
                holder = find_holder(tensor, deadline, {id(alike)})
                if holder is not None and not holder.ours:
                    found = _told(tensor, growth.extents[-1], rate, size, holder, graph=False)
                    return found | {"type": f"rows of a {found['type']}", "tensor": True}
        return None

    # -- objects in no growing container: linked lists, native containers -------------------------

    def _objects(self, slope: float, deadline: float) -> Found | None:
        rates = {kind: self._slope([s.types.get(kind, 0) for s in self._samples]) for kind in self._samples[-1].types}
        kinds = [kind for kind in rates if rates[kind] > 0 and kind.__module__.split(".")[0] not in _PLAIN]
        kinds = [kind for kind in kinds if not kind.__module__.startswith("torchvitals")]
        passing = _within(self._renewed())
        for kind in sorted(kinds, key=lambda kind: -rates[kind])[:4]:
            things = [thing for thing in gc.get_objects() if type(thing) is kind and id(thing) not in passing]
            if len(things) < rates[kind] * self._steps:
                continue
            newest = things[-3:]
            size = _bytes_each(newest) * rates[kind]
            if size < max(self._smallest, self._share * slope):
                continue
            held = [*_unlinked(things)[-3:], *newest]
            ours = {id(things), id(newest), id(held)} | self._renewed()
            holder = next((found for thing in held if (found := find_holder(thing, deadline, ours))), None)
            if holder is not None and not holder.ours:
                count = self._samples[-1].types[kind]
                return _told(newest[-1], count, rates[kind], size, holder, graph=_has_graph(newest))
        return None

    def _unseen(self, slope: float) -> Found | None:
        if slope < self._native:
            return None
        return {
            "type": "", "shape": [], "count": 0, "growth_per_step": 0.0, "bytes_per_step": slope,
            "holder": "", "line": "", "graph": False, "native": True,
        }  # fmt: skip


def _told(element: Any, count: int, rate: float, size: float, holder: Holder, *, graph: bool) -> Found:
    attached = (leaf for leaf in leaves(element) if _is_attached(leaf))
    leaf = next(attached, None) if graph else None
    leaf = first_leaf(element) if leaf is None else leaf
    return {
        "type": type_name(leaf),
        "shape": [int(extent) for extent in getattr(leaf, "shape", ())],
        "count": count,
        "growth_per_step": rate,
        "bytes_per_step": size,
        "holder": holder.text,
        "line": str(holder.line),
        "code": holder.line.code,
        "graph": graph,
        "native": False,
    }


def _newest(container: Any, few: int = 4) -> list[Any]:
    """The elements put in last; of a set any, since it has no order."""
    try:
        if isinstance(container, dict):
            return list(islice(reversed(container.values()), few))[::-1]
        if isinstance(container, set):
            return list(islice(container, few))
        return list(islice(reversed(container), few))[::-1]
    except RuntimeError:  # another thread is writing to it
        return []


def _marks(growing: Collection[int]) -> dict[int, "list[weakref.ref[Any]]"]:
    """Of each container the last things that a weak reference can follow; a number can't be followed."""
    marks: dict[int, list[weakref.ref[Any]]] = {}
    for thing in objects():
        for element in _newest(thing) if id(thing) in growing else ():
            with contextlib.suppress(TypeError):
                marks.setdefault(id(thing), []).append(weakref.ref(first_leaf(element)))
    return marks


def _within(keys: set[int]) -> set[int]:
    """What lies in the containers ``keys``, and in tuples and the like in them."""
    held = gc.get_referents(*(thing for thing in objects() if id(thing) in keys)) if keys else []
    return set(map(id, [*held, *gc.get_referents(*held)]))


def _unlinked(things: list[Any]) -> list[Any]:
    """Those that no other of ``things`` refers to: the heads of chains, the roots of trees.

    A search from any other link would have to climb the whole chain, one look at all objects for each link.
    """
    fields = gc.get_referents(*things)
    linked = set(map(id, fields))
    linked.update(map(id, gc.get_referents(*(field for field in fields if type(field) is dict))))
    return [thing for thing in things if id(thing) not in linked]


def _bytes_each(elements: Iterable[Any]) -> float:
    weigher = Weigher()
    sizes = [weigher.bytes_of(element) for element in elements]
    return sum(sizes) / len(sizes) if sizes else 0.0


def _has_graph(elements: Iterable[Any]) -> bool:
    """Whether any tensor in ``elements`` has a graph: beside a detached loss there may be outputs that were not."""
    return any(_is_attached(leaf) for element in elements for leaf in leaves(element))


def _is_attached(leaf: Any) -> bool:
    return issubclass(type(leaf), torch.Tensor) and leaf.grad_fn is not None
