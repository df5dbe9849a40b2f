"""Explainer: a past decision comes out byte for byte, and its parts say why it was so."""

from pathlib import Path

import msgspec
import pytest

from clickscore.schemas.catalogue import Campaign, Item
from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.events import Epoch, encode_event
from clickscore.schemas.explanations import FieldDifference
from clickscore.schemas.leases import BudgetLease, CampaignLease
from clickscore.schemas.rollouts import EpochRollout
from clickscore.schemas.topics import EVENTS
from clickscore.stream.policy.policy_file import load_policy
from clickscore.stream.replay.explainer import ADS_GONE
from clickscore.stream.replay.explanation_text import describe_briefly, describe_explanation
from clickscore.stream.replay.reference_log import ReferenceLog
from clickscore.stream.scoring.bundle import check_bundle
from clickscore.stream.scoring.bundle_store import BundleStore
from tests.bundles import small_bundle
from tests.events import MINUTE, START, Recorded, grant, impression, purchase, records, search, view
from tests.integration.event_log import event_log
from tests.stream.replay.past import SETTINGS, Past, campaign_record, epoch_record, item_record

ID = f"{EVENTS.name}-0"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundles") / "small")


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundles") / "other", items=200)


def make_reference() -> ReferenceLog:
    """Return a shop whose item-1 sells out at offset 1, with a campaign that ends at offset 1."""
    items = [item_record(0, Item(item_id="item-1", stock=3)), item_record(1, Item(item_id="item-1", stock=0))]
    campaign = Campaign(campaign_id="spring", item_id="item-7", bid=1.5)
    early = Campaign(campaign_id="early", item_id="item-8", bid=9.0, ends_at=START)
    return ReferenceLog(
        records=[*items, campaign_record(0, campaign), campaign_record(1, early)], catalogue=2, campaigns=2
    )


def make_past(bundle: Path | None, policy: str = "default") -> Past:
    """Return a short session before and after item-1 sells out."""
    log = records(
        epoch_record(1, 1, 2),
        view("ann", 0, "item-3"),
        view("ann", 1, "item-4"),
        epoch_record(2, 2, 2),
        view("ann", 3, "item-5"),
        search("bob", 4),
    )
    return Past(log, make_reference()).decide(bundle, policy)


def make_long_past(bundle: Path) -> Past:
    """Return a log of everything that may come, with an epoch after each 20 records."""
    items = [item_record(number, Item(item_id=f"item-{number % 40}", stock=number % 3)) for number in range(100)]
    campaigns = [
        campaign_record(number, Campaign(campaign_id=f"c-{number % 4}", item_id=f"item-{number}", bid=number + 0.5))
        for number in range(100)
    ]
    log: list[Recorded] = []
    for number, sent in enumerate(event_log(800, seed=5, users=40, privacy=0.05)):
        if number % 20 == 0:
            epoch = epoch_record(number // 20 + 1, number // 20, number // 30)
            log.append(Recorded(len(log), -1, None, epoch))
        log.append(Recorded(len(log), -1, sent.key, sent.value))
    return Past(log, ReferenceLog(records=items + campaigns, catalogue=100, campaigns=100)).decide(bundle)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2_000])
def test_every_decision_of_a_log_comes_out_byte_for_byte(bundle: Path, batch: int):
    past = make_long_past(bundle)
    ids = list(past.published.values)
    assert len(ids) > 1_000
    explanations = past.explain(*ids, bundle=bundle, batch=batch)
    assert {explanation.verdict for explanation in explanations} == {"equal"}
    assert [bytes(explanation.recomputed or b"") for explanation in explanations] == list(
        past.published.values.values()
    )


