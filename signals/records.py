"""What travels in the spool: one msgpack array per record, tagged by name.

Fields are only ever appended and always have defaults, so an old reader ignores what it does not know
and a new reader fills what an old writer did not send. ``SCHEMA_VERSION`` changes only when that is
impossible, and then the reader refuses by name.
"""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

SCHEMA_VERSION = 1
LAUNCHER_RANK = -1
"""Rank under which ``torchvitals run`` itself, which trains nothing, writes."""
ABSENT = -1.0
"""Stands in a profile for what was not measured: none of its quantities is negative, and NaN is a measurement."""
ALONE = "alone"
"""In an axis' ``replicas``: no other rank owes this tensor equal bits. An empty text: every rank holds a copy."""


class Record(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """Base of all records: ``[tag, field, field, ...]`` on the wire."""


class Hello(Record, tag="hello", kw_only=True, frozen=True):
    """Opens every segment, so that a segment stands alone. Times are seconds since the epoch."""

    schema: int = SCHEMA_VERSION
    run: str = ""
    name: str = ""
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    host: str = ""
    pid: int = 0
    incarnation: int = 0
    """How often an elastic launcher has restarted the job; 0 at first."""
    segment: int = 0
    started: float = 0.0
    """Wall time at which this process opened its spool."""
    monotonic: float = 0.0
    """``time.monotonic()`` at the same instant: the pair survives a clock jump."""
    python: str = ""
    torch: str = ""
    device: str = ""
    command: str = ""
    role: str = "train"
    """``train``, ``serve`` or ``launcher``."""
    dropped: int = 0
    """Records this process could not write or had to delete before this segment."""


class Axis(Record, tag="axis", frozen=True):
    """Names the entries of an axis. ``key`` is what other records refer to, as ``parameter:0``."""

    key: str
    kind: str
    entries: list[str]
    details: dict[str, Any] = {}


class Step(Record, tag="step", frozen=True):
    """One optimizer step, applied. ``values`` maps the index into the axis ``signal`` to the value.

    The reader replaces the indices by names before anybody sees the record.
    """

    step: int
    time: float
    values: dict[int | str, float]
    optimizer: int = 0
    leads: bool | None = None
    """Whether the steps of ``optimizer`` are the job's; where it is not told, those of the first are."""

    @property
    def counts(self) -> bool:
        """Whether it is a step of the job: not the generator's beside the step of its judge."""
        return not self.optimizer if self.leads is None else self.leads


class Profile(Record, tag="profile", frozen=True):
    """One sampled step along an axis: signal name → float32 little-endian bytes, one entry per axis entry."""

    step: int
    time: float
    axis: str
    values: dict[str, bytes]
    optimizer: int = 0


class Digest(Record, tag="digest", frozen=True):
    """Exact bit digests along an axis, int64 little-endian; ``kind`` is ``parameter``, ``hyperparameter``, ..."""

    step: int
    time: float
    axis: str
    kind: str
    values: bytes


class Requests(Record, tag="requests", frozen=True):
    """A run of inference requests from number ``first`` on; float32 seconds; ``errors`` are their offsets."""

    first: int
    time: float
    model: str
    latencies: bytes
    errors: list[int] = []
    items: bytes = b""
    """Batch sizes, int32 little-endian."""


class Window(Record, tag="window", frozen=True):
    """Statistics of ``requests`` requests (``items`` rows) from number ``first`` on, along a feature axis."""

    first: int
    time: float
    axis: str
    requests: int
    items: int
    values: dict[str, bytes]


class Beat(Record, tag="beat", frozen=True):
    """Once a second from a side thread: alive, and where. ``sequences`` is collectives by process group."""

    time: float
    monotonic: float
    step: int
    phase: str
    sequences: dict[str, int] = {}
    rss_bytes: int = 0
    activity: int = 0
    """Phases entered so far: it moves while a loader, a forward or a backward comes to an end."""


class Stacks(Record, tag="stacks", frozen=True):
    """All Python stacks of the process, innermost frame last: thread name → ``file:line function``.

    Written when the job stands still; a second record brings the newest collectives of each process group
    (group, sequence, operation, sizes, dtypes, retired), because to read them may take a moment.
    """

    time: float
    step: int
    reason: str
    threads: dict[str, list[str]]
    collectives: list[dict[str, Any]] = []
    waits: str = ""
    """Where the main thread waits for another one without a time limit while all others wait as well."""
    cpu: float = -1.0
    """CPU seconds per second that the process and its children use while it stands still; -1 is unknown."""
    endless: str = ""
    """Where the main thread is in a loop that nothing in it can leave."""


class Arrivals(Record, tag="arrivals", frozen=True):
    """When this rank came to the collectives of one process group, from number ``first`` on.

    ``created`` are nanoseconds since the epoch by this host's clock, int64 little-endian, 0 where the flight
    recorder had lost one. ``ranks`` are the group's members; empty for all ranks of the world.
    """

    time: float
    group: str
    first: int
    created: bytes
    ranks: list[int] = []


class Event(Record, tag="event", frozen=True):
    """Something that happened once: ``kind`` (see ``EVENT_KINDS``) and its details."""

    time: float
    step: int
    kind: str
    details: dict[str, Any] = {}


EVENT_KINDS: dict[str, str] = {
    "attached": "Hooks were attached; details name models, optimizers and what could be seen.",
    "facts": "What the code is: optimizer, schedule, dtype, clipping, scaler, wrappers, activation modules.",
    "changed": "A hyper-parameter changed outside a schedule's usual step; from, to.",
    "detached": "Hooks were removed by the job.",
    "not_checked": "Something cannot be seen; details hold `what` and `why`.",
    "fuse": "A probe failed inside and was removed; details hold its name and the error.",
    "origin": "Replay named the first operation that made a non-finite value; see hooks/replay.py.",
    "first_loss": "What a classifier's first loss is, worked out from its graph: `loss`, `classes`, `chance`.",
    "first_answers": "How large a regressor's first `answers`, its `targets` and its `inputs` are.",
    "leaf_loss": "`backward` was called on a tensor made of a number, from which no gradient leads back: `line`.",
    "relation": "A relation of sound training loops is broken: which `relation`, and where; see hooks/relations.py.",
    "undefined_answer": "A service answered NaN: which `request`, how many `rows`, and what was `given`.",
    "weights_replaced": "A service's weights are others than before: which `request`, `parameters`, `count` of many.",
    "dwells": "Where in its own code a job was found most often, of one look a second; see hooks/dwelling.py.",
    "holder": "The leak hunt named what keeps objects alive; see hooks/leaks.py.",
    "repeat": "A step was run again on the same inputs; the first operation that gave other bits: hooks/repeats.py.",
    "guard": "The guard that the job asked for skipped, stopped or rolled back a step that was not finite.",
    "eval": "An evaluation or a checkpoint interrupted training.",
    "exception": "An uncaught exception: type, message, frames as `file:line function`.",
    "exit": "The process ended by itself; `code`.",
    "command": "Launcher only: the command, its working directory and environment of interest.",
    "command_exit": "Launcher only: exit code, signal, and out-of-memory kills seen in the cgroup.",
    "process_gone": "Launcher only: a process is there no more; rank, pid, out-of-memory kills so far.",
    "unheard": "Launcher only: a process that writes nothing; rank, pid, seconds, kernel state, CPU seconds since.",
    "asked_to_end": "Launcher only: somebody sent the command a signal to end; `signal`.",
    "children": "How the ranks ended, as torchrun or `mp.spawn` saw it; per rank pid and exit code, first one first.",
    "lost": "Records were dropped, and how many, and why.",
}

AnyRecord = Hello | Axis | Step | Profile | Digest | Requests | Window | Beat | Stacks | Arrivals | Event


def pack_floats(values: NDArray[Any]) -> bytes:
    """Float32 little-endian bytes of ``values``; NaN and Inf survive; what float32 cannot hold becomes Inf."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(values, dtype="<f4").tobytes()


def unpack_floats(data: bytes) -> NDArray[np.float64]:
    """The inverse of :func:`pack_floats`, widened to float64."""
    return np.frombuffer(data, dtype="<f4").astype(np.float64)


def pack_integers(values: NDArray[Any]) -> bytes:
    """Int64 little-endian bytes of ``values``."""
    return np.ascontiguousarray(values, dtype="<i8").tobytes()


def unpack_integers(data: bytes) -> NDArray[np.int64]:
    """The inverse of :func:`pack_integers`."""
    return np.frombuffer(data, dtype="<i8").astype(np.int64)
