"""Prometheus metrics: the counters and gauges of a worker. No metric contains a user id."""

from collections import Counter as Counts
from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from clickscore.stream.policy.experiments import CONTROL, MODEL, SIMILAR
from clickscore.stream.worker.latency_histogram import LatencyHistogram

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_RECORDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class VersionCounts(NamedTuple):
    """Number of partitions in which a bundle or a policy decides."""

    bundles: Mapping[tuple[str, str], int]
    """Count by version and role."""
    policies: Mapping[str, int]
    """Count by label."""
    learned_until: Mapping[str, int]
    """Event time of the newest event that a bundle has learned from, ms, by version; unknown times are left out."""


class CampaignBudget(NamedTuple):
    """Budget of a campaign in the partitions of a worker, in the shop's currency."""

    daily: float | None
    """Budget of a day; None for a campaign with a total budget alone."""
    spent: float
    """Spend of the newest day."""
    leased: float
    """What the leases can still spend."""
    multiplier: float | None
    """Factor on the bid in the newest lease; None before the first lease of the day."""


class Metrics:
    """The metrics of a worker, in a separate registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.events = Counter(
            "clickscore_events",
            "Records of clickstream-events by outcome.",
            ["outcome"],
            registry=registry,
        )
        # The first increase counts only from a sample before it, and a standstill only where there is a sample.
        self.events.labels("lost")
        self.published = Counter(
            "clickscore_published", "Records acknowledged by Kafka, by topic.", ["topic"], registry=registry
        )
        self.unscored = Counter(
            "clickscore_unscored",
            "Decisions on events that the model could not score: it knows no item of the session.",
            registry=registry,
        )
        self.items = Counter(
            "clickscore_items",
            "Recommended items by variant of the A/B test, and by reason, such as model or popular.",
            ["variant", "reason"],
            registry=registry,
        )
        self.removed = Counter(
            "clickscore_removed_candidates",
            "Candidates removed before a list was full, by rule of the policy.",
            ["rule"],
            registry=registry,
        )
        self.feedback = Counter(
            "clickscore_feedback",
            "Impressions, clicks, carts and purchases that name a decision, by result: joined to it; unknown, where it "
            "is not open or does not show the item; repeated; or overflow, where too many are remembered.",
            ["result"],
            registry=registry,
        )
        self.reactions = Counter(
            "clickscore_reactions",
            "Reactions joined to decisions, by kind, by variant of the A/B test, and by shelf or ad placement.",
            ["kind", "variant", "placement"],
            registry=registry,
        )
        self.revenue = Counter(
            "clickscore_attributed_revenue",
            "Revenue of the purchases joined to decisions, in the shop's currency.",
            ["variant", "placement"],
            registry=registry,
        )
        self.charged = Counter(
            "clickscore_ad_charges",
            "Amounts of ads in the shop's currency: gross, with invalid traffic; net, what is charged; credit, what is "
            "given back.",
            ["amount"],
            registry=registry,
        )
        self.moved = Counter(
            "clickscore_moved_places",
            "Shown places to which a re-ranker of the policy brought another item, by rule.",
            ["rule"],
            registry=registry,
        )
        self.foreign = Counter(
            "clickscore_foreign_partition",
            "Users seen in a partition that is not theirs by murmur2 of the user id.",
            registry=registry,
        )
        self.rebalances = Counter("clickscore_rebalances", "Assignments of partitions.", registry=registry)
        self.repaired = Counter(
            "clickscore_repaired_snapshots",
            "Snapshots that a stalled worker had overlaid, written again.",
            registry=registry,
        )
        self.failed_ticks = Counter("clickscore_failed_ticks", "Ticks that Kafka refused.", registry=registry)
        self.epochs = Counter("clickscore_epochs", "Epochs written into partitions of the events.", registry=registry)
        self.failed_epochs = Counter("clickscore_failed_epochs", "Epochs that Kafka refused.", registry=registry)
        self.incomplete_epochs = Counter(
            "clickscore_incomplete_epochs",
            "Epochs that name records of catalogue or campaigns, or bundles, which this worker did not have in time.",
            registry=registry,
        )
        self.loaded_bundles = Gauge(
            "clickscore_loaded_bundles", "Bundles of the bundle store that are in memory.", registry=registry
        )
        self.refused_bundles = Counter(
            "clickscore_refused_bundles",
            "Bundles of a rollout that could not be loaded from the bundle store; each attempt counts.",
            registry=registry,
        )
        self.catalogue_changes = Gauge(
            "clickscore_catalogue_changes",
            "Changes of catalogue and campaigns that are kept in memory for partitions in other epochs.",
            registry=registry,
        )
        self.catalogue_waits = Gauge(
            "clickscore_catalogue_waits",
            "1 while newer changes of catalogue and campaigns wait for partitions that lag.",
            registry=registry,
        )
        self.rollbacks = Counter(
            "clickscore_rollbacks", "Challengers that this worker's guard has rolled back.", registry=registry
        )
        self.shadow_events = Counter(
            "clickscore_shadow_events", "Events that a challenger has scored without deciding.", registry=registry
        )
        self.shadow_agreement = Counter(
            "clickscore_shadow_agreement",
            "Sum over these events of the share of the champion's best 10 items that the challenger's best 10 have.",
            registry=registry,
        )
        self.shadow_rank_correlation = Gauge(
            "clickscore_shadow_rank_correlation",
            "Sum over these events of the rank correlation of the common candidates.",
            registry=registry,
        )
        self.batch_records = Histogram(
            "clickscore_batch_records", "Records of a batch.", registry=registry, buckets=_RECORDS
        )
        self.compute_seconds = Histogram(
            "clickscore_compute_seconds", "Time from a batch to its decisions.", registry=registry, buckets=_SECONDS
        )
        self.publish_seconds = Histogram(
            "clickscore_publish_seconds",
            "Time from decisions to their acknowledgement.",
            registry=registry,
            buckets=_SECONDS,
        )
        self.event_to_decision = LatencyHistogram(
            "clickscore_event_to_decision_seconds",
            "Time from the append of an event to the append of its recommendation, both by the brokers' clocks.",
            registry,
        )
        self.restore_seconds = Gauge(
            "clickscore_restore_seconds", "Duration of the last restore of state.", registry=registry
        )
        self.restored_users = Gauge(
            "clickscore_restored_users", "Users whose state the last restore read.", registry=registry
        )
        self.users = Gauge("clickscore_users", "Users remembered.", registry=registry)
        self.open_sessions = Gauge("clickscore_open_sessions", "Sessions that have not ended.", registry=registry)
        self.lag = Gauge("clickscore_lag_events", "Events not yet decided on.", ["partition"], registry=registry)
        self.watermark = Gauge("clickscore_watermark_ms", "Watermark in event time.", ["partition"], registry=registry)
        self.watermark_ahead = Gauge(
            "clickscore_watermark_ahead_ms",
            "Newest event time less the wall clock; below 0 where the newest event is in the past.",
            ["partition"],
            registry=registry,
        )
        self.catalogue_version = Gauge(
            "clickscore_catalogue_updates",
            "Updates of the catalogue and of campaigns that are applied.",
            registry=registry,
        )
        self.catalogue_items = Gauge("clickscore_catalogue_items", "Items of the catalogue.", registry=registry)
        self.campaigns = Gauge("clickscore_campaigns", "Campaigns.", registry=registry)
        self.campaign_budget = Gauge(
            "clickscore_campaign_budget",
            "Daily budget of a campaign, in the shop's currency. The 100 largest budgets have series.",
            ["campaign"],
            registry=registry,
        )
        self.campaign_spent = Gauge(
            "clickscore_campaign_spent",
            "Spend of a campaign in this worker's partitions on the newest day of event time (UTC).",
            ["campaign"],
            registry=registry,
        )
        self.campaign_leased = Gauge(
            "clickscore_campaign_leased",
            "What the leases of this worker's partitions can still spend for a campaign.",
            ["campaign"],
            registry=registry,
        )
        self.campaign_multiplier = Gauge(
            "clickscore_campaign_multiplier",
            "Factor of pacing on the bid of a campaign, in the newest lease of this worker's partitions.",
            ["campaign"],
            registry=registry,
        )
        self.bundle_info = Gauge(
            "clickscore_bundle_info",
            "Partitions in which a bundle decides, by version and role: champion or challenger.",
            ["version", "role"],
            registry=registry,
        )
        self.learned_until = Gauge(
            "clickscore_bundle_learned_until_seconds",
            "Event time of the newest event that a deciding bundle has learned from, s since 1970: time() minus it is "
            "the age of what the bundle knows.",
            ["version"],
            registry=registry,
        )
        self.policy_info = Gauge(
            "clickscore_policy_info",
            "Partitions in which a policy decides, by version and content hash.",
            ["policy"],
            registry=registry,
        )
        self._model_items: Counts[str] = Counts()  # items of the variant `model` by reason

    def expect_model_items(self) -> None:
        """Show the counters of the variant `model` from the start: the alert on the fallback needs them."""
        self.items.labels(MODEL, MODEL)
        self.items.labels(MODEL, SIMILAR)
        self.items.labels(MODEL, CONTROL)

    def set_deciders(self, counts: VersionCounts) -> None:
        """Set the gauges of bundles and policies; versions that decide no longer disappear."""
        self.bundle_info.clear()
        self.policy_info.clear()
        self.learned_until.clear()
        for (version, role), partitions in counts.bundles.items():
            self.bundle_info.labels(version, role).set(partitions)
        for policy, partitions in counts.policies.items():
            self.policy_info.labels(policy).set(partitions)
        for version, learned_until in counts.learned_until.items():
            self.learned_until.labels(version).set(learned_until / 1000)

    def set_budgets(self, budgets: Mapping[str, CampaignBudget]) -> None:
        """Set the gauges of budgets; campaigns without a budget disappear.

        Args:
            budgets: Budgets by campaign.
        """
        for gauge in (self.campaign_budget, self.campaign_spent, self.campaign_leased, self.campaign_multiplier):
            gauge.clear()
        for campaign_id, budget in budgets.items():
            self.campaign_spent.labels(campaign_id).set(budget.spent)
            self.campaign_leased.labels(campaign_id).set(budget.leased)
            if budget.daily is not None:
                self.campaign_budget.labels(campaign_id).set(budget.daily)
            if budget.multiplier is not None:
                self.campaign_multiplier.labels(campaign_id).set(budget.multiplier)

    def count_items(self, items: Mapping[tuple[str, str], int]) -> None:
        """Count recommended items by variant and reason."""
        for (variant, reason), count in items.items():
            self.items.labels(variant, reason).inc(count)
            if variant == MODEL:
                self._model_items[reason] += count

    @property
    def fallback_share(self) -> float | None:
        """Share of the items of the variant `model` that are popular items; None before the first item."""
        total = self._model_items.total()
        return self._model_items[CONTROL] / total if total else None
