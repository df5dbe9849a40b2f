"""Bounded fetch: every codec gives the same records as aiokafka, and no batch unpacks beyond the bound."""

import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cramjam
import pytest
import zstandard
from aiokafka import TopicPartition
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from clickscore.stream.cut_bytes import cut_bytes, full_size
from clickscore.stream.kafka.bounded_fetch import BoundedUnpacking
from clickscore.stream.kafka.record_batches import ContentLimits, read_batches
from tests.record_batches import RECORD_BYTES, RECORDS, batch_of, gigabyte, record, sized, varint

TP = TopicPartition("clickstream-events", 0)
WIDE = ContentLimits(key=10_000_000, value=10_000_000)
MB = 1024 * 1024

Content = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]
"""Key, value and headers of a record."""


def linked_lz4(data: bytes) -> bytes:
    compressor = cramjam.lz4.Compressor(block_linked=True)
    compressor.compress(data)
    return bytes(compressor.finish())


def with_checksums(data: bytes) -> bytes:
    """Return an lz4 frame with the checksum of the content; a block that does not shrink is stored as it is."""
    compressor = cramjam.lz4.Compressor(content_checksum=True, block_linked=False)
    compressor.compress(data)
    return bytes(compressor.finish())


CODECS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "gzip": (1, gzip_encode),
    "gzip in two members": (1, lambda data: gzip_encode(data[:5]) + gzip_encode(data[5:]) + bytes(3)),
    "snappy in blocks": (2, partial(snappy_encode, xerial_blocksize=100)),
    "snappy in one block": (2, partial(snappy_encode, xerial_compatible=False)),
    "lz4": (3, lz4_encode),
    "lz4 with linked blocks": (3, linked_lz4),
    "lz4 with a checksum": (3, with_checksums),
    "zstd": (4, zstd_encode),
    "zstd in two frames": (4, lambda data: zstd_encode(data[:5]) + zstd_encode(data[5:])),
}


def packed_batch(codec: str, contents: list[Content], offset: int = 0) -> bytes:
    code, compress = CODECS[codec]
    records = b"".join(record(delta, *content) for delta, content in enumerate(contents))
    return batch_of(code, compress(records), len(contents), offset)


def parse(fetched: bytes, start: int, limits: ContentLimits = WIDE) -> tuple[list[Any], int]:
    """Return the records that a consumer sees, and the offset of its next fetch."""
    records = PartitionRecords(
        TP,
        MemoryRecords(fetched),
        [],
        start,
        partial(cut_bytes, limits.key),
        partial(cut_bytes, limits.value),
        True,
        1,
    )
    return list(records), records.next_fetch_offset


def fetch_all(fetched: bytes, end: int, max_bytes: int, limits: ContentLimits = WIDE) -> Iterator[Any]:
    """Yield the records of fetches up to an offset. A broker answers with whole batches, from that of the offset on."""
    unpacking, start = BoundedUnpacking(limits), 0
    while start < end:
        answer = b"".join(
            bytes(batch) for head, batch in read_batches(memoryview(fetched)) if head and head.end > start
        )
        records, next_start = parse(unpacking.unpack(TP, answer, start, max_bytes), start, limits)
        assert next_start > start
        yield from records
        start = next_start


def seen(records: list[Any]) -> list[tuple[Any, ...]]:
    return [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in records]


contents = st.lists(
    st.tuples(
        st.none() | st.binary(max_size=20),
        st.none() | st.binary(max_size=300),
        st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=2),
    ),
    min_size=1,
    max_size=20,
)


@given(codec=st.sampled_from(list(CODECS)), contents=contents, max_bytes=st.integers(1, 5_000))
def test_records_are_those_of_aiokafka_in_one_part_or_in_many(
    codec: str, contents: list[Content], max_bytes: int
) -> None:
    fetched = packed_batch(codec, contents) + packed_batch(codec, contents, offset=len(contents))
    expected, end = parse(fetched, 0)
    assert seen(list(fetch_all(fetched, end, MB))) == seen(expected)
    if codec != "lz4 with linked blocks":
        assert seen(list(fetch_all(fetched, end, max_bytes))) == seen(expected)


@pytest.mark.parametrize("codec", CODECS)
def test_fetch_may_begin_in_the_middle_of_a_batch(codec: str) -> None:
    fetched = packed_batch(codec, [(None, bytes([n]) * 100, []) for n in range(9)])
    unpacked = BoundedUnpacking(WIDE).unpack(TP, fetched, 4, 250)
    records, end = parse(unpacked, 4)
    assert [r.offset for r in records] == list(range(4, end))
    assert 4 < end < 9 or codec == "lz4 with linked blocks"


