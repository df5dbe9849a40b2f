"""Record codecs: decompress the records of a Kafka record batch piece by piece, whatever size they unpack to."""

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping

import cramjam
import zstandard

from clickscore.schemas.errors import ClickscoreError

PIECE_BYTES = 128 * 1024
"""Size limit of a piece, bytes; the blocks of snappy and lz4 may be larger."""
MAX_WINDOW_BYTES = 128 * 1024 * 1024
"""Largest window of zstd, bytes. Kafka's own client unpacks no larger window."""
MAX_LINKED_BYTES = 64 * 1024 * 1024
"""Most bytes of an lz4 frame with linked blocks. Kafka's brokers refuse such frames, but some other brokers do not."""
SNAPPY_RATIO = 24
"""Snappy's shortest copy makes 64 bytes out of 3: a larger ratio in a header is a lie."""
LZ4_RATIO = 255
"""A byte of an lz4 match adds at most 255 bytes."""

XERIAL_HEADER = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
"""Header of snappy-java, which splits the data into blocks."""
LZ4_MAGIC = b"\x04\x22\x4d\x18"
LZ4_BLOCK_BYTES: Mapping[int, int] = {4: 64 * 1024, 5: 256 * 1024, 6: 1024 * 1024, 7: 4 * 1024 * 1024}
"""Size of a block by its code (LZ4 frame format, block maximum size)."""


class UnpackError(ClickscoreError):
    """The records of a batch cannot be unpacked."""


def unpack(codec: int, packed: memoryview) -> Iterator[bytes | memoryview]:
    """Yield the unpacked records of a batch in pieces. A piece is valid until the next piece.

    Args:
        codec: Code of the compression: the lowest three bits of a batch's attributes.
        packed: Records of the batch, compressed.

    Raises:
        UnpackError: The codec is unknown, or the data is broken.
    """
    unpack_pieces = _CODECS.get(codec)
    if unpack_pieces is None:
        message = f"compression codec {codec} is unknown"
        raise UnpackError(message)
    try:
        yield from unpack_pieces(packed)
    except (zlib.error, zstandard.ZstdError, cramjam.DecompressionError, OSError, struct.error, LookupError) as exc:
        raise UnpackError(str(exc)) from exc


def _gzip(packed: memoryview) -> Iterator[bytes]:
    data = bytes(packed)
    while data:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            piece = member.decompress(data, PIECE_BYTES)
            data = member.unconsumed_tail
            if piece:
                yield piece
            elif not member.eof:
                message = "the gzip data ends early"
                raise UnpackError(message)
        data = member.unused_data.lstrip(b"\0")  # padding between members


def _zstd(packed: memoryview) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    with decompressor.stream_reader(packed, read_across_frames=True) as reader:
        while piece := reader.read(PIECE_BYTES):
            yield piece


def _snappy(packed: memoryview) -> Iterator[bytes]:
    if bytes(packed[: len(XERIAL_HEADER)]) != XERIAL_HEADER:
        yield _snappy_block(packed)
        return
    start = len(XERIAL_HEADER)
    while start < len(packed):
        (size,) = struct.unpack_from(">i", packed, start)
        start += 4
        if not 0 < size <= len(packed) - start:
            message = f"a snappy block of {size} bytes does not fit"
            raise UnpackError(message)
        yield _snappy_block(packed[start : start + size])
        start += size


def _snappy_block(block: memoryview) -> bytes:
    if cramjam.snappy.decompress_raw_len(block) > SNAPPY_RATIO * len(block) + PIECE_BYTES:
        message = "a snappy block has a wrong size in its header"
        raise UnpackError(message)
    return bytes(cramjam.snappy.decompress_raw(block))


def _lz4(packed: memoryview) -> Iterator[bytes | memoryview]:
    """Yield the blocks of a frame (LZ4 frame format 1.6): Kafka writes one frame with independent blocks."""
    if bytes(packed[:4]) != LZ4_MAGIC:
        message = "the lz4 data has no frame"
        raise UnpackError(message)
    flags, block_code = packed[4], packed[5] >> 4
    if not flags & 0x20:
        yield _linked_lz4(packed)
        return
    has_block_checksums, has_size, has_dictionary = flags & 0x10, flags & 0x08, flags & 0x01
    start = 4 + 2 + (8 if has_size else 0) + (4 if has_dictionary else 0) + 1
    block = bytearray(LZ4_BLOCK_BYTES[block_code])
    while True:
        (size,) = struct.unpack_from("<I", packed, start)
        start += 4
        if not size:
            return
        is_stored, size = size >> 31, size & 0x7FFFFFFF
        if size > len(packed) - start:
            message = "the lz4 data ends early"
            raise UnpackError(message)
        data = packed[start : start + size]
        yield data if is_stored else memoryview(block)[: cramjam.lz4.decompress_block_into(data, block)]
        start += size + (4 if has_block_checksums else 0)


def _linked_lz4(packed: memoryview) -> memoryview:
    unpacked = bytearray(min(MAX_LINKED_BYTES, LZ4_RATIO * len(packed)))
    return memoryview(unpacked)[: cramjam.lz4.decompress_into(packed, unpacked)]


_CODECS: Mapping[int, Callable[[memoryview], Iterator[bytes | memoryview]]] = {1: _gzip, 2: _snappy, 3: _lz4, 4: _zstd}
