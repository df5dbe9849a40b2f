"""Run a replay: plan or resume the replay, run the tasks, and merge the outputs."""

import contextlib
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

from clickscore.schemas.errors import OutputFileError
from clickscore.stream.policy.policy_file import DEFAULT_POLICY, configured_policy
from clickscore.stream.replay.file_source import FileSpec
from clickscore.stream.replay.output import copy_partitions, merge_partitions
from clickscore.stream.replay.processes import OnProgress, run_tasks
from clickscore.stream.replay.reference_log import ReferenceLog
from clickscore.stream.replay.replay_checkpoint import (
    OutputKind,
    ReplayPlan,
    ReplayTally,
    create_folder,
    folder_of_output,
    load_plan,
    load_reference,
)
from clickscore.stream.replay.source import SourceSpec
from clickscore.stream.replay.task import ReplayTask, TaskResult
from clickscore.stream.replay.topic_source import TopicRangeSpec
from clickscore.stream.replay.verify import DiffSummary
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.settings import Settings

STANDARD_OUTPUT = Path("-")
"""Path that means standard output."""


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """How to run a replay. None of these options changes the output's bytes."""

    workers: int
    """Number of processes; more processes than partitions are not used."""
    out: Path | None
    """Path of the output; `.gz` compresses, `-` is standard output. None writes no output."""
    resume: bool
    """Whether to resume the interrupted replay of this output."""
    checkpoint_s: float
    """Minimum time between two checkpoints, in seconds."""
    check: str | None = None
    """Topic of published decisions to compare with, without the prefix; None for no comparison."""


@dataclass(frozen=True, kw_only=True)
class ReplayResult:
    """Result of a replay."""

    source: SourceSpec
    """Source of the events; the source of the first run, if the replay was resumed."""
    bundle: str | None
    """Version of the bundle; None without a bundle."""
    tally: ReplayTally
    """Counts over all processes."""
    diff: DiffSummary | None
    """Comparison with published decisions; None without a comparison."""
    gaps: str | None = None
    """Values of catalogue and campaigns that the topics no longer hold, in words; None if nothing is missing."""


def run_replay(
    settings: Settings,
    source: FileSpec | TopicRangeSpec,
    output: OutputKind,
    options: ReplayOptions,
    on_progress: OnProgress,
) -> ReplayResult:
    """Replay a source. An interrupted replay with an output can be resumed, unless it makes a comparison.

    Args:
        settings: Settings of the worker whose decisions are replayed.
        source: Recorded events.
        output: Content of the output.
        options: How to run the replay.
        on_progress: Receives the progress of all processes now and then.

    Raises:
        ClickscoreError: The source cannot be read, the output cannot be written, the bundle or the policy cannot be
            loaded, or the replay to resume does not exist or has another plan.
    """
    bundle, scoring = None, settings.scoring
    decides = output in ("decisions", "outcomes")
    policy_file = configured_policy(settings) if decides else DEFAULT_POLICY
    if decides and scoring.bundle:
        bundle = load_bundle(Path(scoring.bundle), scoring.score_threads, scoring.min_overlap).manifest.version
    workers = min(options.workers, source.max_workers)
    plan = ReplayPlan(
        output=output,
        source=source,
        bundle=bundle,
        policy=policy_file.label if decides else "",
        workers=workers,
        settings=settings.identity,
    )
    with _open_folder(settings, plan, options) as (folder, plan):
        tasks = [
            ReplayTask(
                settings=settings,
                plan=plan,
                policy_file=policy_file,
                folder=folder,
                worker=worker,
                writes=options.out is not None,
                compressed=options.out is not None and options.out.suffix == ".gz",
                checkpoint_s=0 if options.check else options.checkpoint_s,
                check=options.check,
            )
            for worker in range(workers)
        ]
        gaps = load_reference(folder).gaps
        tally, diff = _sum_results(run_tasks(tasks, on_progress))
        if options.out == STANDARD_OUTPUT:
            copy_partitions(folder, plan.source.partitions, sys.stdout.buffer)
        elif options.out:
            merge_partitions(folder, plan.source.partitions, options.out)
    return ReplayResult(source=plan.source, bundle=bundle, tally=tally, diff=diff, gaps=gaps)


@contextlib.contextmanager
def _open_folder(settings: Settings, plan: ReplayPlan, options: ReplayOptions) -> Generator[tuple[Path, ReplayPlan]]:
    """Give the folder of the replay, and the plan to follow: the stored plan if the replay is resumed.

    The folder of an output stays if the replay fails. A replay without an output, or with a comparison, cannot be
    resumed: its folder is temporary.
    """
    if options.out and options.out != STANDARD_OUTPUT and not options.check:
        folder = folder_of_output(options.out)
        if options.resume:
            plan = load_plan(folder, plan)
        else:
            create_folder(folder, plan, _read_reference(settings, plan))
        yield folder, plan
        return
    try:
        parent = options.out.parent if options.out and options.out != STANDARD_OUTPUT else None
        temporary = Path(tempfile.mkdtemp(prefix=".clickscore-", dir=parent))
    except OSError as exc:
        message = f"{options.out} cannot be written: {exc.strerror or exc}"
        raise OutputFileError(message) from exc
    try:
        create_folder(temporary / "parts", plan, _read_reference(settings, plan))
        yield temporary / "parts", plan
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_reference(settings: Settings, plan: ReplayPlan) -> ReferenceLog:
    """Return the records of catalogue and campaigns; sessions do not depend on the catalogue."""
    return plan.source.read_reference(settings.kafka) if plan.decides else ReferenceLog()


def _sum_results(results: Iterable[TaskResult]) -> tuple[ReplayTally, DiffSummary | None]:
    """Return the counts and the comparison over all processes.

    Each process reads all lines of a file, so unreadable lines are counted once.
    """
    tally, outcomes, items, diff = ReplayTally(), Counter[str](), Counter[str](), None
    for result in results:
        outcomes += Counter(result.tally.outcomes)
        tally.unreadable = result.tally.unreadable
        tally.warm_up += result.tally.warm_up
        tally.written += result.tally.written
        items += Counter(result.tally.items)
        if result.diff:
            diff = result.diff if diff is None else diff + result.diff
    tally.outcomes, tally.items = dict(outcomes), dict(items)
    return tally, diff
