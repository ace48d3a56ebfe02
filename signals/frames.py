"""One frame: ``length (u32) · crc32 (u32) · msgpack``, little-endian, behind a two-byte mark.

The mark lets a reader that met a corrupt length find the next frame again.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from torchvitals.signals.records import AnyRecord, Record

MARK = b"\xf5\x7c"
HEADER = struct.Struct("<2sII")
MAX_PAYLOAD = 1 << 26
"""64 MiB: no record comes near it, so a larger length is corruption and not a reason to allocate."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyRecord)
_any_decoder = msgspec.msgpack.Decoder()


class Frame(NamedTuple):
    """A frame found in a buffer: its decoded record, or ``None`` and a reason; ``end`` is the offset behind it."""

    record: AnyRecord | None
    end: int
    problem: str = ""


def encode(record: Record) -> bytes:
    """The bytes of one frame."""
    payload = _encoder.encode(record)
    return HEADER.pack(MARK, len(payload), zlib.crc32(payload)) + payload


def scan(buffer: bytes | memoryview, start: int = 0) -> Iterator[Frame]:
    """Yield the frames of ``buffer`` from ``start`` on; stop before a torn tail.

    Bytes that are no frame are skipped up to the next mark and reported once as ``corrupt``; a frame
    with a good checksum and an unknown tag as ``unknown``. Nothing is raised, whatever the bytes.
    """
    data = bytes(buffer)
    position = start
    while True:
        frame = _frame_at(data, position)
        if frame is None:
            return
        if frame.record is None and frame.problem == "corrupt":
            resumed = _next_good(data, position + 1)
            if resumed is None:
                # Nothing whole behind it: it may be a tail still being written, or rot up to the end.
                if _could_be_torn(data, position):
                    return
                torn = _torn_start(data, position + 1)
                yield Frame(None, torn, "corrupt")
                return
            yield Frame(None, resumed, "corrupt")
            position = resumed
            continue
        yield frame
        position = frame.end


def _frame_at(data: bytes, position: int) -> Frame | None:
    """The frame at ``position``; ``None`` when too few bytes are left to tell."""
    if len(data) - position < HEADER.size:
        torn = data[position : position + 2]
        return None if MARK.startswith(torn) or torn[:2] == MARK else Frame(None, position + 1, "corrupt")
    mark, length, checksum = HEADER.unpack_from(data, position)
    end = position + HEADER.size + length
    if mark != MARK or not 0 < length <= MAX_PAYLOAD or end > len(data):
        # Length 0 too: a mark before a page of zeros, as a power cut leaves them, has the checksum of nothing.
        return Frame(None, position + 1, "corrupt")
    payload = data[position + HEADER.size : end]
    if zlib.crc32(payload) != checksum:
        return Frame(None, position + 1, "corrupt")
    return _decode(payload, end)


def _decode(payload: bytes, end: int) -> Frame:
    try:
        return Frame(_decoder.decode(payload), end)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Frame(None, end, "unknown")


def _next_good(data: bytes, position: int) -> int | None:
    """Where the next frame with a good checksum begins."""
    while (position := data.find(MARK, position)) >= 0:
        frame = _frame_at(data, position)
        if frame is not None and frame.problem != "corrupt":
            return position
        position += 1
    return None


def _could_be_torn(data: bytes, position: int) -> bool:
    """Whether the bytes at ``position`` may be the beginning of a frame that is still being written."""
    if len(data) - position < HEADER.size:
        return MARK.startswith(data[position : position + 2][:2])
    mark, length, _ = HEADER.unpack_from(data, position)
    return bool(mark == MARK and 0 < length <= MAX_PAYLOAD and position + HEADER.size + length > len(data))


def _torn_start(data: bytes, position: int) -> int:
    """The first place from ``position`` on where a torn frame may begin; the end when there is none."""
    while (position := data.find(MARK[:1], position)) >= 0:
        if _could_be_torn(data, position):
            return position
        position += 1
    return len(data)