def test_values_and_keys_that_are_too_large_are_cut_and_remember_their_size() -> None:
    limits = ContentLimits(key=10, value=100)
    headers = [("large", bytes(70_000))]
    fetched = packed_batch("zstd", [(b"k" * 50, b"v" * 5_000, headers), (b"key", b"small", [("a", b"b")])])
    large, small = fetch_all(fetched, 2, 1_000, limits)
    assert (large.key, full_size(large.key)) == (b"k" * 11, 50)
    assert (large.value, full_size(large.value)) == (b"v" * 101, 5_000)
    assert (small.key, small.value, small.headers) == (b"key", b"small", (("a", b"b"),))
    assert large.headers == ()


def test_packed_size_cannot_be_forged() -> None:
    forged = b"v" * 101 + (5).to_bytes(8) + bytes(16)
    assert full_size(cut_bytes(100, forged) or b"") == len(forged)


def test_small_batches_that_do_not_fit_together_come_one_after_the_other() -> None:
    batches = b"".join(packed_batch("gzip", [(None, bytes(900), [])], offset) for offset in range(5))
    unpacking = BoundedUnpacking(WIDE)
    assert parse(unpacking.unpack(TP, batches, 0, 2_000), 0)[1] == 2
    assert len(list(fetch_all(batches, 5, 2_000))) == 5


def test_plain_batches_and_broken_batches_are_left_to_aiokafka() -> None:
    plain = batch_of(0, record(0, None, b"value", []), 1)
    unpacking = BoundedUnpacking(WIDE)
    assert unpacking.unpack(TP, plain, 0, MB) == plain
    assert unpacking.unpack(TP, plain[:-1], 0, MB) == plain[:-1]
    broken = bytearray(packed_batch("gzip", [(None, b"value", [])]))
    broken[-1] ^= 1
    assert unpacking.unpack(TP, bytes(broken), 0, MB) == bytes(broken)


@pytest.mark.parametrize(
    "batch",
    [
        batch_of(5, b"anything", 1),
        batch_of(1, gzip_encode(bytes(99))[:-9], 1),
        batch_of(2, b"\xff\xff\xff\xff\x0f" + bytes(99), 1),
        batch_of(2, snappy_encode(bytes(99))[:-1], 1),
        batch_of(3, b"no frame", 1),
        batch_of(3, lz4_encode(bytes(99_999))[:-9], 1),
        batch_of(3, b"\x04\x22\x4d\x18", 1),
        batch_of(4, b"no frame", 1),
    ],
)
def test_batch_that_cannot_be_unpacked_is_refused_as_broken(batch: bytes) -> None:
    with pytest.raises(CorruptRecordException):
        parse(BoundedUnpacking(WIDE).unpack(TP, batch, 0, MB), 0)


@pytest.mark.parametrize(
    "records",
    [
        record(0, None, bytes(5_000), [])[:-1],
        varint(3) + b"\0" + varint(0) * 2 + sized(b"key"),
        b"\0" + b"\xff" * 4_000,
    ],
)
def test_large_batch_with_broken_records_is_refused_as_broken(records: bytes) -> None:
    batch = batch_of(4, zstd_encode(records + bytes(0)), 1)
    with pytest.raises(CorruptRecordException):
        parse(BoundedUnpacking(WIDE).unpack(TP, batch, 0, 10), 0)


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
@pytest.mark.slow
def test_batch_of_a_gigabyte_is_read_in_parts_within_the_bound(codec: str) -> None:
    compress = zlib.compressobj(1, wbits=31) if codec == "gzip" else zstandard.ZstdCompressor(1).compressobj()
    batch = batch_of(CODECS[codec][0], gigabyte(compress), RECORDS)
    assert len(batch) < 8 * MB
    after = packed_batch(codec, [(None, b"after", [])], offset=RECORDS)
    tracemalloc.start()
    try:
        limits = ContentLimits(key=1024, value=64 * 1024)
        records = list(fetch_all(batch + after, RECORDS + 1, 4 * MB, limits))
        assert tracemalloc.get_traced_memory()[1] < 60 * MB
    finally:
        tracemalloc.stop()
    assert [r.offset for r in records] == list(range(RECORDS + 1))
    assert {(r.key, len(r.value), full_size(r.value)) for r in records[:-1]} == {(b"anna", 64 * 1024 + 1, RECORD_BYTES)}
    assert records[-1].value == b"after"
