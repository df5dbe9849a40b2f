"""Results: the figures of a backtest, for the JSON file and the report."""

from collections.abc import Iterable

import msgspec

from clickscore.backtest.intervals import Estimate
from clickscore.backtest.lookahead import LeakCheck
from clickscore.stream.policy.experiments import MODEL


class ReliabilityBin(msgspec.Struct, frozen=True, kw_only=True):
    """Events with about the same predicted probability of a purchase."""

    stated: float
    """Mean predicted probability."""
    happened: Estimate
    """Observed share of events before a purchase."""
    events: int


class PurchaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of an arm's probabilities of a purchase in the rest of the session."""

    pr_auc: Estimate
    log_loss: Estimate
    calibration_error: float
    """Mean distance of predicted and observed share over `reliability`, weighted by events."""
    reliability: tuple[ReliabilityBin, ...]


class FilledPlaces(msgspec.Struct, frozen=True, kw_only=True):
    """Places in an arm's lists of one variant, by the origin of the item."""

    model: int
    """Number of places that the arm's model, or its baseline, filled."""
    fallback: int
    """Number of places that popular items filled, because the model or the baseline had no item for them."""

    @property
    def fallback_share(self) -> float:
        """Share of the places that the fallback filled; 0 without places."""
        return self.fallback / max(1, self.model + self.fallback)


class ArmResult(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of an arm."""

    name: str
    baseline: str | None
    bundle: str | None
    """Version of the bundle; None for a baseline."""
    settings: dict[str, str]
    """Settings of the arm that override common settings."""
    trained_until: int
    """Event time of the newest event of training or recalibration, ms, by the bundle's manifest; 0 where unknown."""
    learned_events: int
    """Judged events that are not newer, whose labels the bundle may have been trained on."""
    ranking: dict[str, Estimate]
    """`hit_rate@K`, `mrr@K` and `ndcg@K` of the next item."""
    discovery: Estimate
    """Hit rate at K over events whose next item was new to the session, of lists that repeat no item of the session."""
    hit_rates: tuple[float, ...]
    """Hit rate at 1, 2 and so on, up to the arm's own K."""
    coverage: float
    popularity_bias: float
    novelty: float
    places: dict[str, FilledPlaces]
    """Places of the judged events by variant of the arm's A/B test: `model`, or `popular` for its control group."""
    purchase: PurchaseResult | None
    action_log_loss: Estimate | None

    @property
    def fallback_share(self) -> float | None:
        """Share of the places outside the control group that the fallback filled; None without such a place."""
        places = self.places.get(MODEL)
        return places.fallback_share if places else None


class ArmDifference(msgspec.Struct, frozen=True, kw_only=True):
    """Difference of an arm's figure and the first arm's, paired over the same bootstrap draws."""

    arm: str
    metric: str
    by: Estimate


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a part of the judged events."""

    dimension: str = msgspec.field(name="of")
    """Dimension of the slice: length, user, answer, hour or category."""
    name: str
    events: int
    """Number of events with a next item."""
    hit_rate: dict[str, Estimate]
    """Hit rate of each arm."""
    mrr: dict[str, float]
    ndcg: dict[str, float]


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of a backtest."""

    source: str
    settings: dict[str, str]
    """Common settings with an effect on decisions; labels come from sessions of these settings."""
    cutoff: int
    """K, the length of the shortest list of an arm."""
    records: int
    judged: int
    left_out: dict[str, int]
    """Number of records left unjudged, by reason; together with `judged` all records."""
    users: int
    first_ts: int
    """Event time of the first judged event, ms."""
    last_ts: int
    """Event time of the last judged event, ms."""
    ranked: int
    """Judged events with a next item; ranking metrics are measured on these events."""
    new: int
    """Ranked events whose next item was new to the session."""
    stated: int
    """Judged events with a purchase probability of every bundle; probabilities are measured on these events."""
    purchase_rate: float
    """Share of the stated events before a purchase: the PR-AUC of random probabilities."""
    bought_answers: int
    """Events whose next item was bought before, so that the policy filtered it: a miss for every arm."""
    leak_check: LeakCheck
    arms: tuple[ArmResult, ...]
    differences: tuple[ArmDifference, ...]
    tied: tuple[str, ...]
    """Contenders whose hit rate does not differ significantly from the best contender's."""
    slices: tuple[Slice, ...]

    @property
    def first(self) -> ArmResult:
        """Reference arm of all comparisons."""
        return self.arms[0]

    @property
    def contenders(self) -> tuple[ArmResult, ...]:
        """The arms that can win: all except those with void figures."""
        void = find_void_arms(self.arms, self.leak_check)
        return tuple(arm for arm in self.arms if arm.name not in void)


def find_void_arms(arms: Iterable[ArmResult], leak_check: LeakCheck) -> frozenset[str]:
    """Return the names of the arms that used later records, or may have been trained on labels of judged events."""
    leaking = {leak.arm for leak in leak_check.leaks}
    return frozenset(arm.name for arm in arms if arm.name in leaking or arm.learned_events)
