"""Recommenders: the baselines know the past of their partition, and nothing else."""

from clickscore.backtest.recommenders import (
    COUNTED_FOLLOWERS,
    CooccurrenceRecommender,
    PopularityRecommender,
    RepeatRecommender,
)
from clickscore.schemas.events import AnyEvent, RemoveFromCart
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.request import Request, Scores
from clickscore.stream.settings import PolicySettings, SessionSettings
from tests.events import impression, records, search, view


def requests(*events: AnyEvent, partition: int = 0) -> list[Request]:
    return Pipeline(SessionSettings(), PolicySettings(), "events", Catalogue()).collect_requests(
        [(partition, records(*events))]
    )[1]


def items(scores: Scores | None) -> list[str] | None:
    return None if scores is None else [item for item, _ in scores.candidates()]


def rankings_of(recommender: object, queries: list[Request]) -> list[list[str] | None]:
    return [items(scores) for scores in recommender.rank(queries, [True] * len(queries))]  # type: ignore[attr-defined]


def test_repeat_shows_the_sessions_items_newest_first_and_once() -> None:
    queries = requests(view("anna", 0, "a"), view("anna", 1, "b"), search("anna", 2), view("anna", 3, "a"))
    assert rankings_of(RepeatRecommender(), queries) == [["a"], ["b", "a"], ["b", "a"], ["a", "b"]]


def test_popularity_leaves_it_to_the_policy() -> None:
    assert rankings_of(PopularityRecommender(), requests(view("anna", 0), view("bert", 1))) == [None, None]


def test_cooccurrence_shows_what_most_often_followed_the_last_item() -> None:
    queries = requests(
        view("anna", 0, "a"),
        view("anna", 1, "b"),
        view("bert", 2, "a"),
        view("bert", 3, "c"),
        view("carl", 4, "a"),
        view("carl", 5, "c"),
        view("dora", 6, "a"),
    )
    assert rankings_of(CooccurrenceRecommender(), queries)[-1] == ["c", "b"]


def test_cooccurrence_learns_from_what_is_not_asked() -> None:
    queries = requests(view("anna", 0, "a"), view("anna", 1, "b"), view("bert", 2, "a"))
    assert items(CooccurrenceRecommender().rank(queries, [False, False, True])[2]) == ["b"]


def test_cooccurrence_of_a_partition_knows_nothing_of_another() -> None:
    queries = requests(view("anna", 0, "a"), view("anna", 1, "b")) + requests(view("bert", 2, "a"), partition=1)
    assert rankings_of(CooccurrenceRecommender(), queries)[-1] is None


def test_cooccurrence_counts_no_impression_late_event_or_removal() -> None:
    removal = RemoveFromCart(event_id="r", user_id="anna", ts=view("anna", 2).ts, item_id="b")
    late = view("anna", -60, "late")
    queries = requests(view("anna", 0, "a"), impression("anna", 1, "b"), removal, late, view("bert", 3, "a"))
    assert rankings_of(CooccurrenceRecommender(), queries)[-1] is None


def test_cooccurrence_is_bounded_for_each_item() -> None:
    recommender = CooccurrenceRecommender()
    events = [
        event for n in range(2 * COUNTED_FOLLOWERS) for event in (view(f"u{n}", n, "a"), view(f"u{n}", n, f"b{n}"))
    ]
    rankings_of(recommender, requests(*events))
    assert max(len(counts) for counts in recommender._counts.values()) <= COUNTED_FOLLOWERS
