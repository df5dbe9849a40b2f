"""Slate: the candidates of a request in order, and the stages that turn a slate into a selection.

Candidates pass the filters, then the re-rankers, then the selection. The slate is an iterator until a re-ranker or a
selection needs all of its choices, so that candidates behind the last selected one are never looked up.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

from clickscore.schemas.decisions import Because, Choice
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.request import Request

Slate = Sequence[Choice]
"""Candidates that passed the filters, best first, each with its score and its propensity."""

Reranker = Callable[[Slate, Request, Catalogue], Slate]
"""Returns a slate in another order, with other scores, or with fewer items. It is a pure function."""

Selection = Callable[[Slate, Request, int], Slate]
"""Returns the choices to show, at most `k`, with the exact propensity of each: the probability that the selection
shows this item at this position. Randomness comes from `Request.decision_id` alone, so a repeat selects the same."""


CandidateSource = tuple[str, Iterable[tuple[str, float]], Callable[[int], tuple[Because, ...]] | None]
"""Candidates of one origin, in three parts:

* the reason that decisions state, `model` or `popular`;
* (item id, score) of each candidate, best first;
* a function from a candidate's index to the events that spoke most for the candidate; absent where reasons are off.

A plain tuple, since one is made for each decision.
"""


def fill_slate(
    sources: Iterable[CandidateSource], forbidden: Sequence[tuple[str, Collection[str]]], limit: int
) -> tuple[Slate, dict[str, int]]:
    """Return the candidates that no filter forbids, each item once, and how many candidates each filter removed.

    Args:
        sources: Origins of candidates; a later one is the fallback for the ones before it.
        forbidden: Name and forbidden items of each filter.
        limit: Length of the slate at which no further candidate is looked up.
    """
    slate: list[Choice] = []
    filtered: dict[str, int] = {}
    seen: set[str] = set()
    for reason, candidates, because in sources:
        for index, (item, score) in enumerate(candidates):
            if item in seen:
                continue
            for name, items in forbidden:
                if item in items:
                    filtered[name] = filtered.get(name, 0) + 1
                    break
            else:
                seen.add(item)
                events = because(index) if because else ()
                slate.append(Choice(item_id=item, score=score, propensity=1.0, reason=reason, because=events))
                if len(slate) == limit:
                    return slate, filtered
    return slate, filtered


def select_first(slate: Slate, request: Request, k: int) -> Slate:
    """Select the first `k` choices. The selection is deterministic, so the propensity of each stays 1.0.

    Args:
        slate: The choices in order, best first.
        request: The request; unused, since nothing is random here.
        k: Largest number of choices.
    """
    del request
    return slate[:k]
