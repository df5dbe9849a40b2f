import random

import numpy as np
import pytest

from clickscore.export.random_bundle import write_random_bundle
from clickscore.model.errors import DataError
from clickscore.model.evaluation.bundle_comparison import compare_bundles
from clickscore.model.onnx_runtime import open_graph, run_graph
from clickscore.model.prefix_features import EventBatch
from clickscore.model.vocabulary import read_vocabulary
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import decode_manifest
from clickscore.schemas.sessions import ClosedSession
from tests.model.builders import TINY, closed, shoppers, write_sessions

pytestmark = pytest.mark.train

ITEMS = [f"item-{number}" for number in range(30)]
SESSIONS = shoppers(150, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    write_sessions(folder / "sessions.jsonl", SESSIONS)
    write_random_bundle(folder / "first", ITEMS, TINY.model, seed=1)
    write_random_bundle(folder / "second", random.Random(0).sample(ITEMS, 8), TINY.model, seed=2)
    return folder


@pytest.fixture(scope="module")
def compared(folder):
    return compare_bundles(folder / "first", folder / "second", [folder / "sessions.jsonl"], 1_000)


def rank_by_hand(bundle, session: ClosedSession) -> list[int | None]:
    """Return the rank of the next item after each event of a session, one graph call an event; None for a miss."""
    graph, vocabulary = open_graph(bundle / "model.onnx"), read_vocabulary(bundle / "items.txt")
    popular = decode_manifest((bundle / "manifest.json").read_bytes()).popular
    ranks: list[int | None] = []
    for end in range(len(session.events)):
        target = next((event.item_id for event in session.events[end + 1 :] if event.item_id), None)
        if target is None:
            continue
        prefix = [event for event in session.events[: end + 1] if vocabulary.row(event.item_id)]
        if not prefix:
            ranks.append(popular.index(target) + 1 if target in popular else None)
            continue
        prefix = prefix[-TINY.model.max_length :]
        items = np.array([[vocabulary.row(event.item_id) for event in prefix]])
        actions = np.array([[ACTIONS.index(event.action) for event in prefix]])
        ages = np.array([[event.ts - session.opened_at for event in prefix]])
        rows, scores, _, _ = run_graph(graph, EventBatch(items, actions, ages, np.array([len(prefix)])))
        place = np.flatnonzero(rows[0] == vocabulary.row(target)) if vocabulary.row(target) else []
        ranks.append(int((scores[0] >= scores[0][place[0]]).sum()) if len(place) else None)
    return ranks


@pytest.mark.parametrize("name", ["first", "second"])
def test_hit_rate_and_mrr_are_those_of_single_calls(folder, compared, name):
    ranks = [rank for session in SESSIONS for rank in rank_by_hand(folder / name, session)]
    hits = [rank is not None and rank <= 20 for rank in ranks]
    gains = [1 / rank if rank is not None and rank <= 20 else 0 for rank in ranks]
    assert compared.ranked_events == len(ranks)
    measured = [
        {"first": compared.measures[measure].champion, "second": compared.measures[measure].challenger}[name]
        for measure in ("hit_rate@20", "mrr@20")
    ]
    assert measured == pytest.approx([sum(hits) / len(hits), sum(gains) / len(gains)])


def test_bundle_differs_from_itself_by_nothing(folder):
    compared = compare_bundles(folder / "first", folder / "first", [folder / "sessions.jsonl"], 1_000)
    for measured in compared.measures.values():
        assert (measured.difference.low, measured.difference.value, measured.difference.high) == (0, 0, 0)
        assert measured.relative() == 0


def test_difference_is_that_of_the_values_and_lies_in_its_interval(compared):
    for measured in compared.measures.values():
        assert measured.difference.value == pytest.approx(measured.challenger - measured.champion)
        assert measured.difference.low <= measured.difference.value <= measured.difference.high
    assert compared.measures["hit_rate@20"].difference.high < 0, "the second bundle lacks items"
    assert compared.measures["hit_rate@20"].relative() < 0


def test_newest_sessions_count(folder):
    compared = compare_bundles(folder / "first", folder / "second", [folder / "sessions.jsonl"], 10)
    assert compared.sessions == 10


def test_purchase_is_not_judged_after_a_purchase(folder, tmp_path):
    sessions = [closed(number, "purchase:item-1 view:item-2") for number in range(5)]
    compared = compare_bundles(
        folder / "first", folder / "second", [write_sessions(tmp_path / "bought.jsonl", sessions)], 10
    )
    assert "purchase_log_loss" not in compared.measures


def test_files_without_a_session_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match="no session"):
        compare_bundles(folder / "first", folder / "second", [write_sessions(tmp_path / "none.jsonl", [])], 10)
