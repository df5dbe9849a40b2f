import numpy as np
import pytest

from clickscore.model.prefix_features import (
    FEATURE_NAMES,
    KIND_FEATURE_NAMES,
    MAX_KIND_ITEMS,
    NO_ATTRIBUTES,
    VIEW_KINDS,
    CatalogueAttributes,
    FullSessions,
    ItemAttributes,
    assign_kinds,
    compute_features_after,
    make_event_batch,
    make_full_sessions,
    make_item_attributes,
    make_item_features,
)
from tests.model.builders import flat

ROWS = np.array([1, 2, 3, 4, 0, 0, 0, 0])
"""Items e to h are unknown."""
NO_FACTS = make_item_attributes(("a", "b", "c", "d"), NO_ATTRIBUTES)


def full_sessions(*sessions: str) -> FullSessions:
    return make_full_sessions(flat(sessions), ROWS)


def feature(name: str, *sessions: str, position: int, facts: ItemAttributes = NO_FACTS, max_length: int = 50) -> float:
    """Return a feature of the beginning that ends with event `position`."""
    sessions_read = full_sessions(*sessions)
    features = compute_features_after(
        sessions_read, np.array([position]), make_item_features(sessions_read, facts), max_length
    )
    return float(features[0, FEATURE_NAMES.index(name)])


def test_events_on_unknown_items_and_without_an_item_are_read():
    assert full_sessions("view:a view:e search").items.tolist() == [1, -5, 0]


def test_ages_are_those_of_the_session():
    assert full_sessions("view:a view:b", "view:c").ages.tolist() == [0, 1000, 0]


def test_purchase_follows_every_event_before_the_last_one():
    assert full_sessions("view:a purchase:a view:b", "view:c").purchase.tolist() == [1, 0, 0, 0]


def test_actions_are_counted_up_to_the_event():
    session = "view:a cart:a view:b cart:b"
    assert [feature("cart_events", session, position=position) for position in range(4)] == [0, 1, 1, 2]


def test_recent_actions_have_columns_of_their_own():
    session = "view:a cart:a search"
    assert [feature(f"action_{back}_back", session, position=2) for back in range(3)] == [7, 2, 1]
    assert feature("action_1_back", session, position=0) == 0


def test_gap_is_a_bucket_that_doubles_with_two():
    assert feature("gap", "view:a view:b", position=1) == 5
    assert feature("time", "view:a view:b view:b", position=2) == 7
    assert feature("gap", "view:a view:b", position=0) == 0


def test_unknown_item_is_known_again_in_its_session():
    assert feature("times_of_last_item", "view:e view:f view:e", position=2) == 2
    assert feature("times_of_last_item", "view:e view:f view:g", position=2) == 1


def test_events_on_unknown_items_are_counted():
    assert feature("events_on_unknown_items", "view:e search view:a view:f", position=3) == 2
    assert feature("events_on_unknown_items", "view:a search", position=1) == 0


def test_events_on_no_item_are_not_the_same_item():
    assert feature("most_of_one_item", "search search", position=1) == 0
    assert feature("same_item_as_before", "search search", position=1) == 0


def test_same_item_as_before_is_of_neighbours():
    assert feature("same_item_as_before", "view:a view:a", position=1) == 1
    assert feature("same_item_as_before", "view:a view:b view:a", position=2) == 0


def test_distinct_items_are_counted_once():
    assert feature("distinct_items", "view:a view:b view:a view:e", position=3) == 3


def test_only_the_newest_events_are_read():
    session = "cart:a view:b view:c"
    assert feature("cart_events", session, position=2, max_length=2) == 0
    assert feature("time", session, position=2, max_length=2) == 7


def test_item_that_is_bought_more_has_higher_odds():
    sessions = ["view:a purchase:a"] * 30 + ["view:b view:c"] * 30
    assert feature("last_item_purchases", *sessions, position=0) > feature(
        "last_item_purchases", *sessions, position=60
    )


def test_category_stands_for_its_items():
    facts = make_item_attributes(
        ("a", "b", "c", "d"), CatalogueAttributes({}, {"a": "tea", "b": "tea", "c": "cups", "d": "cups"})
    )
    sessions = ["view:a purchase:a"] * 30 + ["view:c"] * 30 + ["view:b", "view:d"]
    of_b, of_d = (
        feature("last_category_purchases", *sessions, position=position, facts=facts) for position in (90, 91)
    )
    assert of_b > of_d
    assert feature("same_category", "view:a view:c view:b", position=2, facts=facts) == 2


def test_price_is_the_log_price_or_the_mean_of_known_ones():
    facts = make_item_attributes(("a", "b", "c", "d"), CatalogueAttributes({"a": 9.0, "b": 99.0}, {}))
    assert feature("last_price", "view:a", position=0, facts=facts) == pytest.approx(np.log(10), abs=0.01)
    mean = (np.log(10) + np.log(100)) / 2
    assert feature("last_price", "view:c", position=0, facts=facts) == pytest.approx(mean, abs=0.01)
    assert feature("dearer_than_mean", "view:a view:b", position=1, facts=facts) == pytest.approx(
        np.log(100) - mean, abs=0.01
    )


