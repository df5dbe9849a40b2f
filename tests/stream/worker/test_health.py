"""Health: what a worker reports of itself."""

from clickscore.schemas.catalogue import Campaign, encode
from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.events import Epoch
from clickscore.schemas.rollouts import EpochRollout
from clickscore.schemas.topics import EVENTS
from clickscore.stream.budgets.accounts import Account
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.worker.health import MAX_BUDGETS, HealthCheck, HealthReport
from clickscore.stream.worker.losses import Losses
from tests.events import START, view
from tests.stream.worker.stage import DullScorer, Stage


class HealthStage(Stage):
    """A stage with a health check."""

    def __init__(
        self, *partitions: int, scorer: DullScorer | None = None, bundles: dict[str, DullScorer] | None = None
    ) -> None:
        super().__init__(*partitions, scorer=scorer)
        if bundles:
            kafka, settings = EVENTS.name, self.settings
            self.pipeline = Pipeline(settings.sessions, settings.policy, kafka, Catalogue(), scorer, bundles=bundles)
        self.unserved: dict[int, int] = {}
        self.losses = Losses("events", self.metrics, lambda *_: None)
        self.check = HealthCheck(
            self.group,
            self.pipeline,
            self.ownership,
            self.metrics,
            losses=self.losses,
            unserved=lambda: self.unserved,
            clock=self.clock,
        )
        self.own()

    def report(self, *, alive: bool = True, last_batch_at: float | None = None) -> HealthReport:
        return self.check.report(alive=alive, last_batch_at=last_batch_at)


def test_lag_is_the_number_of_events_that_are_not_decided_on():
    stage = HealthStage(0, 1)
    for partition in (0, 1):
        stage.compute_job(view("ann", 0), partition=partition)
        stage.send(view("bob", 1), view("eve", 2), partition=partition)
    assert stage.report().lag == 4


def test_lag_counts_partitions_that_nobody_reads():
    stage = HealthStage(0)
    stage.compute_job(view("ann", 0))
    stage.send(view("bob", 1))
    stage.unserved = {0: 7, 3: 5}  # 0 has been assigned to this worker since
    report = stage.report()
    assert (report.lag, report.unserved) == (6, [3])
    assert stage.metrics.registry.get_sample_value("clickscore_lag_events", {"partition": "3"}) == 5


def test_worker_without_partitions_is_not_ready_while_nobody_reads_some():
    stage = HealthStage(0)
    stage.group.rebalance()
    stage.own()
    assert stage.report().ready
    stage.unserved = {0: 0}
    assert not stage.report().ready


def test_partition_without_state_or_end_has_no_lag():
    stage = HealthStage(0, 1)
    stage.send(view("ann", 0))
    assert stage.report().lag == 0


def test_partition_whose_end_is_not_known_has_no_lag():
    stage = HealthStage(0)
    stage.compute_job(view("ann", 0))
    stage.group.knows_ends = False
    assert stage.report().lag == 0


def test_users_and_open_sessions_of_assigned_partitions_are_counted():
    stage = HealthStage(0, 1)
    stage.compute_job(view("ann", 0), view("bob", 0))
    stage.compute_job(view("eve", 0), partition=1)
    stage.group.rebalance(0)
    report = stage.report()
    assert (report.partitions, report.users, report.open_sessions) == ([0], 2, 2)


def test_age_of_the_last_batch_is_in_seconds():
    stage = HealthStage(0)
    assert stage.report(last_batch_at=stage.clock.now - 1.5).last_batch_age_s == 1.5


def test_worker_without_a_batch_has_no_age():
    assert HealthStage(0).report().last_batch_age_s is None


def test_rebalance_is_reported():
    stage = HealthStage(0)
    stage.group.rebalancing = True
    assert stage.report().rebalancing


def test_worker_is_ready_once_its_partitions_are_restored():
    stage = HealthStage(0)
    assert stage.report().ready
    stage.group.rebalance(0, 1)
    assert not stage.report().ready


def test_worker_that_failed_is_not_ready():
    assert not HealthStage(0).report(alive=False).ready


def test_gauges_say_what_the_report_says():
    stage = HealthStage(0)
    stage.compute_job(view("ann", 0))
    stage.send(view("bob", 0))
    stage.report()
    assert stage.metric("clickscore_lag_events", partition="0") == 1
    assert stage.metric("clickscore_users") == stage.metric("clickscore_open_sessions") == 1
    assert stage.metric("clickscore_watermark_ms", partition="0") == START - stage.settings.sessions.lateness_ms


def test_gauges_of_lost_partitions_disappear():
    stage = HealthStage(0)
    stage.compute_job(view("ann", 0))
    stage.report()
    stage.group.rebalance()
    stage.report()
    assert stage.metric("clickscore_lag_events", partition="0") is None


def test_lost_events_are_reported():
    stage = HealthStage()
    stage.losses.report(0, 3, 8)
    assert stage.report().lost == 5


def test_lead_of_the_newest_event_before_the_wall_clock_is_a_gauge():
    stage = HealthStage(0, 1)
    stage.clock.now = START / 1000 - 60
    stage.compute_job(view("ann", 0))
    stage.report()
    assert stage.metric("clickscore_watermark_ahead_ms", partition="0") == 60_000
    assert stage.metric("clickscore_watermark_ahead_ms", partition="1") is None


