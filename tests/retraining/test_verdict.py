import pytest

from clickscore.model.evaluation.bootstrap import BootstrapInterval
from clickscore.model.evaluation.bundle_comparison import BundleComparison, MeasuredDifference
from clickscore.retraining.verdict import judge_comparison


def measured(champion: float, low: float, value: float, high: float) -> MeasuredDifference:
    interval = BootstrapInterval(value=value, low=low, high=high)
    return MeasuredDifference(champion=champion, challenger=champion + value, difference=interval)


def compared(**measures: MeasuredDifference) -> BundleComparison:
    return BundleComparison(
        sessions=100,
        ranked_events=300,
        measures={name.replace("_20", "@20"): measure for name, measure in measures.items()},
    )


BETTER, LEVEL, WORSE = (
    measured(0.4, 0.01, 0.02, 0.03),
    measured(0.4, -0.01, 0.0, 0.01),
    measured(0.4, -0.03, -0.02, -0.01),
)


@pytest.mark.parametrize(
    ("comparison", "is_good", "word"),
    [
        (compared(hit_rate_20=BETTER, mrr_20=BETTER), True, "no measure is clearly worse"),
        (compared(hit_rate_20=LEVEL, mrr_20=LEVEL), True, "no measure is clearly worse"),
        (compared(hit_rate_20=WORSE, mrr_20=BETTER), False, "hit_rate@20 is worse"),
        (compared(hit_rate_20=BETTER, mrr_20=WORSE), False, "mrr@20 is worse"),
        (compared(hit_rate_20=BETTER, purchase_log_loss=BETTER), False, "purchase_log_loss is worse"),
        (compared(hit_rate_20=BETTER, purchase_log_loss=WORSE), True, "no measure is clearly worse"),
        (compared(hit_rate_20=measured(0.4, -0.02, -0.01, 0.01)), False, "no gain"),
        (compared(purchase_log_loss=LEVEL), False, "cannot be compared"),
    ],
)
def test_bundle_is_tried_where_nothing_is_worse(comparison, is_good, word):
    verdict = judge_comparison(comparison)
    assert verdict.is_good is is_good
    assert word in verdict.reason
