"""Re-rankers: the rules of a policy on the order of the candidates, in the order of their runs."""

from clickscore.stream.policy.goals import rank_by_goals
from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.policy.relevance import boost_items, drop_irrelevant
from clickscore.stream.policy.rules import AnyReranker


def make_rerankers(policy_file: PolicyFile) -> tuple[AnyReranker, ...]:
    """Return the re-rankers of a policy, in the order of their runs."""
    boost, relevance, goals = policy_file.boost, policy_file.only.relevance, policy_file.goals
    is_boosting = bool(boost.items or boost.categories or boost.brands) or any(
        factor != 1.0 for factor in (boost.promoted, boost.margin, boost.fresh)
    )
    rules: list[AnyReranker] = []
    if relevance:
        rules.append(drop_irrelevant(relevance))
    if goals.is_used:
        rules.append(rank_by_goals(goals, boost if is_boosting else None))
    elif is_boosting:
        rules.append(boost_items(boost))
    return tuple(rules)