def test_fallback_share_is_that_of_the_variant_model():
    stage = HealthStage(0, scorer=DullScorer())
    assert stage.report().fallback_share is None
    stage.metrics.count_items({("model", "model"): 1, ("model", "popular"): 2, ("popular", "popular"): 9})
    assert stage.report().fallback_share == 0.6667
    assert stage.metric("clickscore_items_total", variant="popular", reason="popular") == 9


def test_worker_without_a_model_has_no_fallback_share():
    stage = HealthStage(0)
    stage.metrics.count_items({("model", "popular"): 2})
    assert stage.report().fallback_share is None


def test_bundles_and_policies_that_decide_are_counted_by_partition():
    stage = HealthStage(0, 1, scorer=DullScorer())
    for partition in (0, 1):
        stage.compute_job(view("ann", 0), partition=partition)
    stage.report()
    value = stage.metrics.registry.get_sample_value
    assert value("clickscore_bundle_info", {"version": "dull", "role": "champion"}) == 2
    assert value("clickscore_policy_info", {"policy": stage.pipeline.policy}) == 2
    stage.pipeline.drop([1])
    stage.report()
    assert value("clickscore_bundle_info", {"version": "dull", "role": "champion"}) == 1


def test_challenger_counts_beside_the_champion():
    class OnTrial(DullScorer):
        version = "trial"

    champion, challenger = "a" * 64, "b" * 64
    stage = HealthStage(0, bundles={champion: DullScorer(), challenger: OnTrial()})
    rollout = EpochRollout(champion=champion, challenger=challenger, share=0.1)
    stage.pipeline.begin_epoch(0, Epoch(number=1, catalogue=0, campaigns=0, rollout=rollout))
    stage.report()
    value = stage.metrics.registry.get_sample_value
    assert value("clickscore_bundle_info", {"version": "dull", "role": "champion"}) == 1
    assert value("clickscore_bundle_info", {"version": "trial", "role": "challenger"}) == 1


def test_age_of_what_a_bundle_knows_is_a_gauge():
    class Trained(DullScorer):
        trained_until = START

    stage = HealthStage(0, scorer=Trained())
    stage.compute_job(view("ann", 0))
    stage.report()
    value = stage.metrics.registry.get_sample_value
    assert value("clickscore_bundle_learned_until_seconds", {"version": "dull"}) == START / 1000


def test_bundle_that_does_not_say_what_it_learned_has_no_age():
    stage = HealthStage(0, scorer=DullScorer())
    stage.compute_job(view("ann", 0))
    stage.report()
    assert (
        stage.metrics.registry.get_sample_value("clickscore_bundle_learned_until_seconds", {"version": "dull"}) is None
    )


def test_size_of_the_catalogue_is_a_gauge():
    stage = HealthStage(0)
    stage.pipeline.catalogue.update_item(b"mug", b'{"item_id":"mug"}')
    stage.report()
    assert stage.metrics.registry.get_sample_value("clickscore_catalogue_items") == 1
    assert stage.metrics.registry.get_sample_value("clickscore_campaigns") == 0


def budget_samples(stage: HealthStage, campaign_id: str) -> list[float | None]:
    """Return budget, spend, leases and multiplier of a campaign."""
    names = ("budget", "spent", "leased", "multiplier")
    registry = stage.metrics.registry
    return [registry.get_sample_value(f"clickscore_campaign_{name}", {"campaign": campaign_id}) for name in names]


def test_budgets_are_summed_over_the_partitions_of_the_newest_day():
    stage = HealthStage(0, 1, 2)
    campaigns = [
        Campaign(campaign_id="tea", item_id="mug", bid=1.0, daily_budget=20.0),
        Campaign(campaign_id="all", item_id="mug", bid=1.0, total_budget=90.0),
        Campaign(campaign_id="free", item_id="mug", bid=1.0),
    ]
    for campaign in campaigns:
        stage.pipeline.catalogue.update_campaign(campaign.campaign_id.encode(), encode(campaign))
    for partition, day in ((0, 7), (1, 7), (2, 6)):
        stage.compute_job(view("ann", 0), partition=partition)
        accounts = stage.pipeline.partitions[partition].budgets.accounts
        accounts.day = day
        accounts.campaigns["tea"] = Account(
            limit=3_000_000,
            spent=1_250_000 + partition,
            ends_at=day * DAY_MS + partition,
            multiplier=0.5 + partition / 4,
        )
    stage.report()
    assert budget_samples(stage, "tea") == [20.0, 2.500001, 3.499999, 0.75]
    assert budget_samples(stage, "all") == [None, 0.0, 0.0, None]
    assert budget_samples(stage, "free") == [None] * 4
    stage.pipeline.catalogue.update_campaign(b"tea", None)
    stage.report()
    assert budget_samples(stage, "tea") == [None] * 4


def test_largest_budgets_alone_are_metrics():
    stage = HealthStage(0)
    for number in range(MAX_BUDGETS + 2):
        campaign = Campaign(campaign_id=f"c{number}", item_id="mug", bid=1.0, daily_budget=float(number + 1))
        stage.pipeline.catalogue.update_campaign(campaign.campaign_id.encode(), encode(campaign))
    stage.report()
    assert [budget_samples(stage, name)[0] for name in ("c1", "c2", "c101")] == [None, 3.0, 102.0]
