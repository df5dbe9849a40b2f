"""Text vectors: what a language model made of texts, remembered, so that it reads each text once."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xxhash

from clickscore.model.features import Float32Array

if TYPE_CHECKING:
    from clickscore.model.text_encoder import TextEncoder

Float16Array = npt.NDArray[np.float16]


@dataclasses.dataclass(frozen=True)
class TextVectors:
    """What is remembered."""

    encoder: str
    """Fingerprint of the language model."""
    digests: npt.NDArray[np.uint64]
    """Of the texts, ascending: (texts,)."""
    vectors: Float16Array
    """(texts, D): half the memory, and a cosine is off by a thousandth at most."""


def encode_texts(
    texts: Sequence[str], encoder: "TextEncoder", before: TextVectors | None, tell: Callable[[int, int], None]
) -> tuple[Float16Array, TextVectors]:
    """Return the vectors of texts (len(texts), D), and what is to be remembered: these texts, each once.

    Args:
        texts: At least one.
        encoder: Reads those that are not remembered.
        before: What is remembered, if anything; worth nothing where another language model read it.
        tell: Called with how many texts have been read so far, and how many are to be.
    """
    of_text = np.fromiter((xxhash.xxh3_64_intdigest(text.encode()) for text in texts), np.uint64, len(texts))
    digests, first, place = np.unique(of_text, return_index=True, return_inverse=True)
    new, remembered = np.zeros((2, 0), dtype=np.int64)
    if before is not None and before.encoder == encoder.fingerprint:
        _, new, remembered = np.intersect1d(digests, before.digests, assume_unique=True, return_indices=True)
    to_read = np.setdiff1d(np.arange(len(digests)), new)
    done = 0

    def told(number: int) -> None:
        nonlocal done
        done += number
        tell(done, len(to_read))

    tell(0, len(to_read))
    parts: list[Float32Array | Float16Array] = []
    if len(to_read):
        parts.append(encoder.vectors([texts[int(at)] for at in first[to_read]], told))
    if before is not None and len(new):
        parts.append(before.vectors[remembered])
    vectors = np.concatenate(parts)[np.argsort(np.concatenate((to_read, new)))].astype(np.float16)
    return vectors[place], TextVectors(encoder.fingerprint, digests, vectors)
