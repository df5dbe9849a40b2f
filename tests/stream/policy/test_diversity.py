"""Diversity: the first places differ, by the vectors of the bundle or by category, as much as the policy says."""

from collections.abc import Sequence

import numpy as np
import pytest

from clickscore.schemas.catalogue import Item
from clickscore.stream.policy.diversity import order_by_margin, similarities
from clickscore.stream.policy.policy_file import Boost, Limit
from clickscore.stream.policy.recommend import Policy
from tests.scored_requests import make_catalogue, make_request, make_scores, plain

CATALOGUE = make_catalogue(*(Item(item_id=name, category="tea") for name in "abc"), Item(item_id="m", category="mugs"))


def vectors_of(items: Sequence[str]) -> np.ndarray:
    known = {"a": (1.0, 0.0), "b": (0.6, 0.8), "c": (-1.0, 0.0)}
    return np.array([known.get(item, (0.0, 0.0)) for item in items])


def shown(strength: float, *, with_vectors: bool = False, **fields: object) -> str:
    policy = Policy(
        plain(k=4, diversity=strength, **fields), "bundle", (), find_vectors=vectors_of if with_vectors else None
    )
    decision = policy.recommend(make_request("x"), make_scores("a", "b", "c", "m"), CATALOGUE)
    return "".join(choice.item_id for choice in decision.items)


def test_similarity_is_the_cosine_or_else_the_category():
    table = similarities("abcmx", vectors_of, CATALOGUE)
    assert table.tolist()[0] == [1.0, 0.6, 0.0, 0.0, 0.0]
    assert similarities("abmxy", None, CATALOGUE).tolist() == [
        [1.0, 1.0, 0.0, 0.0, 0.0],
        [1.0, 1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 1.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
    ]


@pytest.mark.parametrize(("strength", "order"), [(0.0, [0, 1, 2]), (0.5, [0, 2, 1]), (0.1, [0, 1, 2])])
def test_place_goes_to_the_best_margin(strength: float, order: list[int]):
    similarity = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert order_by_margin([1.0, 0.8, 0.5], similarity, strength, 3) == order


def test_rows_behind_the_places_keep_their_order():
    assert order_by_margin([1.0, 0.9, 0.8, 0.7], np.ones((4, 4)) - np.eye(4), 0.9, 1) == [0, 1, 2, 3]


def test_policy_without_diversity_keeps_the_order():
    assert shown(0.0) == "abcm"


def test_items_of_another_category_come_forward_without_vectors():
    assert shown(0.5) == "ambc"


def test_items_of_another_direction_come_forward_with_vectors():
    assert shown(0.5, with_vectors=True) == "acmb"


def test_order_of_earlier_rules_is_what_stands_for_relevance():
    assert shown(0.01, boost=Boost(items={"c": 10.0})) == "cabm"


def test_caps_run_after_diversity():
    assert shown(0.5, limit=Limit(category=1)) == "am"


@pytest.mark.parametrize("with_vectors", [False, True])
def test_list_without_candidates_stays_empty(*, with_vectors: bool):
    policy = Policy(plain(diversity=0.5), None, (), find_vectors=vectors_of if with_vectors else None)
    assert policy.recommend(make_request("x"), None, CATALOGUE).items == ()


def test_no_items_have_no_similarities():
    assert similarities((), None, CATALOGUE).shape == (0, 0)
