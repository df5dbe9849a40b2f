"""Record batches: unpack a compressed batch within a bound, with each key and value cut to a bound of its own.

Format: https://kafka.apache.org/documentation/#recordbatch. aiokafka unpacks a batch whole before it looks at a record,
so a batch of 1 MB could take gigabytes. Here a batch becomes one or several batches without compression: each has as
many records as fit the bound, and the next fetch continues in the middle of the batch.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from aiokafka.record.util import calc_crc32c

from clickscore.stream.cut_bytes import pack_cut
from clickscore.stream.kafka.record_codecs import UnpackError, unpack

HEADER = struct.Struct(">qiibIhiqqqhii")
"""Offset, length, leader epoch, magic, CRC, attributes, last offset delta, first and last time, producer id and epoch,
sequence, number of records."""
CRC_START, CHECKED_START = 17, 21
"""First byte of the CRC, and first byte behind it: the CRC covers all bytes from there on."""
LENGTH_START = 12
"""First byte that the length counts."""
CODEC_BITS = 0x07
"""Bits of the attributes with the codec."""
MAX_HEADERS_BYTES = 64 * 1024
"""Most bytes of a record's headers that are kept; the only headers that Clickscore reads are a few bytes long."""


class ContentLimits(NamedTuple):
    """Most bytes of a key and of a value that are kept."""

    key: int
    value: int


class BatchHead(NamedTuple):
    """Header of a record batch."""

    offset: int
    length: int
    epoch: int
    magic: int
    crc: int
    attributes: int
    last_delta: int
    first_time: int
    last_time: int
    producer_id: int
    producer_epoch: int
    sequence: int
    record_count: int

    @property
    def end(self) -> int:
        """Offset after the batch."""
        return self.offset + self.last_delta + 1

    @property
    def codec(self) -> int:
        """Code of the compression; 0 for none. Batches before Kafka 0.11 have another format, and count as 0."""
        return self.attributes & CODEC_BITS if self.magic >= 2 else 0


def read_batches(fetched: memoryview) -> Iterator[tuple[BatchHead | None, memoryview]]:
    """Yield the header and the bytes of each complete batch; no header where a batch is too short for one.

    Args:
        fetched: Record batches of a partition, as fetched; the last may be incomplete.
    """
    start = 0
    while len(fetched) - start >= LENGTH_START:
        (length,) = struct.unpack_from(">i", fetched, start + 8)
        end = start + LENGTH_START + length
        if length < 0 or end > len(fetched):
            return
        batch = fetched[start:end]
        yield (BatchHead._make(HEADER.unpack_from(batch)) if len(batch) >= HEADER.size else None), batch
        start = end


def is_intact(head: BatchHead, batch: memoryview) -> bool:
    """Return whether the bytes of a batch have the CRC of its header."""
    return head.crc == calc_crc32c(bytes(batch[CHECKED_START:]))


def plain_batch(head: BatchHead, records: bytearray, *, count: int, last_delta: int) -> bytes:
    """Return a batch without compression.

    Args:
        head: Header of the compressed batch.
        records: Records of the new batch, in Kafka's format.
        count: Number of the records.
        last_delta: Last offset of the new batch less its first offset.
    """
    plain = head._replace(
        length=HEADER.size - LENGTH_START + len(records),
        attributes=head.attributes & ~CODEC_BITS,
        last_delta=last_delta,
        record_count=count,
    )
    batch = bytearray(HEADER.pack(*plain))
    batch += records
    struct.pack_into(">I", batch, CRC_START, calc_crc32c(batch[CHECKED_START:]))
    return bytes(batch)


def broken_batch(head: BatchHead) -> bytes:
    """Return a batch that aiokafka refuses as broken: without records, and with a wrong CRC."""
    return HEADER.pack(*head._replace(length=HEADER.size - LENGTH_START, crc=head.crc ^ 1))


def unpack_whole(head: BatchHead, batch: memoryview, max_bytes: int) -> bytes | None:
    """Return a batch without compression; None if its records are larger than `max_bytes`.

    Args:
        head: Header of the batch.
        batch: The batch, compressed.
        max_bytes: Most bytes of the unpacked records.

    Raises:
        UnpackError: The batch is broken.
    """
    records = bytearray()
    for piece in unpack(head.codec, batch[HEADER.size :]):
        records += piece
        if len(records) > max_bytes:
            return None
    return plain_batch(head, records, count=head.record_count, last_delta=head.last_delta)


