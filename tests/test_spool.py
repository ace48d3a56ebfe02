"""The spool: what was written is read, through rotation, crashes, full disks, forks and deletion; the job goes on."""

import os
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from torchvitals.signals import frames
from torchvitals.signals.reader import (
    NotARunError,
    ProcessReader,
    RunReader,
    UnknownSchemaError,
    UnreadableError,
    list_runs,
)
from torchvitals.signals.records import Axis, Digest, Event, Hello, Profile, Requests, Step, pack_floats
from torchvitals.signals.spool import LOOK_EVERY, RETRY_AFTER, SpoolWriter, default_directory


def writer(directory: Path, run: str = "run-1", **options) -> SpoolWriter:
    greeting = {"run": run, "name": "demo", "rank": options.pop("rank", 0), "pid": options.pop("pid", 11)}
    return SpoolWriter(directory, Hello(**greeting), clock=lambda: 100.0, monotonic=lambda: 5.0, **options)


def steps(entries) -> list[int]:
    return [entry.record.step for entry in entries if isinstance(entry.record, Step)]


def read(path: Path):
    return list(ProcessReader(path).read())


# writing and reading


def test_what_was_written_is_read_with_names_in_place_of_indices(tmp_path):
    spool = writer(tmp_path)
    spool.step(0, 1.0, {"loss": 0.5})
    spool.step(1, 2.0, {"loss": 0.25, "gradient_norm": float("inf")})
    spool.close()

    entries = read(spool.path)

    assert isinstance(entries[0].record, Hello)
    assert [e.record.values for e in entries if isinstance(e.record, Step)] == [
        {"loss": 0.5},
        {"loss": 0.25, "gradient_norm": float("inf")},
    ]
    assert {entry.hello.name for entry in entries} == {"demo"}


def test_a_record_is_in_the_file_before_write_returns(tmp_path):
    """The crash a job dies of may be the next instruction."""
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from torchvitals.signals.records import Hello; from torchvitals.signals.spool import SpoolWriter\n"
        "spool = SpoolWriter(Path(sys.argv[1]), Hello(run='r', pid=1))\n"
        "for n in range(100): spool.step(n, 0.0, {'loss': 1.0})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)])

    assert result.returncode == -9
    assert steps(read(tmp_path / "r" / "0.1")) == list(range(100))


def test_an_axis_travels_with_the_records_that_refer_to_it(tmp_path):
    spool = writer(tmp_path)
    spool.write(Axis("parameter:0", "parameter", ["a", "b"]))
    spool.write(Profile(3, 1.0, "parameter:0", {"parameter_weight_norm": pack_floats(np.ones(2))}))

    *_, entry = read(spool.path)

    assert entry.axis == Axis("parameter:0", "parameter", ["a", "b"])


def test_a_reader_follows_a_growing_file_and_repeats_nothing(tmp_path):
    spool = writer(tmp_path)
    reader = ProcessReader(spool.path)
    spool.step(0, 0.0, {"loss": 1.0})
    first = steps(reader.read())
    spool.step(1, 0.0, {"loss": 1.0})

    assert (first, steps(reader.read()), steps(reader.read())) == ([0], [1], [])


def test_a_torn_tail_is_read_when_it_is_whole(tmp_path):
    spool = writer(tmp_path)
    spool.step(0, 0.0, {"loss": 1.0})
    spool.close()
    file = spool.path / "0.spool"
    late = frames.encode(Step(1, 0.0, {0: 2.0}))
    whole = file.read_bytes()
    file.write_bytes(whole + late[:9])
    reader = ProcessReader(spool.path)
    before = steps(reader.read())
    file.write_bytes(whole + late)

    assert before == [0]
    assert steps(reader.read()) == [1]
    assert (reader.corrupt, reader.unknown) == (0, 0)


def test_a_frame_longer_than_a_chunk_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvitals.signals.reader.CHUNK_BYTES", 256)
    spool = writer(tmp_path)
    spool.write(Event(0.0, 0, "facts", {"text": "x" * 5000}))
    for number in range(50):
        spool.step(number, 0.0, {"loss": 1.0})

    entries = read(spool.path)

    assert entries[1].record.details["text"] == "x" * 5000
    assert steps(entries) == list(range(50))


# segments


