"""Backtests of generated logs, for tests."""

from collections.abc import Sequence
from pathlib import Path

from clickscore.backtest.arms import Arm, make_arm
from clickscore.backtest.backtest_run import BacktestPlan, Evidence, run_backtest
from clickscore.backtest.shared_pipelines import MakeRecommender
from clickscore.stream.replay.file_source import make_file_spec
from clickscore.stream.replay.reference_log import ReferenceLog
from clickscore.stream.settings import Settings
from tests.integration.event_log import event_log

BASE = Settings()


def write_log(path: Path, count: int, seed: int = 0) -> Path:
    """Write events out of order, late, repeated and broken, of many users, as a file."""
    path.write_bytes(b"".join((record.value or b"null") + b"\n" for record in event_log(count, seed)))
    return path


def arm(name: str, base: Settings = BASE, **settings: object) -> Arm:
    """Return an arm; a baseline by its name where nothing says otherwise."""
    table = {"name": name, **settings}
    return make_arm(
        table if "bundle" in settings or "baseline" in settings else table | {"baseline": name}, base, "test"
    )


def contest(
    log: Path,
    arms: Sequence[Arm],
    *,
    settings: Settings = BASE,
    judge_from: int = 0,
    leak_sample: int = 0,
    recommenders: MakeRecommender | None = None,
) -> Evidence:
    """Run a backtest of a file."""
    source = make_file_spec(log, "clickscore", settings.kafka.partitions)
    plan = BacktestPlan(
        settings=settings,
        arms=arms,
        source=source,
        reference=ReferenceLog(),
        judge_from=judge_from,
        leak_sample=leak_sample,
    )
    return run_backtest(plan, lambda _: None, recommenders)
