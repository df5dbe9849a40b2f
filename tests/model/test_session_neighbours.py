from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickscore.model.examples import Examples, make_examples
from clickscore.model.session_neighbours import (
    LIST_SESSIONS,
    LISTS,
    MAX_SESSIONS,
    SESSION_ITEMS,
    SHARE_SCALE,
    SLOTS,
    IndexedSessions,
    compute_bonuses,
    explain_bonuses,
    find_neighbours,
    index_sessions,
    open_index,
)
from clickscore.model.training_batches import PaddedBatch
from tests.model.builders import flat

LETTERS = "abcdefghijklm"


def make(*sessions: str) -> Examples:
    """Return sessions of views, one letter an item."""
    views = [" ".join(f"view:{letter}" for letter in session) for session in sessions]
    return make_examples(flat(views, LETTERS), np.arange(1, len(LETTERS) + 1), 50)


def indexed(*sessions: str) -> list[str]:
    return [words(items) for items in index_sessions(make(*sessions))]


def words(items: np.ndarray) -> str:
    return "".join(LETTERS[row - 1] for row in items.tolist() if row)


def prefixes(*sessions: str) -> PaddedBatch:
    width = max(map(len, sessions))
    rows = np.array([[LETTERS.index(letter) + 1 for letter in session.ljust(width, "a")] for session in sessions])
    lengths = np.array([len(session) for session in sessions])
    rows *= np.arange(width) < lengths[:, None]
    return PaddedBatch(rows, np.minimum(rows, 1), lengths)


def shares(sessions: list[str], prefix: str) -> dict[str, float]:
    """Return the share of the neighbours' weight for each item that has one."""
    found = find_neighbours(
        open_index(IndexedSessions(index_sessions(make(*sessions)), 1.0), len(LETTERS) + 1), prefixes(prefix)
    )
    weights = np.bincount(found.rows[0], weights=found.parts[0].sum(axis=0), minlength=len(LETTERS) + 1)
    return {LETTERS[row - 1]: float(weights[row] / found.totals[0]) for row in np.flatnonzero(weights).tolist()}


def expected(sessions: list[str], prefix: str) -> dict[str, float]:
    """Return the shares by the formulas, session by session."""
    newest: dict[str, int] = {}
    for age, letter in enumerate(reversed(prefix)):
        if age < SLOTS:
            newest.setdefault(letter, age)
    listed = list(newest)[:LISTS]
    weights: dict[int, int] = {}
    for number, session in enumerate(sessions):
        kept = list(dict.fromkeys(reversed(session)))[:SESSION_ITEMS]
        common = [age for letter, age in newest.items() if letter in kept]
        if common and min(common) in [newest[letter] for letter in listed]:
            weights[number] = sum(len(prefix) - age for age in common) * (SLOTS - min(common))
    sums: dict[str, Fraction] = {}
    for number, weight in weights.items():
        for letter in list(dict.fromkeys(reversed(sessions[number])))[:SESSION_ITEMS]:
            sums[letter] = sums.get(letter, Fraction(0)) + Fraction(weight, sum(weights.values()))
    return {letter: float(value) for letter, value in sums.items()}


def test_index_holds_the_newest_items_of_each_session():
    assert indexed("abcab", "d") == ["bac", "d"]
    assert indexed("abcdefghij") == ["jihgfedc"]


def test_index_grows_by_newer_sessions():
    older = index_sessions(make("ab", "c"))
    assert [words(items) for items in index_sessions(make("de"), older)] == ["ba", "c", "ed"]


def test_index_leaves_out_sessions_that_no_list_holds():
    assert indexed("ab", *["a"] * (LIST_SESSIONS - 1), "ac", "ad") == ["ba", *["a"] * (LIST_SESSIONS - 2), "ca", "da"]
    assert indexed("a", *["b"] * LIST_SESSIONS, "b") == ["a", *["b"] * LIST_SESSIONS]


