"""Catalogue history: views of any epoch equal a catalogue of the records before the epoch's offsets."""

import random
from collections.abc import Sequence

import pytest

from clickscore.schemas.catalogue import Campaign, Item, encode
from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE
from clickscore.stream.reference.campaigns import PageContext
from clickscore.stream.reference.catalogue import NO_DETAILS, Catalogue
from clickscore.stream.reference.catalogue_history import AnyCatalogue, CatalogueHistory, Offsets

ARRIVALS = range(1_700_000_000_000, 1_700_000_000_004)
ITEMS = [f"item-{number}" for number in range(8)]
CATEGORIES = ("tea", "mugs", "")

Topics = dict[str, list[tuple[bytes, bytes | None]]]


def make_topics(rng: random.Random, length: int) -> Topics:
    """Return random records of both topics: updates, removals and records without an effect."""
    topics: Topics = {CATALOGUE.name: [], CAMPAIGNS.name: []}
    for _ in range(length):
        item_id = rng.choice(ITEMS)
        item = Item(
            item_id=item_id,
            stock=rng.choice((None, 0, 3)),
            hidden=rng.random() < 0.2,
            category=rng.choice(CATEGORIES),
            brand=rng.choice(("", "lumi")),
            listed_at=rng.choice((None, *ARRIVALS)),
            price=rng.choice((None, 0.0, 2.0, 4.0, 8.0, rng.random())),
        )
        topics[CATALOGUE.name].append((item_id.encode(), None if rng.random() < 0.1 else encode(item)))
        campaign = Campaign(
            campaign_id=f"campaign-{rng.randrange(4)}",
            item_id=rng.choice(ITEMS),
            bid=float(rng.randrange(1, 5)),
            target_items=frozenset(rng.sample(ITEMS, rng.randrange(3))),
            target_categories=frozenset(rng.sample(CATEGORIES[:2], rng.randrange(2))),
        )
        value = None if rng.random() < 0.2 else encode(campaign)
        topics[CAMPAIGNS.name].append((campaign.campaign_id.encode(), value))
    return topics


def add(history: CatalogueHistory, topics: Topics, begin: int, end: int) -> None:
    for name, records in topics.items():
        for offset in range(begin, end):
            assert history.add(name, offset, *records[offset]) is None


def plain(topics: Topics, offsets: Offsets) -> Catalogue:
    """Return a catalogue of the records before the offsets."""
    catalogue = Catalogue()
    for key, value in topics[CATALOGUE.name][: offsets.catalogue]:
        catalogue.update_item(key, value)
    for key, value in topics[CAMPAIGNS.name][: offsets.campaigns]:
        catalogue.update_campaign(key, value)
    return catalogue


def facts(catalogue: AnyCatalogue, sessions: Sequence[Sequence[str]]) -> object:
    """Return all that decisions can read of a catalogue."""
    return (
        [(item in catalogue.out_of_stock, item in catalogue.hidden, catalogue.category_of(item)) for item in ITEMS],
        catalogue.has_campaigns,
        [list(catalogue.similar_to(item)) for item in ITEMS],
        [list(catalogue.arrivals_before(ts)) for ts in ARRIVALS],
        [
            sorted(catalogue.matching(PageContext(items)), key=lambda campaign: campaign.campaign_id)
            for items in sessions
        ],
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_every_view_is_the_catalogue_of_its_offsets_whatever_comes_after(seed: int):
    rng = random.Random(seed)
    topics, sessions = make_topics(rng, 60), [rng.sample(ITEMS, rng.randrange(4)) for _ in range(10)]
    history, views = CatalogueHistory(), []
    begin = rng.randrange(20)
    add(history, topics, 0, begin)
    history.forget_before(Offsets(begin, begin))
    for position in range(begin, 60):
        add(history, topics, position, position + 1)
        if rng.random() < 0.5:
            offsets = Offsets(rng.randint(begin, position + 1), rng.randint(begin, position + 1))
            views.append(history.view(offsets))
        if views and rng.random() < 0.2:
            views.pop(rng.randrange(len(views)))
        for view in views:
            assert facts(view, sessions) == facts(plain(topics, view.offsets), sessions)


def test_record_waits_for_a_view_of_its_offset():
    history = CatalogueHistory()
    history.add(CATALOGUE.name, 0, b"a", encode(Item(item_id="a", stock=0)))
    assert "a" not in history.view(Offsets(0, 0)).out_of_stock
    assert "a" in history.view(Offsets(1, 0)).out_of_stock


def test_equal_epochs_share_a_view():
    history = CatalogueHistory()
    first = history.view(Offsets(0, 0))
    assert history.view(Offsets(0, 0)) is first


def test_view_of_the_newest_epoch_reads_the_table_itself():
    history = CatalogueHistory()
    assert history.view(Offsets(3, 0)).out_of_stock is history.newest.out_of_stock


def test_change_of_a_price_is_kept_for_earlier_epochs():
    history = CatalogueHistory()
    for offset in range(3):
        history.add(CATALOGUE.name, offset, b"a", encode(Item(item_id="a", price=float(offset))))
    views = [history.view(Offsets(offset, 0)) for offset in range(4)]
    assert [view.details_of("a").price for view in views] == [None, 0.0, 1.0, 2.0]
    assert history.retained == 3


def test_change_of_a_title_or_of_a_stock_above_zero_is_not_kept():
    history = CatalogueHistory()
    view = history.view(Offsets(0, 0))
    for offset in range(5):
        history.add(CATALOGUE.name, offset, b"a", encode(Item(item_id="a", title=str(offset), stock=1 + offset)))
    later = history.view(Offsets(5, 0))
    assert history.retained == 1
    assert view.details_of("a") is later.details_of("a") is NO_DETAILS


def test_earlier_epoch_may_have_items_of_some_regions():
    history = CatalogueHistory()
    history.add(CATALOGUE.name, 0, b"a", encode(Item(item_id="a", regions=("north",))))
    history.add(CATALOGUE.name, 1, b"a", encode(Item(item_id="a")))
    limited, free = history.view(Offsets(1, 0)), history.view(Offsets(2, 0))
    assert (limited.has_limited, free.has_limited) == (True, False)
    assert (limited.details_of("a").regions, free.details_of("a").regions) == (("north",), ())


def test_changes_that_no_view_needs_are_dropped():
    history = CatalogueHistory(retained=3)
    early = history.view(Offsets(0, 0))
    for offset in range(10):
        history.add(CATALOGUE.name, offset, b"a", encode(Item(item_id="a", stock=offset % 2)))
    late = history.view(Offsets(10, 0))
    assert (history.retained, history.knows(Offsets(0, 0))) == (10, True)
    del early
    history.add(CATALOGUE.name, 10, b"a", encode(Item(item_id="a", stock=0)))
    later = history.view(Offsets(11, 0))
    assert (history.retained, history.knows(Offsets(8, 0)), history.knows(Offsets(7, 0))) == (3, True, False)
    assert ("a" in late.out_of_stock, "a" in later.out_of_stock) == (False, True)


def test_unreadable_record_is_refused_and_passed():
    history = CatalogueHistory()
    assert "JSON" in (history.add(CATALOGUE.name, 4, b"a", b"rubbish") or "")
    assert history.position == Offsets(5, 0)
