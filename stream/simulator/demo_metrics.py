"""Demo counts: what a demo has seen pass, measured; what was not seen is none."""

import math
from collections import Counter, deque

import msgspec

from clickscore.schemas.decisions import AnyDecision, Recommendation
from clickscore.schemas.events import AnyEvent, Impression
from clickscore.schemas.topics import ADS, RECOMMENDATIONS
from clickscore.stream.simulator.shop.live import Answers
from clickscore.stream.simulator.shop.records import Truth

_UNDECIDED = 20_000  # events remembered until they are decided on
_LATEST = 50


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """From an event to its recommendation, ms."""

    p50: int | None
    p99: int | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A demo in numbers, as `--json` writes it."""

    events: int
    """Sent, repeats and impressions included."""
    decisions: dict[str, int]
    """Read, by topic."""
    dead_letters: int
    first_decision_s: float | None
    """From the command's start to the first decision that Kafka appended."""
    latency_ms: Latency
    variants: dict[str, Answers]
    """What shoppers did about the recommendations of each variant."""


class DemoCounts:
    """Counts what passes; an onlooker of the shop."""

    def __init__(self, began_at: int, variants: dict[str, Answers]) -> None:
        """Start at 0.

        Args:
            began_at: When the command started, ms since the epoch.
            variants: The shop's own counts, which it keeps up to date.
        """
        self.events = 0
        self.decisions: Counter[str] = Counter({RECOMMENDATIONS.name: 0, ADS.name: 0})
        self.dead_letters = 0
        self.variants = variants
        self.latest: deque[tuple[AnyEvent, Recommendation]] = deque(maxlen=_LATEST)
        """Newest recommendations, each with the event that it answers."""
        self._began_at = began_at
        self._first_at: int | None = None
        self._latencies: Counter[int] = Counter()
        self._undecided: dict[str, AnyEvent] = {}

    def sent(self, event: AnyEvent, truth: Truth) -> None:
        """Count an event, and remember it if its time is the time at which it was sent."""
        self.events += 1
        if truth.delay_ms or isinstance(event, Impression):
            return
        self._undecided[event.event_id] = event
        if len(self._undecided) > _UNDECIDED:
            del self._undecided[next(iter(self._undecided))]

    def decided(self, topic: str, decision: AnyDecision, appended_at: int) -> None:
        """Count a decision, and measure how long a recommendation took."""
        self.decisions[topic] += 1
        if self._first_at is None:
            self._first_at = appended_at
        if not isinstance(decision, Recommendation):
            return
        event = self._undecided.pop(decision.event_id, None)
        if event is not None:
            self._latencies[appended_at - event.ts] += 1
            self.latest.append((event, decision))

    def gave_up(self) -> None:
        """Count a dead letter."""
        self.dead_letters += 1

    @property
    def latency(self) -> Latency:
        """Of all recommendations so far that answer an event which was sent at once."""
        return Latency(p50=percentile(self._latencies, 0.50), p99=percentile(self._latencies, 0.99))

    @property
    def summary(self) -> Summary:
        """All of it."""
        first = None if self._first_at is None else (self._first_at - self._began_at) / 1000
        return Summary(
            events=self.events,
            decisions=dict(self.decisions),
            dead_letters=self.dead_letters,
            first_decision_s=first,
            latency_ms=self.latency,
            variants=dict(sorted(self.variants.items())),
        )


def percentile(counts: Counter[int], share: float) -> int | None:
    """Return the smallest value that a share of all values does not exceed, none where there are none."""
    rank, passed = math.ceil(share * counts.total()), 0
    for value in sorted(counts):
        passed += counts[value]
        if passed >= rank:
            return value
    return None
