"""Statement: how much lists change without each part, and the page that says it."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from clickscore.schemas.catalogue import Campaign, Item, encode
from clickscore.schemas.events import AnyEvent, encode_event
from clickscore.stream.__main__ import cli
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.policy.ad_policy import AdPlacement, Ads
from clickscore.stream.policy.goal_policy import Goals
from clickscore.stream.policy.policy_file import DEFAULT_POLICY, Pin, PolicyFile, parse_policy
from clickscore.stream.policy.policy_parts import policies_without_a_part
from clickscore.stream.policy.shelf_policy import Pages
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.list_changes import ListChanges, ListWatch, PartShare
from clickscore.stream.replay.statement import write_statement
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import PolicySettings, Settings
from tests.bundles import small_bundle
from tests.events import impression, records, view
from tests.scored_requests import make_campaign, plain

VIEWS: list[AnyEvent] = [view(f"user-{number % 3}", number, f"item-{1 + number % 5}") for number in range(12)]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return Scorer(load_bundle(small_bundle(tmp_path_factory.mktemp("bundle"))))


def measure(
    policy: PolicyFile,
    scorer: Scorer | None,
    *,
    share: float = 1.0,
    events: Sequence[AnyEvent] = VIEWS,
    items: Sequence[Item] = (),
    campaigns: Sequence[Campaign] = (),
) -> ListChanges:
    values = Settings.of()
    pipeline = Pipeline(values.sessions, values.policy, "events", Catalogue(), scorer, policy_file=policy)
    for item in items:
        pipeline.catalogue.update_item(item.item_id.encode(), encode(item))
    for campaign in campaigns:
        pipeline.catalogue.update_campaign(campaign.campaign_id.encode(), encode(campaign))
    watch = ListWatch(policy, scorer, values.policy, share=share)
    pipeline.watch = watch
    pipeline.process(0, [record._replace(timestamp=-1) for record in records(*events)])
    return watch.changes()


def test_part_that_decides_everything_has_the_largest_share(scorer: Scorer):
    changes = measure(DEFAULT_POLICY, scorer)
    parts = {part.part: part for part in changes.parts}
    assert (changes.events, changes.measured) == (12, 12)
    assert parts["session"].items == max(part.items for part in changes.parts) > 0
    assert parts["session"].pages == 1.0
    assert 0 < parts["history"].items <= 1
    assert parts["hide.out_of_stock"].items == parts["ads"].items == 0
    assert parts["hide.on_screen"].pages > 0
    assert changes.by_model > 0


def test_every_list_is_diverse_by_the_vectors_of_the_bundle(scorer: Scorer):
    parts = {part.part: part for part in measure(plain(diversity=0.5), scorer).parts}
    assert parts["hide.out_of_stock"].pages == parts["ads"].pages == 0
    assert parts["diversity"].pages > 0


def test_share_of_the_events_is_the_same_sample_each_time(scorer: Scorer):
    first = measure(DEFAULT_POLICY, scorer, share=0.5)
    assert 0 < first.measured < 12
    assert measure(DEFAULT_POLICY, scorer, share=0.5) == first


def test_impressions_are_no_pages(scorer: Scorer):
    shown = [impression(f"user-{number % 3}", 100 + number, "item-1") for number in range(5)]
    assert measure(DEFAULT_POLICY, scorer, events=[*VIEWS, *shown]) == measure(DEFAULT_POLICY, scorer)


def test_without_a_model_popular_items_decide():
    changes = measure(DEFAULT_POLICY, None)
    parts = {part.part: part for part in changes.parts}
    assert "session" not in parts
    assert parts["popularity"].items == 1.0
    assert changes.by_model == 0
    assert "No statistical model chose products" in write_statement(DEFAULT_POLICY, PolicySettings(), changes, "a log")


def test_ads_within_the_list_are_counted_as_ads(scorer: Scorer):
    policy = plain(ads=Ads(placements={"list": AdPlacement(places=(1,))}))
    changes = measure(policy, scorer, campaigns=[make_campaign("c", "advertised", 9.0)])
    assert changes.sponsored == changes.pages_with_ads == 12
    parts = {part.part: part for part in changes.parts}
    assert parts["ads"].pages == 1.0
    page = write_statement(policy, PolicySettings(k=12, reserve=0.25), changes, "a log")
    assert "- A list has 12 items." in page
    assert "if the expected value of an impression reaches 0.25." in page
    assert "Ads may take places within the list of recommendations" in page
    assert "and 100.0 % of the pages had an ad" in page


def test_page_has_a_sentence_for_every_part_and_no_number_that_was_not_measured(scorer: Scorer):
    policy = plain(goals=Goals(order=1.0), pin=(Pin(place=1, item="item-1"), Pin(place=2, item="item-2")))
    changes = measure(policy, scorer, items=[Item(item_id="item-1", price=5.0), Item(item_id="item-2", price=90.0)])
    page = write_statement(policy, PolicySettings(), changes, "a log")
    assert "'item-1' has place 1. 'item-2' has place 2." in page
    assert "Items are ordered by expected value" in page
    assert "The order also counts the price of a product" in page
    assert f"`{policy.label}`" in page
    session = next(part for part in changes.parts if part.part == "session")
    assert f"| {100 * session.items:.1f} | {100 * session.pages:.1f} |" in page


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[hide.again_after]\nTea = 20\nMugs = 9",
            "Bought items of 'Tea' return after 20 days. Bought items of 'Mugs' return after 9 days.",
        ),
        ('[hide]\nbought_again = ["Tea"]\nflags = ["adult"]', "return with the next session"),
        ("[goals]\n[goals.variants.model]", "Items that the user has bought are not shown"),
        ("[goals]\norder = 1.0\n[goals.variants.model]", "Items are ordered by expected value"),
        (
            "[goals.shelves.similar]\norder = 1.0\n[pages]\nview = ['similar']",
            "On the shelf similar, items are ordered",
        ),
        ("[[pin]]\nplace = 1\nitem = 'a'\n[[pin]]\nplace = 2\nitem = 'b'", "'a' has place 1. 'b' has place 2."),
        ("[boost]\nfresh = 2.0\nfresh_days = 3\n[boost.items]\na = 2.0", "fading over 3 days"),
        ("diversity = 0.1\n[only]\nrelevance = 0.1\n[limit]\ncategory = 2", "of a list share a category"),
        ("[price_band]\nlowest = 0.5\n[ads]\nshown = false", "Prices are at least 0.5 times"),
    ],
)
def test_every_part_of_a_policy_has_words_in_the_table(text: str, words: str):
    policy = parse_policy(f"version = 'p-1'\nowner = 'tests'\n{text}".encode(), "p")
    parts = tuple(PartShare(part=name, items=0.5, pages=0.5) for name, _ in policies_without_a_part(policy))
    changes = ListChanges(events=1, measured=1, shown=1, by_model=0, sponsored=0, pages_with_ads=0, parts=parts)
    rows = [
        line
        for line in write_statement(policy, PolicySettings(), changes, "a log").splitlines()
        if line.endswith("| 50.0 | 50.0 |")
    ]
    assert len(rows) == len(parts)
    assert all(row[2].isupper() or row[2] == "'" for row in rows)
    assert any(words in row for row in rows)


def test_page_with_a_shelf_of_ads_says_what_payments_change(scorer: Scorer):
    policy = plain(pages=Pages(view=("for_you", "sponsored")))
    changes = measure(policy, scorer, campaigns=[make_campaign("c", "item-2", 9.0)])
    parts = {part.part: part for part in changes.parts}
    assert changes.sponsored == changes.pages_with_ads == 12
    assert parts["ads"].pages == 1.0
    page = write_statement(policy, PolicySettings(), changes, "a log")
    assert "A page with several lists does not repeat an advertised product in them" in page


def test_page_without_ads_says_that_nothing_is_paid_for(scorer: Scorer):
    policy = msgspec.structs.replace(DEFAULT_POLICY, ads=Ads(shown=False))
    assert "Nothing: nobody can pay for a place" in write_statement(
        policy, PolicySettings(), measure(policy, scorer), "a log"
    )


def test_page_on_no_events_claims_nothing():
    changes = ListWatch(DEFAULT_POLICY, None, Settings.of().policy, share=1.0).changes()
    page = write_statement(DEFAULT_POLICY, PolicySettings(), changes, "a log")
    assert "nothing can be said about importance" in page
    assert "0.0 %" not in page


def test_command_writes_the_page_of_a_file(tmp_path: Path):
    events, out = tmp_path / "events.jsonl", tmp_path / "page.md"
    events.write_bytes(b"\n".join(map(encode_event, VIEWS)))
    arguments = ["policy", "statement", "default", str(events), "--bundle", str(small_bundle(tmp_path / "b"))]
    result = CliRunner().invoke(cli, [*arguments, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert out.read_text().startswith("# How we choose the products that we recommend")
    assert "We took 12 of 12 decisions" in out.read_text()
    assert CliRunner().invoke(cli, arguments).stdout.startswith("# How we choose")
    assert "cannot be written" in str(
        CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "no" / "page.md")]).exception
    )
