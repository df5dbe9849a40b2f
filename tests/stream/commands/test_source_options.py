"""Source options: flags of recorded events."""

import click
import pytest
from click.testing import CliRunner

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
