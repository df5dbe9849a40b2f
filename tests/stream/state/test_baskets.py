"""Baskets: companions of items, and counts that follow from the users' bought items alone."""

from hypothesis import given
from hypothesis import strategies as st

from clickscore.schemas.events import Erase
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import PolicySettings, SessionSettings
from clickscore.stream.state.baskets import Baskets
from clickscore.stream.state.changelog import restore
from tests.events import purchase, records, view


def baskets_of(*baskets: str) -> Baskets:
    made = Baskets()
    for number, basket in enumerate(baskets):
        made.update(f"u{number}", list(basket))
    return made


def test_companions_have_two_buyers_at_least():
    assert baskets_of("ab", "ac", "ab").companions("a", 9) == ["b"]


def test_item_that_everybody_buys_comes_after_a_closer_companion():
    assert baskets_of("abz", "abz", "z", "z", "z").companions("a", 9) == ["b", "z"]


def test_companions_of_several_items_are_none_of_them():
    made = baskets_of("abc", "abc", "cd", "cd")
    assert made.companions("ab", 9) == ["c"]
    assert made.companions("d", 9) == ["c"]
    assert made.companions("x", 9) == []


def test_no_more_companions_than_the_limit_and_equal_ones_by_name():
    assert baskets_of("acb", "bca").companions("a", 1) == ["b"]


@given(st.lists(st.tuples(st.sampled_from("uvw"), st.lists(st.sampled_from("abcd"), unique=True)), max_size=20))
def test_only_the_last_basket_of_each_user_counts(updates: list[tuple[str, list[str]]]):
    changed, fresh = Baskets(), Baskets()
    for user_id, bought in updates:
        changed.update(user_id, bought)
    for user_id, bought in dict(updates).items():
        fresh.update(user_id, bought)
    assert vars(changed) == vars(fresh)


def shop() -> Pipeline:
    return Pipeline(SessionSettings(), PolicySettings(), "events", Catalogue())


def test_state_counts_what_users_bought_until_they_are_erased():
    pipeline = shop()
    sold = [purchase(user, index, item) for index, (user, item) in enumerate(zip("aabbccc", "xyxyxyz", strict=True))]
    pipeline.process(0, records(*sold[:4]))
    state = pipeline.state(0)
    assert state.companions(["x"], 9) == ["y"]
    pipeline.process(0, records(*sold[4:], view("a", 8, "q"), first=4))
    assert state.companions(["y"], 9) == ["x"]
    for offset, user in enumerate("ab", start=8):
        pipeline.process(0, records(Erase(event_id=f"e-{user}", user_id=user, ts=sold[0].ts), first=offset))
    assert state.companions(["x"], 9) == []


def test_restored_state_counts_the_same():
    pipeline = shop()
    changes = pipeline.process(0, records(*(purchase(user, 0, item) for user in "ab" for item in "xy"))).changes
    restored = restore(changes, "events-0", SessionSettings())
    assert restored.companions(["x"], 9) == pipeline.state(0).companions(["x"], 9)


def test_basket_that_is_gone_leaves_no_count():
    made = baskets_of("ab", "a")
    made.update("u0", [])
    made.update("u1", [])
    assert vars(made) == vars(Baskets())
