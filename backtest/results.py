"""Results: the figures of a backtest, as the JSON file holds them and the report shows them."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from clickscore.backtest import catalogue_metrics as metrics
from clickscore.backtest.arms import Arm
from clickscore.backtest.backtest_run import BacktestPlan, Evidence
from clickscore.backtest.evaluation_columns import NEW, NO_ANSWER, OTHER, RELATIONS, ArmColumns
from clickscore.backtest.intervals import DIGITS, Bools, Bootstrap, Estimate, estimate
from clickscore.backtest.lookahead import LeakCheck
from clickscore.model.array_types import Floats, Ints
from clickscore.model.metrics import MIN_PROBABILITY, calibration_error, pr_auc
from clickscore.schemas.durations import HOUR_MS
from clickscore.schemas.manifest import decode_manifest

LENGTHS = ((1, 1), (2, 2), (3, 3), (4, 5), (6, 10), (11, 65_535))
"""Lengths of a session's beginning, from and to, that are shown by themselves."""
CATEGORIES = 12
"""Most frequent categories that are."""


class ReliabilityBin(msgspec.Struct, frozen=True, kw_only=True):
    """Events whose stated probability of a purchase was about the same."""

    stated: float
    """Mean of it."""
    happened: Estimate
    """Share in which it came true."""
    events: int


class PurchaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """How good an arm's probabilities of a purchase in what is left of the session are."""

    pr_auc: Estimate
    log_loss: Estimate
    calibration_error: float
    """Mean distance of stated and true share over `reliability`, weighted by events."""
    reliability: tuple[ReliabilityBin, ...]


class ArmResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an arm came to."""

    name: str
    baseline: str | None
    bundle: str | None
    """Version of its bundle."""
    settings: dict[str, str]
    """Those in which it differs from the common ones."""
    trained_until: int
    """What the bundle's manifest says of its training, ms; 0 where it says nothing."""
    learned_events: int
    """Judged events that are no later, of which it may have learned the answers."""
    ranking: dict[str, Estimate]
    """`hit_rate@K`, `mrr@K` and `ndcg@K` of the next item."""
    discovery: Estimate
    """Hit rate at K where the next item was new to the session, so that showing what was there already is no hit."""
    hit_rates: tuple[float, ...]
    """Hit rate at 1, 2 and so on, up to all that it shows."""
    coverage: float
    popularity_bias: float
    novelty: float
    purchase: PurchaseResult | None
    action_log_loss: Estimate | None