def test_explanation_has_the_session_the_model_the_rules_and_the_ad(bundle: Path):
    past = make_past(bundle)
    (explanation,) = past.explain(f"{ID}-4", bundle=bundle)
    assert explanation.session is not None
    assert explanation.model is not None
    assert [(event.action, event.item_id, event.before_ms) for event in explanation.session.events] == [
        ("view", "item-3", 3 * MINUTE),
        ("view", "item-4", 2 * MINUTE),
        ("view", "item-5", 0),
    ]
    assert len(explanation.model.candidates) == 10
    removed = {rule.item_id: rule.rule for rule in explanation.rules}
    assert removed.get("item-5", "on_screen") == "on_screen"
    decision = msgspec.json.decode(past.published.values[f"{ID}-4"])
    counts: dict[str, int] = {}
    for rule in removed.values():
        counts[rule] = counts.get(rule, 0) + 1
    assert counts == {name: count for name, count in decision["filtered"].items() if count}
    assert [choice.item_id for choice in explanation.items] == [item["item_id"] for item in decision["items"]]
    assert [(campaign.campaign_id, campaign.outcome) for campaign in explanation.campaigns] == [
        ("spring", "shown, at the price 0"),
        ("early", "it did not run at the time of the event"),
    ]
    assert [campaign.expected_value is None for campaign in explanation.campaigns] == [False, True]
    assert "  early: item item-8, bid 9: it did not run at the time of the event." in describe_explanation(
        explanation, ""
    )


def test_ad_is_explained_by_its_own_id(bundle: Path):
    past = make_past(bundle)
    (explanation,) = past.explain(f"{ID}-4-ad", bundle=bundle)
    assert explanation.verdict == "equal"
    assert bytes(explanation.published or b"") == past.published.values[f"{ID}-4-ad"]


def make_budgeted_past(policy: str, bundle: Path) -> Past:
    """Return a view after a lease that lets the campaign `spring` spend, and not the campaign `dry`."""
    day = START // DAY_MS
    lease = BudgetLease(
        ts=START, number=1, day=day, ends_at=START + 10 * MINUTE, campaigns=(CampaignLease("spring", 10**7, 0.5),)
    )
    campaigns = [
        Campaign(campaign_id="spring", item_id="item-7", bid=1.5, daily_budget=100.0),
        Campaign(campaign_id="dry", item_id="item-8", bid=9.0, daily_budget=100.0),
        Campaign(campaign_id="house", item_id="item-9", bid=1.0),
    ]
    reference = ReferenceLog(
        records=[campaign_record(number, campaign) for number, campaign in enumerate(campaigns)],
        catalogue=0,
        campaigns=3,
    )
    log = records(epoch_record(1, 0, 3), view("ann", 0, "item-3"), encode_event(lease), view("ann", 1, "item-4"))
    return Past(log, reference).decide(bundle, policy)


def write_list_policy(folder: Path) -> str:
    """Write a policy that shows ads within the list; return its path."""
    path = folder / "in-list.toml"
    path.write_text('version = "in-list"\nowner = "tests"\n\n[ads.placements.list]\nexposure = [1.0]\nplaces = [1]\n')
    return str(path)


def test_budgets_come_from_the_decision_on_ads(tmp_path: Path, bundle: Path):
    policy = write_list_policy(tmp_path)
    past = make_budgeted_past(policy, bundle)
    explanations = past.explain(f"{ID}-3", f"{ID}-3-ad", bundle=bundle, policies=[policy], what_if=["default"])
    assert [explanation.verdict for explanation in explanations] == ["equal", "equal"]
    assert explanations[0].approximate == ()
    outcomes = {part.campaign_id: part.outcome for part in explanations[1].campaigns}
    assert "no lease" in outcomes["dry"]
    assert explanations[0].items[0].sponsored
    (lease,) = past.explain(f"{ID}-2", bundle=bundle)
    assert "ad budgets" in lease.problem


def test_without_the_decision_on_ads_budgets_are_not_invented(tmp_path: Path, bundle: Path):
    policy = write_list_policy(tmp_path)
    past = make_budgeted_past(policy, bundle)
    del past.published.values[f"{ID}-3-ad"]
    (explanation,) = past.explain(f"{ID}-3", bundle=bundle, policies=[policy])
    assert (explanation.verdict, explanation.problem) == ("not recomputed", ADS_GONE)
    past = make_budgeted_past("default", bundle)
    del past.published.values[f"{ID}-3-ad"]
    (explanation,) = past.explain(f"{ID}-3", bundle=bundle)
    assert (explanation.verdict, explanation.approximate) == ("equal", (ADS_GONE,))


def test_without_campaigns_there_is_no_decision_on_an_ad(bundle: Path):
    past = Past(records(view("ann", 0, "item-3")), ReferenceLog()).decide(bundle)
    (explanation,) = past.explain(f"{ID}-0-ad", bundle=bundle)
    assert (explanation.verdict, explanation.ad) == ("no decision", None)


