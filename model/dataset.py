"""Dataset: sessions split by time into training, validation and held-out sets; newer sessions for a warm start."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clickscore.model.array_types import Ints, Longs
from clickscore.model.config import TrainConfig
from clickscore.model.errors import DataError
from clickscore.model.examples import REMOVAL, VIEW, Examples, make_examples, select_model_events
from clickscore.model.prefix_features import NO_ATTRIBUTES, CatalogueAttributes, ItemAttributes, make_item_attributes
from clickscore.model.session_arrays import NO_ITEM, Sessions
from clickscore.model.session_files import DatasetReport, read_sessions
from clickscore.model.vocabulary import UNKNOWN, Vocabulary, count_items, fits_on_line

SESSION_WITHOUT_KNOWN_ITEM = "session without an event on a known item"
RARE_ITEM = "event on an item that was seen fewer than {} times"
ITEM_ON_LINES = "event on an item whose id has a line end"

MIN_SESSIONS = 10
"""Sessions of a data set, at least: with fewer the validation set would be a single session."""
MIN_VALIDATION_SESSIONS = 500
"""Validation sessions that the calibration of the heads needs, up to an eighth of all sessions."""

SAMPLE_SEED = 0
"""Seed of the samples of validation and held-out sessions. It is not the seed of the training: metrics of two seeds can
be compared only on the same sessions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """Sessions for training, validation and held-out metrics."""

    vocabulary: Vocabulary
    """Items that are known: seen at least `min_count` times in all sessions."""
    sessions: Examples
    """All sessions with a known item, in order of closing: the final pass trains on the newest of them."""
    training: Examples
    """The oldest sessions."""
    validation: Examples
    """Sessions between training and held-out ones, sampled down to `ranked_sessions`."""
    held_out: Examples
    """The newest sessions, sampled down to `ranked_sessions`."""
    tree_data: "TreeDataset"
    """The same sessions with all their events."""
    report: DatasetReport


@dataclasses.dataclass(frozen=True, kw_only=True)
class TreeDataset:
    """Sessions with all their events, as trees and regression read them, with the same split."""

    sessions: Sessions
    """All sessions of the files, in order of closing."""
    rows: Ints
    """Row of each entry of `sessions.item_ids`, 0 if unknown: (len(item_ids),)."""
    training: Longs
    """Indices of the training sessions."""
    validation: Longs
    """Indices of the validation sessions."""
    held_out: Longs
    """Indices of the held-out sessions."""
    attributes: ItemAttributes
    """Prices and categories by row."""

    @property
    def has_actions(self) -> bool:
        """Whether any event is not a view: without other actions, next action and purchase have no labels."""
        return bool((self.sessions.actions != VIEW).any())


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuningData:
    """Newer sessions for the warm start of a trained model."""

    vocabulary: Vocabulary
    """The model's vocabulary, extended by the new items."""
    sessions: Examples
    """All newer sessions, with the extended vocabulary."""
    sample: Examples
    """Sample of at most `ranked_sessions` sessions, with the old vocabulary, to measure the old model."""
    tree_sample: Sessions
    """The same sample with all events."""
    rows: Ints
    """Row of each entry of `tree_sample.item_ids` in the old vocabulary, 0 if unknown: (len(item_ids),)."""
    report: DatasetReport


