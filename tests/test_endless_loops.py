"""A loop without a way out is told within seconds; whatever may still end is not called endless."""

import ctypes
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torchvitals.agent.causes.stuck_code import StuckCode
from torchvitals.detectors.hang import Hang
from torchvitals.hooks.endless_loops import endless_loop
from torchvitals.signals.records import Beat, Hello, Stacks

from tests.test_silence_and_loss import case

Told = list[tuple[bool, bool]]
"""Of a few lines of a loop: whether it is endless, and whether it is so in a thread beside which others work."""


class Over(Exception):  # noqa: N818 (no error)
    """The test has seen enough."""


@pytest.fixture
def seen() -> Iterator[Told]:
    """What is said at each line of the loop that the test runs; after a few of them it is left by force."""
    found: Told = []

    def look(frame, event, _arg):
        if event == "line" and frame.f_code.co_name.startswith("loop_"):
            found.append((bool(endless_loop(frame)), bool(endless_loop(frame, alone=False))))
            if len(found) > 12:
                raise Over
        return look

    before = sys.gettrace()
    sys.settrace(look)
    yield found
    sys.settrace(before)


def loop_that_does_nothing():
    while True:
        pass


def loop_that_counts():
    number = 0
    while True:
        number += 1
        if number > 5:
            number = 0


def loop_that_sleeps():
    while True:
        time.sleep(0)


def loop_within_a_loop():
    for number in range(3):
        while True:
            number += 1  # noqa: PLW2901 (to have something to do)


class Server:
    ready = False

    def __init__(self):
        self.served, self.events = 0, []

    @property
    def over(self):
        return False


def loop_on_a_flag():
    ready = False
    while not ready:
        pass


def loop_that_sleeps_on_a_flag():
    server, known = Server(), sys.modules
    while server.served < 3 and not server.events and known is not None:
        time.sleep(0)


def loop_on_a_length():
    events = []
    while len(events) == 0:
        pass


FROZEN = (loop_on_a_flag, loop_that_sleeps_on_a_flag, loop_on_a_length)
"""They end only if somebody else says so."""
ENDLESS = (loop_that_does_nothing, loop_that_counts, loop_that_sleeps, loop_within_a_loop)


def loop_with_a_break():
    number = 0
    while True:
        number += 1
        if number > 1000:
            break


def loop_over_numbers():
    for number in itertools.count():
        number += 1  # noqa: PLW2901


def loop_with_a_condition():
    number = 0
    while number >= 0:
        number += 1


def loop_that_calls():
    while True:
        os.getpid()


def loop_that_reads_until_the_end():
    numbers = iter(range(1000))
    try:
        while True:
            number = 1 / next(numbers, 1)
            number += 1
    except ZeroDivisionError:
        return


def loop_that_yields():
    while True:
        yield 1


def loop_on_a_property():
    server = Server()
    while not server.over:
        pass


def loop_on_an_attribute_of_the_class():
    server = Server()
    while not server.ready:
        pass


def loop_on_a_tensor():
    flag = torch.zeros(1)
    while flag == 0:
        time.sleep(0)


def loop_that_catches():
    ready = False
    try:
        while not ready:
            time.sleep(0)
    except KeyboardInterrupt:
        return


OPEN = (loop_on_a_property, loop_on_an_attribute_of_the_class, loop_on_a_tensor, loop_that_catches)
FINITE = (
    loop_with_a_break, loop_over_numbers, loop_with_a_condition, loop_that_calls, loop_that_reads_until_the_end,
    lambda: [None for _ in zip(range(50), loop_that_yields(), strict=False)],
)  # fmt: skip


def play(loop: Callable[[], object]) -> None:
    try:
        loop()
    except Over:
        return


@pytest.mark.parametrize("loop", ENDLESS)
def test_a_loop_that_nothing_can_leave_is_known(loop: Callable[[], object], seen: Told) -> None:
    play(loop)

    assert seen[4:] == [(True, loop is not loop_that_sleeps)] * len(seen[4:])


def sampled(loop: Callable[[], object]) -> Told:
    """What is said of a loop that another thread runs, as the beat sees it: tracing would write to its variables."""
    found: Told = []
    thread = threading.Thread(target=play, args=(loop,))
    thread.start()
    assert thread.ident is not None
    while len(found) < 20:
        frame = sys._current_frames()[thread.ident]
        if frame.f_code is loop.__code__ and frame.f_lineno > loop.__code__.co_firstlineno + 1:
            found.append((bool(endless_loop(frame)), bool(endless_loop(frame, alone=False))))
        del frame
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Over))
    thread.join()
    return found


@pytest.fixture
def no_handlers() -> Iterator[None]:
    """The test runner has a handler of its own, by which it ends what takes too long."""
    own = {number: handler for number in signal.valid_signals() if callable(handler := signal.getsignal(number))}
    own.pop(signal.SIGINT, None)
    for number in own:
        signal.signal(number, signal.SIG_IGN)
    yield
    for number, handler in own.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("no_handlers")
@pytest.mark.parametrize("loop", FROZEN)
def test_a_loop_on_what_nobody_can_change_is_known_where_there_is_no_other_thread(
    loop: Callable[[], object],
) -> None:
    assert (True, False) in sampled(loop)


@pytest.mark.usefixtures("no_handlers")
@pytest.mark.parametrize("loop", OPEN)
def test_a_loop_on_what_somebody_may_change_is_none(loop: Callable[[], object]) -> None:
    assert set(sampled(loop)) == {(False, False)}


def test_a_signal_handler_of_the_job_may_change_what_a_loop_waits_for() -> None:
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        found = sampled(loop_on_a_flag)
    finally:
        signal.signal(signal.SIGUSR2, before)

    assert set(found) == {(False, False)}


@pytest.mark.parametrize("loop", FINITE)
def test_a_loop_that_may_end_is_none(loop: Callable[[], object], seen: Told) -> None:
    play(loop)

    assert len(seen) > 4
    assert set(seen) == {(False, False)}


@pytest.mark.parametrize(("endless", "told"), [("/job/train.py:44 main", [6]), ("", [])])
def test_a_lone_process_in_such_a_loop_is_told_within_seconds(endless: str, told: list[int]) -> None:
    detector, hello, seconds = Hang(), Hello(run="r", rank=0, world_size=1), []
    for second in range(60):
        step = min(second * 10, 20)
        records: list[Beat | Stacks] = [Beat(second, second, step, "idle", {}, 0, step)]
        if second >= 5 and second % 3 == 2:
            frames = {"MainThread": ["/job/train.py:80 <module>", f"/job/train.py:{40 + second % 4} main"]}
            records.insert(0, Stacks(second, step, "nothing moved", frames, cpu=1.0, endless=endless))
        for record in records:
            seconds += [(second, finding) for finding in detector.observe(hello, record)]

    assert [second for second, _ in seconds] == told
    for _, finding in seconds:
        opinion = StuckCode().weigh(case(finding, world=1))
        assert opinion is not None
        assert "train.py:4" in opinion.where