def test_bundle_comes_from_the_store_by_the_version_that_the_decision_names(
    bundle: Path, other_bundle: Path, tmp_path: Path
):
    store = BundleStore(str(tmp_path / "store"), check_bundle)
    store.push(bundle)
    store.push(other_bundle)
    first, second = (
        make_past(each).explain(f"{ID}-4", store=str(tmp_path / "store"))[0] for each in (bundle, other_bundle)
    )
    assert (first.verdict, second.verdict) == ("equal", "equal")
    assert first.bundle != second.bundle


def test_decision_without_scores_has_the_popular_items_of_the_bundle_of_its_epoch(bundle: Path):
    version = load_version(bundle)
    log = records(epoch_record(1, 0, 0, bundle=version), search("bob", 0))
    (explanation,) = Past(log, make_reference()).decide(bundle).explain(f"{ID}-1", bundle=bundle)
    assert (explanation.verdict, explanation.bundle, explanation.model) == ("equal", version, None)


def test_decision_of_a_worker_without_a_model_comes_out_without_a_model(bundle: Path):
    log = records(view("ann", 0, "item-3"), view("bob", 1, "item-4"))
    (explanation,) = Past(log, ReferenceLog()).decide().explain(f"{ID}-1", bundle=bundle)
    assert (explanation.verdict, explanation.bundle) == ("equal", None)


def load_version(bundle: Path) -> str:
    return msgspec.json.decode((bundle / "manifest.json").read_bytes())["content_hash"][:12]


def test_missing_bundle_is_named(bundle: Path, tmp_path: Path):
    past, version = make_past(bundle), load_version(bundle)
    (explanation,) = past.explain(f"{ID}-4")
    assert explanation.verdict == "not recomputed"
    assert explanation.problem.startswith(f"bundle {version} is in no folder of --bundle, and no bundle store is set")
    (explanation,) = past.explain(f"{ID}-4", store=str(tmp_path / "empty"))
    assert f"has no bundle '{version}'" in explanation.problem


def test_bundle_of_the_epoch_is_missing_where_no_record_names_another(bundle: Path, other_bundle: Path):
    log = records(epoch_record(1, 0, 0, bundle=load_version(other_bundle)), view("ann", 0, "item-3"))
    past = Past(log, make_reference())
    (explanation,) = past.explain(f"{ID}-1", bundle=bundle)
    assert explanation.verdict == "not recomputed"
    assert explanation.problem.startswith(f"bundle {load_version(other_bundle)} is in no folder of --bundle")
    (explanation,) = past.explain(f"{ID}-1", bundle=other_bundle)
    assert (explanation.verdict, explanation.bundle) == ("not published", load_version(other_bundle))