def test_item_without_training_events_is_not_a_known_item():
    sessions_read = full_sessions("view:a view:b")
    item_features = make_item_features(full_sessions("view:b"), NO_FACTS)
    assert (
        compute_features_after(sessions_read, np.array([1]), item_features, 50)[
            0, FEATURE_NAMES.index("events_on_known_items")
        ]
        == 1
    )


def kinds(*sessions: str, facts: ItemAttributes = NO_FACTS) -> list[int]:
    return make_item_features(full_sessions(*sessions), facts).kinds.tolist()


def test_pages_of_a_site_are_kinds_the_most_frequent_first():
    assert kinds("view:b view:b view:a")[:3] == [0, 2, 1]


def test_categories_are_kinds_where_they_are_known():
    facts = make_item_attributes(("a", "b", "c", "d"), CatalogueAttributes({}, {"a": "tea", "b": "cups", "c": "cups"}))
    assert kinds("view:b view:c view:a view:d", facts=facts) == [0, 2, 1, 1, 0]


def test_items_of_a_shop_are_no_kinds():
    items = [f"item-{number}" for number in range(MAX_KIND_ITEMS + 1)]
    sessions = make_full_sessions(
        flat([" ".join(f"view:{item}" for item in items)], items), np.arange(1, len(items) + 1)
    )
    assert not assign_kinds(sessions, make_item_attributes(items, NO_ATTRIBUTES)).any()


def test_time_is_counted_for_the_kind_of_the_event_before_it():
    session = "view:a view:a view:b"  # one second each; kind 1 is a, kind 2 is b
    assert feature("time_on_kind_1", session, position=2) == 7
    assert feature("time_on_kind_2", session, position=2) == 0
    assert feature("time_on_kind_1", session, position=0) == 0


def test_transitions_between_kinds_are_counted():
    session = "view:a view:a view:b view:a cart:a purchase:a search"
    values = {
        name: feature(name, session, position=6)
        for name in KIND_FEATURE_NAMES
        if "then" in name and feature(name, session, position=6)
    }
    cart, purchase, other = VIEW_KINDS, VIEW_KINDS + 1, VIEW_KINDS + 2
    assert values == {
        "kind_1_then_1": 1,
        "kind_1_then_2": 1,
        "kind_2_then_1": 1,
        f"kind_1_then_{cart}": 1,
        f"kind_{cart}_then_{purchase}": 1,
        f"kind_{purchase}_then_{other}": 1,
    }


def test_newest_events_have_their_kinds():
    session = "view:a view:b"
    assert [feature(f"kind_{kind}_0_back", session, position=1) for kind in range(3)] == [0, 0, 1]
    assert [feature(f"kind_{kind}_1_back", session, position=1) for kind in range(3)] == [0, 1, 0]
    assert [feature(f"kind_{kind}_2_back", session, position=1) for kind in range(3)] == [0, 0, 0]


def test_later_events_change_no_feature():
    sessions = ["view:a cart:a view:e search purchase:a view:b", "view:c view:d cart:d view:c view:e purchase:d"]
    item_features = make_item_features(full_sessions(*sessions), NO_FACTS)
    ends = np.array([0, 1, 2, 6, 7, 8])
    cut = full_sessions(*(" ".join(session.split()[:3]) for session in sessions))
    shuffled = full_sessions(
        *(" ".join([*session.split()[:3], *reversed(session.split()[3:])]) for session in sessions)
    )
    expected = compute_features_after(full_sessions(*sessions), ends, item_features, 50)
    assert (compute_features_after(shuffled, ends, item_features, 50) == expected).all()
    assert (compute_features_after(cut, np.array([0, 1, 2, 3, 4, 5]), item_features, 50) == expected).all()


def test_features_do_not_depend_on_the_batch():
    sessions_read = full_sessions("view:a cart:a", "view:b view:c view:e view:d search")
    item_features, ends = make_item_features(sessions_read, NO_FACTS), np.arange(7)
    together = compute_features_after(sessions_read, ends, item_features, 50)
    assert together.shape == (7, len(FEATURE_NAMES))
    for end in ends:
        assert (compute_features_after(sessions_read, np.array([end]), item_features, 50) == together[end]).all()


def test_beginnings_are_aligned_left():
    beginnings = make_event_batch(full_sessions("view:a cart:b view:e"), np.array([0, 2]), 2)
    assert beginnings.items.tolist() == [[1, 0], [2, -5]]
    assert (beginnings.actions.tolist(), beginnings.lengths.tolist()) == ([[1, 0], [2, 1]], [1, 2])
