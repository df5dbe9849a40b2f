"""Slate: the filtered candidates of a request in order, and the selection of the choices to show."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import zip_longest

from clickscore.schemas.decisions import Choice
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


def choose_candidates(
    sources: Iterable[CandidateSource],
    forbidden: Sequence[tuple[str, Container[str]]],
    find_full_cap: Callable[[str], str | None] | None,
    limit: int,
    removed: dict[str, int],
) -> tuple[list[Choice], dict[str, int]]:
    """Return the first allowed candidates, each item once, and the index of each within its source.

    One loop for all rules: every decision runs it, and generators for each stage took twice the time.

    Args:
        sources: Origins of candidates; a later origin is the fallback of the earlier origins.
        forbidden: Name and forbidden items of each filter.
        find_full_cap: Returns the name of a cap that is full for an item, or counts the item; None without caps.
        limit: Largest number of choices; later candidates are not looked up.
        removed: Receives the number of candidates removed by each rule.
    """
    choices: list[Choice] = []
    indices: dict[str, int] = {}
    for reason, candidates in sources:
        for index, (item, score) in enumerate(candidates):
            if item in indices:
                continue
            rule = None
            for name, items in forbidden:
                if item in items:
                    rule = name
                    break
            else:
                rule = find_full_cap(item) if find_full_cap else None
            if rule is not None:
                removed[rule] = removed.get(rule, 0) + 1
                continue
            indices[item] = index
            choices.append(Choice(item_id=item, score=score, propensity=1.0, reason=reason))
            if len(choices) == limit:
                return choices, indices
    return choices, indices


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
