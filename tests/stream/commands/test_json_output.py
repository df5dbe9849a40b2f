"""`--json` and `--json-file`: the same meaning in every command, and the former `--json FILE`."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from clickscore.model.json_output import FormerJsonCommand, JsonOutput, json_options
from clickscore.schemas.errors import OutputFileError
from clickscore.stream.__main__ import cli
from clickscore.stream.settings import SETTINGS

LINES_OF_RECORDS = "tail"
"""The command whose output has no end, so that only its `--json` exists: one line a record."""


@click.command(cls=FormerJsonCommand)
@click.argument("source")
@json_options
def measure(source: str, json_output: JsonOutput) -> None:
    json_output.echo(f"words on {source}")
    json_output.write({"source": source})


def invoked(*arguments: object) -> Result:
    return CliRunner().invoke(measure, [str(argument) for argument in arguments])


def every_command(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


@pytest.mark.train
@pytest.mark.slow
def test_json_is_a_flag_in_every_command_and_json_file_a_file() -> None:
    with_json = {}
    for name, command in every_command(cli):
        options = {option: parameter for parameter in command.params for option in parameter.opts}
        if "--json" in options:
            flag = options["--json"]
            assert isinstance(flag, click.Option)
            assert flag.is_flag, name
            with_json[name] = "--json-file" in options
    assert [name for name, has_file in with_json.items() if not has_file] == [LINES_OF_RECORDS]
    names = {"backtest", "bundle check", "demo", "evaluate", "evaluate-events", "events check", "settings"}
    assert names | {"broker status", "topics list"} <= with_json.keys()


def test_flag_prints_json_alone_to_standard_output() -> None:
    result = invoked("log", "--json")
    assert json.loads(result.stdout) == {"source": "log"}
    assert "words" not in result.output


def test_dash_as_file_is_the_flag() -> None:
    assert invoked("log", "--json-file", "-").stdout == invoked("--json", "log").stdout


@pytest.mark.parametrize("words", [("--json-file", "FILE"), ("--json", "FILE"), ("--json=FILE",)])
@pytest.mark.parametrize("first", [True, False])
def test_file_gets_json_and_standard_output_words(words: tuple[str, ...], first: bool, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    named = [word.replace("FILE", str(file)) for word in words]
    result = invoked(*named, "log") if first else invoked("log", *named)
    assert result.stdout == "words on log\n"
    assert json.loads(file.read_text()) == {"source": "log"}


def test_argument_behind_the_flag_is_no_file(tmp_path: Path) -> None:
    source = tmp_path / "events.jsonl"
    source.write_text("kept")
    assert json.loads(invoked("--json", source).stdout) == {"source": str(source)}
    assert source.read_text() == "kept"


def test_flag_and_file_get_the_same_json(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert invoked("log", "--json", "--json-file", file).stdout == file.read_text()


def test_file_in_a_missing_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    result = invoked("log", "--json-file", tmp_path / "none" / "out.json")
    assert isinstance(result.exception, OutputFileError)
    assert "does not exist. Create the folder first" in str(result.exception)
    assert "words" not in result.output


def test_superfluous_argument_is_still_refused() -> None:
    assert "unexpected extra argument" in invoked("log", "--json", "a", "b").output
    assert "unexpected extra argument" in invoked("log", "b").output


def test_events_check_prints_its_counts(tmp_path: Path) -> None:
    good = '{"type":"view","event_id":"e1","user_id":"u1","ts":1569888000000,"item_id":"i1"}'
    file = tmp_path / "events.jsonl"
    file.write_text(f"{good}\n{{}}\n")
    result = CliRunner().invoke(cli, ["events", "check", str(file), "--json"])
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["types"] == {"view": 1}
    assert document["errors"] == [{"reason": "Object missing required field `type`", "count": 1, "lines": [2]}]
    assert document["fit"] is False


@pytest.mark.slow
def test_bundle_check_prints_the_manifest_or_the_problems(tmp_path: Path) -> None:
    good = json.loads(CliRunner().invoke(cli, ["bundle", "check", "demo", "--json"]).stdout)
    assert good["problems"] == []
    assert good["manifest"]["items"] > 0
    result = CliRunner().invoke(cli, ["bundle", "check", str(tmp_path), "--json"])
    assert result.exit_code == 1
    assert "lacks" in json.loads(result.stdout)["problems"][0]


def test_settings_are_written_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    assert "setting" in CliRunner().invoke(cli, ["settings", "--json-file", str(file)]).stdout
    assert json.loads(file.read_text()).keys() == SETTINGS.keys()


def test_broker_status_of_an_empty_folder(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["broker", "status", "--data", str(tmp_path), "--json"])
    assert json.loads(result.stdout) == {"running": False, "data": str(tmp_path)}
    assert result.exit_code == 1