def test_missing_policy_is_named(bundle: Path, tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text('version = "mine-1"\nowner = "shop"\nk = 4\n')
    past = make_past(bundle, str(file))
    (explanation,) = past.explain(f"{ID}-4", bundle=bundle)
    assert explanation.verdict == "not recomputed"
    assert "its policy mine-1@" in explanation.problem
    (explanation,) = past.explain(f"{ID}-4", bundle=bundle, policies=[str(file)])
    assert (explanation.verdict, len(explanation.items)) == ("equal", 4)


def test_policy_of_a_rollout_comes_from_the_bundle_store(bundle: Path, tmp_path: Path):
    text = b'version = "mine-2"\nowner = "shop"\nk = 4\n'
    file = tmp_path / "mine.toml"
    file.write_bytes(text)
    past, label = make_past(bundle, str(file)), load_policy(str(file)).label
    (missing,) = past.explain(f"{ID}-4", bundle=bundle, store=str(tmp_path / "store"))
    assert missing.verdict == "not recomputed"
    BundleStore(str(tmp_path / "store"), check_bundle).push_policy(label, text)
    (explanation,) = past.explain(f"{ID}-4", bundle=bundle, store=str(tmp_path / "store"))
    assert (explanation.verdict, len(explanation.items)) == ("equal", 4)


def test_policy_of_a_decision_without_a_record_is_that_of_the_rollout_of_its_epoch(bundle: Path):
    content_hash = msgspec.json.decode((bundle / "manifest.json").read_bytes())["content_hash"]
    label = load_policy("strict").label
    rollout = EpochRollout(champion=content_hash, policy=label)
    epoch = msgspec.json.encode(Epoch(number=1, catalogue=0, campaigns=0, policy="other", rollout=rollout))
    (explanation,) = Past(records(epoch, view("ann", 0, "item-3")), make_reference()).explain(f"{ID}-1", bundle=bundle)
    assert (explanation.verdict, explanation.policy) == ("not published", label)


def test_changed_record_differs(bundle: Path):
    past = make_past(bundle)
    past.published.values[f"{ID}-4"] = past.published.values[f"{ID}-4"].replace(
        b'"propensity":1.0', b'"propensity":0.5'
    )
    (explanation,) = past.explain(f"{ID}-4", bundle=bundle)
    assert explanation.verdict == "different"
    assert explanation.differences[0] == FieldDifference("items[0].propensity", "0.5", "1.0")
    text = describe_explanation(explanation, "")
    assert "DIFFERS from the published record" in text
    assert "items[0].propensity: published 0.5, made again 1.0" in text


def test_difference_proves_nothing_where_something_is_missing(bundle: Path):
    past = make_past(bundle)
    past.published.values[f"{ID}-4"] = b" " + past.published.values[f"{ID}-4"]
    (explanation,) = past.explain(f"{ID}-4", bundle=bundle, missing=["the log is short"])
    assert "so this proves nothing. " in f"{describe_explanation(explanation, '')} ".replace("\n", " ")


def test_record_that_is_no_decision_differs(bundle: Path):
    past = make_past(bundle)
    past.published.values[f"{ID}-4"] = msgspec.json.encode({"decision_id": f"{ID}-4", "type": "joke"})
    (explanation,) = past.explain(f"{ID}-4", bundle=bundle)
    assert explanation.verdict == "different"


def test_two_different_records_of_an_id_differ(bundle: Path):
    past = make_past(bundle)
    past.published.add(f"{ID}-4", past.published.values[f"{ID}-4"] + b" ")
    (explanation,) = past.explain(f"{ID}-4", bundle=bundle)
    assert (explanation.verdict, explanation.problem) == ("different", "two different records were published")


def test_decision_that_was_never_published_is_still_made(bundle: Path):
    past = Past(make_past(bundle).log, make_reference())
    (explanation,) = past.explain(f"{ID}-4", bundle=bundle)
    assert explanation.verdict == "not published"
    assert explanation.items


def test_other_settings_are_named(bundle: Path):
    log = records(epoch_record(1, 0, 0, settings="0123"), view("ann", 0, "item-3"))
    (explanation,) = Past(log, make_reference()).decide(bundle).explain(f"{ID}-1", bundle=bundle)
    assert explanation.approximate == (
        f"the worker had other settings (hash 0123) than this command (hash {SETTINGS.identity_hash}): give the "
        "worker's settings file with --config",
    )


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b"rubbish", "the record became a dead letter: JSON is malformed"),
        (epoch_record(1, 0, 0), "the record is an epoch"),
        (b'{"type":"tick","ts":1700000000000}', "the record is a tick"),
        (msgspec.json.encode(grant("ann", 0, "ads")), "the record is of the type consent"),
        (msgspec.json.encode(view("ann", 0, "item-3")), "the record repeats an earlier one"),
    ],
)
def test_record_without_a_decision_is_explained(record: bytes, words: str):
    past = Past(records(view("ann", 0, "item-3"), record), ReferenceLog())
    (explanation,) = past.explain(f"{ID}-1")
    assert explanation.verdict == "no decision"
    assert explanation.problem.startswith(words)
    assert words in describe_explanation(explanation, "").replace("The ", "the ")


def test_another_policy_is_tried_and_the_differences_have_reasons(bundle: Path):
    past = make_past(bundle)
    (explanation,) = past.explain(f"{ID}-4", bundle=bundle, what_if=["no-ads", "default"])
    no_ads, same = explanation.what_if
    assert no_ads.changes[0] == "the ad would be none instead of that of campaign spring"
    assert no_ads.changes[1].startswith("the policies differ in ads: ")
    assert same.changes == ()


def test_another_bundle_is_tried_also_where_the_own_one_is_missing(bundle: Path, other_bundle: Path):
    past = make_past(bundle)
    (explanation,) = past.explain(f"{ID}-4", bundle=bundle, bundles=[other_bundle])
    (alternative,) = explanation.what_if
    assert alternative.bundle == load_version(other_bundle)
    assert any("is not among the candidates of the model" in change for change in alternative.changes)
    (without_own,) = past.explain(f"{ID}-4", bundles=[other_bundle])
    assert without_own.verdict == "not recomputed"
    assert without_own.what_if[0].items == alternative.items


