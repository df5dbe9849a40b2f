"""`clickscore policy`: what it prints, and what it refuses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from clickscore.stream.__main__ import cli, main
from clickscore.stream.policy.policy_file import DEFAULT_POLICY


def output_of(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["policy", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_good_policy_is_named_with_its_owner():
    assert output_of("check", "default") == f"good: {DEFAULT_POLICY.label}, owned by clickscore\n"


def test_wrong_policy_ends_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "own.toml"
    path.write_text('version = "own-1"\nowner = "me"\ncolour = "red"\n')
    with pytest.raises(SystemExit) as ended:
        main(["policy", "check", str(path)])
    assert ended.value.code == 1
    assert "own.toml is wrong: unknown field colour (the fields are version, owner, " in capsys.readouterr().err


def test_explanation_is_a_sentence_a_line():
    lines = output_of("explain", "strict").splitlines()
    assert lines[0].startswith("strict-1@")
    assert "  Items that the user has met in this session are not shown." in lines


def test_difference_of_two_policies():
    assert "-> No ad is shown." in output_of("diff", "default", "no-ads")
    assert output_of("diff", "strict", "strict").splitlines()[1] == "  Both do the same."
    assert json.loads(output_of("diff", "default", "no-ads", "--json"))["to"].startswith("no-ads-1@")


def test_shipped_policies_are_listed():
    assert [line.split()[0] for line in output_of("list").splitlines()] == [
        "default",
        "discovery",
        "no-ads",
        "shelves",
        "strict",
    ]


def test_rule_that_needs_a_setting_is_refused_without_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "often.toml"
    path.write_text('version = "often-1"\nowner = "me"\nhide.seen = 3\n')
    events = tmp_path / "events.jsonl"
    events.write_text('{"type": "view", "event_id": "e", "user_id": "u", "ts": 1767605400000, "item_id": "a"}\n')
    for command in (
        ["policy", "check", str(path)],
        ["worker", "--policy", str(path)],
        ["policy", "statement", str(path), str(events)],
        ["replay", str(events), "--out", str(tmp_path / "out.jsonl"), "--policy", str(path)],
        ["ads", "why", "spring", str(events), "--policy", str(path)],
        ["backtest", str(events), "--arm", f"name=a,baseline=popularity,policy={path}"],
        ["explain", "clickstream-events-0-1", "--what-if", str(path)],
    ):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 1
        assert "has hide.seen = 3, but the setting max_seen is 0" in capsys.readouterr().err
    assert output_of("check", str(path), "--max-seen", "64").startswith("good: often-1@")