def test_segments_rotate_and_each_stands_alone(tmp_path):
    spool = writer(tmp_path, segment_bytes=600)
    spool.write(Axis("parameter:0", "parameter", ["a"]))
    for number in range(60):
        spool.step(number, 0.0, {"loss": 1.0})
    names = sorted(spool.path.iterdir(), key=lambda path: int(path.stem))
    for path in names[:-1]:
        path.unlink()

    reader = ProcessReader(spool.path)
    entries = list(reader.read())

    assert len(names) > 3
    assert isinstance(entries[0].record, Hello)
    assert entries[0].record.segment == len(names) - 1
    assert {entry.record.key for entry in entries if isinstance(entry.record, Axis)} == {"parameter:0", "signal"}
    assert steps(entries)[-1] == 59
    assert reader.missing_segments == len(names) - 1


def test_nothing_is_lost_when_the_file_rotates_between_two_looks(tmp_path):
    """Records appended to a segment after it was drained, and before the next was seen, are still read."""
    spool = writer(tmp_path, segment_bytes=400)
    reader = ProcessReader(spool.path)
    seen = []
    for number in range(200):
        spool.step(number, 0.0, {"loss": 1.0})
        if number % 7 == 0:
            seen += steps(reader.read())
    entries = reader.read()
    seen += [entry.record.step for entry in entries if isinstance(entry.record, Step)]

    assert seen == list(range(200))


def test_a_segment_that_grows_while_it_is_drained_is_drained_to_its_end(tmp_path):
    spool = writer(tmp_path, segment_bytes=10_000)
    spool.step(0, 0.0, {"loss": 1.0})
    seen = []
    for entry in ProcessReader(spool.path).read():
        seen += steps([entry])
        if seen == [0]:  # in the middle of the reader's look: fill this segment and begin the next
            for number in range(1, 500):
                spool.step(number, 0.0, {"loss": 1.0})

    assert seen[: len(set(seen))] == list(range(len(seen)))
    assert len(list(spool.path.iterdir())) > 1


def test_the_oldest_segments_go_but_the_first_and_the_loss_is_said(tmp_path):
    spool = writer(tmp_path, segment_bytes=500, process_bytes=2500)
    for number in range(400):
        spool.step(number, 0.0, {"loss": 1.0})
    kept = sum(path.stat().st_size for path in spool.path.iterdir())

    reader = ProcessReader(spool.path)
    entries = list(reader.read())
    read_steps = steps(entries)

    assert kept < 2500 + 500
    assert read_steps[0] == 0
    assert read_steps[-1] == 399
    assert 0 < 400 - len(read_steps) <= spool.dropped
    assert reader.missing_segments > 0
    lost = [entry.record for entry in entries if isinstance(entry.record, Event) and entry.record.kind == "lost"]
    assert "2500 bytes" in lost[-1].details["why"]
    assert entries[-1].hello.dropped == lost[-1].details["records"]


def test_a_process_with_the_same_rank_and_pid_starts_behind_the_one_before(tmp_path):
    """A restarted container has pid 1 again; a reader that is past segment 0 must still see it."""
    first = writer(tmp_path, segment_bytes=300)
    reader = ProcessReader(first.path)
    for number in range(30):
        first.step(number, 0.0, {"loss": 1.0})
    before = steps(reader.read())
    again = writer(tmp_path)
    again.step(0, 0.0, {"loss": 9.0})

    assert before == list(range(30))
    assert steps(reader.read()) == [0]


def test_rot_in_a_closed_segment_is_counted_and_the_next_segment_read(tmp_path):
    spool = writer(tmp_path, segment_bytes=400)
    for number in range(40):
        spool.step(number, 0.0, {"loss": 1.0})
    spool.close()
    middle = spool.path / "1.spool"
    middle.write_bytes(middle.read_bytes()[:-5])

    reader = ProcessReader(spool.path)
    seen = steps(reader.read())

    assert reader.corrupt == 1
    assert len(seen) == 39
    assert seen[-1] == 39


