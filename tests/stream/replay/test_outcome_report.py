"""Outcome report: it agrees with the truth of the simulated shop, counts revisions once, and reads files and topics."""

import gzip
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from clickscore.schemas.catalogue import encode
from clickscore.schemas.decisions import decode_decision
from clickscore.schemas.events import encode_event
from clickscore.schemas.outcome_counts import MIN_USERS
from clickscore.schemas.outcomes import DecisionOutcome, LineOutcome, decode_charge, decode_outcome, encode_outcome
from clickscore.stream.errors import InputFileError
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.outcome_report import OutcomeReport, ReportRow
from clickscore.stream.replay.outcome_source import read_file_outcomes
from clickscore.stream.settings import Settings
from clickscore.stream.simulator.shop.live import LiveShop
from clickscore.stream.simulator.shop.shoppers import make_shop
from tests.events import START, Recorded

SHOPPERS = 2_000
STEP_MS = 500
OPEN_S = 40
DRAIN_S = 400
"""Time until every visitor has left and delayed events have arrived, s."""


class ClosingShop(LiveShop):
    """A shop that lets nobody in once it closes."""

    is_open = True

    def _let_in(self, newcomers: int) -> None:
        if self.is_open:
            super()._let_in(newcomers)


class Day:
    """A day of the simulated shop, decided by a pipeline, with everything that the pipeline wrote."""

    def __init__(self) -> None:
        shop, catalogue = make_shop(7, SHOPPERS), Catalogue()
        for item in shop.assortment.items:
            catalogue.update_item(item.item_id.encode(), encode(item))
        for campaign in shop.assortment.campaigns:
            catalogue.update_campaign(campaign.campaign_id.encode(), encode(campaign))
        settings = Settings.of(control_share=0.5)
        self.shop = ClosingShop(shop, "day", rate=60.0)
        self.pipeline = Pipeline(settings.sessions, settings.policy, "events", catalogue)
        self.outcomes: list[DecisionOutcome] = []
        self.net: dict[str, float] = defaultdict(float)
        self._offset = -1
        closes_at = START + OPEN_S * 1_000
        for ts in (*range(START, closes_at, STEP_MS), *range(closes_at, closes_at + DRAIN_S * 1_000, 10 * STEP_MS)):
            self.shop.is_open = ts < closes_at
            self._decide(ts)
        ledger = self.pipeline.state(0).ledger
        ledger.close_all()
        self.outcomes += ledger.take_results().outcomes

    def _decide(self, ts: int) -> None:
        log: list[Recorded] = []
        for event, _ in self.shop.advance(ts).events:
            self._offset += 1
            log.append(Recorded(self._offset, ts, event.user_id.encode(), encode_event(event)))
        if not log:
            return
        output = self.pipeline.process(0, log)
        self.outcomes += [decode_outcome(message.value or b"") for message in output.decision_outcomes]
        for charge in (decode_charge(message.value or b"") for message in output.charges):
            self.net[charge.campaign_id] += charge.net
        for message in (*output.recommendations, *output.ads):
            self.shop.receive(decode_decision(message.value or b""))


def rows_of(outcomes: Iterable[DecisionOutcome]) -> list[ReportRow]:
    report = OutcomeReport()
    for outcome in outcomes:
        report.add(outcome)
    return report.rows()


def test_report_agrees_exactly_with_the_truth_of_the_simulated_shop():
    day = Day()
    rows = rows_of(day.outcomes)
    lists = {row.variant: row for row in rows if (row.group, row.name) == ("placement", "list")}
    truth = {variant: (r.impressions, r.clicks, r.purchases) for variant, r in day.shop.variants.items()}
    assert {v: (row.impressions, row.clicks, row.purchases) for v, row in lists.items()} == truth
    campaigns = [row for row in rows if row.group == "campaign"]
    assert sum(row.impressions for row in campaigns) == day.shop.ads.impressions > 0
    assert sum(row.clicks for row in campaigns) == day.shop.ads.clicks
    assert sum(row.purchases for row in campaigns) == day.shop.ads.purchases
    assert {row.name: row.net for row in campaigns if row.net} == {
        campaign: pytest.approx(amount) for campaign, amount in day.net.items() if amount
    }
    variants = [row for row in rows if row.group == "variant"]
    assert (
        sum(row.clicks for row in variants) == sum(r.clicks for r in day.shop.variants.values()) + day.shop.ads.clicks
    )


