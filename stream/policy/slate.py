"""Slate: the filtered candidates of a request in order, and the selection of the choices to show."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence

from clickscore.schemas.decisions import Because, Choice
from clickscore.stream.request import Request

Slate = Sequence[Choice]
"""Candidates after the filters, best first, each with score and propensity."""

Selection = Callable[[Slate, Request, int], Slate]
"""Returns the choices to show, at most `k`, with the exact propensity of each: the probability of this item at this
position. Randomness comes from `Request.decision_id` alone, so a repeated decision selects the same items."""


CandidateSource = tuple[str, Iterable[tuple[str, float]], Callable[[int], tuple[Because, ...]] | None]
"""Candidates of one origin, in three parts:

* the reason stated in decisions, `model` or `popular`;
* (item id, score) of each candidate, best first;
* a function from a candidate's index to the events with the largest contributions; absent where reasons are off.

A plain tuple, because every decision makes new sources.
"""


def allowed_candidates(
    sources: Iterable[CandidateSource], forbidden: Sequence[tuple[str, Container[str]]], removed: dict[str, int]
) -> Iterator[Choice]:
    """Yield the allowed candidates, best first, each item once. Later candidates are looked up when needed.

    Args:
        sources: Origins of candidates; a later origin is the fallback of the earlier origins.
        forbidden: Name and forbidden items of each filter.
        removed: Receives the number of candidates removed by each filter.
    """
    seen: set[str] = set()
    for reason, candidates, because in sources:
        for index, (item, score) in enumerate(candidates):
            if item in seen:
                continue
            for name, items in forbidden:
                if item in items:
                    removed[name] = removed.get(name, 0) + 1
                    break
            else:
                seen.add(item)
                events = because(index) if because else ()
                yield Choice(item_id=item, score=score, propensity=1.0, reason=reason, because=events)


def select_first(slate: Slate, request: Request, k: int) -> Slate:
    """Select the first `k` choices. The selection is deterministic, so the propensity of each stays 1.0.

    Args:
        slate: The choices in order, best first.
        request: The request; unused, because the selection is not random.
        k: Largest number of choices.
    """
    del request
    return slate[:k]
