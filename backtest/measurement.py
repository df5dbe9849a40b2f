"""Measurement: compute the figures of a backtest from its evaluation columns, with bootstrap intervals."""

from collections.abc import Iterator

import numpy as np

from clickscore.backtest import catalogue_metrics
from clickscore.backtest.arms import Arm
from clickscore.backtest.backtest_run import BacktestPlan, Evidence
from clickscore.backtest.evaluation_columns import (
    MAX_LENGTH,
    NEW_ITEM,
    NO_NEXT_ITEM,
    OTHER_CATEGORIES,
    RELATIONS,
    ArmColumns,
)
from clickscore.backtest.intervals import DIGITS, Bootstrap, Estimate, Mask, make_estimate
from clickscore.backtest.probability_metrics import RELIABILITY_BINS, WeightedPrAuc, reliability
from clickscore.backtest.rank_gains import RANKING_METRICS, gain_ranks, gain_table
from clickscore.backtest.results import (
    ArmDifference,
    ArmResult,
    FilledPlaces,
    PurchaseResult,
    ReliabilityBin,
    Results,
    Slice,
    find_void_arms,
)
from clickscore.model.array_types import Floats, Ints
from clickscore.model.metrics import MIN_PROBABILITY, calibration_error, pr_auc
from clickscore.model.open_bundle import read_manifest
from clickscore.model.packaged_bundle import resolve_folder
from clickscore.schemas.durations import HOUR_MS
from clickscore.stream.policy.policy_file import load_policy

LENGTH_SLICES = ((1, 1), (2, 2), (3, 3), (4, 5), (6, 10), (11, MAX_LENGTH))
"""First and last session length of each slice: narrow where most events are."""
CATEGORY_SLICES = 12
"""Most frequent categories with a slice of their own: as many as fit into one plot."""
NO_TIMESTAMP = 2**62  # later than every event time, as the start value of a minimum


def measure(plan: BacktestPlan, source: str, evidence: Evidence) -> Results:
    """Return the figures of a backtest; without judged events, the counts alone.

    Args:
        plan: Settings and arms of the backtest.
        source: Name of the log.
        evidence: Labelled events and counts.
    """
    columns, join = evidence.columns, evidence.join
    measurement = _Measurement(plan, evidence)
    times = columns.column("ts")
    stated, purchased = measurement.stated, measurement.purchased
    arms = tuple(measurement.measure_arms())
    return Results(
        source=source,
        settings=plan.settings.identity | {"policy": load_policy(plan.settings.policy.policy).label},
        cutoff=plan.cutoff,
        records=evidence.records,
        judged=len(columns),
        left_out={reason: count for reason, count in sorted(join.left_out.items(), key=_by_count) if count},
        users=len(columns.users),
        first_ts=int(times.min(initial=NO_TIMESTAMP)) if len(columns) else 0,
        last_ts=int(times.max(initial=0)),
        ranked=int(measurement.ranked.sum()),
        stated=int(stated.sum()),
        purchase_rate=_round(purchased[stated].mean()) if stated.any() else 0.0,
        new=int(measurement.new.sum()),
        bought_answers=columns.bought_labels,
        leak_check=evidence.leak_check,
        arms=arms,
        differences=tuple(measurement.compare_arms()),
        tied=tuple(measurement.find_ties(find_void_arms(arms, evidence.leak_check))),
        slices=tuple(measurement.measure_slices()),
    )


