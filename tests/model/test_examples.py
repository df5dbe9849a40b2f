import numpy as np

from clickscore.model.examples import LEAVE, NO_NEXT_ITEM, UNKNOWN_NEXT_ITEM, Examples, make_examples
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import NEXT_ACTIONS
from tests.model.builders import flat

ROWS = np.array([1, 2, 3, 4, 0, 0, 0, 0])  # a, b, c, d are known; e, f, g, h are not


def make(*sessions: str, max_length: int = 50) -> Examples:
    return make_examples(flat(sessions), ROWS, max_length)


def names(classes: np.ndarray) -> list[str]:
    return [NEXT_ACTIONS[number] for number in classes]


def test_model_reads_events_on_known_items_and_nothing_else():
    read = make("view:a search view:e cart:b")
    assert read.items.tolist() == [1, 2]
    assert [ACTIONS[code] for code in read.actions] == ["view", "cart"]


def test_session_without_a_known_item_is_left_out():
    assert make("view:e search", "view:a").starts.tolist() == [0, 1]


def test_session_of_one_event_teaches_that_shoppers_leave():
    read = make("view:a")
    assert (read.next_item.tolist(), names(read.next_action), read.purchase.tolist()) == (
        [NO_NEXT_ITEM],
        ["leave"],
        [0],
    )


def test_next_item_is_that_of_the_next_event_on_an_item():
    assert make("view:a search view:b").next_item.tolist() == [2, NO_NEXT_ITEM]


def test_next_item_may_be_the_same_item():
    assert make("view:a cart:a").next_item.tolist() == [1, NO_NEXT_ITEM]


def test_item_that_is_taken_out_of_the_cart_is_no_next_item():
    assert make("cart:a remove_from_cart:a view:b").next_item.tolist() == [2, 2, NO_NEXT_ITEM]


def test_next_item_that_is_unknown_is_told_apart_from_none():
    assert make("view:a view:e").next_item.tolist() == [UNKNOWN_NEXT_ITEM]


def test_answers_of_a_session_never_come_from_the_next_one():
    read = make("view:a", "view:b purchase:b")
    assert read.next_item.tolist() == [NO_NEXT_ITEM, 2, NO_NEXT_ITEM]
    assert names(read.next_action) == ["leave", "purchase", "leave"]
    assert read.purchase.tolist() == [0, 1, 0]


def test_next_action_skips_searches_and_removals():
    assert names(make("cart:a search remove_from_cart:a favourite:b").next_action) == [
        "favourite",
        "favourite",
        "leave",
    ]


def test_next_action_counts_on_unknown_items_too():
    assert names(make("view:a cart:e").next_action) == ["cart"]


def test_click_counts_as_a_view():
    assert names(make("view:a click:b").next_action) == ["view", "leave"]


def test_purchase_is_only_what_is_still_to_come():
    assert make("view:a purchase:a view:b").purchase.tolist() == [1, 0, 0]


def test_purchase_of_an_unknown_item_is_a_purchase():
    assert make("view:a view:b purchase:e").purchase.tolist() == [1, 1]


def test_long_session_keeps_its_newest_known_events():
    read = make("view:a view:b view:e view:c view:d", max_length=2)
    assert read.items.tolist() == [3, 4]


def test_cut_session_has_the_answers_of_the_whole_one():
    read = make("view:a view:b view:c purchase:c", max_length=2)
    assert (read.next_item.tolist(), read.purchase.tolist()) == ([3, NO_NEXT_ITEM], [1, 0])


def test_leave_is_no_action_of_a_shopper():
    assert "leave" not in ACTIONS
    assert NEXT_ACTIONS[LEAVE] == "leave"


def test_sessions_of_a_part_are_those_of_the_whole():
    read = make("view:a", "view:b purchase:b", "view:c").select(np.array([2, 1]))
    assert (read.items.tolist(), read.purchase.tolist(), read.starts.tolist()) == ([3, 2, 2], [0, 1, 0], [0, 1, 3])
