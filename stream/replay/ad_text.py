"""Ad text: the report on ads, and the history of a campaign, as lines."""

from collections.abc import Iterator, Mapping, Sequence

from clickscore.stream.replay.ad_report import AdReport, CampaignReport
from clickscore.stream.replay.campaign_history import CampaignHistory
from clickscore.stream.replay.rivals import Rival

RIVALS_SHOWN = 5
"""Number of rivals in the text; the JSON has all."""

CAUSE_WORDS: Mapping[str, str] = {
    "not_running": "it did not run at that time",
    "item": "a rule of the policy forbids its item",
    "quality": "the quality of its item was below its floor",
    "cap": "the user had seen it as often as its cap allows, or may not be counted",
    "budget": "no lease let it spend: its budget was used up, or the partition waited for the next lease",
}
"""Why a campaign does not enter an auction, by cause; a cause without words keeps the name."""

UNPLACED_WORDS: Mapping[str, str] = {
    "placement": "the policy has none of its placements",
    "ad_load": "the page or the session had as many ads as the policy allows",
    "reserve": "its expected value was below the reserve",
    "position": "no position admits it: an ad limit, the floor against displaced items, or its item is on the page",
}
"""Why a campaign got no slot after an entry, by cause."""


def describe_report(report: AdReport, limit: int) -> Iterator[str]:
    """Yield the report on ads in lines.

    Args:
        report: The report.
        limit: Number of campaigns to name.
    """
    yield f"{_count(report.pages, 'page')}, {_share(report.pages_with_ads, report.pages)} with ads."
    if report.slots:
        yield (
            f"{_count(report.slots, 'slot')} sold, {_share(report.uncontested, report.slots)} without a runner-up. "
            f"Expected spend {report.expected_spend:,.2f} (price times probability; no clicks are counted)."
        )
    if report.machine_pages:
        yield f"{_count(report.machine_pages, 'page')} for bots and agents, which are not charged."
    if report.empty_pages:
        yield "Pages without ads:"
        for reason, count in report.empty_pages.items():
            yield f"  {count:>9,}  {_percent(count, report.pages):>6}  {reason}"
    if report.excluded:
        total = sum(report.excluded.values())
        yield "Campaigns that match and took no part (times, share):"
        for cause, count in report.excluded.items():
            yield f"  {count:>9,}  {_percent(count, total):>6}  {CAUSE_WORDS.get(cause, cause)} ({cause})"
    for campaign in report.campaigns[:limit]:
        yield from _campaign(campaign)
    if len(report.campaigns) > limit:
        yield f"... and {len(report.campaigns) - limit:,} more campaigns (--top)."
    if report.repeats:
        yield f"Repeats of earlier records, which a crash may leave and which are not counted: {report.repeats:,}."


def _campaign(campaign: CampaignReport) -> Iterator[str]:
    yield ""
    yield f"Campaign {campaign.campaign_id}"
    if campaign.won:
        price = "" if campaign.mean_price is None else f" at a mean price of {campaign.mean_price:.4g}"
        yield (
            f"  won {_count(campaign.won, 'slot')} ({campaign.share:.1%}) with a mean bid of {campaign.mean_bid:.4g} "
            f"for {_unit(campaign.bid_per)}{price}; expected spend {campaign.expected_spend:,.2f}"
        )
        yield f"  placements: {_listed(campaign.placements)}"
    if campaign.lost:
        yield f"  lost {_count(campaign.lost, 'slot')} as the runner-up:"
        yield from _rivals(campaign.lost_to)


def describe_history(history: CampaignHistory) -> Iterator[str]:
    """Yield the history of a campaign in lines."""
    pages = history.pages
    yield f"Campaign {history.campaign_id} on {_count(pages, 'page')} with an ad decision:"
    rows = [(history.absent, "no campaign had this id at the time (absent)")]
    rows += [(history.no_match, "the page is no target of the campaign (no_match)")]
    rows += [(count, f"{CAUSE_WORDS.get(cause, cause)} ({cause})") for cause, count in history.excluded.items()]
    rows += [(history.lost, "it entered, and a higher score got the slot (lost)")]
    rows += [(count, f"it entered, but {UNPLACED_WORDS[cause]} ({cause})") for cause, count in history.unplaced.items()]
    rows += [(history.won, "it won a slot (won)")]
    for count, words in rows:
        if count:
            yield f"  {count:>9,}  {_percent(count, pages):>6}  {words}"
    if history.won:
        price = "" if history.mean_price is None else f"Mean price {history.mean_price:.4g}; "
        yield f"{price}expected spend {history.expected_spend:,.2f}; placements: {_listed(history.placements)}."
    if history.lost:
        yield (
            f"Lost with a mean bid of {history.mean_bid:.4g}; a mean bid of {history.winning_bid:.4g} would have "
            "reached the winners' scores. Lost to:"
        )
        yield from _rivals(history.lost_to)
    if history.absent == pages:
        yield "Look whether the id is right. A record that was refused is named, with the reason, in the worker's log."
    elif history.no_match + history.absent == pages:
        yield "It matched no page: look at its targets, its regions and groups."
    if history.other_pages:
        yield f"{_count(history.other_pages, 'page')} had no ad decision: no campaign at all, or no ads in the policy."


def _rivals(rivals: Sequence[Rival]) -> Iterator[str]:
    for rival in rivals[:RIVALS_SHOWN]:
        price = "nothing" if rival.mean_price is None else f"{rival.mean_price:.4g} on average"
        yield f"  {rival.times:>9,}  {rival.share:>6.1%}  to {rival.campaign_id}, which paid {price}"
    if len(rivals) > RIVALS_SHOWN:
        yield f"  ... and to {len(rivals) - RIVALS_SHOWN:,} other campaigns."


def _unit(bid_per: str | None) -> str:
    return {"click": "a click", "order": "an order"}.get(bid_per or "", "a thousand impressions")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({_percent(part, whole)})"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole if whole else 0:.1%}"
