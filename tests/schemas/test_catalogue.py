"""Catalogue: a wrong item or campaign is refused in a sentence, and a wrong time with its likely unit."""

from typing import Any

import msgspec
import pytest

from clickscore.schemas.catalogue import decode_campaign, decode_item, encode

START = 1_700_000_000_000


def campaign(**fields: Any) -> bytes:
    return msgspec.json.encode({"campaign_id": "spring", "item_id": "kettle", "bid": 1.0, **fields})


@pytest.mark.parametrize(
    "fields", [{}, {"starts_at": 0}, {"starts_at": START, "ends_at": START + 1}, {"starts_at": 0, "ends_at": None}]
)
def test_times_in_milliseconds_are_taken(fields: dict[str, Any]) -> None:
    decoded = decode_campaign(campaign(**fields))
    assert (decoded.starts_at, decoded.ends_at) == (fields.get("starts_at", 0), fields.get("ends_at"))


@pytest.mark.parametrize(
    "text", [b'{"item_id":"a","regions":["x",5],"regions":["y"]}', b'{"item_id":"a","price":"x","price":1}']
)
def test_wrong_field_that_comes_again_is_refused_in_the_words_of_the_decoder(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError, match="Expected"):
        decode_item(text)


@pytest.mark.parametrize("field", ["starts_at", "ends_at"])
@pytest.mark.parametrize(
    ("ts", "unit"),
    [
        (START // 1000, "seconds"),
        (START / 1000, "seconds"),
        (START * 1000, "microseconds"),
        (START * 1_000_000, "nanoseconds"),
        (-5, "a time before 1970"),
    ],
)
def test_time_of_another_unit_is_refused_with_the_unit(field: str, ts: float, unit: str) -> None:
    words = f"^{field} looks like {unit}: it must be milliseconds since 1970, UTC, .* - at `\\$.{field}`$"
    with pytest.raises(msgspec.ValidationError, match=words):
        decode_campaign(campaign(**{field: ts}))


def test_end_of_zero_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="ends_at looks like seconds"):
        decode_campaign(campaign(ends_at=0))


@pytest.mark.parametrize("value", ["soon", START + 0.5, [START], True, 10**400])
def test_time_that_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match="ends_at"):
        decode_campaign(
            campaign(ends_at=value) if value != 10**400 else campaign(ends_at=1).replace(b":1}", b":1e400}")
        )


def test_other_faults_name_the_field_in_a_sentence() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"^bid must be a number, not 'much'$"):
        decode_campaign(campaign(bid="much", ends_at=5))
    with pytest.raises(msgspec.ValidationError, match=r"^unknown field daily_bugdet \(did you mean daily_budget\?\)$"):
        decode_campaign(campaign(daily_bugdet=5))
    with pytest.raises(msgspec.ValidationError, match=r"^target_queries\[1\] must be a single word, not 'red kettle'$"):
        decode_campaign(campaign(target_queries=["oak", "red kettle"]))


@pytest.mark.parametrize("field", ["target_items", "target_categories", "target_brands", "target_queries"])
def test_empty_text_is_no_target(field: str) -> None:
    """It would match every page of which nothing is known."""
    with pytest.raises(msgspec.ValidationError, match=rf"^{field}\[0\] must have at least 1 character, not 0$"):
        decode_campaign(campaign(**{field: [""]}))


@pytest.mark.parametrize("windows", [{}, {"view_window_ms": 1, "purchase_window_ms": 0}])
def test_bid_for_an_order_needs_a_window(windows: dict[str, int]) -> None:
    assert decode_campaign(campaign(bid_per="order", **windows)).bid_per == "order"
    assert decode_campaign(campaign(purchase_window_ms=0)).bid_per == "click"
    with pytest.raises(
        msgspec.ValidationError, match=r"^bid_per is order, but view_window_ms and purchase_window_ms are both 0"
    ):
        decode_campaign(campaign(bid_per="order", purchase_window_ms=0))


def test_all_contradictions_of_a_campaign_are_named_at_once() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"^pacing is set, .*; bid_per is order, .*; starts_at .*$"):
        decode_campaign(campaign(pacing="even", bid_per="order", purchase_window_ms=0, starts_at=START // 1000))


def test_fault_of_text_that_is_no_json_behind_it_is_named() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"Expected `float`, got `str`"):
        decode_campaign(campaign(bid="much")[:-1] + b", x}")


def test_fault_of_an_item_is_a_sentence() -> None:
    assert decode_item(b'{"item_id": "kettle", "stock": 3}').stock == 3
    with pytest.raises(msgspec.ValidationError, match=r"^stock must be at least 0, not -1$"):
        decode_item(b'{"item_id": "kettle", "stock": -1}')
    with pytest.raises(msgspec.ValidationError, match=r"^listed_at looks like seconds"):
        decode_item(b'{"item_id": "kettle", "listed_at": 1700000000}')


def test_encoded_targets_are_sorted_so_that_each_process_writes_the_same_bytes() -> None:
    words = [f"word-{number}" for number in range(9)]
    assert msgspec.json.decode(encode(decode_campaign(campaign(target_queries=words[::-1]))))["target_queries"] == words
