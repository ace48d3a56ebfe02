"""Every way a process can end leaves its words, and ends as it would have without us."""

import json
import signal
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest
from torchvitals.hooks import exits
from torchvitals.hooks.exits import Exits
from torchvitals.hooks.taps import Taps

HEAD = """
    import importlib.util, json, os, signal, sys, threading
    from pathlib import Path
    spec = importlib.util.spec_from_file_location("exits", @FILE@)  # without the package, which imports torch
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    Exits = module.Exits
    told = open(sys.argv[1], "a", buffering=1)
    state = {"step": 5}
    def write(event):
        told.write(json.dumps([event.step, event.kind, event.details]) + "\\n")
    %s
    exits = Exits(write, lambda: state["step"])
    exits.install()
    exits.install()
    exits.arm(Path(sys.argv[1] + ".faults"))
"""


def run(tmp_path, body, before=""):
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent(HEAD).replace("@FILE@", repr(exits.__file__)) % before + textwrap.dedent(body))
    told = tmp_path / "told"
    told.touch()
    ran = subprocess.run([sys.executable, script, told], capture_output=True, text=True, timeout=60)
    events = [json.loads(line) for line in told.read_text().splitlines()]
    return ran, events


def test_a_normal_end_is_code_0(tmp_path):
    ran, events = run(tmp_path, "")

    assert ran.returncode == 0
    assert events == [[5, "exit", {"code": 0}]]


def test_a_signal_handler_that_raises_while_an_exception_is_told_is_told_with_it(tmp_path):
    body = """
        def handler(number, frame):
            raise RuntimeError("a worker is gone")
        signal.signal(signal.SIGUSR1, handler)
        times = iter(range(2))
        exits._ending = lambda frame: next(times, None) is not None and signal.raise_signal(signal.SIGUSR1)
        raise KeyError("item")
    """
    ran, events = run(tmp_path, body)

    (exception,) = [details for _, kind, details in events if kind == "exception"]
    assert (exception["type"], exception["meanwhile"]) == ("KeyError", "RuntimeError: a worker is gone")
    assert ran.stderr.rstrip().endswith("KeyError: 'item'")
    assert "Error in sys.excepthook" not in ran.stderr


@pytest.mark.parametrize(("call", "code"), [("3", 3), ("0", 0), ("", 0), ("None", 0), ("'no data'", 1), ("True", 1)])
def test_the_code_that_was_asked_for_is_told(tmp_path, call, code):
    ran, events = run(tmp_path, f"sys.exit({call})")

    ((step, kind, details),) = events

    assert ran.returncode == code
    assert (step, kind, details["code"]) == (5, "exit", code)
    assert ("job.py:" in details.get("line", "")) == (code != 0)


def test_a_code_that_was_caught_does_not_count_once_the_job_trains_on(tmp_path):
    body = """
    try:
        sys.exit(3)
    except SystemExit:
        state["step"] += 1
    """
    ran, events = run(tmp_path, body)

    assert ran.returncode == 0
    assert events == [[6, "exit", {"code": 0}]]


def test_an_exception_is_told_with_its_place_and_still_printed(tmp_path):
    body = """
    def collate(rows):
        return rows[7]
    collate([])
    """
    ran, events = run(tmp_path, body)
    (step, kind, details), last = events

    assert ran.returncode == 1
    assert "IndexError: list index out of range" in ran.stderr
    assert (step, kind, details["type"], details["message"]) == (
        5,
        "exception",
        "IndexError",
        "list index out of range",
    )
    assert details["frames"][-1].endswith(" collate")
    assert "job.py:" in details["frames"][-1]
    assert last == [5, "exit", {"code": 1}]


def test_an_exception_from_a_loader_worker_is_placed_where_the_worker_was():
    quoted = (
        "Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "/job/data.py", line 7, in __getitem__\n    open(path)\nOSError: no such file'
    )
    details = exits.exception_details(OSError(quoted))

    assert details["frames"][-1] == "/job/data.py:7 __getitem__"


def test_our_own_wrappers_are_no_frames_of_the_job():
    taps = Taps()
    owner = SimpleNamespace(load=lambda: {}["batch"])
    taps.wrap(owner, "load", before=lambda *_: None)
    try:
        owner.load()
    except KeyError as error:
        frames = exits.exception_details(error)["frames"]

    assert [frame.rpartition(" ")[2] for frame in frames] == [
        "test_our_own_wrappers_are_no_frames_of_the_job",
        "<lambda>",
    ]


def test_the_jobs_own_hook_still_runs(tmp_path):
    ran, events = run(tmp_path, "1 / 0", before="sys.excepthook = lambda *_: print('the job saw it')")

    assert ran.stdout == "the job saw it\n"
    assert [kind for _, kind, _ in events] == ["exception", "exit"]


def test_sys_exit_in_a_handler_tells_what_was_caught(tmp_path):
    body = """
    def load():
        open("/nowhere/at/all")
    try:
        load()
    except OSError as error:
        print(error)
        sys.exit(4)
    """
    ran, ((step, kind, details), last) = run(tmp_path, body)

    assert ran.returncode == 4
    assert (step, kind, details["type"]) == (5, "exception", "FileNotFoundError")
    assert details["frames"][-1].endswith(" load")
    assert (last[1], last[2]["code"]) == ("exit", 4)


