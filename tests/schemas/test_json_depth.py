"""JSON depth: the limit counts arrays and objects, and nothing that only looks like one."""

import time
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickscore.schemas.catalogue import decode_campaign, decode_item
from clickscore.schemas.decisions import decode_decision
from clickscore.schemas.events import decode_record
from clickscore.schemas.json_depth import MAX_DEPTH, is_too_deep
from clickscore.schemas.manifest import decode_manifest
from clickscore.schemas.sessions import decode_session


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_limit_itself_is_allowed():
    assert not is_too_deep(nested(MAX_DEPTH))
    assert is_too_deep(nested(MAX_DEPTH + 1))


def test_many_shallow_objects_are_allowed():
    assert not is_too_deep(b"[" + b",".join([b'{"a":[]}'] * 1000) + b"]")


def test_brackets_in_strings_do_not_count():
    assert not is_too_deep(msgspec.json.encode(["[{" * 200, '"[' * 200, "\\[" * 200]))


def test_closing_brackets_in_strings_hide_nothing():
    assert is_too_deep(b'{"]}":' * 100 + b"1" + b"}" * 100)


@given(
    st.recursive(st.text() | st.integers(), lambda children: st.lists(children) | st.dictionaries(st.text(), children))
)
def test_depth_is_the_depth_of_the_value(value: object):
    def depth(part: object) -> int:
        if isinstance(part, dict):
            return 1 + max(map(depth, part.values()), default=0)
        return 1 + max(map(depth, part), default=0) if isinstance(part, list) else 0

    for extra in (MAX_DEPTH - depth(value), MAX_DEPTH - depth(value) + 1):
        text = b'{"k":' * extra + msgspec.json.encode(value) + b"}" * extra
        assert is_too_deep(text) == (extra + depth(value) > MAX_DEPTH)


@pytest.mark.parametrize("part", [b"[", b'"', b'\\"', b'"\\', b'["', b'{"a":'])
def test_time_is_linear(part: bytes):
    started_at = time.process_time()
    is_too_deep(nested(100) + part * 500_000)
    assert time.process_time() - started_at < 5


@pytest.mark.parametrize(
    "decode", [decode_record, decode_item, decode_campaign, decode_decision, decode_session, decode_manifest]
)
def test_every_decoder_of_foreign_json_has_the_limit(decode: Callable[[bytes], object]):
    for depth in (MAX_DEPTH + 1, 980, 100_000):
        with pytest.raises(msgspec.DecodeError, match="nested deeper than 64 levels"):
            decode(nested(depth))
