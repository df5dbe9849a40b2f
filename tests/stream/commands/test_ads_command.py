"""`clickscore ads`: reports from files of decisions and events."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from clickscore.schemas.events import encode_event
from clickscore.stream.__main__ import cli
from tests.events import view

CAMPAIGNS = (
    '{"campaign_id":"a","item_id":"x","bid":2.0}',
    '{"campaign_id":"b","item_id":"y","bid":1.0}',
    '{"campaign_id":"c","item_id":"z","bid":1.0,"target_categories":["coffee"]}',
)


def output_of(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def log(tmp_path: Path) -> tuple[str, ...]:
    """Return the arguments of a replay of four events with three campaigns."""
    events, campaigns = tmp_path / "events.jsonl", tmp_path / "campaigns.jsonl"
    events.write_bytes(b"\n".join(encode_event(view("ann", minute)) for minute in range(4)))
    campaigns.write_text("\n".join(CAMPAIGNS))
    return str(events), "--campaigns", str(campaigns), "--partitions", "1"


def test_report_on_the_decisions_of_a_replay(log: tuple[str, ...], tmp_path: Path):
    decisions = str(tmp_path / "decisions.jsonl.gz")
    output_of("replay", *log, "--out", decisions)
    text = output_of("ads", "report", decisions)
    assert "4 pages, 4 (100.0%) with ads." in text
    assert "to a, which paid 1 on average" in text
    report = json.loads(output_of("ads", "report", decisions, "--json"))
    assert [(part["campaign_id"], part["won"], part["lost"]) for part in report["campaigns"]] == [
        ("a", 4, 0),
        ("b", 0, 4),
    ]


def test_why_a_campaign_won_lost_or_did_not_match(log: tuple[str, ...]):
    assert "100.0%  it won a slot (won)" in output_of("ads", "why", "a", *log)
    assert "a mean bid of 2 would have reached the winners' scores" in output_of("ads", "why", "b", *log)
    assert "It matched no page" in output_of("ads", "why", "c", *log)
    history = json.loads(output_of("ads", "why", "b", *log, "--json"))
    assert (history["pages"], history["lost"], history["lost_to"][0]["campaign_id"]) == (4, 4, "a")


def test_report_says_how_many_lines_are_no_decisions(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text("nothing\n")
    result = CliRunner().invoke(cli, ["ads", "report", str(path)])
    assert "1 records are no decisions" in result.stderr
    assert "0 pages, 0 (0.0%) with ads." in result.stdout


def test_topic_needs_a_name():
    result = CliRunner().invoke(cli, ["ads", "report", "kafka:"])
    assert "kafka: needs the name of a topic, such as kafka:ad-decisions" in result.output


def test_range_needs_a_topic(tmp_path: Path):
    result = CliRunner().invoke(cli, ["ads", "report", str(tmp_path / "a"), "--from", "5"])
    assert "--from and --to need a topic" in result.output
