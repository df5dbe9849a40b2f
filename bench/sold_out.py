"""Sold out: measure the time from a catalogue record to the last decision that still shows the sold-out item.

Send times and append times are whole milliseconds, so each figure is within 1 ms.
"""

import time
from collections import Counter

import msgspec

from bench.child import WORKER, child
from bench.environment import Environment, report_progress
from bench.latency import await_count
from bench.load import fill, producer, watching
from bench.logs import natural_events
from bench.report import Measurement, Row
from bench.run_budget import RunBudget
from clickscore.schemas.catalogue import Item, encode
from clickscore.schemas.decisions import Choice, Recommendation, decode_decision
from clickscore.schemas.topics import CATALOGUE, EVENTS, RECOMMENDATIONS

GOAL_MS = 1_000.0
"""Goal for the slowest item, ms."""
RATE = 200
"""Events per second: the items that sell out are in many decisions each second."""
BETWEEN_S = 0.5
"""Time between two items that sell out, s: each is an epoch of its own."""
WARM_S = 4.0
"""Time before the first item sells out, s."""
_FIRST = 100  # events in the topic before, whose decisions show that the worker is there
_TIMEOUT_SECONDS = 30.0


class SoldOut(msgspec.Struct, frozen=True, kw_only=True):
    """One run; times in ms."""

    items: int
    """Number of items that sold out."""
    shown_before: int
    """Number of decisions with these items in the seconds before."""
    p50: int
    worst: int
    """Time from the catalogue record of an item to the last decision with the item."""
    event_p50: int
    """Time from an event to its decision in the same run."""
    event_p99: int


def sold_out(environment: Environment, budget: RunBudget) -> Measurement:
    """Measure one run a round."""
    runs = [_measure(environment, budget) for _ in range(budget.rounds)]
    title = f"A sold-out item disappears, slowest of {runs[0].items} items at {RATE} events/s"
    row = Row(
        title=title,
        values=tuple(run.worst for run in runs),
        digits=".0f",
        unit=" ms",
        goal=GOAL_MS,
        at_least=False,
        beside=f"half of the items within {max(run.p50 for run in runs)} ms; event to decision: p50 "
        f"{max(run.event_p50 for run in runs)} ms, p99 {max(run.event_p99 for run in runs)} ms",
    )
    return Measurement([row], runs)


def _measure(environment: Environment, budget: RunBudget) -> SoldOut:
    seconds = budget.latency_seconds
    with environment.topics() as settings, watching(settings, RECOMMENDATIONS) as answers:
        fill(settings, EVENTS, natural_events(_FIRST, RATE))
        catalogue, topic = producer(settings), settings.kafka.topic(CATALOGUE.name)
        sold_at: dict[str, float] = {}
        with child(WORKER, settings, environment.folder) as worker:
            await_count(answers, _FIRST, worker.check)
            with child(("bench.producer", str(RATE), str(seconds)), settings, environment.folder) as events:
                time.sleep(WARM_S)
                frequent = _frequent_items([message.value() or b"" for message in answers.records()])
                stop_at = time.monotonic() + seconds - WARM_S - 2 * BETWEEN_S
                for item in frequent:
                    if time.monotonic() > stop_at:
                        break
                    sold_at[item] = time.time() * 1000
                    value = encode(Item(item_id=item, stock=0))
                    catalogue.produce(topic, value=value, key=item.encode(), partition=0)
                    catalogue.flush(_TIMEOUT_SECONDS)
                    time.sleep(BETWEEN_S)
                events.finish(_TIMEOUT_SECONDS)
            await_count(answers, _FIRST + int(RATE * seconds), worker.check)
        decisions = [(message.timestamp()[1], decode_decision(message.value() or b"")) for message in answers.records()]
    first_at = min(sold_at.values())
    waits = sorted(read_at - decision.ts for read_at, decision in decisions if decision.ts >= first_at)
    shown = [
        (read_at, item.item_id)
        for read_at, decision in decisions
        if isinstance(decision, Recommendation)
        for item in decision.items
        if item.item_id in sold_at
    ]
    last = {
        item: max((shown_at for shown_at, shown_item in shown if shown_item == item), default=0) for item in sold_at
    }
    delays = sorted(max(0, round(last[item] - time_ms)) for item, time_ms in sold_at.items())
    earlier_decisions = sum(0 <= sold_at[item] - shown_at < 1_000 * WARM_S for shown_at, item in shown)
    result = SoldOut(
        items=len(delays),
        shown_before=earlier_decisions,
        p50=delays[len(delays) // 2],
        worst=delays[-1],
        event_p50=waits[len(waits) // 2],
        event_p99=waits[len(waits) * 99 // 100],
    )
    report_progress(
        f"{result.items} items sold out: half within {result.p50} ms, the slowest within {result.worst} ms; event to "
        f"decision p50 {result.event_p50} ms, p99 {result.event_p99} ms"
    )
    return result


def _frequent_items(decisions: list[bytes]) -> list[str]:
    counts = Counter(item.item_id for value in decisions for item in _items(value))
    return [item for item, _ in counts.most_common(100)]


def _items(value: bytes) -> tuple[Choice, ...]:
    decision = decode_decision(value)
    return decision.items if isinstance(decision, Recommendation) else ()