def test_a_code_that_is_handed_on_keeps_its_reason(tmp_path):
    body = """
    def child():
        try:
            {}["label"]
        except KeyError:
            sys.exit(1)
    try:
        child()
    except SystemExit as asked:
        code = asked.code
    sys.exit(code)
    """
    ran, (told, last) = run(tmp_path, body)

    assert ran.returncode == 1
    assert told[2]["type"] == "KeyError"
    assert last[2]["line"].endswith(" child")


def test_sys_exit_tells_nothing_of_an_exception_that_is_long_past(tmp_path):
    body = """
    def main():
        sys.exit(3)
    try:
        import torch_of_another_planet
    except ImportError:
        main()
    """
    _, events = run(tmp_path, body)

    assert [kind for _, kind, _ in events] == ["exit"]


def test_the_cause_of_an_exception_is_told(tmp_path):
    body = """
    try:
        open("/nowhere/at/all")
    except OSError as error:
        raise RuntimeError("no data") from error
    """
    _, events = run(tmp_path, body)

    assert "FileNotFoundError" in events[0][2]["cause"]


def test_torchruns_record_still_gets_the_exception(tmp_path):
    body = """
    os.environ["TORCHELASTIC_ERROR_FILE"] = sys.argv[1] + ".error"
    from torch.distributed.elastic.multiprocessing.errors import record
    @record
    def main():
        raise ValueError("bad label")
    main()
    """
    _, events = run(tmp_path, body)

    assert events[0][2]["message"] == "bad label"
    assert "bad label" in (tmp_path / "told.error").read_text()


def test_a_parent_that_reports_its_childrens_end_has_nothing_of_its_own_to_tell(tmp_path):
    body = """
    from torch.multiprocessing.spawn import ProcessRaisedException
    raise ProcessRaisedException("rank 1 failed", 1, 77)
    """
    ran, events = run(tmp_path, body)

    assert (ran.returncode, events) == (1, [])
    assert "rank 1 failed" in ran.stderr


def test_an_interrupt_is_an_exception_of_its_own_type(tmp_path):
    ran, events = run(tmp_path, "signal.raise_signal(signal.SIGINT)")

    assert ran.returncode == -signal.SIGINT
    assert events[0][2]["type"] == "KeyboardInterrupt"


def test_a_thread_that_dies_is_named_and_the_process_ends_well(tmp_path):
    body = """
    thread = threading.Thread(target=lambda: 1 / 0, name="prefetch")
    thread.start()
    thread.join()
    """
    ran, events = run(tmp_path, body)

    assert ran.returncode == 0
    assert events[0][2]["thread"] == "prefetch"
    assert events[1] == [5, "exit", {"code": 0}]


def test_sys_exit_in_a_thread_ends_the_thread_only(tmp_path):
    body = """
    thread = threading.Thread(target=lambda: sys.exit(3))
    thread.start()
    thread.join()
    """
    ran, events = run(tmp_path, body)

    assert ran.returncode == 0
    assert events == [[5, "exit", {"code": 0}]]


def test_sigterm_kills_as_before(tmp_path):
    ran, events = run(tmp_path, "signal.raise_signal(signal.SIGTERM)")

    assert (ran.returncode, events) == (-signal.SIGTERM, [])


def test_the_jobs_own_sigterm_handler_is_left_alone(tmp_path):
    ran, _ = run(
        tmp_path,
        "signal.raise_signal(signal.SIGTERM)",
        before="signal.signal(signal.SIGTERM, lambda *_: print('saving'))",
    )

    assert (ran.returncode, ran.stdout) == (0, "saving\n")
    assert (tmp_path / "told.faults").read_text() == ""


def test_a_faulthandler_that_is_enabled_is_not_taken(tmp_path):
    run(tmp_path, "os.abort()", before="import faulthandler; faulthandler.enable()")

    assert not (tmp_path / "told.faults").exists()


def test_a_fatal_signal_leaves_the_stack(tmp_path):
    ran, _ = run(tmp_path, "os.abort()")

    assert ran.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in (tmp_path / "told.faults").read_text()


def test_a_forked_child_says_nothing(tmp_path):
    body = """
    pid = os.fork()
    if pid == 0:
        sys.exit(9)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    """
    ran, events = run(tmp_path, body)

    assert ran.returncode == 0, ran.stderr
    assert events == [[5, "exit", {"code": 0}]]


def test_after_remove_everything_is_as_it_was(tmp_path):
    body = """
    exits.remove()
    assert (sys.excepthook, threading.excepthook, sys.exit) == before
    import faulthandler
    assert not faulthandler.is_enabled()
    """
    ran, events = run(tmp_path, body, before="before = sys.excepthook, threading.excepthook, sys.exit")

    assert ran.returncode == 0, ran.stderr
    assert events == []


def test_what_was_chained_on_top_of_us_is_left_there():
    ours = Exits(lambda event: None, lambda: 0).install()
    hook = sys.excepthook

    def on_top(*args):
        hook(*args)

    sys.excepthook = on_top
    ours.remove()
    try:
        assert sys.excepthook is on_top
    finally:
        sys.excepthook = sys.__excepthook__
