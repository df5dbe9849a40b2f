"""Demo metrics: count events and decisions, and measure latency from event to recommendation."""

import math
from collections import Counter, deque

import msgspec

from clickscore.schemas.decisions import AnyDecision, Recommendation
from clickscore.schemas.events import AnyEvent, Impression
from clickscore.schemas.topics import ADS, RECOMMENDATIONS
from clickscore.stream.simulator.shop.live import Reactions
from clickscore.stream.simulator.shop.shop_events import Truth

_UNDECIDED = 20_000  # events without a decision that are remembered at most
_LATEST = 50


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Latency from an event to its recommendation in ms. A missing value means that no recommendation arrived yet."""

    p50: int | None
    p99: int | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Results of a demo, in the layout of `--json`."""

    events: int
    """Number of events sent, including repeats and impressions."""
    decisions: dict[str, int]
    """Number of decisions read, by topic."""
    dead_letters: int
    first_decision_s: float | None
    """Seconds from the start of the command to the append time of the first decision."""
    latency_ms: Latency
    variants: dict[str, Reactions]
    """Impressions, clicks and purchases of each variant."""
    shelves: dict[str, Reactions]
    """The same for each shelf of the pages."""


class DemoMetrics:
    """Counter of a demo's traffic. Implements `Observer` of `simulator/traffic.py`."""

    def __init__(self, began_at: int, variants: dict[str, Reactions], shelves: dict[str, Reactions]) -> None:
        """Start all counts at 0.

        Args:
            began_at: Start of the command, ms since the epoch.
            variants: Reactions by variant. The shop owns and updates the counts.
            shelves: The same by shelf.
        """
        self.events = 0
        self.decisions: Counter[str] = Counter({RECOMMENDATIONS.name: 0, ADS.name: 0})
        self.dead_letters = 0
        self.variants, self.shelves = variants, shelves
        self.latest: deque[tuple[AnyEvent, Recommendation]] = deque(maxlen=_LATEST)
        """Newest recommendations, each with its event."""
        self._began_at = began_at
        self._first_at: int | None = None
        self._latencies: Counter[int] = Counter()
        self._undecided: dict[str, AnyEvent] = {}

    def sent(self, event: AnyEvent, truth: Truth) -> None:
        """Count an event. Remember the event for latency if the event was sent without a delay."""
        self.events += 1
        if truth.delay_ms or isinstance(event, Impression):
            return
        self._undecided[event.event_id] = event
        if len(self._undecided) > _UNDECIDED:
            del self._undecided[next(iter(self._undecided))]

    def decided(self, topic: str, decision: AnyDecision, appended_at: int) -> None:
        """Count a decision, and measure the latency of a recommendation.

        Args:
            topic: Name of the decision's topic, without prefix.
            decision: The decision.
            appended_at: Append time of the decision at the broker, ms since the epoch.
        """
        self.decisions[topic] += 1
        if self._first_at is None:
            self._first_at = appended_at
        if not isinstance(decision, Recommendation):
            return
        event = self._undecided.pop(decision.event_id, None)
        if event is not None:
            self._latencies[appended_at - event.ts] += 1
            self.latest.append((event, decision))

    def dead_lettered(self) -> None:
        """Count a dead letter."""
        self.dead_letters += 1

    @property
    def latency(self) -> Latency:
        """Latency of all recommendations so far, without events that were sent late."""
        return Latency(p50=percentile(self._latencies, 0.50), p99=percentile(self._latencies, 0.99))

    @property
    def summary(self) -> Summary:
        """Results of the demo so far."""
        first = None if self._first_at is None else (self._first_at - self._began_at) / 1000
        return Summary(
            events=self.events,
            decisions=dict(self.decisions),
            dead_letters=self.dead_letters,
            first_decision_s=first,
            latency_ms=self.latency,
            variants=dict(sorted(self.variants.items())),
            shelves=dict(sorted(self.shelves.items())),
        )


def percentile(counts: Counter[int], share: float) -> int | None:
    """Return the smallest value that a share of all values does not exceed; None without values."""
    rank, passed = math.ceil(share * counts.total()), 0
    for value in sorted(counts):
        passed += counts[value]
        if passed >= rank:
            return value
    return None
