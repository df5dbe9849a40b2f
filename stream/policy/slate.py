"""Slate: the filtered candidates of a request in order, and the selection of the choices to show."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest

from clickscore.schemas.decisions import Because, Choice
from clickscore.stream.request import Request

Slate = Sequence[Choice]
"""Candidates after the filters, best first, each with score and propensity."""

Selection = Callable[[Slate, Request, int], Slate]
"""Returns the choices to show, at most `k`, with the exact propensity of each: the probability of this item at this
position. Randomness comes from `Request.decision_id` alone, so a repeated decision selects the same items."""


CandidateSource = tuple[str, Iterable[tuple[str, float]]]
"""Candidates of one origin, in two parts:

* the reason stated in decisions, `model`, `similar` or `popular`;
* (item id, score) of each candidate, best first.

A plain tuple, because every decision makes new sources.
"""


PlaceCounts = tuple[Callable[[str], str | None], Callable[[str], str | None]]
"""Counts of the places of a list by group, as two functions, since few items are in a group of the usual cap:

* Return the group of an item; None or empty for an item that no cap limits.
* Return the name of a cap that is full for a group. None counts an item of the group as shown.
"""


Pick = tuple[str, float, str, int]
"""An allowed candidate: item id, score, reason, and index within its source. A plain tuple, like its source."""


def pick_candidates(
    sources: Iterable[CandidateSource],
    forbidden: Sequence[tuple[str, Container[str]]],
    counts: PlaceCounts | None,
    limit: int,
    removed: dict[str, int],
) -> list[Pick]:
    """Return the first allowed candidates, each item once.

    One loop for all rules: every decision runs it, and generators for each stage took twice the time.

    Args:
        sources: Origins of candidates; a later origin is the fallback of the earlier origins.
        forbidden: Name and forbidden items of each filter.
        counts: Counts of the places by group; None without caps.
        limit: Largest number of candidates; later ones are not looked up.
        removed: Receives the number of candidates removed by each rule.
    """
    picks: list[Pick] = []
    items: set[str] = set()
    group_of, find_full_cap = counts or (None, None)
    for reason, candidates in sources:
        for index, (item, score) in enumerate(candidates):
            if item in items:
                continue
            for name, forbidden_items in forbidden:
                if item in forbidden_items:
                    rule = name
                    break
            else:
                rule = find_full_cap(group) if group_of and find_full_cap and (group := group_of(item)) else None
            if rule is not None:
                removed[rule] = removed.get(rule, 0) + 1
                continue
            items.add(item)
            picks.append((item, score, reason, index))
            if len(picks) == limit:
                return picks
    return picks


def make_choices(picks: Iterable[Pick], because: Mapping[str, tuple[Because, ...]]) -> list[Choice]:
    """Return candidates as choices of a selection without chance.

    Args:
        picks: The candidates.
        because: Events that raised the score of an item, by item.
    """
    return [
        Choice(item_id=item, score=score, propensity=1.0, reason=reason, because=because.get(item, ()))
        for item, score, reason, _ in picks
    ]


def alternate(source: CandidateSource, other: CandidateSource) -> Iterator[CandidateSource]:
    """Yield the candidates of two sources in turns, each as a source of its own; then the rest of the longer one."""
    for pair in zip_longest(source[1], other[1]):
        for reason, candidate in zip((source[0], other[0]), pair, strict=True):
            if candidate is not None:
                yield reason, (candidate,)


def select_first(slate: Slate, request: Request, k: int) -> Slate:
    """Select the first `k` choices. The selection is deterministic, so the propensity of each stays 1.0.

    Args:
        slate: The choices in order, best first.
        request: The request; unused, because the selection is not random.
        k: Largest number of choices.
    """
    del request
    return slate[:k]
