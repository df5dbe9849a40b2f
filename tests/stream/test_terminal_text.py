"""Terminal text: no control, no title sequence and no bidirectional override reaches a terminal."""

import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickscore.stream.terminal_text import safe_json, safe_text
from docs.generate import ROOT

HARMFUL = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\r",
    "\x00",
    "\x7f",
    *map(chr, range(0x202A, 0x202F)),
    *map(chr, range(0x2066, 0x206A)),
    "\N{LEFT-TO-RIGHT MARK}",
    "\N{LINE SEPARATOR}",
    "\N{ZERO WIDTH NO-BREAK SPACE}",
    "\N{LANGUAGE TAG}",
]


def commands(text: str) -> list[str]:
    """Return the characters that a terminal would obey."""
    return [
        char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and char not in "‌‍\xad"
    ]


@pytest.mark.parametrize("harmful", HARMFUL, ids=ascii)
def test_harmful_characters_are_replaced_and_the_others_stay(harmful: str) -> None:
    shown = safe_text(f"a{harmful}z")
    assert commands(shown) == []
    assert shown.startswith("a\N{REPLACEMENT CHARACTER}")
    assert shown.endswith("z")


@pytest.mark.parametrize(
    "text", ["Café 5 €", "100\N{NO-BREAK SPACE}g", "👩\N{ZERO WIDTH JOINER}🚀", "می\N{ZERO WIDTH NON-JOINER}خواهم", ""]
)
def test_ordinary_words_stay(text: str) -> None:
    assert safe_text(text) == text


def test_line_feeds_stay_where_lines_are_asked_for_and_nothing_else_does() -> None:
    assert safe_text("a\nb\r\x1bc", lines=True) == "a\nb\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}c"
    assert safe_text("a\nb") == "a\N{REPLACEMENT CHARACTER}b"


@given(st.text())
def test_no_text_commands_a_terminal(text: str) -> None:
    assert commands(safe_text(text)) == []


@given(st.dictionaries(st.text(), st.lists(st.text() | st.floats(allow_nan=False))))
def test_json_keeps_its_meaning_on_one_line(value: object) -> None:
    for raw in (json.dumps(value, ensure_ascii=False, indent=1), json.dumps(value)):
        shown = safe_json(raw.encode("utf-8", "surrogatepass") if "\\ud" not in raw.lower() else raw.encode())
        assert commands(shown) == []
        assert json.loads(shown) == value


@given(st.binary())
def test_no_bytes_command_a_terminal(value: bytes) -> None:
    assert commands(safe_json(value)) == []


def test_no_console_takes_brackets_for_markup() -> None:
    calls = [
        call
        for folder in ("stream", "model", "export", "backtest", "retraining", "bench")
        for path in (ROOT / folder).rglob("*.py")
        if "from rich.console import" in (text := path.read_text(encoding="utf-8"))
        for call in re.findall(r"\bConsole\(.+", text)
    ]
    assert [call for call in calls if "markup=False" not in call] == []
    assert len(calls) > 10
