"""Guard: roll bad and equal bundles out in the simulated shop, and measure what the guard lets through.

A simulated day of the shop gives the events, and the packaged bundle gives the champion's lists and heads for each of
them. Whether a shopper clicks follows from the shop's true probabilities. A challenger gives other lists or heads for
the same events; its ramp is judged every few seconds of the day, as a worker's guard does.

Run: `python -m bench.guard`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from clickscore.model.packaged_bundle import DEMO_FOLDER
from clickscore.schemas.decisions import Choice, Recommendation
from clickscore.schemas.durations import HOUR_MS
from clickscore.schemas.events import AnyEvent, Click, ItemEvent, encode_event
from clickscore.schemas.rollouts import Rollout
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.policy.experiments import CHALLENGER, MODEL, assign_challenger
from clickscore.stream.policy.outcomes import OutcomeCounter
from clickscore.stream.policy.rollout_guard import judge
from clickscore.stream.policy.rollout_steps import RAMP_STEPS, advance, roll_back, start_ramp
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.request import Request, Scores
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import Settings
from clickscore.stream.simulator.shop.assortment import CATEGORIES, STYLES
from clickscore.stream.simulator.shop.history import generate
from clickscore.stream.simulator.shop.shop_events import Truth
from clickscore.stream.simulator.shop.shoppers import INTENTS, click_probabilities, expected_clicks, make_shop

SEED = 7
"""Seed of the shop that the packaged bundle was trained on."""
EVENTS_A_DAY = 60_000
STEP_MS = HOUR_MS
LOOK_MS = 10_000
"""Time between two looks of the guard in the simulated day, ms."""
K = 10
KINDS: tuple[str, ...] = ("random", "stale", "shuffled", "biased")
"""Kinds of bad bundles: random items; a bundle that knows few items of today; items in a wrong order of rows, as from
two builds mixed up; heads that are off by a factor."""
KNOWN_SHARE = 0.4
"""Share of today's items that a stale bundle knows."""
BIAS = 2.0
"""Shift of the logits of a biased bundle's heads."""


class Moment(NamedTuple):
    """An event of the day, with the champion's decision on it."""

    event: AnyEvent
    rows: Sequence[int]
    """Rows of the champion's list, best first."""
    candidates: Sequence[int]
    """Rows of all candidates, best first."""
    actions: dict[str, float] | None
    purchase: float | None
    need: int
    style: int
    intent: int
    on_screen: int
    """Row of the item on screen; -1 for none."""


class Lists(NamedTuple):
    """What a bundle answers to a moment."""

    rows: Sequence[int]
    from_model: int
    """Number of items of the model; the rest are popular items."""
    actions: dict[str, float] | None
    purchase: float | None


class Result(NamedTuple):
    """End of a ramp."""

    kind: str
    reason: str
    """Why it was rolled back; empty where it was not."""
    hours: float
    """Time of the day until the end of the ramp, h."""
    lost_share: float
    """Clicks lost by the challenger, as a share of the champion's clicks of a whole day."""


class _Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


Answer = Callable[[Moment], Lists]
"""A bundle: returns its lists and heads for a moment."""