def test_byte_strings_of_the_wrong_length_are_dropped_before_anybody_unpacks_them(tmp_path):
    spool = writer(tmp_path)
    spool.write(Axis("parameter:0", "parameter", ["a", "b"]))
    spool.write(Profile(0, 0.0, "parameter:0", {"parameter_weight_norm": b"\0" * 7}))
    spool.write(Profile(0, 0.0, "parameter:0", {"parameter_weight_norm": b"\0" * 12}))
    spool.write(Digest(0, 0.0, "parameter:0", "parameter", b"\0" * 8))
    spool.write(Requests(0, 0.0, "m", b"\0" * 8, [], b"\0" * 4))
    spool.write(Profile(1, 0.0, "parameter:0", {"parameter_weight_norm": b"\0" * 8}))

    reader = ProcessReader(spool.path)
    entries = list(reader.read())

    assert reader.corrupt == 4
    assert entries[-1].record.step == 1


# the job goes on


def run_limited(directory: Path, limit: int, records: int) -> tuple[int, str]:
    """Write in a process whose files may have ``limit`` bytes; what it dropped and why."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from torchvitals.signals.records import Hello; from torchvitals.signals.spool import SpoolWriter\n"
        "spool = SpoolWriter(Path(sys.argv[1]), Hello(run='r', pid=1))\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {resource.RLIM_INFINITY}))\n"
        f"for n in range({records}): spool.step(n, 0.0, {{'loss': 1.0}})\n"
        "print(spool.dropped, spool.failure)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(directory)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    dropped, _, failure = result.stdout.partition(" ")
    return int(dropped), failure


def test_a_full_disk_costs_records_and_never_the_job(tmp_path):
    records = 4 * RETRY_AFTER

    dropped, failure = run_limited(tmp_path, 8192, records)

    reader = ProcessReader(tmp_path / "r" / "0.1")
    seen = steps(reader.read())
    assert "OSError" in failure
    assert dropped > 0
    assert len(seen) + dropped == records
    assert seen == sorted(set(seen))
    assert reader.corrupt >= 1  # the record that the limit cut in two


def test_a_disk_that_stays_full_is_not_filled_with_empty_segments(tmp_path):
    dropped, _ = run_limited(tmp_path, 0, 20 * RETRY_AFTER)

    assert dropped == 20 * RETRY_AFTER + 1
    assert list((tmp_path / "r" / "0.1").iterdir()) == []


@pytest.mark.parametrize("obstacle", ["file", "missing"])
def test_an_unwritable_directory_is_counted_and_not_raised(tmp_path, obstacle):
    """A regular file where the directory should be, and a place under /proc: root may not write there either."""
    place = tmp_path / "vitals" if obstacle == "file" else Path("/proc/nowhere")
    if obstacle == "file":
        place.write_text("")
    spool = writer(place)

    for number in range(10):
        spool.step(number, 0.0, {"loss": 1.0})
    spool.close()

    assert spool.dropped == 11
    assert "Error" in spool.failure


def test_a_directory_deleted_in_the_middle_is_made_anew(tmp_path):
    spool = writer(tmp_path)
    spool.step(0, 0.0, {"loss": 1.0})
    shutil.rmtree(tmp_path / "run-1")
    for number in range(1, 2 * LOOK_EVERY):
        spool.step(number, 0.0, {"loss": 1.0})

    seen = steps(read(spool.path))

    assert seen[-1] == 2 * LOOK_EVERY - 1
    assert len(seen) + spool.dropped == 2 * LOOK_EVERY + 1
    assert "deleted" in spool.failure


def test_a_forked_child_writes_nothing(tmp_path):
    """In a process of its own: a fork of the test runner would take its threads' locks along."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from torchvitals.signals.records import Hello; from torchvitals.signals.spool import SpoolWriter\n"
        "spool = SpoolWriter(Path(sys.argv[1]), Hello(run='r', pid=os.getpid()))\n"
        "spool.step(0, 0.0, {'loss': 1.0})\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    lost = spool.step(1, 0.0, {'loss': 2.0}) is False\n"
        "    spool.close()\n"
        "    os._exit(0 if lost else 1)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "spool.step(2, 0.0, {'loss': 3.0})\n"
        "sys.exit(status)\n"
    )

    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)])

    (process,) = (tmp_path / "r").iterdir()
    assert result.returncode == 0
    assert steps(read(process)) == [0, 2]