def test_index_is_bounded():
    count = MAX_SESSIONS + 3
    none = np.zeros(count, dtype=np.int64)
    sessions = Examples(np.arange(1, count + 1), none, none, none, none, np.arange(count + 1))
    assert index_sessions(sessions)[:, 0].tolist() == list(range(4, count + 1))


def test_items_of_similar_sessions_have_a_share():
    assert shares(["abc", "abd", "e"], "ab") == {"a": 1, "b": 1, "c": 0.5, "d": 0.5}


def test_bonus_is_the_logarithm_of_the_share():
    bonuses = compute_bonuses(np.array([[0, 5, 10]]), np.array([10]), 2.0)
    assert bonuses[0].tolist() == pytest.approx([0, 2 * np.log(1 + SHARE_SCALE / 2), 2 * np.log(1 + SHARE_SCALE)])


def test_session_with_more_common_items_counts_more():
    result = shares(["abc", "bd"], "ab")
    assert result["c"] == pytest.approx(3 / 5)
    assert result["d"] == pytest.approx(2 / 5)


def test_session_whose_common_item_is_older_counts_less():
    result = shares(["ac", "bd"], "ab")  # weights: 1 * 9 and 2 * 10
    assert result["c"] == pytest.approx(9 / 29)


def test_prefix_without_neighbours_has_no_shares():
    assert shares(["ab"], "c") == {}


@settings(max_examples=40)
@given(
    st.lists(st.text(LETTERS, min_size=1, max_size=12), min_size=1, max_size=12),
    st.text(LETTERS, min_size=1, max_size=14),
)
def test_shares_are_those_of_the_formulas(sessions, prefix):
    assert shares(sessions, prefix) == pytest.approx(expected(sessions, prefix))


@settings(max_examples=40)
@given(st.lists(st.text(LETTERS, min_size=1, max_size=12), min_size=1, max_size=6))
def test_neighbours_do_not_depend_on_the_batch(queries):
    index = open_index(
        IndexedSessions(index_sessions(make("abcd", "bcde", "aef", "gh", "ij", "klm")), 2.0), len(LETTERS) + 1
    )
    together = find_neighbours(index, prefixes(*queries))
    for row, query in enumerate(queries):
        alone = find_neighbours(index, prefixes(query))
        assert together.rows[row].tolist() == alone.rows[0].tolist()
        assert together.parts[row, : alone.parts.shape[1]].tolist() == alone.parts[0].tolist()
        assert together.totals[row] == alone.totals[0]


def test_parts_of_the_events_add_up_to_the_bonus():
    index = open_index(IndexedSessions(index_sessions(make("abc", "abd", "e")), 3.0), len(LETTERS) + 1)
    batch, explained = prefixes("ab", "eab"), np.array([[3, 5], [3, 5]])  # items c and e
    found = find_neighbours(index, batch)
    parts = explain_bonuses(found, batch, explained, 3.0)
    bonus = 3 * np.log(1 + SHARE_SCALE / 2)
    assert parts[0, 0].tolist() == pytest.approx([bonus / 3, bonus * 2 / 3, 0])  # b counts twice as much as a
    bonus = 3 * np.log(1 + SHARE_SCALE * 50 / 108)  # weights: 5 * 10 of abc and of abd, 1 * 8 of e
    assert parts[1, 0].tolist() == pytest.approx([0, bonus * 2 / 5, bonus * 3 / 5])
    assert not parts[0, 1].any()
    assert parts[1, 1].tolist() == pytest.approx([3 * np.log(1 + SHARE_SCALE * 8 / 108), 0, 0])


def test_event_beyond_the_slots_has_no_part():
    index = open_index(IndexedSessions(index_sessions(make("abc")), 1.0), len(LETTERS) + 1)
    batch = prefixes("a" + "d" * SLOTS + "b")
    parts = explain_bonuses(find_neighbours(index, batch), batch, np.array([[3]]), 1.0)
    assert parts[0, 0].tolist() == pytest.approx([0] * (SLOTS + 1) + [np.log(1 + SHARE_SCALE)])
