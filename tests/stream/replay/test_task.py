"""Task of a replay: the model scores a batch while the next batch is read."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from clickscore.schemas.decisions import decode_decision
from clickscore.schemas.events import Identify, View, encode_event
from clickscore.stream.event_files.time_order import plan_reading
from clickscore.stream.pipeline import PendingBatch, Pipeline
from clickscore.stream.pipeline_records import Output, Record
from clickscore.stream.policy.policy_file import DEFAULT_POLICY
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.file_source import make_file_spec
from clickscore.stream.replay.output import PartitionOutputs, partition_path
from clickscore.stream.replay.reference_files import read_reference_files
from clickscore.stream.replay.reference_log import start_pipeline
from clickscore.stream.replay.replay_checkpoint import ReplayPlan
from clickscore.stream.replay.task import ReplayTask, _TaskRun  # pyright: ignore[reportPrivateUsage]
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import Settings
from tests.bundles import small_bundle
from tests.events import MINUTE, START, identify, view

SETTINGS = Settings()


class StepsPipeline(Pipeline):
    """A pipeline that remembers when each batch with decisions began and was finished."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__(SETTINGS.sessions, SETTINGS.policy, "events", Catalogue(), scorer)
        self.steps: list[str] = []

    def begin(self, batches: Sequence[tuple[int, Sequence[Record]]]) -> PendingBatch:
        pending = super().begin(batches)
        self.steps.append(f"begin {len(pending.due)}")
        return pending

    def finish(self, pending: PendingBatch) -> list[Output]:
        self.steps.append(f"finish {len(pending.due)}")
        return super().finish(pending)


def make_task(folder: Path, events: Sequence[View | Identify], *, writes: bool) -> ReplayTask:
    """Return the task of replaying a file of events with a model."""
    log = folder / "events.jsonl"
    log.write_bytes(b"".join(encode_event(event) + b"\n" for event in events))
    _, reading = plan_reading(log, "clickscore", SETTINGS.sessions.lateness_ms)
    source = make_file_spec(log, "clickscore", 2, reading)
    return ReplayTask(
        settings=SETTINGS,
        plan=ReplayPlan(output="decisions", source=source, bundle="small", workers=1, settings=SETTINGS.identity),
        policy_file=DEFAULT_POLICY,
        folder=folder,
        worker=0,
        writes=writes,
        compressed=False,
        checkpoint_s=0,
        check=None,
    )


def replayed_steps(tmp_path: Path, events: Sequence[View | Identify]) -> list[str]:
    """Return the steps of a replay of events with a model, and the number of hand-overs."""
    task = make_task(tmp_path, events, writes=False)
    pipeline = StepsPipeline(Scorer(load_bundle(small_bundle(tmp_path / "small"))))
    with PartitionOutputs(tmp_path, 0, [0, 1], compressed=False) as outputs:
        outputs.load(SETTINGS.sessions, "events")
        result = _TaskRun(task, pipeline, outputs, None).run(lambda _: None)
    return [
        *(step for step in pipeline.steps if not step.endswith(" 0")),
        f"{result.tally.outcomes.get('handover', 0)} handed",
    ]


def test_batch_is_finished_once_the_next_batch_has_begun(tmp_path: Path) -> None:
    refused = (
        "\0cookie"  # an `identify` event ends a batch; that of this id is a dead letter, so nothing is handed over
    )
    events = [view("ann", 0, "item-1"), identify(refused, 1, "ann")]
    events += [view("ann", 2, "item-2"), view("ann", 3, "item-3"), identify(refused, 4, "ann")]
    events += [view("ann", minute, "item-4") for minute in (5, 6, 7)]
    expected = ["begin 1", "begin 2", "finish 1", "begin 3", "finish 2", "finish 3", "0 handed"]
    assert replayed_steps(tmp_path, events) == expected


def test_batch_with_an_identify_event_is_finished_before_its_handover_is_read(tmp_path: Path) -> None:
    events = [view("ann", 0, "item-1"), identify("cookie", 1, "ann")]  # a batch ends with each identify event
    events += [view("cookie", 2, "item-2"), view("cookie", 3, "item-3"), identify("cookie", 4, "ann")]
    events += [view("ann", minute, "item-4") for minute in (5, 6, 7)]
    expected = ["begin 1", "finish 1", "begin 2", "finish 2", "begin 3", "finish 3", "1 handed"]
    assert replayed_steps(tmp_path, events) == expected


def test_ad_follows_its_recommendation_where_a_campaign_begins_and_ends_within_a_batch(tmp_path: Path) -> None:
    campaigns = tmp_path / "campaigns.jsonl"
    spring = {"campaign_id": "spring", "item_id": "mug", "bid": 1.0}
    lines = [spring | {"ts": START + 2 * MINUTE}, {"campaign_id": "spring", "removed": True, "ts": START + 4 * MINUTE}]
    campaigns.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    task = make_task(tmp_path, [view("ann", minute) for minute in range(6)], writes=True)
    pipeline = StepsPipeline(Scorer(load_bundle(small_bundle(tmp_path / "small"))))
    with PartitionOutputs(tmp_path, 0, [0, 1], compressed=False) as outputs:
        outputs.load(SETTINGS.sessions, "events")
        start_pipeline(pipeline, read_reference_files(None, campaigns), [0, 1], {})
        _TaskRun(task, pipeline, outputs, None).run(lambda _: None)
    written = [line for partition in (0, 1) for line in partition_path(tmp_path, partition).read_bytes().splitlines()]
    offsets = [decode_decision(line).decision_id.partition("-")[2].partition("-")[2] for line in written]
    assert offsets == ["0", "1", "2", "2-ad", "3", "3-ad", "4", "5"]
