"""Seen counts: impressions of items in a session without a click."""

from clickscore.schemas.seen_items import SEEN_BYTES, hashes_seen_often, short_hash, split_seen
from clickscore.stream.state.seen_counts import add_impression, forget_item, merge_counts


def counted(*impressions: tuple[str, str], max_items: int = 3) -> bytes:
    """Return the counts after impressions of (item, event)."""
    seen = b""
    for item, event in impressions:
        seen = add_impression(seen, item, event, max_items) or seen
    return seen


def counts(seen: bytes | None) -> dict[str, int]:
    names = {short_hash(name): name for name in "abcd"}
    return {names[item]: count for item, (_, count) in split_seen(seen or b"").items()}


def test_each_item_is_counted_with_the_newest_last():
    seen = counted(("a", "1"), ("b", "2"), ("a", "3"))
    assert list(counts(seen).items()) == [("b", 1), ("a", 2)]
    assert len(seen) == 2 * SEEN_BYTES


def test_repeated_impression_counts_once():
    assert add_impression(counted(("a", "1")), "a", "1", 3) is None


def test_item_that_was_shown_longest_ago_is_forgotten_first():
    assert counts(counted(("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("d", "5"))) == {"a": 2, "c": 1, "d": 1}


def test_count_of_an_item_is_bounded():
    assert counts(counted(*(("a", str(number)) for number in range(300)))) == {"a": 255}


def test_forgotten_item_counts_from_the_start():
    seen = counted(("a", "1"), ("b", "2"))
    assert counts(forget_item(seen, "a")) == {"b": 1}
    assert counts(forget_item(seen, "x")) == {"a": 1, "b": 1}
    assert forget_item(counted(("a", "1")), "a") is None


def test_items_with_enough_impressions_are_named():
    seen = counted(("a", "1"), ("b", "2"), ("a", "3"))
    assert hashes_seen_often(seen, 2) == {short_hash("a")}
    assert hashes_seen_often(seen, 1) == {short_hash("a"), short_hash("b")}
    assert hashes_seen_often(b"", 1) == frozenset()


def test_counts_of_both_halves_are_added_and_a_common_impression_counts_once():
    own, handed = counted(("a", "1"), ("b", "2")), counted(("b", "2"), ("c", "4"), ("a", "5"))
    assert list(counts(merge_counts(own, handed, 3)).items()) == [("c", 1), ("a", 2), ("b", 1)]
    assert counts(merge_counts(own, handed, 1)) == {"b": 1}
    assert counts(merge_counts(None, handed, 3)) == {"b": 1, "c": 1, "a": 1}
    assert merge_counts(None, handed, 0) is None


def test_sum_of_both_halves_is_bounded():
    own, handed = (counted(*(("a", f"{name}{number}") for number in range(200))) for name in "xy")
    assert counts(merge_counts(own, handed, 3)) == {"a": 255}
