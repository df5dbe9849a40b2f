"""TOML text: what is read, and what is refused."""

from pathlib import Path

import pytest

from clickscore.backtest.arms import read_arms
from clickscore.model.config import read_preset
from clickscore.schemas.errors import ClickscoreError
from clickscore.schemas.toml_text import parse_toml
from clickscore.stream.event_files.formats.mapping import decode_mapping
from clickscore.stream.policy.policy_file import load_policy
from clickscore.stream.settings import Settings, load

DEEP = b"k = " + b"[" * 5_000 + b"]" * 5_000


def test_byte_order_mark_is_skipped():
    assert parse_toml(b"\xef\xbb\xbfk = 5") == {"k": 5}


def test_text_that_is_no_toml_is_a_value_error():
    for text, words in ((DEEP, "nested too deeply"), (b"[", "Invalid"), (b"\xff", "byte 0xff")):
        with pytest.raises(ValueError, match=words):
            parse_toml(text)


def test_every_reader_refuses_deep_lists_in_a_sentence(tmp_path: Path):
    path = tmp_path / "deep.toml"
    path.write_bytes(DEEP)
    for read in (
        lambda: read_arms(path, Settings.of()),
        lambda: read_preset(str(path)),
        lambda: load(environ={}, file=path),
        lambda: load_policy(str(path)),
        lambda: decode_mapping(DEEP, "deep.toml"),
    ):
        with pytest.raises(ClickscoreError, match=r"deep\.toml .*lists are nested too deeply"):
            read()
