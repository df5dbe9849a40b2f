"""Record batches in Kafka's format, written byte by byte: what a client may send that aiokafka's producer would not."""

import struct
from typing import Protocol

from aiokafka.record.util import calc_crc32c

from clickscore.stream.kafka.record_batches import CHECKED_START, CRC_START, HEADER

MB = 1024 * 1024
RECORDS, RECORD_BYTES = 128, 8 * MB
"""One GB."""


class Compressor(Protocol):
    """A compressor of zlib or zstandard."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def varint(value: int) -> bytes:
    bits, out = (value << 1) ^ (value >> 63), bytearray()
    while bits >= 0x80:
        out.append(bits & 0x7F | 0x80)
        bits >>= 7
    return bytes(out) + bytes([bits])


def sized(content: bytes | None) -> bytes:
    return varint(-1) if content is None else varint(len(content)) + content


def record(delta: int, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]) -> bytes:
    body = b"\0" + varint(10 * delta) + varint(delta) + sized(key) + sized(value) + varint(len(headers))
    body += b"".join(sized(name.encode()) + sized(content) for name, content in headers)
    return varint(len(body)) + body


def batch_of(codec: int, packed: bytes, count: int, offset: int = 0) -> bytes:
    """Return a batch with a right CRC.

    Args:
        codec: Code of the compression.
        packed: Records, compressed.
        count: Number of the records.
        offset: Offset of the first record.
    """
    length = HEADER.size - 12 + len(packed)
    head = HEADER.pack(offset, length, 0, 2, 0, codec, count - 1, 1_000, 2_000, -1, -1, -1, count)
    batch = bytearray(head + packed)
    struct.pack_into(">I", batch, CRC_START, calc_crc32c(bytes(batch[CHECKED_START:])))
    return bytes(batch)


def gigabyte(compressor: Compressor, key: bytes = b"anna") -> bytes:
    """Return 1 GB of records with values of zeros, compressed piece by piece."""
    zeros, packed = bytes(MB), bytearray()
    for delta in range(RECORDS):
        head = b"\0" + varint(0) + varint(delta) + sized(key) + varint(RECORD_BYTES)
        packed += compressor.compress(varint(len(head) + RECORD_BYTES + 1) + head)
        for _ in range(RECORD_BYTES // MB):
            packed += compressor.compress(zeros)
        packed += compressor.compress(varint(0))
    return bytes(packed) + compressor.flush()
