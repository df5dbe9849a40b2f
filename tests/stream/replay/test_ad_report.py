"""Ad report: what published decisions say of winners, runners-up and prices."""

import gzip
from pathlib import Path

import msgspec
import pytest

from clickscore.schemas.catalogue import encode
from clickscore.schemas.decisions import Ad, SoldSlot, decode_decision, encode_decision
from clickscore.stream.errors import InputFileError
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.policy.ad_policy import AdPlacement, Ads
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.ad_decisions import ads_of_file
from clickscore.stream.replay.ad_report import MAX_REASONS, AdTally
from clickscore.stream.replay.ad_text import describe_report
from clickscore.stream.replay.rivals import MAX_RIVALS, OTHERS, Rivals
from clickscore.stream.replay.task import ReplayProgress
from clickscore.stream.settings import Settings
from tests.events import records, view
from tests.scored_requests import make_campaign, plain


def decide(count: int = 3) -> list[Ad]:
    """Return the decisions on pages with two slots and three campaigns, of which one has too high a floor."""
    values = Settings.of()
    policy = plain(ads=Ads(placements={"top": AdPlacement(exposure=(1.0, 0.5))}))
    pipeline = Pipeline(values.sessions, values.policy, "events", Catalogue(), policy_file=policy)
    for campaign in (
        make_campaign("a", "x", 3.0),
        make_campaign("b", "y", 2.0),
        make_campaign("c", "z", 1.0),
        make_campaign("d", "w", 1.0, ends_at=946684800001),
    ):
        pipeline.catalogue.update_campaign(campaign.campaign_id.encode(), encode(campaign))
    events = [view("ann", minute) for minute in range(count)]
    output = pipeline.process(0, [record._replace(timestamp=-1) for record in records(*events)])
    ads = [decode_decision(message.value or b"") for message in output.ads]
    return [ad for ad in ads if isinstance(ad, Ad)]


def test_slots_prices_and_runners_up_are_counted():
    tally = AdTally()
    for ad in decide():
        tally.add(ad)
    report = tally.report()
    assert (report.pages, report.pages_with_ads, report.slots, report.uncontested) == (3, 3, 6, 0)
    assert report.excluded == {"not_running": 3}
    first, second, third = report.campaigns
    assert (first.campaign_id, first.won, first.share, first.mean_bid, first.mean_price) == ("a", 3, 0.5, 3.0, 2.0)
    assert first.expected_spend == pytest.approx(3 * 2.0 * 0.01)
    assert (second.campaign_id, second.lost) == ("b", 3)
    assert [(rival.campaign_id, rival.times, rival.mean_price) for rival in second.lost_to] == [("a", 3, 2.0)]
    assert (third.campaign_id, third.won, third.mean_price, third.lost) == ("c", 0, None, 3)
    assert report.expected_spend == pytest.approx(sum(part.expected_spend for part in report.campaigns))


def test_repeated_decisions_count_once():
    tally, ads = AdTally(), decide()
    for ad in (*ads, *ads[1:]):
        tally.add(ad)
    assert (tally.report().pages, tally.report().repeats) == (3, 2)


def test_id_of_another_program_is_counted():
    tally = AdTally()
    tally.add(msgspec.structs.replace(decide(1)[0], decision_id="mine"))
    assert tally.report().pages == 1


def test_machines_are_not_charged_and_empty_pages_have_a_reason():
    tally, (ad, *_) = AdTally(), decide()
    tally.add(msgspec.structs.replace(ad, client="bot"))
    for number in range(MAX_REASONS + 1):
        tally.add(msgspec.structs.replace(ad, decision_id=f"e-1-{number}-ad", slots=(), reason=f"why {number}"))
    report = tally.report()
    assert (report.machine_pages, report.expected_spend) == (1, 0.0)
    assert report.empty_pages["another reason"] == 1
    assert len(report.empty_pages) == MAX_REASONS + 1


def test_price_of_a_rival_leaves_out_machines():
    tally, (first, second, third) = AdTally(), decide()
    tally.add(first)
    free = [msgspec.structs.replace(slot, price=0.0) for slot in second.slots]
    tally.add(msgspec.structs.replace(second, client="agent", slots=tuple(free)))
    tally.add(third)
    loser = tally.report().campaigns[1]
    assert [(rival.campaign_id, rival.times, rival.mean_price) for rival in loser.lost_to] == [("a", 3, 2.0)]
    alone = AdTally()
    alone.add(msgspec.structs.replace(second, client="agent", slots=tuple(free)))
    assert "       1  100.0%  to a, which paid nothing" in "\n".join(describe_report(alone.report(), 3))


def test_thousand_impressions_have_a_price_for_each():
    tally, (ad, *_) = AdTally(), decide()
    slot: SoldSlot = msgspec.structs.replace(ad.slots[0], bid_per="thousand_impressions", probability=1.0, price=5.0)
    tally.add(msgspec.structs.replace(ad, slots=(slot,)))
    assert tally.report().expected_spend == pytest.approx(0.005)


def test_rivals_beyond_the_limit_are_counted_together():
    rivals = Rivals()
    for number in range(MAX_RIVALS + 2):
        rivals.add(f"c{number}", 1.0, is_charged=True)
    assert (rivals.total, rivals.ranked()[0].campaign_id, rivals.ranked()[0].times) == (MAX_RIVALS + 2, OTHERS, 2)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_file_of_decisions_is_read_line_by_line(tmp_path: Path, suffix: str):
    path = tmp_path / f"decisions{suffix}"
    lines = b"\n".join([*map(encode_decision, decide()), b"no decision", b""])
    path.write_bytes(gzip.compress(lines) if suffix.endswith("gz") else lines)
    seen: list[ReplayProgress] = []
    ads = list(ads_of_file(path, seen.append))
    assert [ad and ad.event_id for ad in ads] == [*(ad.event_id for ad in decide()), None]
    assert seen[-1].completed == seen[-1].total == path.stat().st_size


def test_broken_file_is_refused(tmp_path: Path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"x" * 1000)[:-9])
    with pytest.raises(InputFileError, match="cannot be read"):
        list(ads_of_file(path, lambda _: None))
    path.write_bytes(gzip.compress(b"x" * 1000)[:10] + b"\xff" * 20)
    with pytest.raises(InputFileError, match="cannot be read"):
        list(ads_of_file(path, lambda _: None))
    with pytest.raises(InputFileError, match="No such file"):
        list(ads_of_file(tmp_path / "b", lambda _: None))


def test_text_has_winners_losers_and_causes():
    tally, ads = AdTally(), decide()
    for ad in (*ads, ads[0]):
        tally.add(ad)
    tally.add(
        msgspec.structs.replace(ads[0], decision_id="e-1-0-ad", slots=(), reason="no campaign matches", client="bot")
    )
    text = "\n".join(describe_report(tally.report(), 2))
    for part in (
        "4 pages, 3 (75.0%) with ads.",
        "6 slots sold, 0 (0.0%) without a runner-up. Expected spend 0.07",
        "1 page for bots and agents",
        "25.0%  no campaign matches",
        "100.0%  it did not run at that time (not_running)",
        "Campaign a\n  won 3 slots (50.0%) with a mean bid of 3 for a click at a mean price of 2; expected spend 0.06",
        "to a, which paid 2 on average",
        "... and 1 more campaigns (--top).",
        "which are not counted: 1.",
    ):
        assert part in text