class Day:
    """A day of the shop with the champion's answers."""

    def __init__(self, events: int = EVENTS_A_DAY, seed: int = SEED) -> None:
        """Generate the day and score it with the packaged bundle.

        Args:
            events: Number of events.
            seed: Seed of the shop.
        """
        self.shop = make_shop(seed, shoppers=max(1000, events // 10))
        self.items = [item.item_id for item in self.shop.assortment.items]
        self._rows = {item: row for row, item in enumerate(self.items)}
        history = generate(self.shop, events, days=1)
        pairs = [(event, truth) for event, truth in history.records() if not truth.repeat and not truth.out_of_order]
        pairs.sort(key=lambda pair: pair[0].ts)
        self.popular = np.argsort(-self.shop.assortment.weights)[:64].tolist()
        self.moments = list(self._score(pairs))
        self.usual_clicks = [self.click_probability(moment, moment.rows) for moment in self.moments]
        """True probability of a click on the champion's list, for each moment."""
        self.clicks = sum(self.usual_clicks)
        self.usual_decisions = [make_decision(self, moment.event, champion(moment), MODEL) for moment in self.moments]
        """The champion's decision for each moment."""

    def click_probability(self, moment: Moment, rows: Sequence[int]) -> float:
        """Return the true probability that the shopper clicks on any item of a list."""
        if not rows:
            return 0.0
        clicks = click_probabilities(np.array(rows), moment.need, moment.style, moment.intent, moment.on_screen)
        return expected_clicks(clicks)

    def _score(self, pairs: list[tuple[AnyEvent, Truth]]) -> Iterator[Moment]:
        scorer = Scorer(load_bundle(DEMO_FOLDER))
        values = Settings.of(k=K)
        pipeline = Pipeline(values.sessions, values.policy, "events", Catalogue())
        truths = {event.event_id: truth for event, truth in pairs}
        for start in range(0, len(pairs), 1024):
            batch = pairs[start : start + 1024]
            records = [_Record(start + index, -1, None, encode_event(event)) for index, (event, _) in enumerate(batch)]
            _, requests, _ = pipeline.collect_requests([(0, records)])
            for request, scores in zip(requests, scorer.score(requests), strict=True):
                yield self._moment(request, scores, truths[request.event.event_id])

    def _moment(self, request: Request, scores: Scores | None, truth: Truth) -> Moment:
        event = request.event
        on_screen = self._rows[event.item_id] if isinstance(event, ItemEvent) else -1
        candidates = [self._rows[item] for item, _ in scores.candidates()] if scores else []
        allowed = [row for row in (*candidates, *self.popular) if row != on_screen]
        return Moment(
            event,
            list(dict.fromkeys(allowed))[:K],
            candidates,
            scores.actions if scores else None,
            scores.purchase if scores else None,
            [name for name, *_ in CATEGORIES].index(truth.need),
            [name for name, *_ in STYLES].index(truth.style),
            INTENTS.index(truth.intent),
            on_screen,
        )


def champion(moment: Moment) -> Lists:
    """Return the champion's answer."""
    return Lists(moment.rows, sum(row in moment.candidates for row in moment.rows), moment.actions, moment.purchase)


def bad_bundle(day: Day, kind: str, seed: int) -> Answer:
    """Return a bad bundle.

    Args:
        day: The day, with the items.
        kind: A name of `KINDS`.
        seed: Seed of what is random in the bundle.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    count = len(day.items)
    order = rng.permutation(count).tolist()
    vocabulary = set(order[: round(KNOWN_SHARE * count)])

    def answer(moment: Moment) -> Lists:
        usual = champion(moment)
        if kind == "random":
            rows = [row for row in rng.integers(0, count, K + 1).tolist() if row != moment.on_screen]
            return usual._replace(rows=rows[:K], from_model=K)
        if kind == "shuffled":
            return usual._replace(rows=[order[row] for row in moment.rows], from_model=K)
        if kind == "stale":
            own = [row for row in moment.candidates if row in vocabulary and row != moment.on_screen][:K]
            rest = [row for row in day.popular if row not in own and row != moment.on_screen]
            return usual._replace(rows=(own + rest)[:K], from_model=len(own))
        return usual._replace(actions=_biased(moment.actions), purchase=_shifted(moment.purchase))

    return answer


def _shifted(probability: float | None) -> float | None:
    """Return a probability with its logit moved by `BIAS`."""
    if probability is None:
        return None
    odds = np.exp(BIAS) * probability / max(1e-9, 1 - probability)
    return float(odds / (1 + odds))


def _biased(actions: dict[str, float] | None) -> dict[str, float] | None:
    """Return probabilities of the next action with the logit of `cart` moved by `BIAS`."""
    if actions is None:
        return None
    weights = {name: probability * (np.exp(BIAS) if name == "cart" else 1) for name, probability in actions.items()}
    total = sum(weights.values())
    return {name: float(weight / total) for name, weight in weights.items()}


def ramp(day: Day, answer: Answer, kind: str, seed: int) -> Result:
    """Roll a challenger out over a day.

    Args:
        day: The day.
        answer: The challenger.
        kind: Name of the challenger's kind, for the result.
        seed: Seed of the clicks and of the users of the challenger.
    """
    rng = np.random.default_rng([seed, 99])
    began_at = day.moments[0].event.ts
    challenger = f"{seed:064x}"
    rollout = start_ramp(Rollout(name="default", champion="f" * 64), challenger, RAMP_STEPS, STEP_MS, began_at)
    counter, next_look, lost = OutcomeCounter(), began_at + LOOK_MS, 0.0
    for moment, usual, usual_decision in zip(day.moments, day.usual_clicks, day.usual_decisions, strict=True):
        ts = moment.event.ts
        if ts >= next_look:
            next_look = ts + LOOK_MS
            verdict = judge(rollout, counter.champion, counter.challenger, ts)
            if verdict.action == "roll back":
                hours = (ts - began_at) / HOUR_MS
                return Result(kind, roll_back(rollout, ts, verdict.reason).reason, hours, lost / day.clicks)
            if verdict.action == "advance":
                rollout, counter = advance(rollout, ts), OutcomeCounter()
                if rollout.challenger is None:
                    break
        decision, probability, rows = usual_decision, usual, moment.rows
        if assign_challenger(moment.event.user_id, challenger, rollout.share) == CHALLENGER:
            lists = answer(moment)
            decision, rows = make_decision(day, moment.event, lists, CHALLENGER), lists.rows
            probability = day.click_probability(moment, rows)
            lost += usual - probability
        counter.add(moment.event, decision)
        if rng.random() < probability:
            click = Click(
                event_id=f"{moment.event.event_id}-click",
                user_id=moment.event.user_id,
                ts=ts + 600,
                item_id=day.items[rows[0]],
            )
            counter.add(click, msgspec.structs.replace(decision, ts=click.ts))
    promoted_at = day.moments[-1].event.ts if rollout.challenger else rollout.changed_at
    if rollout.challenger is None:  # the new champion decides for the rest of the day
        lost += sum(
            usual - day.click_probability(moment, answer(moment).rows)
            for moment, usual in zip(day.moments, day.usual_clicks, strict=True)
            if moment.event.ts > promoted_at
        )
    return Result(kind, "", (promoted_at - began_at) / HOUR_MS, lost / day.clicks)


def make_decision(day: Day, event: AnyEvent, lists: Lists, variant: str) -> Recommendation:
    """Return a decision.

    Args:
        day: The day, with the names of the items.
        event: Event of the decision.
        lists: Answer of the bundle.
        variant: Variant of the user.
    """
    return Recommendation(
        decision_id=event.event_id,
        user_id=event.user_id,
        event_id=event.event_id,
        ts=event.ts,
        bundle=variant,
        policy="",
        variant=variant,
        session_id="",
        session_length=1,
        late=False,
        actions=lists.actions,
        purchase=lists.purchase,
        items=tuple(
            Choice(
                item_id=day.items[row],
                score=0.0,
                propensity=1.0,
                reason=MODEL if index < lists.from_model else "popular",
            )
            for index, row in enumerate(lists.rows)
        ),
        filtered={},
    )


def describe(kind: str, results: Sequence[Result]) -> str:
    """Return the results of a kind of bundle in words.

    Args:
        kind: Name of the kind.
        results: Results of its ramps.
    """
    # The measure, without its values.
    reasons = Counter(re.split(r":| with ", result.reason.partition(": ")[2])[0] for result in results if result.reason)
    words = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
    hours = sorted(result.hours for result in results)
    return (
        f"{kind}: {reasons.total()} of {len(results)} rolled back; ramps end after {hours[len(hours) // 2]:.1f} h "
        f"(median) and {hours[-1]:.1f} h (last); clicks lost, at most: "
        f"{max(result.lost_share for result in results):.2%} of a day's. {words}"
    )


def main(bundles: int = 100) -> None:
    """Roll bad bundles of all kinds out, and as many equal bundles, and print the results.

    Args:
        bundles: Number of bad bundles, and of equal ones.
    """
    day = Day()
    print(f"{len(day.moments):,} events, {day.clicks:,.0f} expected clicks a day", flush=True)
    for number, kind in enumerate(KINDS):
        seeds = range(number, bundles, len(KINDS))
        print(describe(kind, [ramp(day, bad_bundle(day, kind, seed), kind, seed) for seed in seeds]), flush=True)
    equal: list[Result] = []
    for seed in range(bundles):
        equal.append(ramp(day, champion, "equal", 1000 + seed))
        if seed % 10 == 9:
            print(describe("equal", equal), flush=True)


if __name__ == "__main__":
    main()
