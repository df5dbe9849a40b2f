"""Health: the report of /health, and the gauges of Prometheus with the same values."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nlargest

import msgspec

from clickscore.schemas.catalogue import Campaign
from clickscore.schemas.leases import MICROS
from clickscore.schemas.manifest import version_of
from clickscore.stream.budgets.accounts import BudgetAccounts
from clickscore.stream.deciders import EpochDeciders
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.state.partition import PartitionState
from clickscore.stream.worker.group import ConsumerGroup
from clickscore.stream.worker.losses import Losses
from clickscore.stream.worker.ownership import Ownership
from clickscore.stream.worker.prometheus_metrics import CampaignBudget, Metrics, VersionCounts
from clickscore.stream.worker.rollouts import RolloutKeeper, short_name

MAX_BUDGETS = 100
"""Campaigns whose budgets are metrics, at most: each has four series of each worker."""


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of /health. docs/operations.md explains each field."""

    alive: bool
    restored: bool
    rebalancing: bool
    lag: int
    last_batch_age_s: float | None
    partitions: list[int]
    open_sessions: int
    users: int
    unserved: list[int]
    """Partitions that no worker of the group reads."""
    lost: int
    fallback_share: float | None
    """Share of the items of the variant `model` that the fallback chose; None without a model or without items."""
    bundles: list[str]
    """Versions of the bundles of the bundle store that are loaded."""
    refused_bundles: dict[str, str]
    """Reason why a bundle or a policy of the rollout cannot be used, by version or label."""

    @property
    def ready(self) -> bool:
        """Whether the worker is alive with the state of every assigned partition restored.

        A worker without partitions is not ready while nobody reads some: it may be cut off from its group.
        """
        return self.alive and self.restored and (bool(self.partitions) or not self.unserved)


class HealthCheck:
    """Looks at the worker's parts and reports how they are."""

    def __init__(
        self,
        group: ConsumerGroup,
        pipeline: Pipeline,
        ownership: Ownership,
        metrics: Metrics,
        *,
        losses: Losses,
        unserved: Callable[[], Mapping[int, int]],
        clock: Callable[[], float],
        rollouts: RolloutKeeper | None = None,
    ) -> None:
        """Build the check.

        Args:
            group: Knows the assigned partitions and their end offsets.
            pipeline: Has the state of each partition.
            ownership: Knows whether the state is restored.
            metrics: Gauges to set with each report.
            losses: Counts events that Kafka removed before they were decided on.
            unserved: Returns the number of undecided events of each partition that no worker of the group reads.
            clock: Returns the wall-clock time, s.
            rollouts: Knows the loaded bundles; None for a worker without a bundle store.
        """
        self._group = group
        self._pipeline = pipeline
        self._ownership = ownership
        self._metrics = metrics
        self._losses = losses
        self._unserved = unserved
        self._clock = clock
        self._rollouts = rollouts

    def report(self, *, alive: bool, last_batch_at: float | None) -> HealthReport:
        """Return the health of the worker, and set the gauges to the same values.

        Args:
            alive: Whether the worker runs without a failure.
            last_batch_at: Wall-clock time of the last batch, s; unset before the first batch.
        """
        assigned = self._group.assignment()
        unserved = {p: lag for p, lag in self._unserved().items() if p not in assigned}
        lags = self._lags(assigned) | unserved
        states = {p: self._pipeline.partitions[p] for p in assigned if p in self._pipeline.partitions}
        report = HealthReport(
            alive=alive,
            restored=self._ownership.is_restored(assigned),
            rebalancing=self._group.rebalancing,
            lag=sum(lags.values()),
            last_batch_age_s=None if last_batch_at is None else round(self._clock() - last_batch_at, 3),
            partitions=assigned,
            open_sessions=sum(state.open_sessions for state in states.values()),
            users=sum(len(state) for state in states.values()),
            unserved=sorted(unserved),
            lost=self._losses.events,
            fallback_share=self._fallback_share(),
            bundles=[version_of(bundle) for bundle in self._rollouts.loaded] if self._rollouts else [],
            refused_bundles=(
                {short_name(part): reason for part, reason in self._rollouts.refused.items()} if self._rollouts else {}
            ),
        )
        self._set_gauges(report, lags, states)
        return report

    def _lags(self, assigned: list[int]) -> dict[int, int]:
        """Return the number of undecided events of each partition with a known end."""
        lags: dict[int, int] = {}
        for partition in assigned:
            state, highwater = self._pipeline.partitions.get(partition), self._group.highwater(partition)
            if highwater is not None and state is not None:
                lags[partition] = max(0, highwater - 1 - state.offset)
        return lags

    def _fallback_share(self) -> float | None:
        share = self._metrics.fallback_share if self._pipeline.has_model else None
        return None if share is None else round(share, 4)

    def _set_gauges(self, report: HealthReport, lags: dict[int, int], states: Mapping[int, PartitionState]) -> None:
        metrics = self._metrics
        metrics.users.set(report.users)
        metrics.open_sessions.set(report.open_sessions)
        metrics.catalogue_version.set(self._pipeline.catalogue.version)
        metrics.catalogue_changes.set(self._pipeline.history.retained)
        metrics.catalogue_items.set(len(self._pipeline.catalogue.item_ids))
        metrics.campaigns.set(len(self._pipeline.catalogue.campaigns))
        metrics.set_budgets(
            _sum_budgets(
                self._pipeline.catalogue.campaigns.values(), [state.budgets.accounts for state in states.values()]
            )
        )
        metrics.set_deciders(_count_versions(self._pipeline.find_all_deciders()))
        metrics.lag.clear()  # partitions that belong to another worker by now must disappear
        metrics.watermark.clear()
        for partition, lag in lags.items():
            metrics.lag.labels(str(partition)).set(lag)
        metrics.watermark_ahead.clear()
        for partition, state in states.items():
            metrics.watermark.labels(str(partition)).set(state.watermark)
            if state.max_ts >= 0:  # a partition without an event has no newest event time
                metrics.watermark_ahead.labels(str(partition)).set(state.max_ts - int(self._clock() * 1000))


