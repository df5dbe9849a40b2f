"""Builders of requests, scores and catalogues, for tests of the decision stage."""

import msgspec

from clickscore.schemas.catalogue import Campaign, Item, encode
from clickscore.stream.policy.experiments import MODEL
from clickscore.stream.policy.policy_file import Hide, Limit, PolicyFile
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.request import Request, Scores
from tests.events import view


def plain(**fields: object) -> PolicyFile:
    """Return a policy without rules on the user's own items, except the bought ones."""
    rules = {"hide": Hide(on_screen=False, in_cart=False), "limit": Limit(reminders=1_000)}
    return PolicyFile(version="plain-1", owner="tests", **(rules | fields))  # pyright: ignore[reportArgumentType]


def make_request(*items: str, bought: tuple[str, ...] = (), popular: tuple[str, ...] = ()) -> Request:
    return Request(
        decision_id="events-0-7",
        event=view("ann", 0),
        session_id="s",
        session_length=len(items),
        items=list(items),
        actions=b"\1" * len(items),
        bought=frozenset(bought),
        variant=MODEL,
        late=False,
        popular=list(popular),
    )


def make_scores(*items: str, purchase: float = 0.5) -> Scores:
    ranks = list(range(len(items)))
    return Scores(ranks, [float(-rank) for rank in ranks], {"view": 1.0}, purchase, items)


def make_catalogue(*items: Item, campaigns: tuple[Campaign, ...] = ()) -> Catalogue:
    made = Catalogue()
    for item in items:
        assert made.update_item(item.item_id.encode(), encode(item)) is None
    for campaign in campaigns:
        assert made.update_campaign(campaign.campaign_id.encode(), encode(campaign)) is None
    return made


def make_campaign(name: str, item: str, bid: float, **more: object) -> Campaign:
    return msgspec.convert({"campaign_id": name, "item_id": item, "bid": bid, **more}, Campaign)
