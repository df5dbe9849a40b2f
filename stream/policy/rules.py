"""Rules: each part of a policy as a name, a pure function and a sentence.

A filter removes candidates, a re-ranker changes their order, and a cap limits the places of a group of items. The name
counts in decisions and metrics, and the sentence explains the rule to people.
"""

from collections.abc import Callable, Collection, Container, Iterable
from typing import NamedTuple

from clickscore.stream.policy.slate import Slate
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request, Scores

Rerank = Callable[[Slate, Request, AnyCatalogue], Slate]
"""Returns the slate in another order, with other scores or with fewer items."""


class CatalogueFilter(NamedTuple):
    """A rule that removes the same candidates for all users."""

    name: str
    sentence: str
    """Reason for the removal of an item, to follow "not shown because"."""
    forbid: Callable[[Request, AnyCatalogue], Container[str]]
    """Returns the forbidden item ids; the request is not read."""


class UserFilter(NamedTuple):
    """A rule that removes a few items for a user."""

    name: str
    sentence: str
    """Reason for the removal of an item, to follow "not shown because"."""
    forbid: Callable[[Request, AnyCatalogue], Collection[str]]
    """Returns the item ids that are forbidden for a request."""


class RequestFilter(NamedTuple):
    """A rule that tests every candidate for a request."""

    name: str
    sentence: str
    """Reason for the removal of an item, to follow "not shown because"."""
    forbid: Callable[[Request, AnyCatalogue], Container[str]]
    """Returns the forbidden item ids; an empty tuple where the rule says nothing for the request."""


Filter = CatalogueFilter | UserFilter | RequestFilter
"""A rule that removes candidates. A filter adds no item and changes no order."""


class Cap(NamedTuple):
    """A rule that limits the places of a group of items in a list."""

    name: str
    sentence: str
    """Reason for the removal of an item, to follow "not shown because"."""
    limit: int
    """Number of places for a group, at most."""
    group_of: Callable[[Request, AnyCatalogue], Callable[[str], str | None]]
    """Returns, for a request, a function from an item to its group; None or empty for an item without a limit."""
    is_personal: bool = False
    """Whether the groups depend on the user's session; otherwise they depend on the catalogue alone."""


class Reranker(NamedTuple):
    """A rule that changes the order of a slate, or leaves items out."""

    name: str
    sentence: str
    """Description of what moves which items."""
    rerank: Rerank


class ScoredReranker(NamedTuple):
    """A rule that changes the order of a slate by what the model expects of the session."""

    name: str
    sentence: str
    """Description of what moves which items."""
    bind: Callable[[Scores | None], Rerank]
    """Returns the re-ranking for the model's output; None where no model scores the request."""


AnyReranker = Reranker | ScoredReranker
"""A rule that changes the order of a slate."""


def bind_rerankers(rules: Iterable[AnyReranker], scores: Scores | None) -> list[Reranker]:
    """Return rules as re-rankers for the model's output; None where no model scores the request."""
    return [
        Reranker(rule.name, rule.sentence, rule.bind(scores)) if isinstance(rule, ScoredReranker) else rule
        for rule in rules
    ]


Rule = Filter | Cap | AnyReranker
"""A rule of a policy: every rule has a `name` and a `sentence`."""
