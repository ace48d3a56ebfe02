"""Ranks that met in different collectives, by the stacks they left: of an abort, and of connections that were lost."""

import signal
from pathlib import Path

import pytest
from torchvitals.agent.causes.collective_mismatch import CollectiveMismatch
from torchvitals.detectors.crash import Crash
from torchvitals.detectors.detector import Finding
from torchvitals.signals.last_words import NAME, last_words
from torchvitals.signals.records import LAUNCHER_RANK, Beat, Event, Hello, Step

from tests.test_silence_and_loss import case

TRAIN = "/job/train.py:17 <module>"
CALLED = [
    "/job/train.py:20 <module>",
    "/job/train.py:11 validate",
    "/x/site-packages/torch/distributed/distributed_c10d.py:30 all_reduce",
]
BACKWARD = [TRAIN, "/x/site-packages/torch/_tensor.py:60 backward", "/x/site-packages/torch/autograd/graph.py:8 run"]


def crash(gone: list[str], raised: list[str], ranks: int = 2) -> Finding:
    """Rank 0 was aborted with the stack ``gone``, all others lost their connection in ``raised``."""
    detector, found = Crash(), []
    hellos = [Hello(run="r", rank=rank, world_size=ranks, pid=100 + rank) for rank in range(ranks)]
    launcher = Hello(run="r", rank=LAUNCHER_RANK, role="launcher")
    told = {"type": "RuntimeError", "message": "Connection closed by peer", "frames": raised}
    records = [(hello, Step(50, 9.0, {})) for hello in hellos]
    records += [(hello, Event(9.5, 51, "exception", told)) for hello in hellos[1:]]
    records += [(hello, Event(9.6, 51, "exit", {"code": 1})) for hello in hellos[1:]]
    children = [{"pid": 100, "code": -int(signal.SIGABRT)}]
    records += [
        (launcher, Event(9.8, -1, "process_gone", {"rank": 0, "pid": 100, "oom_kills": 0, "frames": gone})),
        (launcher, Event(9.9, -1, "children", {"children": children})),
        (launcher, Beat(12.0, 12.0, -1, "launcher")),
    ]
    for hello, record in records:
        found += detector.observe(hello, record)
    (finding,) = found
    return finding


def test_the_place_of_a_fatal_signal_is_that_of_the_crash() -> None:
    finding = crash(["/job/train.py:9 <module>", "/job/native.py:4 decode"], BACKWARD)

    assert (finding.rank, finding.name) == (0, "native.py:4")


@pytest.mark.parametrize(("gone", "raised", "rank"), [(CALLED, BACKWARD, 0), (BACKWARD, CALLED, 1)])
def test_the_rank_that_called_a_collective_of_its_own_is_named_whichever_was_aborted(
    gone: list[str], raised: list[str], rank: int
) -> None:
    event = Event(9.9, -1, "children", {"children": [{"pid": 100, "code": -int(signal.SIGABRT)}]})
    opinion = CollectiveMismatch().weigh(case(crash(gone, raised), event))

    assert opinion is not None
    assert (opinion.rank, opinion.where) == (rank, "train.py:11")


@pytest.mark.parametrize("frames", [CALLED, BACKWARD])
def test_ranks_that_stood_in_one_place_name_nobody(frames: list[str]) -> None:
    event = Event(9.9, -1, "children", {"children": [{"pid": 100, "code": -int(signal.SIGABRT)}]})
    opinion = CollectiveMismatch().weigh(case(crash(frames, frames), event))

    assert opinion is not None
    assert opinion.rank is None


def test_an_abort_in_a_thread_without_python_tells_where_the_main_thread_was(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(
        'Fatal Python error: Aborted\n\nThread 0x3 (most recent call first):\n  File "t.py", line 3 in wait\n'
        '  File "t.py", line 9 in run\n\nThread 0x1 (most recent call first):\n  File "a b.py", line 3 in f\n'
        '  File "a b.py", line 9 in <module>\n\nExtension modules: numpy (total: 1)\n'
    )

    assert last_words(tmp_path) == ["a b.py:9 <module>", "a b.py:3 f"]
