import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clickscore.model.examples import Examples, make_examples
from clickscore.model.neighbours import (
    NEWEST_WEIGHT,
    PairCounts,
    add_counts,
    count_pairs,
    decay_counts,
    select_neighbours,
    subtract_counts,
    weigh_by_age,
)
from tests.model.builders import flat

ROWS = np.arange(1, 9)


def make(*sessions: str) -> Examples:
    """Return sessions of views, one letter an item."""
    return make_examples(flat([" ".join(f"view:{letter}" for letter in session) for session in sessions]), ROWS, 50)


def counted(pairs: PairCounts) -> dict[str, int]:
    letters = " abcdefgh"
    return {
        letters[key >> 32] + letters[key & 0xFFFFFFFF]: count
        for key, count in zip(pairs.keys.tolist(), pairs.counts.tolist(), strict=True)
    }


def test_meeting_counts_less_the_farther_apart():
    assert counted(count_pairs(make("abc"))) == {"ab": 60, "ba": 60, "bc": 60, "cb": 60, "ac": 30, "ca": 30}


def test_items_more_than_five_events_apart_do_not_meet():
    assert "ah" not in counted(count_pairs(make("abbbbbh")))
    assert counted(count_pairs(make("abbbbh")))["ah"] == 12


def test_item_is_no_neighbour_of_itself():
    assert counted(count_pairs(make("aa"))) == {}


def test_meeting_counts_half_after_a_share_of_the_sessions():
    assert weigh_by_age(8, 0.5).tolist() == [5, 6, 7, 8, 10, 12, 14, NEWEST_WEIGHT]
    assert weigh_by_age(8, 100).tolist() == [NEWEST_WEIGHT] * 8


def test_counts_age_as_newer_sessions_come():
    pairs = count_pairs(make("ab", "bc"), np.array([1, NEWEST_WEIGHT]))
    assert counted(decay_counts(pairs, 0.25, 0.5)) == {"ab": 42, "ba": 42, "bc": 679, "cb": 679}
    assert counted(decay_counts(pairs, 4, 0.5)) == {"bc": 4, "cb": 4}


def test_meeting_counts_what_its_session_does():
    pairs = count_pairs(make("abc", "ab", "d"), np.array([1, 3, 5]))
    assert counted(pairs) == {"ab": 240, "ba": 240, "bc": 60, "cb": 60, "ac": 30, "ca": 30}


def test_sessions_do_not_meet():
    assert counted(count_pairs(make("a", "b"))) == {}


def test_nearest_are_those_met_most_equal_ones_in_order_of_row():
    neighbours = select_neighbours(count_pairs(make("ab", "ab", "ac", "ad", "ae")), 9, 3)
    assert neighbours.rows[1].tolist() == [2, 3, 4]
    assert neighbours.shares[1].tolist() == [0.5, 0.25, 0.25]


def test_item_that_met_nobody_has_no_neighbours():
    neighbours = select_neighbours(count_pairs(make("ab", "c")), 9, 2)
    assert (neighbours.rows[3].tolist(), neighbours.shares[3].tolist()) == ([0, 0], [0, 0])
    assert (neighbours.rows[1].tolist(), neighbours.shares[1].tolist()) == ([2, 0], [1, 0])


SESSIONS = st.lists(st.text("abcdef", min_size=1, max_size=8), min_size=1, max_size=6)


@given(SESSIONS, SESSIONS)
def test_a_part_can_be_added_and_taken_out_again(some, others):
    weights = weigh_by_age(len(some) + len(others), 0.5)
    all_counts = count_pairs(make(*some, *others), weights)
    rest, part = count_pairs(make(*some), weights[: len(some)]), count_pairs(make(*others), weights[len(some) :])
    assert counted(add_counts(rest, part)) == counted(all_counts)
    assert counted(subtract_counts(all_counts, part)) == counted(rest)
