"""What a placement shows, from published decisions."""

import json
from typing import Any

import pytest

from clickscore.stream.errors import RequestError
from clickscore.stream.gateway.placements import OLD_AD_MS, select_placement
from tests.stream.gateway.log_double import SOURCE, ad, decision


def page(**changes: Any) -> bytes:
    """Return a recommendation as published, with some fields changed."""
    return json.dumps(json.loads(decision(7, "anna", "e1")) | changes).encode()


def shelf(name: str, item_id: str) -> dict[str, Any]:
    item = {"item_id": item_id, "score": 0.0, "propensity": 1.0, "reason": "similar"}
    return {"name": name, "job": "similar", "items": [item]}


def select(name: str, recommendation: bytes, newest_ad: bytes | None = None) -> Any:
    return json.loads(select_placement(name, recommendation, newest_ad))


def test_main_shelf_and_other_shelves_have_their_items() -> None:
    shelves = page(shelf="for_you", shelves=[shelf("similar", "pine-mug"), shelf("empty", "x") | {"items": []}])
    assert select("for_you", shelves)["items"][0]["item_id"] == "birch-kettle"
    assert select("similar", shelves) == {
        "placement": "similar",
        "user_id": "anna",
        "decision_id": f"{SOURCE}-7",
        "event_id": "e1",
        "items": shelf("similar", "pine-mug")["items"],
    }
    assert select("empty", shelves)["items"] == []
    with pytest.raises(RequestError, match="no placement 'list'; they have for_you, similar, empty"):
        select("list", shelves)


def test_ad_placement_has_its_slots_alone() -> None:
    ads = ad(7, "anna", "e1", ["beside", "top"])
    answer = select("top", page(), ads)
    assert [slot["placement"] for slot in answer["slots"]] == ["top"]
    assert answer["decision_id"] == f"{SOURCE}-7-ad"
    assert "slots" not in select("beside", page(shelf="beside"), ads)  # a shelf goes before


def test_ads_of_long_ago_are_not_shown_beside_a_newer_recommendation() -> None:
    ts = json.loads(decision(7, "anna", "e1"))["ts"]
    assert select("beside", page(), ad(6, "anna", "e0", ["beside"], ts - OLD_AD_MS))
    with pytest.raises(RequestError, match="they have list"):
        select("beside", page(), ad(6, "anna", "e0", ["beside"], ts - OLD_AD_MS - 1))


def test_decision_of_another_form_is_503() -> None:
    with pytest.raises(RequestError, match="form") as refused:
        select("list", b'{"type":"recommendation"}')
    assert refused.value.status == 503
