"""Shadow: compare the challenger's scores with the champion's on the same events, without deciding."""

from clickscore.schemas.outcome_counts import ShadowCounts
from clickscore.stream.request import Scores

BEST = 10
"""Number of best items whose agreement is counted."""


def compare_scores(champion: Scores, challenger: Scores | None, best: int = BEST) -> ShadowCounts:
    """Return the comparison on an event.

    Args:
        champion: Scores of the champion, with candidates.
        challenger: Scores of the challenger; absent where it knows no item of the session.
        best: Number of best items whose agreement is counted.
    """
    if challenger is None or not challenger.rows:
        return ShadowCounts(events=1, unscored=1)
    usual, tried = _items(champion), _items(challenger)
    ranks = {item: rank for rank, item in enumerate(tried)}
    common = [ranks[item] for item in usual if item in ranks]
    counts = ShadowCounts(
        events=1,
        agreement=len(set(usual[:best]).intersection(tried[:best])) / len(usual[:best]),
        champion_score=champion.scores[0],
        challenger_score=challenger.scores[0],
    )
    if len(common) > 1:
        counts.correlated, counts.rank_correlation = 1, _rank_correlation(common)
    if champion.purchase is not None and challenger.purchase is not None:
        counts.predicted = 1
        counts.champion_purchase, counts.challenger_purchase = champion.purchase, challenger.purchase
    return counts


def summarise_shadow(counts: ShadowCounts) -> dict[str, float]:
    """Return the measures of a comparison by name."""
    events, scored = max(1, counts.events), max(1, counts.events - counts.unscored)
    return {
        "events": float(counts.events),
        "dropped": float(counts.dropped),
        "unscored share": counts.unscored / events,
        f"agreement at {BEST}": counts.agreement / scored,
        "rank correlation": counts.rank_correlation / max(1, counts.correlated),
        "best score of the champion": counts.champion_score / scored,
        "best score of the challenger": counts.challenger_score / scored,
        "predicted purchase of the champion": counts.champion_purchase / max(1, counts.predicted),
        "predicted purchase of the challenger": counts.challenger_purchase / max(1, counts.predicted),
        "ms per call": 1000 * counts.seconds / max(1, counts.calls),
    }


def _items(scores: Scores) -> list[str]:
    return [item for item, _ in scores.candidates()]


def _rank_correlation(ranks: list[int]) -> float:
    """Return Spearman's correlation between the order of a list and the order of its values, all different.

    Args:
        ranks: Ranks by the challenger, in the order of the champion; two or more.
    """
    order = sorted(ranks)
    positions = {rank: position for position, rank in enumerate(order)}
    count = len(ranks)
    squares = sum((position - positions[rank]) ** 2 for position, rank in enumerate(ranks))
    return 1 - 6 * squares / (count * (count * count - 1))
