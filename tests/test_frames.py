"""One frame: whatever happens to its bytes, its neighbours are read."""

import math
import struct
import zlib

import msgspec
import numpy as np
import pytest
from torchvitals.signals import frames
from torchvitals.signals.records import (
    Axis,
    Beat,
    Digest,
    Event,
    Hello,
    Profile,
    Requests,
    Stacks,
    Step,
    Window,
    pack_floats,
    pack_integers,
    unpack_floats,
    unpack_integers,
)

RECORDS = [
    Hello(run="20260101-000000-demo-0001", name="demo", rank=3, world_size=8, pid=17, started=1.5, device="cpu"),
    Axis("parameter:0", "parameter", ["encoder.weight", "größe"], {"shape": [[2, 3], [4]]}),
    Step(7, 12.25, {0: 0.5, 1: float("inf")}, 1),
    Profile(7, 12.25, "parameter:0", {"parameter_gradient_norm": pack_floats(np.array([1.0, np.nan]))}),
    Digest(7, 12.25, "parameter:0", "parameter", pack_integers(np.array([-(2**63), 2**63 - 1]))),
    Requests(100, 12.25, "model", pack_floats(np.array([0.01, 0.02])), [1]),
    Window(100, 12.25, "feature:0", 10, 640, {"feature_mean": pack_floats(np.zeros(3))}),
    Beat(12.25, 3.5, 7, "backward", {"0": 41}, 1 << 30),
    Stacks(12.25, 7, "no step for 30 s", {"MainThread": ["train.py:10 main"]}),
    Event(12.25, 7, "exception", {"type": "ValueError", "frames": []}),
]


def records(data: bytes) -> list[object]:
    return [frame.record for frame in frames.scan(data) if frame.record is not None]


def problems(data: bytes) -> list[str]:
    return [frame.problem for frame in frames.scan(data) if frame.record is None]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_as_it_went(record):
    data = frames.encode(record)

    (frame,) = frames.scan(data)

    assert frame == (record, len(data), "")


def test_not_a_number_comes_back():
    (step,) = records(frames.encode(Step(0, 0.0, {0: float("nan"), 1: float("-inf")})))

    assert math.isnan(step.values[0])
    assert step.values[1] == -math.inf


def test_packed_floats_keep_what_float32_can_hold():
    values = np.array([0.0, -1.5, np.nan, np.inf, 1e300])

    assert unpack_floats(pack_floats(values)).tolist()[:2] == [0.0, -1.5]
    assert np.isnan(unpack_floats(pack_floats(values))[2])
    assert np.isinf(unpack_floats(pack_floats(values))[3:]).all()
    assert unpack_integers(pack_integers(np.array([-1, 2**62]))).tolist() == [-1, 2**62]


@pytest.mark.parametrize("cut", range(1, len(frames.encode(RECORDS[2]))))
def test_a_torn_tail_waits_wherever_it_is_torn(cut):
    whole, torn = frames.encode(RECORDS[1]), frames.encode(RECORDS[2])

    found = list(frames.scan(whole + torn[:cut]))

    assert [frame.record for frame in found] == [RECORDS[1]]
    assert found[-1].end == len(whole)


@pytest.mark.parametrize("position", range(len(frames.encode(RECORDS[2]))))
def test_one_bad_byte_costs_one_frame_wherever_it_is(position):
    before, bad, after = (frames.encode(record) for record in RECORDS[1:4])
    rotten = bytearray(bad)
    rotten[position] ^= 0xFF
    data = before + bytes(rotten) + after

    assert records(data) == [RECORDS[1], RECORDS[3]]
    assert problems(data) == ["corrupt"]


def test_noise_that_contains_marks_is_passed_over():
    noise = frames.MARK * 7 + b"\x00" * 100 + frames.MARK + struct.pack("<II", 1 << 20, 0)
    data = noise + frames.encode(RECORDS[0]) + noise + frames.encode(RECORDS[2])

    assert records(data) == [RECORDS[0], RECORDS[2]]
    assert problems(data) == ["corrupt", "corrupt"]


def test_a_page_of_zeros_behind_a_mark_is_one_corrupt_stretch():
    """What a power cut leaves: the checksum of nothing is 0, so this would be an empty frame."""
    data = frames.MARK + b"\x00" * 4096 + frames.encode(RECORDS[0])

    assert problems(data) == ["corrupt"]
    assert records(data) == [RECORDS[0]]


def test_a_length_beyond_reason_allocates_nothing():
    data = frames.MARK + struct.pack("<II", 0xFFFFFFFF, 0) + frames.encode(RECORDS[0])

    assert records(data) == [RECORDS[0]]


def framed(payload: bytes) -> bytes:
    return frames.HEADER.pack(frames.MARK, len(payload), zlib.crc32(payload)) + payload


@pytest.mark.parametrize(
    "payload",
    [
        msgspec.msgpack.encode(["from_the_future", 1, 2]),
        msgspec.msgpack.encode({"not": "an array"}),
        msgspec.msgpack.encode(["step", "seven", 0.0, {}]),
        msgspec.msgpack.encode(["step", 1, 0.0, {}])[:-1],
        b"\x91" * 2000,
        b"\xa2\xff\xfe",
    ],
    ids=["new tag", "map", "wrong type", "cut short", "nested", "no text"],
)
def test_a_whole_frame_that_is_not_understood_is_counted_and_passed_over(payload):
    data = framed(payload) + frames.encode(RECORDS[0])

    assert problems(data) == ["unknown"]
    assert records(data) == [RECORDS[0]]


def test_fields_of_a_newer_writer_are_ignored_and_of_an_older_one_filled():
    longer = [*msgspec.msgpack.decode(msgspec.msgpack.encode(RECORDS[2])), "new", {"field": 1}]
    shorter = ["event", 1.0, 2, "exit"]

    assert records(framed(msgspec.msgpack.encode(longer))) == [RECORDS[2]]
    assert records(framed(msgspec.msgpack.encode(shorter))) == [Event(1.0, 2, "exit", {})]