class LargeBatch:
    """A batch that is too large to be unpacked at once: yields its records in parts, keys and values cut."""

    def __init__(self, head: BatchHead, batch: memoryview, limits: ContentLimits) -> None:
        """Start at the first record.

        Args:
            head: Header of the batch.
            batch: The batch, compressed.
            limits: Most bytes of a key and of a value.
        """
        self.next_offset = head.offset
        """Offset of the next record to read."""
        self.head = head
        """Header of the batch."""
        self._records = _read_records(head, batch[HEADER.size :], limits)
        self.is_finished = False
        """Whether all records have been read."""
        self._next: tuple[int, bytes] | None = None  # a record that has been read, and the delta of its offset

    def read(self, start: int, max_bytes: int) -> bytes:
        """Return the next records as a batch without compression: at least one, and at most about `max_bytes`.

        Args:
            start: Offset to begin at; earlier records are passed over.
            max_bytes: Size after which the part ends, bytes.

        Raises:
            UnpackError: The batch is broken.
        """
        part, count = bytearray(), 0
        self._next = self._next or next(self._records, None)
        while self._next and (not count or len(part) + len(self._next[1]) <= max_bytes):
            delta, record = self._next
            if self.head.offset + delta >= start:
                part += record
                count += 1
            self._next = next(self._records, None)
        last_delta = self._next[0] - 1 if self._next else self.head.last_delta
        self.next_offset = self.head.offset + last_delta + 1
        self.is_finished = self._next is None
        return plain_batch(self.head, part, count=count, last_delta=last_delta)


class _Unpacked:
    """The unpacked bytes of a batch, in order."""

    def __init__(self, pieces: Iterator[bytes | memoryview]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")
        self._start = 0
        self.position = 0

    def byte(self) -> int:
        """Return the next byte."""
        if self._start == len(self._piece):
            self._load()
        value = self._piece[self._start]
        self._start += 1
        self.position += 1
        return value

    def varint(self) -> int:
        """Return the next number, in Kafka's format: base 128, the sign in the lowest bit."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
            shift += 7
            if shift > 63:
                message = "a number is too long"
                raise UnpackError(message)

    def take(self, size: int, limit: int) -> bytes:
        """Return the first `limit` of the next `size` bytes, and pass over the rest.

        Args:
            size: Number of bytes to read.
            limit: Number of bytes to keep.
        """
        kept = bytearray()
        self.position += size
        while size:
            if self._start == len(self._piece):
                self._load()
            end = min(self._start + size, len(self._piece))
            if len(kept) < limit:
                kept += self._piece[self._start : min(end, self._start + limit - len(kept))]
            size -= end - self._start
            self._start = end
        return bytes(kept)

    def _load(self) -> None:
        self._start = 0
        for piece in self._pieces:
            if piece:
                self._piece = memoryview(piece)
                return
        message = "the records end early"
        raise UnpackError(message)


def _read_records(head: BatchHead, packed: memoryview, limits: ContentLimits) -> Iterator[tuple[int, bytes]]:
    """Yield the offset of each record less the batch's offset, and the record in Kafka's format, cut to the limits.

    Args:
        head: Header of the batch.
        packed: Records, compressed.
        limits: Most bytes of a key and of a value.
    """
    unpacked = _Unpacked(unpack(head.codec, packed))
    for _ in range(head.record_count):
        end = unpacked.varint()
        end += unpacked.position
        record = bytearray([unpacked.byte()])
        _write_varint(record, unpacked.varint())
        delta = unpacked.varint()
        _write_varint(record, delta)
        _copy_content(record, unpacked, limits.key)
        _copy_content(record, unpacked, limits.value)
        headers_size = end - unpacked.position
        if headers_size < 1:
            message = "a record is longer than it says"
            raise UnpackError(message)
        headers = unpacked.take(headers_size, MAX_HEADERS_BYTES)
        record += headers if len(headers) == headers_size else b"\0"
        framed = bytearray()
        _write_varint(framed, len(record))
        yield delta, bytes(framed + record)


def _copy_content(record: bytearray, unpacked: _Unpacked, limit: int) -> None:
    """Append the next key or value to a record.

    Args:
        record: Record to append to.
        unpacked: Source; its next bytes are the size and the content.
        limit: Most bytes to keep.
    """
    size = unpacked.varint()
    if size < 0:
        _write_varint(record, -1)
        return
    content = unpacked.take(size, limit + 1)
    if size > limit:
        content = pack_cut(content, size)
    _write_varint(record, len(content))
    record += content


def _write_varint(target: bytearray, value: int) -> None:
    """Append a number in Kafka's format."""
    bits = (value << 1) ^ (value >> 63)
    while bits >= 0x80:
        target.append(bits & 0x7F | 0x80)
        bits >>= 7
    target.append(bits)