class _Measurement:
    """Figures of the same events under the same bootstrap draws."""

    def __init__(self, plan: BacktestPlan, evidence: Evidence) -> None:
        self._plan, self._evidence, self._columns = plan, evidence, evidence.columns
        self._bootstrap = Bootstrap(self._columns.column("user_bin"))
        self.ranked: Mask = self._columns.column("relation") != NO_NEXT_ITEM
        self.new: Mask = self._columns.column("relation") == NEW_ITEM
        self.purchased: Ints = self._columns.column("purchased").astype(np.int64)
        self._stated_by_arm = [~np.isnan(arm.purchase) for arm in self._columns.arms]
        masks = [stated for stated in self._stated_by_arm if stated.any()]
        self.stated: Mask = np.logical_and.reduce(masks) if masks else np.zeros(len(self._columns), dtype=np.bool_)
        self._draws: dict[tuple[int, str], Floats] = {}  # by arm and metric
        self._values: dict[tuple[int, str], float] = {}

    def measure_arms(self) -> Iterator[ArmResult]:
        """Yield the figures of each arm, and keep their draws for `compare_arms`."""
        recommended = {item for arm in self._columns.arms for item in arm.recommended}
        items = len(self._evidence.join.item_counts.keys() | recommended)
        for number, (arm, columns) in enumerate(zip(self._plan.arms, self._columns.arms, strict=True)):
            yield self._measure_arm(number, arm, columns, items)

    def _measure_arm(self, number: int, arm: Arm, columns: ArmColumns, items: int) -> ArmResult:
        k, events, settings = self._plan.cutoff, self._evidence.join.item_counts, arm.settings
        trained_until = read_trained_until(arm)
        is_trained = self._columns.column("ts") <= trained_until
        states_probabilities = self._stated_by_arm[number].any()
        bias = catalogue_metrics.popularity_bias(columns.recommended, self._columns.next_items, events)
        return ArmResult(
            name=arm.name,
            baseline=arm.baseline,
            bundle=None if arm.baseline else self._evidence.scorers[settings.scoring.bundle].version,
            settings=arm.differences(self._plan.settings),
            trained_until=trained_until,
            learned_events=int(is_trained.sum()) if trained_until else 0,
            ranking={f"{name}@{k}": self._measure_ranking(number, name, columns.ranks) for name in RANKING_METRICS},
            discovery=self._measure_discovery(number, columns.discovery_ranks),
            hit_rates=self._hit_rates(columns.ranks, arm.k),
            coverage=_round(catalogue_metrics.coverage(columns.recommended, items)),
            popularity_bias=_round(bias),
            novelty=_round(catalogue_metrics.novelty(columns.recommended, events)),
            places=_count_places(columns),
            purchase=self._measure_purchase(number, columns.purchase) if states_probabilities else None,
            action_log_loss=self._measure_action_loss(number, columns.action_loss) if states_probabilities else None,
        )

    def _measure_ranking(self, number: int, metric: str, ranks: Ints) -> Estimate:
        gains = gain_ranks(ranks, gain_table(metric, self._plan.cutoff))
        return self._estimate_mean(number, f"{metric}@{self._plan.cutoff}", gains, self.ranked)

    def _measure_discovery(self, number: int, ranks: Ints) -> Estimate:
        hits = gain_ranks(ranks, gain_table("hit_rate", self._plan.cutoff))
        return self._estimate_mean(number, "discovery", hits, self.new)

    def _estimate_mean(self, number: int, metric: str, values: Floats, mask: Mask) -> Estimate:
        """Return the mean over the masked events with its interval, and keep the draws.

        Args:
            number: Number of the arm.
            metric: Name of the metric.
            values: Value of each event: (events,).
            mask: Events to average over: (events,).
        """
        value = float(values[mask].mean()) if mask.any() else 0.0
        return self._keep_draws(number, metric, value, self._bootstrap.means([values], mask)[0])

    def _keep_draws(self, number: int, metric: str, value: float, draws: Floats) -> Estimate:
        self._values[number, metric], self._draws[number, metric] = value, draws
        return make_estimate(value, draws)

    def _hit_rates(self, ranks: Ints, k: int) -> tuple[float, ...]:
        """Return the hit rate at 1, 2, ..., k: the cumulative share of ranks."""
        counts = np.bincount(ranks[self.ranked], minlength=k + 1)[1 : k + 1]
        return tuple(_round(rate) for rate in np.cumsum(counts) / max(1, int(self.ranked.sum())))

    def _measure_purchase(self, number: int, probabilities: Floats) -> PurchaseResult:
        predicted, outcomes = probabilities[self.stated], self.purchased[self.stated]
        weighted_area = WeightedPrAuc(predicted, outcomes)
        draws = self._bootstrap.weighted_figures(lambda weights: weighted_area(weights[self.stated]))
        # log loss = -log of the probability of the outcome
        of_outcome = np.where(self.purchased == 1, probabilities, 1 - probabilities).clip(MIN_PROBABILITY, 1)
        return PurchaseResult(
            pr_auc=self._keep_draws(number, "purchase_pr_auc", pr_auc(predicted, outcomes), draws),
            log_loss=self._estimate_mean(number, "purchase_log_loss", -np.log(of_outcome), self.stated),
            calibration_error=_round(calibration_error(predicted, outcomes, RELIABILITY_BINS)),
            reliability=tuple(self._measure_reliability(predicted, outcomes)),
        )

    def _measure_reliability(self, predicted: Floats, outcomes: Ints) -> Iterator[ReliabilityBin]:
        bins = reliability(predicted, outcomes)
        bin_of_event = np.full(len(self._columns), -1)
        bin_of_event[self.stated] = bins.bin_of_event
        for number, (mean, share, count) in enumerate(zip(bins.predicted, bins.observed, bins.counts, strict=True)):
            if count:
                draws = self._bootstrap.means([self.purchased.astype(np.float64)], bin_of_event == number)[0]
                observed = make_estimate(float(share), draws)
                yield ReliabilityBin(stated=_round(mean), happened=observed, events=int(count))

    def _measure_action_loss(self, number: int, losses: Floats) -> Estimate:
        return self._estimate_mean(number, "action_log_loss", np.nan_to_num(losses), self.stated)

    def compare_arms(self) -> Iterator[ArmDifference]:
        """Yield the paired difference of each arm and the first arm, in each metric that both arms have."""
        for (number, metric), draws in sorted(self._draws.items()):
            if number and (0, metric) in self._draws:
                difference = self._values[number, metric] - self._values[0, metric]
                by = make_estimate(difference, draws - self._draws[0, metric])
                yield ArmDifference(arm=self._plan.arms[number].name, metric=metric, by=by)

    def find_ties(self, void: frozenset[str]) -> Iterator[str]:
        """Yield the arms whose hit rate does not differ significantly from the best arm's.

        Args:
            void: Names of the arms with void figures, which are neither best nor tied.
        """
        metric = f"hit_rate@{self._plan.cutoff}"
        arms = {number: arm for number, arm in enumerate(self._plan.arms) if arm.name not in void}
        best = max(arms, key=lambda number: self._values[number, metric], default=0)
        for number, arm in arms.items():
            difference = self._values[best, metric] - self._values[number, metric]
            draws = self._draws[best, metric] - self._draws[number, metric]
            if number != best and not make_estimate(difference, draws).excludes_zero:
                yield arm.name

    def measure_slices(self) -> Iterator[Slice]:
        """Yield the figures of each slice that has ranked events."""
        for dimension, name, mask in self._list_slices():
            ranked = mask & self.ranked
            if ranked.any():
                yield self._measure_slice(dimension, name, ranked)

    def _list_slices(self) -> Iterator[tuple[str, str, Mask]]:
        """Yield dimension, name and events of each slice; the names are part of the JSON."""
        columns = self._columns
        lengths, known_user = columns.column("length"), columns.column("known_user")
        relation, category = columns.column("relation"), columns.column("category")
        hours = columns.column("ts") // HOUR_MS % 24
        for first, last in LENGTH_SLICES:
            name = str(first) if first == last else f"{first}-{last}" if last < MAX_LENGTH else f"{first}+"
            yield "length", name, (lengths >= first) & (lengths <= last)
        yield "user", "new", known_user == 0
        yield "user", "known", known_user == 1
        for number, name in enumerate(RELATIONS):
            yield "answer", name, relation == number
        for hour in range(24):
            yield "hour", f"{hour:02}", hours == hour
        if not any(columns.categories):
            return
        names = columns.categories
        counts = np.bincount(category[self.ranked], minlength=len(names)).tolist()
        largest = sorted(range(len(counts)), key=lambda number: (-counts[number], names[number]))[:CATEGORY_SLICES]
        for number in largest:
            yield "category", names[number] or "(none)", category == number
        yield "category", OTHER_CATEGORIES, ~np.isin(category, largest)

    def _measure_slice(self, dimension: str, name: str, mask: Mask) -> Slice:
        k, names = self._plan.cutoff, [arm.name for arm in self._plan.arms]
        gains = {
            metric: [gain_ranks(arm.ranks, gain_table(metric, k)) for arm in self._columns.arms]
            for metric in RANKING_METRICS
        }
        means = {metric: [_round(values[mask].mean()) for values in by_arm] for metric, by_arm in gains.items()}
        draws = self._bootstrap.means(gains["hit_rate"], mask)
        return Slice(
            dimension=dimension,
            name=name,
            events=int(mask.sum()),
            hit_rate=dict(zip(names, map(make_estimate, means["hit_rate"], draws), strict=True)),
            mrr=dict(zip(names, means["mrr"], strict=True)),
            ndcg=dict(zip(names, means["ndcg"], strict=True)),
        )


def read_trained_until(arm: Arm) -> int:
    """Return the event time of the newest event that an arm's bundle learned from, ms; 0 where the time is unknown."""
    if arm.baseline:
        return 0
    return read_manifest(resolve_folder(arm.settings.scoring.bundle)).learned_until


def _count_places(columns: ArmColumns) -> dict[str, FilledPlaces]:
    """Return the places of an arm's lists by variant."""
    model, fallback = columns.model_places, columns.fallback_places
    return {name: FilledPlaces(model=model[name], fallback=fallback[name]) for name in sorted(model)}


def _round(value: float) -> float:
    return round(float(value), DIGITS)


def _by_count(pair: tuple[str, int]) -> tuple[int, str]:
    return -pair[1], pair[0]
