"""Leaks: an arm that sees what comes later is found, whichever way it looks; an honest one is not."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from clickscore.backtest import narrative
from clickscore.backtest.arms import Arm
from clickscore.backtest.backtest_run import BacktestPlan
from clickscore.backtest.measurement import measure
from clickscore.backtest.recommenders import (
    CooccurrenceRecommender,
    Recommender,
    RepeatRecommender,
    make_recommender,
    scores_in_order,
)
from clickscore.schemas.events import ItemEvent
from clickscore.stream.replay.file_source import make_file_spec
from clickscore.stream.replay.reference_log import ReferenceLog
from clickscore.stream.request import Request, Scores
from clickscore.stream.scoring.scorer import Scorer
from tests.backtest.contests import BASE, arm, contest, write_log
from tests.bundles import small_bundle

pytestmark = pytest.mark.slow

SAMPLE = 1_500


class NextInBatch:
    """A leak: what the same user does next, which stands further down in the batch."""

    def rank(self, requests: Sequence[Request], is_judged: Sequence[bool]) -> Sequence[Scores | None]:
        del is_judged
        rankings: list[Scores | None] = []
        for index, request in enumerate(requests):
            later = (
                following.event
                for following in requests[index + 1 :]
                if following.event.user_id == request.event.user_id
            )
            next_item = next((event.item_id for event in later if isinstance(event, ItemEvent)), None)
            rankings.append(scores_in_order([next_item] if next_item else []))
        return rankings


class LearnsTheBatchFirst:
    """A leak that is easily made: it learns from the whole batch, and then answers."""

    def __init__(self) -> None:
        self._inner = CooccurrenceRecommender()

    def rank(self, requests: Sequence[Request], is_judged: Sequence[bool]) -> Sequence[Scores | None]:
        self._inner.rank(requests, [False] * len(is_judged))
        return self._inner.rank(requests, is_judged)


class PopularInTheBatch:
    """A subtle leak: ranks what many look at in the batch, later ones included, for its first event only."""

    def rank(self, requests: Sequence[Request], is_judged: Sequence[bool]) -> Sequence[Scores | None]:
        last = requests[-1].event if requests else None
        item = last.item_id if isinstance(last, ItemEvent) else "item-1"
        return [scores_in_order([item]) if not index else None for index in range(len(is_judged))]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "events.jsonl", 4_000, seed=9)


def planting(leak: Callable[[], Recommender]) -> Callable[[Arm], Recommender]:
    """Put a leak in the place of the arm `repeat`."""
    scorers: dict[str, Scorer] = {}
    return lambda candidate: leak() if candidate.name == "repeat" else make_recommender(candidate, scorers)


@pytest.mark.parametrize("leak", [NextInBatch, LearnsTheBatchFirst, PopularInTheBatch])
def test_planted_leak_is_found_and_named(log: Path, leak: Callable[[], Recommender]) -> None:
    arms = [arm("co-occurrence"), arm("repeat")]
    check = contest(log, arms, leak_sample=SAMPLE, recommenders=planting(leak)).leak_check
    assert [candidate.arm for candidate in check.leaks] == ["repeat"]
    assert check.leaks[0].different > 0
    assert check.leaks[0].decision_ids[0].startswith("clickstream-events-")


def test_planted_leak_pays(log: Path) -> None:
    """What it would have been worth: the reason to look for it."""
    honest = contest(log, [arm("repeat")], recommenders=planting(RepeatRecommender)).columns.arms[0].ranks
    leaky = contest(log, [arm("repeat")], recommenders=planting(NextInBatch)).columns.arms[0].ranks
    assert (leaky == 1).mean() > 3 * (honest == 1).mean()


def test_honest_arms_are_not_suspected(log: Path, tmp_path: Path) -> None:
    bundle = str(small_bundle(tmp_path / "small"))
    arms = [
        arm("model", bundle=bundle),
        arm("short", bundle=bundle, gap_ms=600_000),
        *map(arm, ("popularity", "co-occurrence", "repeat")),
    ]
    check = contest(log, arms, leak_sample=SAMPLE).leak_check
    assert check.events == SAMPLE
    assert check.leaks == ()


def test_sample_begins_where_judging_does(log: Path) -> None:
    complete = contest(log, [arm("repeat")])
    begin = int(complete.columns.column("ts").mean())
    check = contest(
        log, [arm("repeat")], judge_from=begin, leak_sample=50, recommenders=planting(NextInBatch)
    ).leak_check
    assert check.events == 50
    assert check.leaks


def test_leaking_arm_cannot_win(log: Path) -> None:
    arms = [arm("co-occurrence"), arm("repeat")]
    evidence = contest(log, arms, leak_sample=SAMPLE, recommenders=planting(NextInBatch))
    source = make_file_spec(log, "clickscore", BASE.kafka.partitions)
    plan = BacktestPlan(
        settings=BASE, arms=arms, source=source, reference=ReferenceLog(), judge_from=0, leak_sample=SAMPLE
    )
    results = measure(plan, "log", evidence)
    leaking, honest = (results.arms[number].ranking[f"hit_rate@{results.cutoff}"].value for number in (1, 0))
    assert leaking > honest
    headline, reason, *rest = narrative.verdict(results)
    assert headline.startswith("'co-occurrence' agreed most often")
    assert reason == "Left out of this comparison: 'repeat' used later records."
    assert not any("'repeat'" in sentence for sentence in rest)
    assert any("Its figures are void" in sentence for sentence in narrative.warnings(results))
