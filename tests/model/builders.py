"""Builders: small sessions, files of them, and data sets to train on."""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from clickscore.model.config import ModelConfig, TrainConfig
from clickscore.model.dataset import Dataset, load_dataset
from clickscore.model.session_arrays import Sessions
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.sessions import ClosedSession, SessionEvent, encode_session

TINY = TrainConfig(
    model=ModelConfig(dim=16, ffn=32, max_length=8, neighbours=4, item_dropout=0.1),
    epochs=3,
    batch=16,
    patience=3,
    folds=2,
    min_count=2,
    validation_share=0.05,
    held_out_share=0.05,
)


def closed(number: int, events: str, closed_at: int | None = None) -> ClosedSession:
    """Return session `number` from words such as `"view:a search cart:a"`; by default it closes in order of number."""
    parsed = tuple(
        SessionEvent(ts=second, action=action, item_id=item)
        for second, (action, _, item) in enumerate(word.partition(":") for word in events.split())
    )
    return ClosedSession(
        id=f"clickstream-events-0-{number}",
        session_id=str(number),
        user_id=f"user-{number}",
        opened_at=0,
        closed_at=number * 1000 if closed_at is None else closed_at,
        length=len(parsed),
        purchased=any(event.action == "purchase" for event in parsed),
        events=parsed,
    )


def flat(sessions: Iterable[str], item_ids: Sequence[str] = "abcdefgh") -> Sessions:
    """Return sessions parsed from words, end to end."""
    parsed = [[word.partition(":") for word in session.split()] for session in sessions]
    events = [event for session in parsed for event in session]
    return Sessions(
        tuple(item_ids),
        np.array([item_ids.index(item) if item else -1 for _, _, item in events], dtype=np.int32),
        np.array([ACTIONS.index(action) for action, _, _ in events], dtype=np.int8),
        np.cumsum([0, *(len(session) for session in parsed)]),
        np.arange(len(parsed)),
        np.concatenate([np.arange(len(session)) * 1000 for session in parsed]),
    )


def write_sessions(path: Path, sessions: Iterable[ClosedSession]) -> Path:
    """Write a file of sessions and return its path."""
    path.write_bytes(b"".join(encode_session(session) + b"\n" for session in sessions))
    return path


def shoppers(count: int, items: int = 30, seed: int = 0) -> list[ClosedSession]:
    """Return sessions of shoppers who go from an item to the one after it, and buy what they put into the cart."""
    rng = random.Random(seed)
    return [closed(number, " ".join(_walk(rng, items))) for number in range(count)]


def _walk(rng: random.Random, items: int) -> Iterable[str]:
    item = rng.randrange(items)
    for _ in range(rng.randint(1, 10)):
        yield f"view:item-{item}"
        if rng.random() < 0.15:
            yield f"cart:item-{item}"
            yield f"purchase:item-{item}"
            return
        if rng.random() < 0.1:
            yield "search"
        item = (item + 1) % items


def dataset(folder: Path, count: int = 200, config: TrainConfig = TINY) -> Dataset:
    """Return a data set of generated shoppers, through a file."""
    return load_dataset([write_sessions(folder / "sessions.jsonl", shoppers(count))], config)
