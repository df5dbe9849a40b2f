"""One pass: decisions are those of a replay, every record is accounted for, and arms do not touch each other."""

from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from clickscore.backtest import label_join as book
from clickscore.backtest.arms import Arm
from clickscore.backtest.backtest_run import Evidence
from clickscore.backtest.evaluation_columns import NEW_ITEM, NO_NEXT_ITEM, RELATIONS
from clickscore.backtest.recommenders import load_scorer, make_recommender
from clickscore.backtest.session_repeats import with_repeats, without_repeats
from clickscore.backtest.shared_pipelines import SharedPipelines
from clickscore.schemas.decisions import encode_decision
from clickscore.schemas.events import AnyEvent, Epoch, encode_event
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.file_source import FileSource
from clickscore.stream.replay.reference_files import NO_FILES, read_reference_files
from clickscore.stream.replay.reference_log import ReferenceLog
from clickscore.stream.replay.source import FilePosition
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import Settings
from tests.backtest.contests import BASE, arm, contest, write_log
from tests.bundles import small_bundle
from tests.events import START, impression, purchase, view
from tests.integration.event_log import ITEMS

COUNT = 6_000
SHORT = 600_000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "events.jsonl", COUNT, seed=4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundle") / "small")


@pytest.fixture(scope="module")
def arms(bundle: Path) -> list[Arm]:
    return [
        arm("model", bundle=str(bundle)),
        arm("five", bundle=str(bundle), k=5),
        arm("short", bundle=str(bundle), gap_ms=SHORT),
        arm("half", bundle=str(bundle), control_share=0.5),
        arm("popularity"),
        arm("co-occurrence"),
        arm("repeat"),
    ]


@pytest.fixture(scope="module")
def evidence(log: Path, arms: list[Arm]) -> Evidence:
    return contest(log, arms)


def file_of(folder: Path, *events: AnyEvent) -> Path:
    path = folder / "events.jsonl"
    path.write_bytes(b"".join(encode_event(event) + b"\n" for event in events))
    return path


def judged(evidence: Evidence, number: int = 0) -> list[list[float]]:
    """What was booked of an arm."""
    arm_columns = evidence.columns.arms[number]
    return [arm_columns.ranks.tolist(), np.nan_to_num(arm_columns.purchase, nan=-1).tolist()]


@pytest.mark.slow
def test_decisions_of_every_arm_are_those_of_a_replay(log: Path, arms: list[Arm]) -> None:
    scorers: dict[str, Scorer] = {}

    def policy(current: Arm, policy_file: PolicyFile) -> Policy:
        if current.baseline:
            return Policy(policy_file, None, (), current.settings.policy)
        return Policy(
            policy_file,
            load_scorer(current, scorers).version,
            load_scorer(current, scorers).popular,
            current.settings.policy,
        )

    # A worker knows no other baselines.
    models = [current for current in arms if current.baseline in {None, "popularity"}]
    shared = SharedPipelines(
        BASE,
        models,
        "clickstream-events",
        {NO_FILES: ReferenceLog()},
        4,
        make_recommender=lambda current: make_recommender(current, scorers),
        make_policy=policy,
    )
    assert len(shared) == 2
    collected: list[list[bytes]] = [[] for _ in models]
    expected: list[dict[str, bytes]] = [{} for _ in models]
    pipelines = [
        Pipeline(
            current.settings.sessions,
            current.settings.policy,
            "clickstream-events",
            Catalogue(),
            None if current.baseline else Scorer(load_bundle(Path(current.settings.scoring.bundle))),
            policy_file=with_repeats(current.policy_file),
        )
        for current in models
    ]
    with FileSource(log, "clickscore", range(4), FilePosition(offsets=(0,) * 4)) as source:
        for batches in source.batches():
            for current in shared.decide(batches, 0)[1]:
                for number, recommendation in enumerate(current.recommendations):
                    collected[number].append(encode_decision(recommendation))
            for number, pipeline in enumerate(pipelines):
                for output in pipeline.process_all(batches):
                    for message in output.recommendations:
                        value = message.value or b""
                        expected[number][msgspec.json.decode(value)["decision_id"]] = value
    for number in range(len(models)):
        assert len(collected[number]) > 0.9 * COUNT
        assert all(expected[number][msgspec.json.decode(value)["decision_id"]] == value for value in collected[number])


@pytest.mark.slow
def test_every_record_is_judged_or_left_out_for_a_reason(evidence: Evidence) -> None:
    left_out = evidence.join.left_out
    assert evidence.records == COUNT
    assert len(evidence.columns) + left_out.total() == COUNT
    assert len(evidence.columns) > COUNT / 3
    for reason in (book.UNREADABLE, book.REPEATED, book.LATE, book.IMPRESSION, book.OPEN, book.TICK):
        assert left_out[reason] > 0, reason
    assert left_out[book.WARM_UP] == 0