# Single cases


def outcome(decision: str, user: str, *lines: LineOutcome, revision: int = 0) -> DecisionOutcome:
    return DecisionOutcome(
        decision_id=decision, user_id=user, ts=START, variant="model", revision=revision, lines=lines
    )


def line(**counts: float) -> LineOutcome:
    return LineOutcome(item_id="cup", placement="list", **counts)  # pyright: ignore[reportArgumentType]


def test_newest_revision_of_a_decision_counts_once():
    first = outcome("d", "ann", line(impressions=1))
    corrected = outcome("d", "ann", line(impressions=1, clicks=1, valid_clicks=1), revision=1)
    (variant, placement) = rows_of([first, corrected, first, corrected])
    assert (variant.decisions, variant.impressions, variant.clicks) == (1, 1, 1)
    assert (placement.group, placement.name, placement.decisions) == ("placement", "list", 0)


USERS = [str(number) for number in range(40)]


def test_interval_is_over_users():
    alike = [outcome(f"{user}-{n}", user, line(impressions=4, valid_clicks=1)) for user in USERS for n in range(3)]
    ratio = rows_of(alike)[0].clicks_per_impression
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high) == (0.25, 0.25, 0.25)
    mixed = [outcome(user, user, line(impressions=4, valid_clicks=int(user) % 2 * 2)) for user in USERS]
    ratio = rows_of(mixed)[0].clicks_per_impression
    assert ratio is not None
    radius = 1.96 * (40 * 40 / 39) ** 0.5 / 160  # half of 40 users clicked twice on four items
    assert (ratio.value, ratio.low) == (0.25, pytest.approx(0.25 - radius, abs=1e-5))
    assert ratio.high == pytest.approx(0.25 + radius, abs=1e-5)


def test_few_users_give_no_interval_and_no_impression_no_ratio():
    few = USERS[: MIN_USERS - 1]
    (variant, _) = rows_of([outcome(user, user, line(impressions=2, valid_clicks=1)) for user in few])
    assert variant.clicks_per_impression is not None
    assert variant.clicks_per_impression.low is None
    (variant,) = rows_of([outcome("d", "ann")])
    assert (variant.decisions, variant.clicks_per_impression) == (1, None)


def test_orders_and_revenue_of_a_variant_are_per_decision():
    orders = [outcome(user, user, line(purchases=int(user) % 2, revenue=int(user) % 2 * 30.0)) for user in USERS]
    variant, placement = rows_of([*orders, *(outcome(f"{user}-2", user) for user in USERS)])
    assert variant.orders_per_decision is not None
    assert variant.revenue_per_decision is not None
    assert (variant.orders_per_decision.value, variant.revenue_per_decision.value) == (0.25, 7.5)
    radius = 1.96 * (10 * 40 / 39) ** 0.5 / 80  # each user is half an order off the mean of two decisions
    assert variant.orders_per_decision.low == pytest.approx(0.25 - radius, abs=1e-5)
    assert variant.revenue_per_decision.high == pytest.approx(30 * (0.25 + radius), abs=1e-4)
    assert (placement.orders_per_decision, placement.revenue_per_decision) == (None, None)


def test_users_without_a_click_give_no_interval():
    ratio = rows_of([outcome(user, user, line(impressions=5)) for user in USERS])[0].clicks_per_impression
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high) == (0.0, None, None)


def test_files_are_read_plain_and_compressed(tmp_path: Path):
    text = encode_outcome(outcome("d", "ann")) + b"\n"
    (tmp_path / "plain.jsonl").write_bytes(text)
    (tmp_path / "small.jsonl.gz").write_bytes(gzip.compress(text))
    for name in ("plain.jsonl", "small.jsonl.gz"):
        assert [each.decision_id for each in read_file_outcomes(tmp_path / name)] == ["d"]


@pytest.mark.parametrize(("content", "words"), [(b"[]\n", "line 1 is no record"), (None, "cannot be read")])
def test_file_without_outcomes_is_refused(tmp_path: Path, content: bytes | None, words: str):
    path = tmp_path / "other.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputFileError, match=words):
        list(read_file_outcomes(path))


def test_damaged_compressed_file_is_refused(tmp_path: Path):
    path = tmp_path / "outcomes.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}" * 1000)[:10] + b"\xff" * 20)
    with pytest.raises(InputFileError, match="cannot be read"):
        list(read_file_outcomes(path))
