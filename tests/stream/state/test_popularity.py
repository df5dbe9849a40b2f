"""Popularity: counts of open sessions, and the ranking made from them."""

from clickscore.stream.state.popularity import MAX_POPULAR, Popularity


def popularity(*items: str) -> Popularity:
    made = Popularity()
    for item in items:
        made.add(item)
    return made


def refreshed(made: Popularity) -> list[str]:
    made.refresh()
    return made.ranking


def test_item_with_most_events_comes_first():
    assert refreshed(popularity("a", "b", "b")) == ["b", "a"]


def test_items_of_equal_counts_are_in_alphabetical_order():
    assert refreshed(popularity("b", "a")) == ["a", "b"]


def test_new_item_joins_the_ranking_at_once():
    assert popularity("b", "a").ranking == ["b", "a"]


def test_ranking_is_bounded():
    items = [f"item-{number:03}" for number in range(2 * MAX_POPULAR)]
    assert len(popularity(*items).ranking) == MAX_POPULAR
    assert refreshed(popularity(*items)) == items[:MAX_POPULAR]


def test_item_without_events_stays_behind_the_others():
    made = popularity("a", "a", "b")
    made.remove("a")
    made.remove("a")
    assert refreshed(made) == ["b", "a"]


def test_search_counts_for_no_item():
    made = popularity("")
    made.remove("")
    assert refreshed(made) == []


def test_removed_event_counts_no_more():
    made = popularity("a", "a", "b", "b", "b")
    made.remove("b")
    made.remove("b")
    assert refreshed(made) == ["a", "b"]


def test_restored_counts_leave_the_ranking_alone():
    made = Popularity()
    made.ranking = ["a"]
    made.load_counts(["b", "", "b"])
    assert made.ranking == ["a"]
    assert refreshed(made) == ["b", "a"]
