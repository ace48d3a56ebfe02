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
from torchvitals.signals.records import Axis, Record, Requests, Window, pack_floats

if TYPE_CHECKING:
    from torchvitals.hooks.recorder import Recorder

FLUSH_REQUESTS = 64
FLUSH_SECONDS = 1.0
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
        trains: whether the process has made an optimizer.
    """

    def __init__(self, model: str, recorder: "Recorder", index: int, *, trains: bool) -> None:
        self._recorder = recorder
        self._model = model
        self._trains = trains
        self._features = FeatureWindows(model)
        self._axis = f"feature:{index}"
        self._entries: list[str] = []
        self._latencies: list[float] = []
        self._items: list[int] = []
        self._flushed = time.monotonic()
        self._held: list[Record] | None = []
        self._quiet = QUIET_WHERE_TRAINED if trains else TRIALS
        self._observe = recorder.fuse.guard("features", self._features_of)
        self.requests = 0

    def request(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, seconds: float) -> None:
        """One request was answered in ``seconds``."""
        self._latencies.append(seconds)
        first = next(tensors((args, kwargs)), None)
        self._items.append(first.shape[0] if first is not None and first.dim() else 1)
        self.requests += 1
        self._observe(args, kwargs, output)
        if self._held is not None and self.requests >= self._quiet:
            self._release()
        if len(self._latencies) >= FLUSH_REQUESTS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

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
        entries, values, requests, items = block
        if entries != self._entries:
            self._entries = entries
            self._write(Axis(self._axis, "feature", entries))
        packed = {name: pack_floats(value) for name, value in values.items()}
        record = Window(self.requests - requests, self._recorder.clock(), self._axis, requests, items, packed)
        self._write(record)

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
        for record in held:
            self._recorder.write(record)