def test_bundle_of_the_decision_is_no_alternative(bundle: Path):
    (explanation,) = make_past(bundle).explain(f"{ID}-4", bundles=[bundle])
    assert (explanation.verdict, explanation.what_if) == ("equal", ())


def test_text_is_plain_and_safe(bundle: Path):
    log = records(
        view("ann", 0, "item-3"), view("ann", 1, "evil\x1b[2J"), purchase("ann", 2, "item-9"), impression("ann", 3)
    )
    past = Past(log, make_reference()).decide(bundle)
    (explanation,) = past.explain(f"{ID}-3", bundle=bundle, missing=["the log is short"], what_if=["strict"])
    text = describe_explanation(explanation, "user 1a")
    assert "\x1b" not in text
    assert "ann" not in text
    for words in (
        "Made again from the log, it has the same bytes as the published record.",
        "Approximate: the log is short.",
        "user 1a was shown kettle.",
        "Session: 3 events so far",
        "viewed evil",
        "The user has bought item-9.",
        "Rules: policy default-1@",
        "Ad: item item-7 of campaign spring",
        "What if: ",
    ):
        assert words in text
    assert describe_briefly(explanation) == f"{ID}-3  equal (approximate: the log is short)"


@pytest.mark.parametrize("has_challenger", [False, True])
def test_bundle_of_a_rollout_is_found_by_the_content_hash_of_its_epoch(
    bundle: Path, other_bundle: Path, has_challenger: bool
):
    champion, challenger = (
        msgspec.json.decode((folder / "manifest.json").read_bytes())["content_hash"]
        for folder in (bundle, other_bundle)
    )
    rollout = EpochRollout(champion=champion, challenger=challenger if has_challenger else None, share=1.0)
    epoch = msgspec.json.encode(Epoch(number=1, catalogue=0, campaigns=0, rollout=rollout))
    past = Past(records(epoch, view("ann", 0, "item-3"), search("bob", 1)), make_reference())
    past.decide(bundle, bundles={champion: bundle, challenger: other_bundle})
    first, second = past.explain(f"{ID}-1", f"{ID}-2", bundle=bundle, bundles=[other_bundle])
    assert (first.verdict, second.verdict) == ("equal", "equal")
    assert first.bundle == second.bundle == (challenger if has_challenger else champion)[:12]
    assert ("variant challenger" in describe_explanation(first, "")) == has_challenger


def test_campaigns_of_a_page_are_explained_by_the_rules_of_its_main_shelf(tmp_path: Path):
    policy = tmp_path / "again.toml"
    policy.write_text('version = "again-1"\nowner = "tests"\n[pages]\nview = ["buy_again"]\n')
    campaign = campaign_record(0, Campaign(campaign_id="spring", item_id="item-7", bid=1.5))
    log = records(epoch_record(1, 0, 1), purchase("ann", 0, "item-7"), view("ann", 1, "item-3"))
    past = Past(log, ReferenceLog(records=[campaign], catalogue=0, campaigns=1)).decide(policy=str(policy))
    (explanation,) = past.explain(f"{ID}-2-ad", policies=[str(policy)])
    assert explanation.verdict == "equal"
    assert [part.outcome for part in explanation.campaigns] == ["shown, at the price 0"]


def test_shelves_of_a_page_are_explained_by_name(bundle: Path, tmp_path: Path):
    policy = tmp_path / "shelves.toml"
    policy.write_text('version = "s-1"\nowner = "tests"\nk = 2\npages.view = ["for_you", "recently_viewed"]\n')
    past = make_past(bundle, str(policy))
    (explanation,) = past.explain(f"{ID}-2", bundle=bundle, policies=[str(policy)], what_if=["default"])
    assert explanation.verdict == "equal"
    text = describe_explanation(explanation, "ann")
    assert "Shown on for_you: " in text
    assert "  on recently_viewed: item-3 (viewed)." in text
    assert "  recently_viewed: item-4 is not shown because it is on screen (on_screen)." in text
    assert any("The page of the event view has the shelves" in change for change in explanation.what_if[0].changes)