@pytest.mark.slow
def test_an_arm_comes_out_the_same_alone_and_among_others(log: Path, evidence: Evidence, arms: list[Arm]) -> None:
    """Of the same sessions: where another arm takes an event for a repeat, the event is left out for all."""
    same = [current for current in arms if current.name != "short"]
    together = contest(log, same)
    for number, current in enumerate(same):
        assert judged(contest(log, [current])) == judged(together, number), current.name


@pytest.mark.slow
def test_arms_with_the_same_scores_differ_only_where_their_settings_do(evidence: Evidence) -> None:
    model, five, short, half = (evidence.columns.arms[number] for number in range(4))
    assert (np.where(model.ranks <= 5, model.ranks, 0) == five.ranks).all()
    assert (model.purchase == five.purchase)[~np.isnan(model.purchase)].all()
    assert (model.purchase != short.purchase)[~np.isnan(model.purchase)].any()
    assert np.isnan(half.purchase).sum() > np.isnan(model.purchase).sum()


@pytest.mark.slow
def test_settings_of_arms_change_no_answer(log: Path, evidence: Evidence) -> None:
    """The same yardstick for all: only the common settings say what a session is."""
    single = contest(log, [arm("short", baseline="repeat", gap_ms=SHORT)])
    common = contest(log, [arm("repeat")])
    for column in ("ts", "length", "relation", "purchased", "known_user"):
        assert (single.columns.column(column) == common.columns.column(column)).mean() > 0.99 or column == "length"
    shorter = contest(log, [arm("repeat")], settings=Settings.of(gap_ms=SHORT))
    assert (shorter.columns.column("relation") == NO_NEXT_ITEM).sum() > (
        common.columns.column("relation") == NO_NEXT_ITEM
    ).sum()


@pytest.mark.slow
def test_repeating_the_session_hits_all_that_was_there_and_nothing_new(log: Path) -> None:
    settings = Settings.of(k=1_000, max_events=10_000)
    deep = contest(log, [arm("repeat", settings)], settings=settings)
    ranks, relation = deep.columns.arms[0].ranks, deep.columns.column("relation")
    is_repeat = np.isin(relation, [RELATIONS.index("the same item"), RELATIONS.index("seen in the session")])
    assert 0 < (ranks[is_repeat] == 0).sum() <= deep.columns.bought_labels  # which the policy keeps back
    assert (ranks[relation == NO_NEXT_ITEM] == 0).all()
    assert (relation == NEW_ITEM).sum() > 100


