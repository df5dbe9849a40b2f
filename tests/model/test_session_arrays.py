import numpy as np

from clickscore.model.session_arrays import Sessions, sort_by_closing
from tests.model.builders import flat


def test_sessions_are_arranged_in_order_of_closing():
    told = flat(["view:a view:b", "view:c", "view:d"])
    late = sort_by_closing(
        Sessions(told.item_ids, told.items, told.actions, told.starts, np.array([30, 20, 10]), told.ages)
    )
    assert (late.items.tolist(), late.starts.tolist()) == ([3, 2, 0, 1], [0, 1, 2, 4])
