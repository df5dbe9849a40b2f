"""The name `demo` stands for the packaged bundle, whatever the working directory, and that bundle gives reasons."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from clickscore.backtest.commands import backtest
from clickscore.model.bundle_folder import BundleFolder
from clickscore.stream.__main__ import cli
from clickscore.stream.commands.bundle import bundle
from clickscore.stream.commands.events import events
from clickscore.stream.commands.replay import replay
from clickscore.stream.scoring.bundle import load_bundle

BEGIN, HOUR = 1_767_605_400_000, 3_600_000
EVENTS = [
    {"type": "view", "event_id": f"e-{number}", "user_id": f"u{number % 3}", "ts": BEGIN + number // 24 * HOUR + number}
    for number in range(30)
]
"""Three users, each with a session of eight views, and with another session an hour later, which ends the first."""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """A log of views of the demo's items, in a working directory without a bundle."""
    items = load_bundle(Path("demo")).items
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(event | {"item_id": items[at]}) + "\n" for at, event in enumerate(EVENTS)))
    before = Path.cwd()
    os.chdir(tmp_path)
    yield path
    os.chdir(before)


def _bundle_parameters(command: click.Command, context: click.Context) -> Iterator[click.Parameter]:
    """Yield the arguments and options of a command and its subcommands that name a bundle."""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            assert subcommand is not None
            yield from _bundle_parameters(subcommand, context)
    yield from (parameter for parameter in command.params if parameter.name in {"bundle", "bundles"})


def test_every_command_takes_the_name() -> None:
    types = [type(parameter.type) for parameter in _bundle_parameters(cli, click.Context(cli))]
    # `worker`, `replay`, `ads why`, `outcomes replay` and `policy statement` take the setting `bundle`, a text that
    # `load_bundle` resolves.
    assert types.count(click.types.StringParamType) == 5
    assert types.count(BundleFolder) == len(types) - 5 >= 6


def test_events_check_counts_the_items_that_the_packaged_bundle_knows(log: Path) -> None:
    result = CliRunner().invoke(events, ["check", str(log), "--bundle", "demo"])
    assert "0 items that the bundle does not know" in result.output


@pytest.mark.usefixtures("log")
@pytest.mark.slow
def test_bundle_check_takes_the_name() -> None:
    result = CliRunner().invoke(bundle, ["check", "demo"])
    assert result.exit_code == 0, result.output
    assert "2,000 items" in result.output


def test_replay_takes_the_name_and_gives_reasons(log: Path, tmp_path: Path) -> None:
    words = [str(log), "--bundle", "demo", "--reasons", "2", "--out", str(tmp_path / "decisions.jsonl")]
    result = CliRunner().invoke(replay, words)
    assert result.exit_code == 0, result.output
    decisions = [json.loads(line) for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    assert len(decisions) == len(EVENTS)
    assert all(decision["items"][0]["because"] for decision in decisions)


def test_backtest_takes_the_name_in_an_option_and_in_an_arm(log: Path, tmp_path: Path) -> None:
    (tmp_path / "arms.toml").write_text('[[arm]]\nname = "from-file"\nbundle = "demo"\nk = 5\n')
    words = [str(log), "--bundle", "demo", "--arm", "name=short,bundle=demo,k=3", "--arms", str(tmp_path / "arms.toml")]
    result = CliRunner().invoke(backtest, [*words, "--no-baselines", "--json-file", str(tmp_path / "figures.json")])
    assert result.exit_code == 0, result.output
    arms = json.loads((tmp_path / "figures.json").read_text())["arms"]
    assert [arm["name"] for arm in arms] == ["demo", "short", "from-file"]
    assert len({arm["bundle"] for arm in arms}) == 1
