"""`clickscore outcomes`: a replay of events with reactions, and the report on it."""

import asyncio
import json
from pathlib import Path

import msgspec
from click.testing import CliRunner

from clickscore.schemas.events import Click, encode_event
from clickscore.schemas.outcomes import DecisionOutcome, LineOutcome, encode_outcome
from clickscore.schemas.topics import DECISION_OUTCOMES
from clickscore.stream.__main__ import cli
from clickscore.stream.replay.outcome_source import read_topic_outcomes
from clickscore.stream.settings import Settings
from tests.events import START, impression, view
from tests.memory_kafka import MemoryLog

ID = "clickstream-events-0-6"  # by then five sessions have made items popular


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["outcomes", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_replay_joins_reactions_and_the_report_counts_them(tmp_path: Path):
    events = [
        *(view(f"user-{number}", 0, "cup") for number in range(5)),
        view("late", 6, "cup"),
        view("ann", 7, "mug"),
        msgspec.structs.replace(impression("ann", 8, "cup"), decision_id=ID),
        Click(event_id="c", user_id="ann", ts=START + 9 * 60_000, item_id="cup", decision_id=ID, position=0),
    ]
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(map(encode_event, events)) + b"\n")
    out = tmp_path / "out.jsonl"
    run("replay", str(tmp_path / "events.jsonl"), "--partitions", "1", "--lateness-ms", "0", "--out", str(out))
    rows = json.loads(run("report", str(out), "--json"))
    list_row = next(row for row in rows if row["group"] == "placement")
    assert (list_row["impressions"], list_row["clicks"], list_row["valid_clicks"]) == (1, 1, 1)
    words = run("report", str(out))
    assert "Variants" in words
    assert "100.00%" in words
    assert "Campaigns" not in words


def test_report_on_nothing_says_when_records_come(tmp_path: Path):
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert run("report", str(tmp_path / "empty.jsonl")).startswith("no outcomes: decision-outcomes gets a record")


def test_brackets_in_names_are_no_markup(tmp_path: Path):
    line = LineOutcome(item_id="cup", placement="list", campaign_id="[red]tea[/b]", impressions=1)
    made = DecisionOutcome(decision_id="d", user_id="ann", ts=START, variant="model", lines=(line,))
    (tmp_path / "outcomes.jsonl").write_bytes(encode_outcome(made) + b"\n")
    assert " [red]tea[/b] " in run("report", str(tmp_path / "outcomes.jsonl"))


def test_topic_is_read_to_its_end_and_foreign_records_are_passed_over():
    log = MemoryLog()
    made = DecisionOutcome(decision_id="d", user_id="ann", ts=START, variant="model")
    log.append(DECISION_OUTCOMES.name, 1, b"ann", encode_outcome(made))
    log.append(DECISION_OUTCOMES.name, 0, b"ann", b"garbage")

    async def read() -> list[DecisionOutcome]:
        return [
            outcome
            async for outcome in read_topic_outcomes(Settings().kafka, log.open_reader, DECISION_OUTCOMES.name, 2)
        ]

    assert asyncio.run(read()) == [made]