def load_dataset(files: Sequence[Path], config: TrainConfig, catalogue: CatalogueAttributes = NO_ATTRIBUTES) -> Dataset:
    """Return the sessions of files, split by closing time: the newest are held out, those before them validate.

    Args:
        files: Session files (see `model.session_files`).
        config: Gives the shares of the split and the smallest count of a known item.
        catalogue: Prices and categories of items.

    Raises:
        DataError: A file cannot be read, or too few sessions remain.
    """
    sessions, report = read_sessions(files)
    if len(sessions) < MIN_SESSIONS:
        counts = f"{len(sessions)} sessions to learn from, at least {MIN_SESSIONS} are needed"
        message = "; ".join([counts, *report.list_dropped()])
        raise DataError(message)

    vocabulary = count_items(sessions.item_ids, _select_seen_items(sessions), config.min_count)
    examples, dropped = _make_known_examples(sessions, vocabulary, config)
    if len(examples) < MIN_SESSIONS:
        message = (
            f"too few sessions: {len(vocabulary):,} items were seen {config.min_count} times or more (min_count), "
            f"in {len(examples):,} sessions; at least {MIN_SESSIONS} sessions are needed"
        )
        raise DataError(message)

    # Split by closing time: oldest, middle, newest
    held_out = max(1, round(config.held_out_share * len(examples)))
    minimum = min(MIN_VALIDATION_SESSIONS, len(examples) // 8)
    validation = max(1, round(config.validation_share * len(examples)), minimum)
    borders = (len(examples) - held_out - validation, len(examples) - held_out)
    oldest, middle, newest = np.split(np.arange(len(examples)), borders)
    validation_sample, held_out_sample = _sample(middle, config), _sample(newest, config)
    rows = vocabulary.rows(sessions.item_ids)
    session_index = _find_known_sessions(sessions, rows)
    return Dataset(
        vocabulary=vocabulary,
        sessions=examples,
        training=examples.select(oldest),
        validation=examples.select(validation_sample),
        held_out=examples.select(held_out_sample),
        tree_data=TreeDataset(
            sessions=sessions,
            rows=rows,
            training=session_index[oldest],
            validation=session_index[validation_sample],
            held_out=session_index[held_out_sample],
            attributes=make_item_attributes(vocabulary.items, catalogue),
        ),
        report=dataclasses.replace(
            report,
            dropped=report.dropped | dropped,
            items=len(vocabulary),
            training=len(oldest),
            validation=len(middle),
            held_out=len(newest),
        ),
    )


def load_fine_tuning_data(files: Sequence[Path], config: TrainConfig, model_vocabulary: Vocabulary) -> FineTuningData:
    """Return the sessions of files for the warm start of a model, and the vocabulary with their new items.

    Args:
        files: Session files (see `model.session_files`).
        config: Settings that the model was trained with.
        model_vocabulary: Items of the model.

    Raises:
        DataError: A file cannot be read, or the model knows no item of any session.
    """
    sessions, report = read_sessions(files)
    vocabulary = model_vocabulary.extend(
        count_items(sessions.item_ids, _select_seen_items(sessions), config.min_count).items
    )
    examples, dropped = _make_known_examples(sessions, vocabulary, config)
    report = dataclasses.replace(report, dropped=report.dropped | dropped)
    if not len(examples):
        message = "the files hold no session on a known item: nothing to train on"
        message = "; ".join([message, *report.list_dropped()])
        raise DataError(message)
    rows = model_vocabulary.rows(sessions.item_ids)
    old_examples = make_examples(sessions, rows, config.model.max_length)
    if not len(old_examples):
        message = "no session of the files has an item that the model knows: train a new model, without --from"
        raise DataError(message)
    sample = _sample(np.arange(len(old_examples)), config)
    return FineTuningData(
        vocabulary=vocabulary,
        sessions=examples,
        sample=old_examples.select(sample),
        tree_sample=sessions.select(_find_known_sessions(sessions, rows)[sample]),
        rows=rows,
        report=dataclasses.replace(report, items=len(vocabulary), training=len(examples)),
    )


def _select_seen_items(sessions: Sessions) -> Ints:
    """Return the item of each event on an item; a removal from the cart does not count as interest."""
    return sessions.items[(sessions.items != NO_ITEM) & (sessions.actions != REMOVAL)]


def _make_known_examples(
    sessions: Sessions, vocabulary: Vocabulary, config: TrainConfig
) -> tuple[Examples, dict[str, int]]:
    """Return the examples of sessions, and the numbers of events and sessions without a known item."""
    rows = vocabulary.rows(sessions.item_ids)  # (item_ids,)
    examples = make_examples(sessions, rows, config.model.max_length)
    unknown = sessions.items[(sessions.items != NO_ITEM) & (rows[sessions.items] == UNKNOWN)]
    has_line_end = np.array([not fits_on_line(item) for item in sessions.item_ids], dtype=bool)  # (item_ids,)
    broken = int(has_line_end[unknown].sum())
    dropped = {
        RARE_ITEM.format(config.min_count): len(unknown) - broken,
        ITEM_ON_LINES: broken,
        SESSION_WITHOUT_KNOWN_ITEM: len(sessions) - len(examples),
    }
    return examples, {reason: number for reason, number in dropped.items() if number}


def _find_known_sessions(sessions: Sessions, rows: Ints) -> Longs:
    """Return the indices of the sessions with a known item: the sessions of `make_examples`, in its order."""
    events = select_model_events(sessions, rows, max_length=1)
    return np.searchsorted(sessions.starts, events, side="right") - 1


def _sample(sessions: Longs, config: TrainConfig) -> Longs:
    """Return at most `ranked_sessions` of the session indices, in their order; trainings of all seeds get the same."""
    if len(sessions) <= config.ranked_sessions:
        return sessions
    return np.sort(np.random.default_rng(SAMPLE_SEED).choice(sessions, config.ranked_sessions, replace=False))
