"""Outcome counts: what the decisions of each variant led to while a challenger is tried, summed over users."""

import msgspec

from clickscore.schemas.json_depth import bounded_depth

MIN_USERS = 30
"""Smallest number of users for an interval: a variance over fewer users is too uncertain."""


class RatioSums(msgspec.Struct, array_like=True, gc=False):
    """Sums over users for a ratio, such as clicks per decision: enough for the ratio and its variance over users."""

    users: int = 0
    base: float = 0.0
    """Sum of the users' denominators, such as decisions."""
    value: float = 0.0
    """Sum of the users' numerators, such as clicks."""
    base_base: float = 0.0
    """Sum of squares of the denominators."""
    base_value: float = 0.0
    """Sum of products of denominator and numerator."""
    value_value: float = 0.0
    """Sum of squares of the numerators."""

    def move_user(self, previous: tuple[float, float], current: tuple[float, float]) -> None:
        """Replace a user's denominator and numerator.

        Args:
            previous: Denominator and numerator so far; (0, 0) for a new user.
            current: Denominator and numerator from now on; the denominator is above 0.
        """
        self.users += not previous[0]
        self.base += current[0] - previous[0]
        self.value += current[1] - previous[1]
        self.base_base += current[0] * current[0] - previous[0] * previous[0]
        self.base_value += current[0] * current[1] - previous[0] * previous[1]
        self.value_value += current[1] * current[1] - previous[1] * previous[1]

    def add(self, other: "RatioSums") -> None:
        """Add the sums over other users."""
        self.users += other.users
        self.base += other.base
        self.value += other.value
        self.base_base += other.base_base
        self.base_value += other.base_value
        self.value_value += other.value_value


class VariantCounts(msgspec.Struct, omit_defaults=True):
    """Counts of a variant."""

    decisions: int = 0
    model_items: int = 0
    """Number of recommended items that the model chose."""
    popular_items: int = 0
    """Number of recommended items of the fallback to popularity."""
    failed: int = 0
    """Number of decisions for which the graph failed."""
    calls: int = 0
    """Number of calls of the graph."""
    call_seconds: float = 0.0
    """Time in calls of the graph, s."""
    clicks: RatioSums = msgspec.field(default_factory=RatioSums)
    """Decisions after which the user took up a recommended item with the next event, per decision."""
    purchases: RatioSums = msgspec.field(default_factory=RatioSums)
    """Purchases, per decision."""
    action_scores: RatioSums = msgspec.field(default_factory=RatioSums)
    """Log probability that the model had given to the next action, per next action."""
    purchase_predictions: RatioSums = msgspec.field(default_factory=RatioSums)
    """Predicted probability of a purchase, per decision."""

    def add(self, other: "VariantCounts") -> None:
        """Add the counts of other users."""
        for field in ("decisions", "model_items", "popular_items", "failed", "calls", "call_seconds"):
            setattr(self, field, getattr(self, field) + getattr(other, field))
        for field in ("clicks", "purchases", "action_scores", "purchase_predictions"):
            getattr(self, field).add(getattr(other, field))


class ShadowCounts(msgspec.Struct, omit_defaults=True):
    """Comparison of the scores of champion and challenger on the same events, as sums over events."""

    events: int = 0
    """Number of compared events."""
    dropped: int = 0
    """Number of sampled events that were left out, because the challenger was behind."""
    unscored: int = 0
    """Number of events that the challenger could not score."""
    agreement: float = 0.0
    """Sum of the shares of the champion's best items that are among the challenger's best."""
    correlated: int = 0
    """Number of events with two common candidates or more."""
    rank_correlation: float = 0.0
    """Sum of Spearman's rank correlations of the common candidates."""
    champion_score: float = 0.0
    """Sum of the champion's best scores."""
    challenger_score: float = 0.0
    predicted: int = 0
    """Number of events on which both predict purchases."""
    champion_purchase: float = 0.0
    """Sum of the champion's purchase probabilities."""
    challenger_purchase: float = 0.0
    calls: int = 0
    """Number of the challenger's calls."""
    seconds: float = 0.0
    """Time of these calls, s."""

    def add(self, other: "ShadowCounts") -> None:
        """Add the counts of other events."""
        for field in self.__struct_fields__:
            setattr(self, field, getattr(self, field) + getattr(other, field))


class PartitionReport(msgspec.Struct, omit_defaults=True):
    """Report of a partition in `rollouts`, by the worker that owns it. The key is `NAME/PARTITION`."""

    changed_at: int
    """`changed_at` of the rollout that the counts belong to, ms."""
    refused: dict[str, str] = {}
    """Reason why a bundle cannot be served, by content hash."""
    champion: VariantCounts = msgspec.field(default_factory=VariantCounts)
    """Counts of the variant `model`."""
    challenger: VariantCounts = msgspec.field(default_factory=VariantCounts)
    shadow: ShadowCounts = msgspec.field(default_factory=ShadowCounts)
    """Comparison of scores on a share of the events; a worker reports it with its first partition."""


decode_report = bounded_depth(msgspec.json.Decoder(PartitionReport).decode)
encode_report = msgspec.json.Encoder().encode
