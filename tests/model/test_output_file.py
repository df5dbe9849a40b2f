"""A file that cannot be written is refused before the work, not after it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from clickscore.stream.__main__ import cli
from tests.refusals import refusal


@pytest.mark.parametrize(
    "words",
    [
        ["policy", "statement", "default", "none.jsonl", "--out"],
        ["backtest", "none.jsonl", "--report"],
        ["backtest", "none.jsonl", "--json-file"],
        ["items", "none.jsonl", "--out"],
        ["simulate", "--sessions"],
        ["tune", "none.jsonl", "--out"],
        ["split", "none.jsonl", "--test", "test.jsonl", "--training"],
    ],
    ids=lambda words: f"{words[0]} {words[-1]}",
)
def test_file_in_a_folder_that_does_not_exist_is_refused_first(tmp_path: Path, monkeypatch, words: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("none.jsonl").touch()
    message = refusal(CliRunner().invoke(cli, [*words, str(tmp_path / "no" / "file")]))
    assert f"the folder {tmp_path / 'no'} does not exist. Create the folder first" in message
