"""Budgets in the pipeline: reports and leases travel through the logs, and no campaign pays more than its budget."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clickscore.schemas.catalogue import Campaign, decode_campaign, encode
from clickscore.schemas.decisions import Ad, decode_decision
from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.events import AnyEvent, Click, Erase, Identify, Tick, View, decode_record, encode_event
from clickscore.schemas.leases import BudgetLease, CampaignLease, CampaignSpend, SpendReport
from clickscore.schemas.outcomes import AdCharge, decode_charge
from clickscore.stream.budgets.allocator import TERM_MS, make_budget
from clickscore.stream.budgets.partition_budgets import BUDGET_PREFIX, PartitionBudgets
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Output
from clickscore.stream.policy.ad_policy import Ads
from clickscore.stream.policy.policy_file import DEFAULT_POLICY
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.output import PartitionOutputs
from clickscore.stream.replay.replay_checkpoint import ReplayPlan
from clickscore.stream.replay.task import ReplayTask, _TaskRun  # pyright: ignore[reportPrivateUsage]
from clickscore.stream.replay.topic_source import OffsetRange, TopicRangeSpec
from clickscore.stream.settings import Settings
from clickscore.stream.state.changelog import restore
from clickscore.stream.state.changelog_record import ChangelogRecord
from tests.events import MINUTE, START, Recorded, impression, view, withdraw
from tests.scored_requests import make_campaign, plain
from tests.stream.budgets.charges import make_charge

PARTITIONS = 2


def make_pipeline(*campaigns: Campaign) -> Pipeline:
    """Return a pipeline without a model; every ad is clicked with the probability 1."""
    values = Settings.of()
    policy = plain(ads=Ads(share=1.0))
    made = Pipeline(values.sessions, values.policy, "events", Catalogue(), policy_file=policy)
    for campaign in campaigns or (make_campaign("tea", "ad", 1, daily_budget=5.0, pacing="asap"), rival()):
        made.catalogue.update_campaign(campaign.campaign_id.encode(), encode(campaign))
    return made


def rival() -> Campaign:
    """Return a campaign without a budget, whose bid of 0.5 is the price of the others."""
    return make_campaign("house", "house-ad", 0.5)


class Logs:
    """The logs of the partitions, and a pipeline that reads them to their ends."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.logs: list[list[Recorded]] = [[] for _ in range(PARTITIONS)]
        self.ads: dict[str, Ad] = {}
        self.charges: list[AdCharge] = []
        self.published: list[bytes] = []

    def send(self, partition: int, *events: AnyEvent | Tick) -> Ad | None:
        """Append events, and everything that follows from them; return the last decision on ads of the events."""
        offset = len(self.logs[partition])
        for event in events:
            self.append(partition, encode_event(event))
        self.read_all()
        last = f"events-{partition}-{offset + len(events) - 1}-ad"
        return self.ads.get(last)

    def append(self, partition: int, value: bytes) -> None:
        self.logs[partition].append(Recorded(len(self.logs[partition]), -1, None, value))

    def read_all(self) -> None:
        while any(self.pipeline.state(partition).offset < len(log) - 1 for partition, log in enumerate(self.logs)):
            for partition, log in enumerate(self.logs):
                output = self.pipeline.process(partition, log[self.pipeline.state(partition).offset + 1 :])
                self.take(output)
                for target, message in output.budget_records:
                    self.append(target, message.value or b"")

    def take(self, output: Output) -> None:
        for message in output.ads:
            ad = decode_decision(message.value or b"")
            assert isinstance(ad, Ad)
            self.ads[ad.decision_id] = ad
        self.published += [message.value or b"" for message in (*output.ads, *output.charges)]
        self.charges += [decode_charge(message.value or b"") for message in output.charges]

    def records(self, partition: int, kind: type[SpendReport] | type[BudgetLease]) -> list[object]:
        decoded = [decode_record(record.value or b"") for record in self.logs[partition]]
        return [record for record in decoded if isinstance(record, kind)]


def shopper_clicks(logs: Logs, partition: int, user: str, minute: float) -> str | None:
    """Let a shopper view an item, see the ad and click it; return the campaign of the ad."""
    ad = logs.send(partition, view(user, minute))
    assert ad is not None
    if ad.campaign_id is None:
        return None
    names: dict[str, Any] = {"decision_id": ad.decision_id, "campaign_id": ad.campaign_id, "item_id": ad.item_id}
    seen = msgspec.structs.replace(impression(user, minute + 0.05), **names)
    ts = START + round((minute + 0.2) * MINUTE)
    logs.send(partition, seen, Click(event_id=f"{user}-{ts}", user_id=user, ts=ts, **names))
    return ad.campaign_id