def test_threads_may_share_a_writer(tmp_path):
    spool = writer(tmp_path, segment_bytes=2000)

    def write(optimizer: int) -> None:
        for number in range(500):
            spool.step(number, 0.0, {f"signal{optimizer}": float(number)}, optimizer)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = ProcessReader(spool.path)
    found = [entry.record for entry in reader.read() if isinstance(entry.record, Step)]

    assert spool.dropped == reader.corrupt == 0
    for optimizer in range(4):
        mine = [step for step in found if step.optimizer == optimizer]
        assert [step.values for step in mine] == [{f"signal{optimizer}": float(n)} for n in range(500)]


def test_close_twice_and_write_again(tmp_path):
    spool = writer(tmp_path)
    spool.step(0, 0.0, {"loss": 1.0})
    spool.close()
    spool.close()
    spool.step(1, 0.0, {"loss": 1.0})

    assert steps(read(spool.path)) == [0, 1]


def test_no_stranger_can_read_a_spool(tmp_path):
    spool = writer(tmp_path)
    spool.step(0, 0.0, {"loss": 1.0})

    assert oct(spool.path.stat().st_mode & 0o077) == "0o0"
    assert oct((spool.path / "0.spool").stat().st_mode & 0o077) == "0o0"


# runs


def test_two_runs_of_one_name_stay_apart(tmp_path):
    for run, loss in (("run-1", 1.0), ("run-2", 2.0)):
        writer(tmp_path, run).step(0, 0.0, {"loss": loss})

    listed = list_runs(tmp_path)

    assert [(listing.run, listing.name) for listing in listed] == [("run-1", "demo"), ("run-2", "demo")]
    for listing, loss in zip(listed, (1.0, 2.0), strict=True):
        values = [e.record.values for e in RunReader(listing.path).read() if isinstance(e.record, Step)]
        assert values == [{"loss": loss}]


def test_a_run_shows_the_processes_that_come_later(tmp_path):
    writer(tmp_path, rank=0).step(0, 0.0, {"loss": 1.0})
    run = RunReader(tmp_path / "run-1")
    before = {entry.hello.rank for entry in run.read()}
    writer(tmp_path, rank=1, pid=12).step(0, 0.0, {"loss": 1.0})

    assert before == {0}
    assert {entry.hello.rank for entry in run.read()} == {1}


def test_an_unknown_schema_is_refused_with_both_versions(tmp_path):
    path = tmp_path / "run-1" / "0.1"
    path.mkdir(parents=True)
    (path / "0.spool").write_bytes(frames.encode(Hello(schema=99, run="run-1")))

    with pytest.raises(UnknownSchemaError, match=r"schema 99.*reads 1"):
        read(path)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "is not a directory"),
        (lambda path: path.mkdir(), "is empty"),
        (lambda path: (path / "photos").mkdir(parents=True), "holds no spool files"),
        (lambda path: path.write_text(""), "is not a directory"),
    ],
    ids=["absent", "empty", "foreign", "file"],
)
def test_what_is_no_run_is_said_with_what_to_type(tmp_path, make, told):
    make(tmp_path / "run")

    with pytest.raises(NotARunError, match=told) as caught:
        RunReader(tmp_path / "run")
    assert "torchvitals r" in str(caught.value)


def test_a_segment_that_is_no_file_is_our_own_error(tmp_path):
    (tmp_path / "0.1" / "0.spool").mkdir(parents=True)

    with pytest.raises(UnreadableError, match="segment 0 cannot be read"):
        read(tmp_path / "0.1")


def test_listing_passes_over_what_is_no_run(tmp_path):
    writer(tmp_path).step(0, 0.0, {"loss": 1.0})
    for name in ("photos", "half/0.1", "odd/²..3"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "half" / "0.1" / "²{}.spool").write_text("")
    (tmp_path / "half" / "0.1" / "0.spool").write_bytes(os.urandom(64))
    (tmp_path / "notes.txt").write_text("")

    assert [listing.run for listing in list_runs(tmp_path)] == ["run-1"]
    assert list_runs(tmp_path / "absent") == []


def test_the_directory_is_where_the_environment_says():
    assert default_directory({"TORCHVITALS_DIR": "/a", "XDG_STATE_HOME": "/b"}) == Path("/a")
    assert default_directory({"XDG_STATE_HOME": "/b"}) == Path("/b/torchvitals")
    assert default_directory({}) == Path.home() / ".local/state/torchvitals"
