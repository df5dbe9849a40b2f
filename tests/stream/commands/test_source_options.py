"""Source options: flags of recorded events."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from clickscore.stream.__main__ import cli
from clickscore.stream.commands.source_options import with_source_options
from clickscore.stream.replay.source_options import SourceOptions


@click.command()
@with_source_options
def show(*, source_options: SourceOptions) -> None:
    click.echo(source_options.warm_up_from or "nothing")


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ([], "nothing"),
        (["--warm-up-from", "earliest"], "earliest"),
        (["--warm-from", "earliest"], "earliest"),
        (["--warm-from", "5", "--warm-up-from", "7"], "7"),
    ],
)
def test_warm_up_has_a_former_name_that_still_works(flags: list[str], shown: str) -> None:
    assert CliRunner().invoke(show, ["kafka:events", *flags]).output == f"{shown}\n"


def test_help_shows_no_former_name() -> None:
    text = CliRunner().invoke(show, ["--help"]).output
    assert "--warm-up-from" in text
    assert "--warm-from" not in text


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["replay"], "--out"),
        (["sessions"], "--out"),
        (["outcomes", "replay"], "--out"),
        (["items"], "--out"),
        (["policy", "statement", "default"], "--out"),
        (["tune"], "--out"),
        (["backtest"], "--report"),
        (["backtest"], "--json-file"),
        (["events", "check"], "--json-file"),
    ],
)
def test_source_is_not_written_over(command: list[str], option: str, tmp_path: Path) -> None:
    (source := tmp_path / "events.jsonl").write_text("{}\n")
    done = CliRunner().invoke(cli, [*command, str(source), option, str(tmp_path / "." / "events.jsonl")])
    assert done.exit_code == 2
    assert "from which the command reads: name another file" in done.output
    assert source.read_text() == "{}\n"


def test_two_outputs_have_two_files(tmp_path: Path) -> None:
    both = str(tmp_path / "events.jsonl")
    done = CliRunner().invoke(cli, ["simulate", "--events", "10", "--out", both, "--sessions", both])
    assert done.exit_code == 2
    assert "two outputs have the same file" in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["events.jsonl"], "give --out, --check or both"),
        (["-", "--out", "a", "--workers", "2"], "standard input is read only once"),
        (["-", "--out", "a", "--resume"], "standard input is read only once"),
        (["events.jsonl", "--out", "a", "--from", "5"], "--from, --to and --warm-up-from need a topic"),
        (["events.jsonl", "--check", "kafka:recommendation-decisions"], "--check compares a topic with a topic"),
        (["kafka:a", "--check", "recommendation-decisions"], "--check compares a topic with a topic"),
        (["kafka:a", "--check", "kafka:b", "--resume"], "--resume needs --out, and cannot be combined with --check"),
        (["kafka:", "--out", "a"], "needs the name of a topic"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(cli, ["replay", *arguments])
    assert done.exit_code == 2
    assert words in done.output