def test_first_events_warm_up_and_are_not_judged(log: Path) -> None:
    complete = contest(log, [arm("popularity")])
    times = np.sort(complete.columns.column("ts"))
    begin = int(times[len(times) // 2])
    later = contest(log, [arm("popularity")], judge_from=begin)
    assert later.columns.column("ts").min() >= begin
    assert later.join.left_out[book.WARM_UP] > 0
    assert len(later.columns) + later.join.left_out.total() == COUNT
    is_judged = complete.columns.column("ts") >= begin
    assert later.columns.arms[0].ranks.tolist() == complete.columns.arms[0].ranks[is_judged].tolist()
    assert later.columns.column("known_user").tolist() == complete.columns.column("known_user")[is_judged].tolist()


def test_session_is_judged_once_it_has_ended(tmp_path: Path) -> None:
    log = file_of(
        tmp_path,
        view("anna", 0, "a"),
        view("anna", 1, "b"),
        impression("anna", 1, "c"),
        purchase("anna", 2, "b"),
        view("bert", 60, "a"),  # ends Anna's session, and is open itself where the log ends
    )
    evidence = contest(log, [arm("repeat")], settings=Settings.of(partitions=1))
    rows = evidence.columns
    assert len(rows) == 3
    assert evidence.join.left_out == Counter({book.IMPRESSION: 1, book.OPEN: 1})
    assert rows.column("purchased").tolist() == [1, 1, 0]
    assert [RELATIONS[number] for number in rows.column("relation")] == [
        "new to the session",
        "the same item",
        "nothing follows",
    ]
    assert rows.arms[0].ranks.tolist() == [0, 1, 0]
    assert rows.column("ts").tolist() == [START, START + 60_000, START + 120_000]


def test_item_that_was_bought_is_kept_back_and_counted(tmp_path: Path) -> None:
    log = file_of(tmp_path, purchase("anna", 0, "a"), view("anna", 1, "a"), view("bert", 90, "b"))
    evidence = contest(log, [arm("repeat")], settings=Settings.of(partitions=1))
    assert evidence.columns.arms[0].ranks.tolist() == [0, 0]
    assert evidence.columns.bought_labels == 1


def test_user_is_known_from_the_second_session_on(tmp_path: Path) -> None:
    log = file_of(
        tmp_path,
        view("anna", 0),
        view("anna", 1),
        view("anna", 90),
        view("bert", 91),
        view("anna", 200),
        view("c", 300),
    )
    rows = contest(log, [arm("repeat")], settings=Settings.of(partitions=1)).columns
    by_time = sorted(zip(rows.column("ts").tolist(), rows.column("known_user").tolist(), strict=True))
    assert [is_known for _, is_known in by_time] == [0, 0, 1, 0, 1]


def test_empty_log_judges_nothing(tmp_path: Path) -> None:
    evidence = contest(file_of(tmp_path), [arm("repeat")])
    assert (len(evidence.columns), evidence.records, evidence.join.left_out.total()) == (0, 0, 0)


def shown_items(log: Path, arms: list[Arm]) -> list[list[list[str]]]:
    """Return the items that each arm shows on each event."""
    files = {arm.reference for arm in arms}
    shared = SharedPipelines(
        BASE,
        arms,
        "clickstream-events",
        {NO_FILES: ReferenceLog()} | {pair: read_reference_files(*pair) for pair in files},
        1,
        make_recommender=lambda current: make_recommender(current, {}),
        make_policy=lambda _, policy_file: Policy(policy_file, None, ()),
    )
    with FileSource(log, "clickscore", range(1), FilePosition(offsets=(0,))) as source:
        decisions = [decision for batches in source.batches() for decision in shared.decide(batches, 0)[1]]
    return [
        [[choice.item_id for choice in each.recommendations[number].items] for each in decisions]
        for number in range(len(arms))
    ]


def test_arms_may_differ_in_catalogue_and_campaigns(tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    later = START + 10 * 60_000
    items.write_bytes(msgspec.json.encode({"item_id": "mug", "stock": 0, "ts": later}))
    campaigns = tmp_path / "campaigns.jsonl"
    campaigns.write_bytes(msgspec.json.encode({"campaign_id": "spring", "item_id": "mug", "bid": 1.0}))
    epoch = Epoch(number=9, catalogue=0, campaigns=0)  # of the log's own topics: it says nothing of the file's lines
    log = file_of(tmp_path, *(view(f"user-{minute}", minute, "mug") for minute in range(6)))
    events = [*(view(f"user-{minute}", minute, "mug") for minute in (6, 8, 11)), epoch, view("last", 12, "kettle")]
    log.write_bytes(log.read_bytes() + b"".join(msgspec.json.encode(event) + b"\n" for event in events))
    arms = [
        arm("common", baseline="repeat"),
        arm("sold out", baseline="repeat", catalogue=str(items), campaigns=str(campaigns)),
    ]
    common, sold_out = shown_items(log, arms)
    assert common == [["mug"]] * 9 + [["kettle", "mug"]]
    assert sold_out == [["mug"]] * 8 + [[], ["kettle"]]


def test_backtest_reads_the_files_of_its_arms(tmp_path: Path, log: Path) -> None:
    items = tmp_path / "items.jsonl"
    items.write_bytes(b"".join(msgspec.json.encode({"item_id": item, "hidden": True}) + b"\n" for item in ITEMS[:40]))
    arms = [arm("popularity"), arm("hidden", baseline="popularity", catalogue=str(items))]
    result = contest(log, arms, leak_sample=50)
    assert set(ITEMS[:40]) & result.columns.arms[0].recommended.keys()
    assert not set(ITEMS[:40]) & result.columns.arms[1].recommended.keys()
    assert result.leak_check.leaks == ()


def test_arm_is_judged_with_and_without_repeats_whatever_its_policy(tmp_path: Path) -> None:
    log = file_of(
        tmp_path,
        view("zoe", 0, "c"),
        view("anna", 0, "a"),
        view("anna", 9, "b"),
        view("anna", 18, "b"),  # a repeat
        view("anna", 27, "c"),  # new to the session
        view("bert", 90, "d"),
    )
    arms = [arm("default", baseline="popularity"), arm("strict", baseline="popularity", policy="strict")]
    columns = contest(log, arms, settings=Settings.of(partitions=1)).columns
    assert [arm_columns.ranks.tolist() for arm_columns in columns.arms] == [[0, 0, 3, 3, 0]] * 2
    assert [arm_columns.discovery_ranks.tolist() for arm_columns in columns.arms] == [[0, 0, 0, 1, 0]] * 2
    assert with_repeats(arms[0].policy_file).limit == with_repeats(arms[1].policy_file).limit
    assert without_repeats(arms[0].policy_file).limit.reminders == 0
