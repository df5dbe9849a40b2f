"""Due decisions: requests that wait for scores, and the pages that are decided on them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from clickscore.schemas.decisions import Ad, ShownShelf
from clickscore.stream.deciders import Decider
from clickscore.stream.pipeline_records import Message, Output
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request, Scores
from clickscore.stream.scoring.scorer import PendingScores, Scorer


class DueDecision(msgspec.Struct, frozen=True, gc=False):
    """A request that waits for its decision."""

    request: Request
    catalogue: AnyCatalogue
    """Catalogue in the epoch of the request."""
    output: Output
    """Output for the decisions on the request."""
    decider: Decider
    """Bundle and policy of the request's variant, in the epoch of the request."""
    offset: int
    """Offset of the event."""


class DecidedPage(msgspec.Struct, frozen=True, gc=False):
    """A decision with its records to publish."""

    recommendation: Message
    ad_message: Message | None
    shelves: Sequence[ShownShelf]
    ad: Ad | None
    origins: Mapping[str, int]
    """Number of items by reason."""


DecisionWatch = Callable[[DueDecision, Scores | None, DecidedPage], None]
"""Sees a request with catalogue and decider, the model's scores, and the decision."""


class PendingGroup(NamedTuple):
    """Requests for one scorer."""

    indices: Sequence[int]
    """Index of each request among the due decisions."""
    scores: PendingScores | None
    """Scores of the requests; absent without a model."""

    def results(self) -> Iterator[tuple[int, Scores | None]]:
        """Yield (index, scores) of each request, in order of completion."""
        if self.scores is None:
            yield from ((index, None) for index in self.indices)
        else:
            yield from ((self.indices[position], scores) for position, scores in self.scores.results())


def submit_requests(due: Sequence[DueDecision]) -> list[PendingGroup]:
    """Start scoring the requests, those of each scorer together."""
    groups: dict[Scorer | None, list[int]] = {}
    for index, decision in enumerate(due):
        groups.setdefault(decision.decider.scorer, []).append(index)
    return [
        PendingGroup(indices, scorer.submit([due[index].request for index in indices]) if scorer else None)
        for scorer, indices in groups.items()
    ]
