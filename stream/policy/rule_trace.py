"""Rule trace: what each rule of a policy removed or moved for a request, found by watching the decision being made."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import NamedTuple, TypeVar

from clickscore.stream.policy.slate import CandidateSource, Slate

Candidate = TypeVar("Candidate")


class RuleEffect(NamedTuple):
    """An effect of a rule on an item."""

    item_id: str
    rule: str
    """Name of the rule."""
    rank_before: int | None = None
    """Rank of the item before the rule, from 1; None where a filter or a cap removed it, or the rule added it."""
    rank_after: int | None = None
    """Rank of the item after the rule, from 1; None for a removed item."""


class RuleTrace:
    """Effects of the rules on a request, in the order in which the rules met the items."""

    def __init__(self) -> None:
        self.effects: list[RuleEffect] = []
        self._removed: set[str] = set()

    def watch_sources(
        self, sources: Iterable[CandidateSource], removed: Mapping[str, int]
    ) -> Iterator[CandidateSource]:
        """Yield sources whose candidates are watched."""
        for reason, candidates in sources:
            yield reason, self.watch(candidates, itemgetter(0), removed)

    def watch(
        self, candidates: Iterable[Candidate], item_of: Callable[[Candidate], str], removed: Mapping[str, int]
    ) -> Iterator[Candidate]:
        """Yield candidates, and note each one that the reader counts as removed before it asks for the next.

        An item that several sources offer is noted once.

        Args:
            candidates: Candidates, best first.
            item_of: Returns the item id of a candidate.
            removed: Number of removed candidates by rule, which the reader counts up.
        """
        for candidate in candidates:
            counts, item = dict(removed), item_of(candidate)
            yield candidate
            for rule, count in removed.items():
                if count != counts.get(rule, 0) and item not in self._removed:
                    self._removed.add(item)
                    self.effects.append(RuleEffect(item, rule))

    def compare(self, rule: str, before: Slate, after: Slate, places: int) -> None:
        """Note what a re-ranker moved, removed or added within the shown places.

        Args:
            rule: Name of the re-ranker.
            before: Slate before.
            after: Slate after.
            places: Number of shown places; a move behind them is not noted.
        """
        old_ranks = {choice.item_id: rank for rank, choice in enumerate(before, start=1)}
        new_ranks = {choice.item_id: rank for rank, choice in enumerate(after, start=1)}
        for item in {**old_ranks, **new_ranks}:
            ranks = old_ranks.get(item), new_ranks.get(item)
            if ranks[0] != ranks[1] and min(rank for rank in ranks if rank) <= places:
                self.effects.append(RuleEffect(item, rule, *ranks))