def _sum_budgets(campaigns: Iterable[Campaign], partitions: Sequence[BudgetAccounts]) -> dict[str, CampaignBudget]:
    """Return the largest budgets by campaign. Partitions in an earlier day have spent nothing of the newest.

    Args:
        campaigns: All campaigns.
        partitions: Accounts of the partitions.
    """
    with_budget = (campaign for campaign in campaigns if campaign.has_budget)
    largest = nlargest(
        MAX_BUDGETS, with_budget, key=lambda campaign: (campaign.daily_budget or 0.0, campaign.campaign_id)
    )
    newest_day = max((accounts.day for accounts in partitions), default=-1)
    present = [accounts.campaigns for accounts in partitions if accounts.day == newest_day]
    budgets: dict[str, CampaignBudget] = {}
    for campaign in largest:
        accounts = [account for by_id in present if (account := by_id.get(campaign.campaign_id))]
        leased = [account for account in accounts if account.ends_at]
        budgets[campaign.campaign_id] = CampaignBudget(
            daily=campaign.daily_budget,
            spent=sum(account.spent for account in accounts) / MICROS,
            leased=sum(account.limit - account.spent for account in accounts) / MICROS,
            multiplier=max(leased, key=lambda account: account.ends_at).multiplier if leased else None,
        )
    return budgets


def _count_versions(partitions: Iterable[EpochDeciders]) -> VersionCounts:
    """Return in how many partitions each bundle and each policy decides, and what the bundles have learned from."""
    bundles: Counter[tuple[str, str]] = Counter()
    policies: Counter[str] = Counter()
    learned_until: dict[str, int] = {}
    for deciders in partitions:
        policies[deciders.champion.policy.label] += 1
        for role, decider in (("champion", deciders.champion), ("challenger", deciders.challenger)):
            if decider is not None:
                bundles[decider.bundle or "none", role] += 1
                if decider.scorer is not None and decider.scorer.trained_until:
                    learned_until[decider.scorer.version] = decider.scorer.trained_until
    return VersionCounts(bundles, policies, learned_until)
