"""Reading ``file:line function`` frames: which is the job's own, and what the process waits for."""

from collections.abc import Sequence

FOREIGN = ("/site-packages/", "/dist-packages/", "/lib/python", "<frozen", "<string>")
"""Where frames are not the job's own code."""
COLLECTIVE = (
    "distributed_c10d.py",
    "/distributed/rendezvous.py",
    "/distributed/nn/functional.py",
    "/nn/parallel/distributed.py",
)
MESSAGES = frozenset({"recv", "send", "recv_object_list", "send_object_list"})
CALLED = ("/distributed_c10d.py", "/c10d_logger.py", "/torch/utils/_contextlib.py")
"""Where frames lie between the job's own line and a collective that it calls."""
SAVING = ("/torch/serialization.py", "/torch/distributed/checkpoint/", "/safetensors/")
COMPILING = ("/torch/_dynamo/", "/torch/_inductor/", "/torch/_functorch/", "/triton/")
PASSING = ("/_dynamo/eval_frame.py", "/_dynamo/external_utils.py", "/_aot_autograd/runtime_wrappers.py")
"""Files of theirs through which compiled code runs, and code that must not be compiled, such as FSDP2's."""


def _foreign(frame: str) -> bool:
    return any(mark in frame for mark in FOREIGN)


def innermost_own(frames: Sequence[str]) -> str:
    """``file:line`` of the innermost frame of the job's own code, without folders; empty when there is none.

    >>> innermost_own(["/job/train.py:80 main", "/usr/lib/python3.11/queue.py:171 get"])
    'train.py:80'
    """
    for frame in reversed(frames):
        if not any(mark in frame for mark in FOREIGN):
            return frame.rpartition(" ")[0].rpartition("/")[2]
    return ""


def own_function(frames: Sequence[str]) -> str:
    """The function of the innermost frame of the job's own code; empty when there is none.

    >>> own_function(["/job/data.py:88 collate", "/usr/lib/python3.11/queue.py:171 get"])
    'collate'
    """
    own = (frame for frame in reversed(frames) if not any(mark in frame for mark in FOREIGN))
    return next(own, "").rpartition(" ")[2]


def stands_in_own_code(frames: Sequence[str]) -> bool:
    """Whether the innermost frame is the job's own: it runs that line itself, or something without frames for it.

    >>> stands_in_own_code(["/job/train.py:80 main"]), stands_in_own_code(["/lib/python3/queue.py:9 get"])
    (True, False)
    """
    return bool(frames) and not any(mark in frames[-1] for mark in FOREIGN)


def saves(frames: Sequence[str]) -> bool:
    """Whether a checkpoint is being written, by whatever file object the job has given."""
    return any(mark in frame for frame in frames for mark in SAVING)


def main_thread(threads: dict[str, list[str]]) -> list[str]:
    """The frames of the main thread, innermost last; empty when it is not among them."""
    return threads.get("MainThread", [])


def waits_in_collective(frames: Sequence[str]) -> bool:
    """Whether the innermost frames are those of a collective."""
    return any(mark in frame for frame in frames[-3:] for mark in COLLECTIVE)


def calls_collective(frames: Sequence[str]) -> bool:
    """Whether the job's own code itself has called the collective it waits in; a wrapper's forward has not.

    >>> calls_collective(["/job/train.py:9 main", "/lib/python3/torch/distributed/distributed_c10d.py:3252 all_reduce"])
    True
    """
    called = [frame for frame in frames[-4:] if "distributed_c10d.py" in frame]
    inner = frames[next((i + 1 for i in reversed(range(len(frames))) if not _foreign(frames[i])), 0) :]
    return bool(called) and all(any(mark in frame for mark in CALLED) for frame in inner)


def message_call(frames: Sequence[str]) -> str:
    """``recv`` or ``send`` where a rank stands in such a call: it needs the other half from one rank, and no group.

    >>> message_call(["/job/pipe.py:9 stage", "/lib/torch/distributed/distributed_c10d.py:2799 recv"])
    'recv'
    """
    called = (frame.rpartition(" ")[2] for frame in reversed(frames[-3:]) if "distributed_c10d.py" in frame)
    name = next((name for name in called if name in MESSAGES), "")
    return name.partition("_")[0]


def compiles(frames: Sequence[str]) -> bool:
    """Whether a compiler is at work.

    >>> compiles(["/torch/_dynamo/convert_frame.py:9 _compile"]), compiles(["/torch/_dynamo/eval_frame.py:1271 _fn"])
    (True, False)
    """
    return any(
        mark in frame for frame in frames for mark in COMPILING if not any(passing in frame for passing in PASSING)
    )
