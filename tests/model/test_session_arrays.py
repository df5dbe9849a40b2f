import numpy as np

from clickscore.model.session_arrays import NO_ITEM, Sessions, hide_items, sort_by_closing
from tests.model.builders import flat


def test_sessions_are_arranged_in_order_of_closing():
    sessions = flat(["view:a view:b", "view:c", "view:d"])
    late = sort_by_closing(
        Sessions(
            sessions.item_ids, sessions.items, sessions.actions, sessions.starts, np.array([30, 20, 10]), sessions.ages
        )
    )
    assert (late.items.tolist(), late.starts.tolist()) == ([3, 2, 0, 1], [0, 1, 2, 4])


def hidden_rows(share: float) -> list[int]:
    sessions, rows = hide_items(flat(["view:a view:b view:a search"] * 200), np.arange(1, 9), [share], seed=0)
    return np.where(sessions.items == NO_ITEM, -1, rows[sessions.items]).tolist()


def test_all_items_are_hidden_or_none():
    assert hidden_rows(0) == [1, 2, 1, -1] * 200
    assert hidden_rows(1) == [0, 0, 0, -1] * 200


def test_an_item_is_hidden_in_its_whole_session_with_the_given_probability():
    rows = np.array(hidden_rows(0.5)).reshape(200, 4)
    assert (rows[:, 0] == rows[:, 2]).all()
    assert 70 < (rows[:, 0] == 0).sum() < 130
    assert (rows[:, 0] == 0).tolist() != (rows[:, 1] == 0).tolist()


def test_hidden_items_of_a_session_stay_distinct():
    sessions, _ = hide_items(flat(["view:a view:b view:a"]), np.arange(1, 9), [1.0], seed=0)
    assert len(set(sessions.items.tolist())) == 2