class ArmDifference(msgspec.Struct, frozen=True, kw_only=True):
    """By how much an arm's figure is above that of the first arm, drawn together."""

    arm: str
    metric: str
    by: Estimate


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the judged events."""

    of: str
    """By what they are parted: length, user, answer, hour or category."""
    name: str
    events: int
    """Those that an item follows."""
    hit_rate: dict[str, Estimate]
    """Of each arm."""
    mrr: dict[str, float]
    ndcg: dict[str, float]


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """A whole backtest."""

    source: str
    settings: dict[str, str]
    """Common ones that decisions depend on; answers come from their sessions."""
    cutoff: int
    """K: what the shortest arm shows."""
    records: int
    judged: int
    left_out: dict[str, int]
    """Records that are not judged, by the reason; with `judged` they make up all records."""
    users: int
    first_ts: int
    """Of the judged events, ms."""
    last_ts: int
    ranked: int
    """Judged events that an item follows: what rankings are measured on."""
    new: int
    """Of these, the ones after which an item came that was new to the session."""
    stated: int
    """Judged events of which every bundle stated a purchase probability: what those are measured on."""
    purchase_rate: float
    """Share of these in which a purchase followed: what PR-AUC would be by chance."""
    bought_answers: int
    """Events whose next item was bought before, so that the policy kept it back: a miss for every arm."""
    leak_check: LeakCheck
    arms: tuple[ArmResult, ...]
    differences: tuple[ArmDifference, ...]
    tied: tuple[str, ...]
    """Arms whose hit rate this log cannot tell from that of the best one."""
    slices: tuple[Slice, ...]

    @property
    def first(self) -> ArmResult:
        """The arm that others are compared with."""
        return self.arms[0]


def measure(plan: BacktestPlan, source: str, evidence: Evidence) -> Results:
    """Return the figures of a pass; where nothing was judged, those that there are: counts.

    Args:
        plan: What was asked for.
        source: The log, in words.
        evidence: What the pass came to.
    """
    rows, book = evidence.columns, evidence.book
    measuring = _Measuring(plan, evidence)
    times = rows.column("ts")
    return Results(
        source=source,
        settings=plan.settings.identity,
        cutoff=plan.cutoff,
        records=evidence.records,
        judged=len(rows),
        left_out={reason: count for reason, count in sorted(book.left_out.items(), key=_by_count) if count},
        users=len(rows.users),
        first_ts=int(times.min(initial=2**62)) if len(rows) else 0,
        last_ts=int(times.max(initial=0)),
        ranked=int(measuring.ranked.sum()),
        stated=int(measuring.stated.sum()),
        purchase_rate=_rounded(measuring.purchased[measuring.stated].mean()) if measuring.stated.any() else 0.0,
        new=int(measuring.new.sum()),
        bought_answers=rows.bought_answers,
        leak_check=evidence.leak_check,
        arms=tuple(measuring.arms()),
        differences=tuple(measuring.differences()),
        tied=tuple(measuring.tied()),
        slices=tuple(measuring.slices()),
    )


class _Measuring:
    """Figures of the same rows under the same draws."""

    def __init__(self, plan: BacktestPlan, evidence: Evidence) -> None:
        self._plan, self._evidence, self._rows = plan, evidence, evidence.columns
        self._bootstrap = Bootstrap(self._rows.column("user_bin"))
        self.ranked: Bools = self._rows.column("relation") != NO_ANSWER
        self.new: Bools = self._rows.column("relation") == NEW
        self.purchased: Ints = self._rows.column("purchased").astype(np.int64)
        self._stated_by = [~np.isnan(arm.purchase) for arm in self._rows.arms]
        spoke = [stated for stated in self._stated_by if stated.any()]
        self.stated: Bools = np.logical_and.reduce(spoke) if spoke else np.zeros(len(self._rows), dtype=np.bool_)
        self._draws: dict[tuple[int, str], Floats] = {}  # of each arm's metrics
        self._values: dict[tuple[int, str], float] = {}

    def arms(self) -> Iterator[ArmResult]:
        """Yield each arm's figures, which `differences` then compares."""
        items = len(self._evidence.book.item_counts.keys() | self._recommended_by_any())
        for number, (arm, rows) in enumerate(zip(self._plan.arms, self._rows.arms, strict=True)):
            yield self._arm(number, arm, rows, items)

    def _arm(self, number: int, arm: Arm, rows: ArmColumns, items: int) -> ArmResult:
        k, events = self._plan.cutoff, self._evidence.book.item_counts
        until = trained_until(arm)
        learned = int((self._rows.column("ts") <= until).sum()) if until else 0
        return ArmResult(
            name=arm.name,
            baseline=arm.baseline,
            bundle=None if arm.baseline else self._evidence.scorers[arm.settings.scoring.bundle].version,
            settings=arm.differences(self._plan.settings),
            trained_until=until,
            learned_events=learned,
            ranking={f"{name}@{k}": self._of_ranking(number, name, rows.ranks) for name in metrics.RANKING},
            discovery=self._discovery(number, rows.ranks),
            hit_rates=self._hit_rates(rows.ranks, arm.settings.policy.k),
            coverage=_rounded(metrics.coverage(rows.recommended, items)),
            popularity_bias=_rounded(metrics.popularity_bias(rows.recommended, self._rows.answers, events)),
            novelty=_rounded(metrics.novelty(rows.recommended, events)),
            purchase=self._purchase(number, rows.purchase) if self._stated_by[number].any() else None,
            action_log_loss=self._action_loss(number, rows.action_loss) if self._stated_by[number].any() else None,
        )

    def _of_ranking(self, number: int, name: str, ranks: Ints) -> Estimate:
        values = metrics.values(ranks, metrics.worth(name, self._plan.cutoff))
        return self._estimate(number, f"{name}@{self._plan.cutoff}", values, self.ranked)

    def _discovery(self, number: int, ranks: Ints) -> Estimate:
        hits = metrics.values(ranks, metrics.worth("hit_rate", self._plan.cutoff))
        return self._estimate(number, "discovery", hits, self.new)

    def _estimate(self, number: int, metric: str, values: Floats, chosen: Bools) -> Estimate:
        """Return the mean over chosen rows, and remember its draws."""
        value = float(values[chosen].mean()) if chosen.any() else 0.0
        return self._remember(number, metric, value, self._bootstrap.means([values], chosen)[0])

    def _remember(self, number: int, metric: str, value: float, draws: Floats) -> Estimate:
        self._values[number, metric], self._draws[number, metric] = value, draws
        return estimate(value, draws)

    def _hit_rates(self, ranks: Ints, k: int) -> tuple[float, ...]:
        found = np.bincount(ranks[self.ranked], minlength=k + 1)[1 : k + 1]
        return tuple(_rounded(rate) for rate in np.cumsum(found) / max(1, int(self.ranked.sum())))

    def _purchase(self, number: int, stated: Floats) -> PurchaseResult:
        of, happened = stated[self.stated], self.purchased[self.stated]
        area = metrics.WeightedPrAuc(of, happened)
        draws = self._bootstrap.of_rows(lambda weights: area(weights[self.stated]))
        own = np.where(self.purchased == 1, stated, 1 - stated).clip(MIN_PROBABILITY, 1)
        return PurchaseResult(
            pr_auc=self._remember(number, "purchase_pr_auc", pr_auc(of, happened), draws),
            log_loss=self._estimate(number, "purchase_log_loss", -np.log(own), self.stated),
            calibration_error=_rounded(calibration_error(of, happened, metrics.BINS)),
            reliability=tuple(self._reliability(of, happened)),
        )

    def _reliability(self, stated: Floats, happened: Ints) -> Iterator[ReliabilityBin]:
        found = metrics.reliability(stated, happened)
        bin_of = np.full(len(self._rows), -1)
        bin_of[self.stated] = found.bin_of
        for number, (mean, share, events) in enumerate(zip(found.stated, found.happened, found.rows, strict=True)):
            if events:
                draws = self._bootstrap.means([self.purchased.astype(np.float64)], bin_of == number)[0]
                yield ReliabilityBin(stated=_rounded(mean), happened=estimate(float(share), draws), events=int(events))

    def _action_loss(self, number: int, losses: Floats) -> Estimate:
        return self._estimate(number, "action_log_loss", np.nan_to_num(losses), self.stated)

    def differences(self) -> Iterator[ArmDifference]:
        """Yield by how much each arm is above the first, in every metric that both have."""
        for (number, metric), draws in sorted(self._draws.items()):
            if number and (0, metric) in self._draws:
                by = estimate(self._values[number, metric] - self._values[0, metric], draws - self._draws[0, metric])
                yield ArmDifference(arm=self._plan.arms[number].name, metric=metric, by=by)

    def tied(self) -> Iterator[str]:
        """Yield the arms whose hit rate is not clearly below the best one's."""
        metric, arms = f"hit_rate@{self._plan.cutoff}", self._plan.arms
        best = max(range(len(arms)), key=lambda number: self._values[number, metric])
        for number, arm in enumerate(arms):
            below = self._values[best, metric] - self._values[number, metric]
            if number != best and not estimate(below, self._draws[best, metric] - self._draws[number, metric]).clear:
                yield arm.name

    def slices(self) -> Iterator[Slice]:
        """Yield the parts of the judged events that are not empty."""
        for of, name, chosen in self._parts():
            ranked = chosen & self.ranked
            if ranked.any():
                yield self._slice(of, name, ranked)

    def _parts(self) -> Iterator[tuple[str, str, Bools]]:
        rows = self._rows
        lengths, known, relation = rows.column("length"), rows.column("known_user"), rows.column("relation")
        hours, category = rows.column("ts") // HOUR_MS % 24, rows.column("category")
        for first, last in LENGTHS:
            name = str(first) if first == last else f"{first}-{last}" if last < LENGTHS[-1][1] else f"{first}+"
            yield "length", name, (lengths >= first) & (lengths <= last)
        yield "user", "new", known == 0
        yield "user", "known", known == 1
        for number, name in enumerate(RELATIONS):
            yield "answer", name, relation == number
        for hour in range(24):
            yield "hour", f"{hour:02}", hours == hour
        if not any(rows.categories):
            return
        counts = np.bincount(category[self.ranked], minlength=len(rows.categories)).tolist()
        largest = sorted(range(len(counts)), key=lambda number: (-counts[number], rows.categories[number]))[:CATEGORIES]
        for number in largest:
            yield "category", rows.categories[number] or "(none)", category == number
        yield "category", OTHER, ~np.isin(category, largest)

    def _slice(self, of: str, name: str, chosen: Bools) -> Slice:
        k, names = self._plan.cutoff, [arm.name for arm in self._plan.arms]
        values = {
            metric: [metrics.values(arm.ranks, metrics.worth(metric, k)) for arm in self._rows.arms]
            for metric in metrics.RANKING
        }
        means = {metric: [_rounded(of_arm[chosen].mean()) for of_arm in found] for metric, found in values.items()}
        draws = self._bootstrap.means(values["hit_rate"], chosen)
        return Slice(
            of=of,
            name=name,
            events=int(chosen.sum()),
            hit_rate=dict(zip(names, map(estimate, means["hit_rate"], draws), strict=True)),
            mrr=dict(zip(names, means["mrr"], strict=True)),
            ndcg=dict(zip(names, means["ndcg"], strict=True)),
        )

    def _recommended_by_any(self) -> set[str]:
        return {item for arm in self._rows.arms for item in arm.recommended}


def trained_until(arm: Arm) -> int:
    """Return what the manifest of an arm's bundle says of the newest event of its training, ms; 0 for nothing."""
    if arm.baseline:
        return 0
    return decode_manifest((Path(arm.settings.scoring.bundle) / "manifest.json").read_bytes()).trained_until


def _rounded(value: float) -> float:
    return round(float(value), DIGITS)


def _by_count(pair: tuple[str, int]) -> tuple[int, str]:
    return -pair[1], pair[0]
