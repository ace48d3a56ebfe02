"""No byte string makes the reader raise anything but its own error, nor lose what is whole behind it."""

import contextlib
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchvitals.signals import frames
from torchvitals.signals.reader import NotARunError, ProcessReader, RunReader, SpoolError, list_runs
from torchvitals.signals.records import AnyRecord, Axis, Event, Hello, Profile, Step

HELLO = Hello(run="r", pid=1)
FINITE_TIME = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

steps = st.builds(
    Step,
    st.integers(0, 2**40),
    st.floats(),
    st.dictionaries(st.integers(0, 40) | st.text(max_size=8), st.floats(), max_size=5),
    st.integers(0, 3),
)
events = st.builds(Event, st.floats(), st.integers(-1, 99), st.text(max_size=9), st.dictionaries(st.text(), st.text()))
axes = st.builds(Axis, st.text(max_size=9), st.text(max_size=9), st.lists(st.text(max_size=9), max_size=5))
profiles = st.builds(
    Profile, st.integers(0, 99), st.floats(), st.text(max_size=9), st.dictionaries(st.text(), st.binary())
)
whole = st.one_of(steps, events, axes, profiles).map(frames.encode)
# Noise that looks like the real thing reaches deeper than random bytes do.
lookalike = st.one_of(
    st.binary(max_size=60),
    st.just(frames.MARK),
    st.builds(lambda data, cut: data[: int(cut * len(data))], whole, st.floats(0, 1)),
    st.builds(lambda size, data: frames.HEADER.pack(frames.MARK, size, 0) + data, st.integers(0, 90), st.binary()),
)


def process(segments: list[bytes], directory: str) -> Path:
    path = Path(directory) / "r" / "0.1"
    path.mkdir(parents=True)
    for number, data in enumerate(segments):
        (path / f"{number}.spool").write_bytes(data)
    return path


def read(path: Path) -> list[AnyRecord]:
    return [entry.record for entry in ProcessReader(path).read()]


@FINITE_TIME
@given(st.lists(lookalike | whole, max_size=8).map(b"".join))
def test_any_bytes_are_read_or_refused_by_name(data):
    with tempfile.TemporaryDirectory() as directory:
        path = process([data], directory)
        for look in (
            lambda: read(path),
            lambda: list(RunReader(path.parent).read()),
            lambda: list_runs(path.parents[1]),
        ):
            with contextlib.suppress(SpoolError):
                look()


@FINITE_TIME
@given(st.lists(lookalike | whole, max_size=6).map(b"".join))
def test_a_good_segment_behind_any_bytes_is_read(data):
    good = Step(3, 1.0, {"loss": 0.5})
    with tempfile.TemporaryDirectory() as directory:
        path = process([data, frames.encode(HELLO) + frames.encode(good)], directory)
        found = read(path)

    assert found[-1] == good


@FINITE_TIME
@given(st.lists(steps, max_size=4), lookalike, st.lists(steps, min_size=1, max_size=4))
def test_good_frames_around_noise_are_read(before, noise, after):
    data = b"".join(map(frames.encode, before)) + noise + b"".join(map(frames.encode, after))
    found = [frame.record for frame in frames.scan(data) if frame.record is not None]

    encoded = [frames.encode(record) for record in found]
    assert encoded[: len(before)] == list(map(frames.encode, before))
    assert encoded[-len(after) :] == list(map(frames.encode, after))


@FINITE_TIME
@given(st.lists(whole, min_size=1, max_size=6), st.data())
def test_cut_anywhere_and_continued_nothing_changes(parts, data):
    """A reader that looks while the writer is in the middle of anything sees the same in the end."""
    everything = b"".join([frames.encode(HELLO), *parts])
    cut = data.draw(st.integers(0, len(everything)))
    with tempfile.TemporaryDirectory() as directory:
        path = process([everything[:cut]], directory)
        reader = ProcessReader(path)
        early = [entry.record for entry in reader.read()]
        (path / "0.spool").write_bytes(everything)
        late = [entry.record for entry in reader.read()]
        once = ProcessReader(path)
        expected = [entry.record for entry in once.read()]

    assert list(map(repr, early + late)) == list(map(repr, expected))
    assert (reader.corrupt, reader.unknown) == (once.corrupt, once.unknown)


@FINITE_TIME
@given(st.text(max_size=12), st.text(max_size=12))
def test_any_names_in_the_directory_are_passed_over(folder, file):
    with tempfile.TemporaryDirectory() as directory:
        try:
            place = Path(directory) / "run" / folder
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{file}.spool").write_bytes(frames.encode(HELLO))
        except (OSError, ValueError):
            return  # not a name the file system takes
        with contextlib.suppress(NotARunError):
            list(RunReader(Path(directory) / "run").read())
        list_runs(Path(directory))
