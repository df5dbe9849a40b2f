"""Text vectors: a cache of a language model's vectors, so that each text is encoded once."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xxhash

from clickscore.model.array_types import Float16Array, Float32Array

if TYPE_CHECKING:
    from clickscore.model.text_encoder import TextEncoder


@dataclasses.dataclass(frozen=True)
class TextVectors:
    """Cached vectors of texts."""

    encoder: str
    """Fingerprint of the language model."""
    digests: npt.NDArray[np.uint64]
    """64-bit hashes of the texts, ascending: (texts,)."""
    vectors: Float16Array
    """Vectors in half precision: (texts, D). Takes half the memory; a cosine is off by 0.001 at most."""


def encode_texts(
    texts: Sequence[str], encoder: "TextEncoder", cache: TextVectors | None, on_progress: Callable[[int, int], None]
) -> tuple[Float16Array, TextVectors]:
    """Return the vectors of texts (len(texts), D), and a new cache of exactly these texts.

    Args:
        texts: At least one text; texts may repeat.
        encoder: Language model for texts not in the cache.
        cache: Vectors of an earlier call; ignored if made by another language model.
        on_progress: Called with the number of texts encoded so far, and the number to encode.
    """
    digest_of = np.fromiter((xxhash.xxh3_64_intdigest(text.encode()) for text in texts), np.uint64, len(texts))
    digests, first_text, inverse = np.unique(digest_of, return_index=True, return_inverse=True)
    hits, cached_rows = np.zeros((2, 0), dtype=np.int64)  # indices of `digests`, and of the cache
    if cache is not None and cache.encoder == encoder.fingerprint:
        _, hits, cached_rows = np.intersect1d(digests, cache.digests, assume_unique=True, return_indices=True)
    misses = np.setdiff1d(np.arange(len(digests)), hits)
    done = 0

    def on_batch(number: int) -> None:
        nonlocal done
        done += number
        on_progress(done, len(misses))

    on_progress(0, len(misses))
    parts: list[Float32Array | Float16Array] = []
    if len(misses):
        parts.append(encoder.vectors([texts[int(index)] for index in first_text[misses]], on_batch))
    if cache is not None and len(hits):
        parts.append(cache.vectors[cached_rows])
    in_order = np.argsort(np.concatenate((misses, hits)))
    vectors = np.concatenate(parts)[in_order].astype(np.float16)  # (distinct texts, D)
    return vectors[inverse], TextVectors(encoder.fingerprint, digests, vectors)
