"""A model that answers requests: latencies and the statistics of what comes in and goes out.

A forward without gradients is a request unless it is an evaluation. It is an evaluation while the process
trains: a step follows. So a process without an optimizer serves after a few trials; one that trains serves
once it has answered two hundred requests in a row, not fed by a data loader, without a step.
"""

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from torchvitals.hooks.features import FeatureWindows
from torchvitals.hooks.forwards import tensors
from torchvitals.hooks.leak_watch import LeakWatch
from torchvitals.hooks.memory import Memory
from torchvitals.hooks.request_work import RequestWork
from torchvitals.signals.records import Axis, Record, Requests, Window, pack_floats

if TYPE_CHECKING:
    from torchvitals.hooks.recorder import Recorder

FLUSH_REQUESTS = 64
FLUSH_SECONDS = 1.0
MEMORY_REQUESTS = 16
"""Requests between looks at the memory: 2 µs each, and a hundred looks in 1,600 requests."""
QUIET_WHERE_TRAINED = 200
"""Evaluations of a hundred batches between epochs are common, two hundred by hand are a service."""
TRIALS = 16
"""A script tries its model out a few times before it trains; that is no service, and leaves no run behind."""
HELD_RECORDS = 4096


class Service:
    """Watches the requests of one model.

    Args:
        model: its name.
        recorder: the hub.
        index: number of the model in this process.
        before: requests in a row that were answered and not recorded, since they could still be an evaluation.
        stored: whether the requests are batches of a stored data set: their order is not traffic, and no drift.
    """

    def __init__(self, model: str, recorder: "Recorder", index: int, *, before: int, stored: bool) -> None:
        self._recorder = recorder
        self._model = model
        self._trains = before > 0  # only where an optimizer was made are requests held back to see what they are
        self._features = FeatureWindows(model)
        self._axis = f"feature:{index}"
        self._entries: list[str] = []
        self._latencies: list[float] = []
        self._items: list[int] = []
        self._flushed = time.monotonic()
        self._held: list[Record] | None = []
        self._stored = stored
        self._memory = Memory()
        self._observe = recorder.fuse.guard("features", self._features_of)
        # One model speaks for the process, and one that trains tells its memory at every step.
        self._leaks = LeakWatch(recorder) if index == 0 and not self._trains else None
        self._work = RequestWork()
        self._watch_memory = recorder.fuse.guard("memory", self._memory_of)
        self._undefined: dict[str, Any] | None = None
        self.requests = before

    def request(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, seconds: float) -> None:
        """One request was answered in ``seconds``."""
        self._latencies.append(seconds)
        self._work.answering += seconds
        first = next(tensors((args, kwargs)), None)
        self._items.append(first.shape[0] if first is not None and first.dim() else 1)
        self.requests += 1
        if not self._stored:
            self._observe(args, kwargs, output)
        if self._held is not None and self.requests >= TRIALS:
            self._release()
        if self._leaks is not None and self._held is None and self.requests % MEMORY_REQUESTS == 0:
            self._watch_memory(self._leaks)
        if len(self._latencies) >= FLUSH_REQUESTS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    @property
    def answers_nan(self) -> bool:
        """Whether a request of finite inputs was answered with NaN."""
        return self._undefined is not None and not self._undefined["given"]

    def flush(self) -> None:
        """Write the latencies that are waiting."""
        if not self._latencies:
            return
        first = self.requests - len(self._latencies)
        latencies = pack_floats(np.asarray(self._latencies))
        items = np.asarray(self._items, dtype="<i4").tobytes()
        self._write(Requests(first, self._recorder.clock(), self._model, latencies, [], items))
        self._latencies.clear()
        self._items.clear()
        self._flushed = time.monotonic()

    def _features_of(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        block = self._features.observe(args, kwargs, output)
        if block is None:
            return
        entries, values, requests, items, undefined = block
        if undefined is not None and self._undefined is None and not self._trains:
            first = self.requests - requests + undefined.request
            self._undefined = {
                "request": first, "rows": undefined.rows, "output": undefined.output, "given": undefined.given,
                "zero": undefined.zero, "model": self._model,
            }  # fmt: skip
            if self._held is None:
                self._recorder.event("undefined_answer", **self._undefined)
        if entries != self._entries:
            self._entries = entries
            self._write(Axis(self._axis, "feature", entries))
        if self._trains:
            values["feature_evaluated"] = np.ones(len(entries), np.float32)
        packed = {name: pack_floats(value) for name, value in values.items()}
        record = Window(self.requests - requests, self._recorder.clock(), self._axis, requests, items, packed)
        self._write(record)

    def _memory_of(self, leaks: LeakWatch) -> None:
        """What the process holds and has done after this request, as a training tells it after a step."""
        resident = self._memory.rss_bytes()
        values = self._work.read() | ({} if resident is None else {"rss_bytes": float(resident)})
        if values:
            self._recorder.open().step(self.requests - 1, self._recorder.clock(), values)
        leaks.step(self.requests)

    def _write(self, record: Record) -> None:
        if self._held is None:
            self._recorder.write(record)
        elif len(self._held) < HELD_RECORDS:
            self._held.append(record)

    def _release(self) -> None:
        held, self._held = self._held or [], None
        if not self._trains:
            self._recorder.role = "serve"
        self._recorder.event("serving", model=self._model)
        if self._stored:
            self._recorder.not_checked("drift", "the requests are a stored data set, read by a data loader")
        for record in held:
            self._recorder.write(record)
        if self._undefined is not None:
            self._recorder.event("undefined_answer", **self._undefined)
