import numpy as np

from clickscore.model.session_arrays import Sessions, sort_by_closing
from tests.model.builders import flat


def test_sessions_are_arranged_in_order_of_closing():
    sessions = flat(["view:a view:b", "view:c", "view:d"])
    late = sort_by_closing(
        Sessions(
            sessions.item_ids, sessions.items, sessions.actions, sessions.starts, np.array([30, 20, 10]), sessions.ages
        )
    )
    assert (late.items.tolist(), late.starts.tolist()) == ([3, 2, 0, 1], [0, 1, 2, 4])