def paid(logs: Logs, campaign_id: str = "tea") -> float:
    return round(sum(charge.net for charge in logs.charges if charge.campaign_id == campaign_id), 6)


def run_day(logs: Logs, minutes: int = 30) -> Counter[str | None]:
    shown: Counter[str | None] = Counter()
    for minute in range(minutes):
        for partition in range(PARTITIONS):
            shown[shopper_clicks(logs, partition, f"user-{partition}-{minute}", minute)] += 1
    return shown


def test_campaign_waits_for_its_first_lease():
    logs = Logs(make_pipeline())
    first = logs.send(0, view("ann", 0))
    assert first is not None
    assert (first.campaign_id, first.excluded) == ("house", {"budget": 1})
    second = logs.send(0, view("bob", 1))
    assert second is not None
    third = logs.send(0, view("cid", 1.5))
    assert third is not None
    assert third.campaign_id == "tea"
    assert third.slots[0].multiplier == 1.0
    assert [type(record).__name__ for record in (*logs.records(0, SpendReport), *logs.records(0, BudgetLease))] == [
        "SpendReport",
        "BudgetLease",
    ]


def test_no_campaign_pays_more_than_its_budget():
    logs = Logs(make_pipeline())
    shown = run_day(logs)
    assert shown["tea"] >= 10
    assert paid(logs) == 5.0
    spent = [logs.pipeline.state(partition).budgets.accounts.campaigns["tea"].spent for partition in range(PARTITIONS)]
    assert sum(spent) == 5_000_000
    assert shown["house"] > 0  # once the budget is used up


def test_click_that_no_lease_can_pay_is_charged_with_the_next_lease():
    logs = Logs(make_pipeline(make_campaign("tea", "ad", 1, daily_budget=0.7, pacing="asap"), rival()))
    shown = run_day(logs, 6)
    assert shown["tea"] >= 2
    assert paid(logs) == 0.7
    assert any(charge.reason == "budget" for charge in logs.charges)
    assert len({charge.charge_id for charge in logs.charges}) == len(logs.charges)


def test_next_day_has_a_new_budget():
    logs = Logs(make_pipeline())
    run_day(logs)
    next_day = (DAY_MS - START % DAY_MS) / MINUTE
    for minute in range(5):
        shopper_clicks(logs, 0, f"later-{minute}", next_day + minute)
    assert 5.0 < paid(logs) <= 10.0


def test_accounts_of_a_day_are_forgotten_with_the_day():
    logs = Logs(make_pipeline())
    run_day(logs, 2)
    key = (BUDGET_PREFIX + "atea").encode()
    assert key in logs.pipeline.state(1).contents()
    logs.send(1, Tick(ts=START + DAY_MS))
    assert key not in logs.pipeline.state(1).contents()


def test_credit_does_not_open_the_budget_again():
    budgets = PartitionBudgets(0)
    budgets.charge(make_charge(-5))
    budgets.cancel("tea", "decision", 0)
    assert budgets.accounts.campaigns == {}


@pytest.mark.parametrize("days", [0, 300])
def test_budget_record_of_another_time_is_a_dead_letter(days: int):
    """A report of the future would close the books of every true report."""
    logs = Logs(make_pipeline())
    run_day(logs, 2)
    spends = (CampaignSpend("tea", 0, 0, 0, 1),)
    ts = START + (days + 1) * DAY_MS
    forged = [
        SpendReport(ts=ts, partition=1, number=9, day=START // DAY_MS + days, campaigns=spends),
        BudgetLease(ts=ts, number=9, day=START // DAY_MS + days, ends_at=ts),
        SpendReport(ts=ts, partition=1, number=9, day=ts // DAY_MS, campaigns=spends),
        BudgetLease(ts=ts, number=9, day=ts // DAY_MS, ends_at=ts),
    ]
    log, before = logs.logs[0], logs.pipeline.state(0).contents()
    records = [
        Recorded(len(log) + number, START + 3 * MINUTE, None, msgspec.json.encode(record))
        for number, record in enumerate(forged)
    ]
    output = logs.pipeline.process(0, records)
    errors = [letter.error for letter in output.dead_letters]
    assert ["day is" in error for error in errors] == [True, True, False, False]
    assert ["more than future_ms" in error for error in errors] == [False, False, True, True]
    after = logs.pipeline.state(0).contents()
    assert {key for key in before if key and before[key] != after[key]} == set()


def test_true_record_of_the_budgets_is_read_with_its_append_time():
    made = make_pipeline()
    report = SpendReport(ts=START, partition=1, number=1, day=START // DAY_MS, pages=3)
    output = made.process(0, [Recorded(0, START, None, msgspec.json.encode(report))])
    assert (output.dead_letters, made.state(0).budgets.allocator.reports) == ([], {1: 1})


def test_bid_beyond_what_a_lease_can_say_is_refused():
    with pytest.raises(msgspec.ValidationError, match="bid"):
        decode_campaign(b'{"campaign_id": "tea", "item_id": "ad", "bid": 1e10}')
    with pytest.raises(msgspec.ValidationError, match="daily_budget"):
        decode_campaign(b'{"campaign_id": "tea", "item_id": "ad", "bid": 1, "daily_budget": 1e10}')


def owing_logs() -> Logs:
    """Return logs in which a shopper has clicked an ad for 0.5, of which the lease could pay 0.3."""
    logs = Logs(make_pipeline(make_campaign("tea", "ad", 1, daily_budget=0.3, pacing="asap"), rival()))
    logs.send(1, view("bob", 0))
    logs.send(1, view("bob", 1))
    assert shopper_clicks(logs, 1, "ann", 1.5) == "tea"
    assert logs.pipeline.state(1).budgets.accounts.campaigns["tea"].owed > 0
    return logs


def lend(logs: Logs, limit: int) -> None:
    """Give the partition another lease.

    Args:
        logs: The logs.
        limit: What the campaign may spend on the day, millionths.
    """
    number = logs.pipeline.state(1).budgets.accounts.lease + 1
    grants = (CampaignLease("tea", limit),)
    ts = START + 3 * MINUTE
    lease = BudgetLease(ts=ts, number=number, day=ts // DAY_MS, ends_at=ts + TERM_MS, campaigns=grants)
    logs.append(1, msgspec.json.encode(lease))
    logs.read_all()


def as_bot(minute: float) -> View:
    ts = START + round(minute * MINUTE)
    return View(event_id=f"bot-{ts}", user_id="ann", ts=ts, item_id="x", client="bot")


@pytest.mark.parametrize(
    ("limits", "sums"), [((), [0.3]), ((400_000,), [0.3, 0.4]), ((400_000, 500_000), [0.3, 0.4, 0.5])]
)
def test_credits_pay_back_what_was_paid_and_end_what_is_owed(limits: Sequence[int], sums: Sequence[float]):
    logs = owing_logs()
    assert paid(logs) == sums[0]
    for limit, total in zip(limits, sums[1:], strict=True):
        lend(logs, limit)
        assert paid(logs) == total
    logs.send(1, as_bot(4))
    assert logs.pipeline.state(1).budgets.accounts.campaigns["tea"].owed == 0
    assert paid(logs) == 0.0
    lend(logs, 2_000_000)
    assert paid(logs) == 0.0


def test_what_a_lease_paid_after_a_restart_is_paid_back():
    logs = owing_logs()
    changes = [ChangelogRecord(key, value, 0) for key, value in logs.pipeline.state(1).contents().items()]
    logs.pipeline.load({1: restore(changes, "events-1", Settings.of().sessions)})
    lend(logs, 400_000)
    assert paid(logs) == 0.4
    logs.send(1, as_bot(4))
    assert paid(logs) == 0.0


def test_what_is_owed_is_given_up_with_a_hand_over_but_not_with_an_erasure():
    logs = owing_logs()
    identify = Identify(event_id="login", user_id="ann", ts=START + 3 * MINUTE, identified_as="eve")
    logs.append(1, msgspec.json.encode(identify))
    logs.read_all()
    assert logs.pipeline.state(1).budgets.accounts.campaigns["tea"].owed == 0
    logs = owing_logs()
    logs.append(1, msgspec.json.encode(Erase(event_id="gone", user_id="ann", ts=START + 3 * MINUTE)))
    logs.read_all()
    lend(logs, 500_000)
    assert paid(logs) == 0.5


def test_pacing_without_a_budget_is_refused():
    campaign = make_campaign("tea", "ad", 1, pacing="even")
    with pytest.raises(msgspec.ValidationError, match="nothing reads it without a budget"):
        decode_campaign(encode(campaign))
    old = b'{"campaign_id": "tea", "item_id": "ad", "bid": 1.0, "daily_budget": 5.0}'
    assert decode_campaign(old).has_budget


def test_unknown_campaign_and_one_without_a_budget_have_no_budget():
    assert make_budget(None) is None
    assert make_budget(rival()) is None


def test_lease_of_an_idle_partition_returns_after_its_term():
    logs = Logs(make_pipeline())
    run_day(logs, 2)
    idle = logs.pipeline.state(1).budgets
    assert idle.has_leases
    logs.send(1, Tick(ts=START + 3 * MINUTE))
    assert idle.has_leases
    logs.send(1, Tick(ts=START + 4 * MINUTE + TERM_MS))
    assert not idle.has_leases
    for minute in range(3, 40):
        shopper_clicks(logs, 0, f"user-{minute}", minute)
    assert paid(logs) == 5.0


def test_lease_of_an_idle_partition_is_known_after_a_restart():
    logs = Logs(make_pipeline())
    run_day(logs, 2)
    changes = [ChangelogRecord(key, value, 0) for key, value in logs.pipeline.state(1).contents().items()]
    state = restore(changes, "events-1", Settings.of().sessions)
    assert state.budgets.has_leases  # so the partition gets ticks


def test_replay_computes_the_money_again_whatever_the_batches():
    logs = Logs(make_pipeline())
    run_day(logs, 12)
    replay = Logs(make_pipeline())
    for partition, log in enumerate(logs.logs):
        for start in range(0, len(log), 7):
            replay.take(replay.pipeline.process(partition, log[start : start + 7]))
        assert replay.pipeline.state(partition).contents() == logs.pipeline.state(partition).contents()
    assert sorted(replay.published) == sorted(logs.published)


def test_restart_goes_on_with_the_same_bytes():
    logs = Logs(make_pipeline())
    run_day(logs, 4)
    restarted = Logs(make_pipeline())
    restarted.logs = [log[:] for log in logs.logs]
    for partition in range(PARTITIONS):
        contents = logs.pipeline.state(partition).contents()
        assert any(key.startswith(BUDGET_PREFIX.encode()) for key in contents)
        changes = [ChangelogRecord(key, value, 0) for key, value in contents.items()]
        state = restore(changes, f"events-{partition}", Settings.of().sessions)
        assert state.contents() == contents
        restarted.pipeline.load({partition: state})
    published = len(logs.published)
    for run in (logs, restarted):
        for minute in range(4, 10):
            shopper_clicks(run, minute % 2, f"user-{minute}", minute)
    assert restarted.published == logs.published[published:]
    assert restarted.logs == logs.logs


def test_user_who_withdraws_consent_to_ads_costs_no_campaign_anything_more():
    logs = Logs(make_pipeline())
    logs.send(0, view("bob", 0), view("cid", 1))
    ad = logs.send(0, view("ann", 1.5))
    assert ad is not None
    assert ad.campaign_id == "tea"
    charged = paid(logs)
    names: dict[str, Any] = {"decision_id": ad.decision_id, "campaign_id": ad.campaign_id, "item_id": ad.item_id}
    click = Click(event_id="c", user_id="ann", ts=START + round(1.9 * MINUTE), **names)
    logs.send(0, withdraw("ann", 1.6, "ads"), msgspec.structs.replace(impression("ann", 1.7), **names), click)
    assert paid(logs) == charged
    entries = logs.pipeline.state(0).budgets.accounts.campaigns["tea"].entries
    logs.send(0, view("ann", 1.95))
    assert logs.pipeline.state(0).budgets.accounts.campaigns["tea"].entries == entries


def test_replay_with_a_warm_up_decides_as_the_worker_did(tmp_path: Path):
    logs = Logs(make_pipeline(make_campaign("tea", "ad", 1, daily_budget=8.0, pacing="even"), rival()))
    run_day(logs, 12)
    ranges = {
        partition: OffsetRange(begin=len(log) - 12, end=len(log), warm_up=0, log_begin=0)
        for partition, log in enumerate(logs.logs)
    }
    source = TopicRangeSpec(topic="events", begin="0", end="latest", warm_up="earliest", ranges=ranges)
    settings = Settings()
    task = ReplayTask(
        settings=settings,
        plan=ReplayPlan(output="decisions", source=source, bundle="", workers=1, settings=settings.identity),
        policy_file=DEFAULT_POLICY,
        folder=tmp_path,
        worker=0,
        writes=False,
        compressed=False,
        checkpoint_s=0,
        check=None,
    )
    pipeline = make_pipeline(make_campaign("tea", "ad", 1, daily_budget=8.0, pacing="even"), rival())
    with PartitionOutputs(tmp_path, 0, [0, 1], compressed=False) as outputs:
        run = _TaskRun(task, pipeline, outputs, None)
        made = run._process(list(enumerate(logs.logs)))
    ads = [decode_decision(message.value or b"") for output in made for message in output.ads]
    assert len(ads) > 8
    assert ads == [logs.ads[ad.decision_id] for ad in ads]
    for partition in range(PARTITIONS):
        replayed, live = (made.state(partition).budgets.accounts for made in (pipeline, logs.pipeline))
        assert replayed.campaigns["tea"].remaining == live.campaigns["tea"].remaining


def test_pages_of_machines_and_decisions_on_impressions_cost_nothing():
    logs = Logs(make_pipeline())
    bot = View(event_id="b", user_id="bot", ts=START, item_id="x", client="bot")
    logs.send(0, bot, impression("ann", 0), Tick(ts=START + 2 * MINUTE))
    assert logs.records(0, SpendReport) == []


def test_log_of_a_file_has_no_leases_so_budgets_do_not_count():
    pipeline = make_pipeline()
    pipeline.applies_budgets = False
    logs = Logs(pipeline)
    ad = logs.send(0, view("ann", 0))
    assert ad is not None
    assert ad.campaign_id == "tea"
    assert ad.slots[0].multiplier is msgspec.UNSET
    assert logs.records(0, SpendReport) == []


def test_states_without_decisions_follow_the_leases():
    logs = Logs(make_pipeline())
    run_day(logs, 3)
    pipeline = make_pipeline()
    for partition, log in enumerate(logs.logs):
        pipeline.advance_all([(partition, log)])
        limits = [made.state(partition).budgets.accounts.campaigns["tea"].limit for made in (pipeline, logs.pipeline)]
        assert limits[0] == limits[1]


def test_record_of_a_stalled_worker_is_written_again():
    logs = Logs(make_pipeline())
    run_day(logs, 2)
    state = logs.pipeline.state(0)
    key = BUDGET_PREFIX + "atea"
    value = state.contents()[key.encode()]
    assert state.is_overlaid(key, -1, is_tombstone=False)
    assert not state.is_overlaid(BUDGET_PREFIX + "aother", 0, is_tombstone=True)
    state.rewrite([key, BUDGET_PREFIX + "aother"])
    assert state.needs_flush
    written = {change.key: change.value for change in logs.pipeline.process(0, []).changes}
    assert written[key.encode()] == value
    assert written[BUDGET_PREFIX.encode() + b"aother"] is None


def test_price_with_more_decimals_than_an_account_breaks_no_budget():
    logs = Logs(make_pipeline())
    budgets = logs.pipeline.state(0).budgets
    budgets.advance(START, 0)
    grants = (CampaignLease("tea", 1_500),)
    budgets.apply(BudgetLease(ts=START, number=1, day=START // DAY_MS, ends_at=START, campaigns=grants))
    fine = msgspec.structs.replace(make_charge(1), net=0.0015004)
    assert budgets.charge(fine).net == 0.0015
    (rest,) = budgets.apply(
        BudgetLease(ts=START, number=2, day=START // DAY_MS, ends_at=START, campaigns=(CampaignLease("tea", 1_600),))
    )
    assert (rest.net, budgets.accounts.campaigns["tea"].spent) == (0.0000004, 1_501)
    cheap = msgspec.structs.replace(make_charge(1, "mugs"), net=0.0000004)
    assert budgets.charge(cheap).net == 0


@pytest.mark.parametrize("bid_per", ["thousand_impressions", "order"])
def test_other_bids_have_budgets_too(bid_per: str):
    campaign = make_campaign("tea", "ad", 1000 if bid_per != "order" else 100, bid_per=bid_per, daily_budget=2.0)
    logs = Logs(make_pipeline(campaign, rival()))
    run_day(logs, 4)
    assert 0 <= paid(logs) <= 2.0
