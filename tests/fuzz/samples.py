"""Samples: good values of every kind that the product reads, as the material of mutations."""

import json
import random
from typing import Any, NamedTuple

from tests.stream.event_files.test_shipped_mappings import bigquery, snowplow_row, track

TYPES = ("view", "view", "view", "cart", "remove_from_cart", "favourite", "purchase", "click", "impression", "search")
ITEMS = 300
USERS = 400
TICK_SHARE = 0.005
PRIVACY_SHARE = 0.02


def event(chance: random.Random, number: int, ts: int) -> dict[str, Any]:
    """Return a good event, or a tick.

    Args:
        chance: Source of chance.
        number: Number of the event, for its id; some ids repeat.
        ts: Event time, ms.
    """
    if chance.random() < TICK_SHARE:
        return {"type": "tick", "ts": ts}
    kind = chance.choice(TYPES)
    fields: dict[str, Any] = {
        "type": kind,
        "event_id": f"e{number - chance.choice((0,) * 30 + (1, 5))}",
        "user_id": f"user-{int(USERS * chance.random() ** 2)}",
        "ts": ts - chance.choice((0, 0, 0, chance.randrange(60_000), chance.randrange(20 * 60_000))),
    }
    if kind == "search":
        return fields | {"query": "red shoes"}
    fields["item_id"] = f"item-{1 + int(ITEMS * chance.random() ** 3)}"
    if chance.random() < PRIVACY_SHARE:
        named = {"granted": chance.choice((["ads"], ["recommendations", "ads"])), "withdrawn": []}
        statement = chance.choice(({"type": "erase"}, {"type": "consent"} | named))
        return {name: fields[name] for name in ("event_id", "user_id", "ts")} | statement
    optional = {"price": 9.5, "category": "tea", "session_id": "s1", "decision_id": "d-0-1", "position": 3}
    fields |= {name: value for name, value in optional.items() if chance.random() < 0.2}
    return fields | ({"quantity": 2} if kind == "purchase" else {})


def item(chance: random.Random) -> dict[str, Any]:
    """Return a good record of the catalogue."""
    number = chance.randrange(1, ITEMS + 1)
    return {
        "item_id": f"item-{number}",
        "title": "Kettle",
        "category": f"category-{number % 10}",
        "brand": "Tea & Co",
        "price": 9.5,
        "stock": chance.choice((0, 5, 5)),
        "hidden": chance.random() < 0.05,
    }


def campaign(chance: random.Random) -> dict[str, Any]:
    """Return a good campaign."""
    return {
        "campaign_id": f"campaign-{chance.randrange(50)}",
        "item_id": f"item-{chance.randrange(1, ITEMS + 1)}",
        "bid": chance.choice((0.5, 1.0, 2.5)),
        "target_items": [f"item-{chance.randrange(1, ITEMS + 1)}" for _ in range(chance.randrange(4))],
        "target_categories": [f"category-{chance.randrange(10)}"] * chance.randrange(2),
        "starts_at": chance.choice((0, 1_700_000_000_000)),
        "ends_at": chance.choice((None, 4_000_000_000_000)),
        "daily_budget": 10.0,
        "frequency_cap": 3,
    }


class Source(NamedTuple):
    """Good lines of a format: objects as JSON, or rows of cells."""

    format: str
    header: list[str] | None = None
    rows: tuple[list[str], ...] = ()
    separators: tuple[str, ...] = ("",)
    objects: tuple[dict[str, Any], ...] = ()


def _rows(
    file_format: str, header: str | None, *rows: str, separator: str = ",", others: tuple[str, ...] = ()
) -> Source:
    return Source(
        file_format,
        header.split(separator) if header else None,
        tuple(row.split(separator) for row in rows),
        (separator, *others),
    )


_ECOMMERCE = "com_snowplowanalytics_snowplow_ecommerce"
_DIALECTS = (";", "\t", "|", ", ")
_PRODUCTS = [{"product_id": "p1", "price": 9.5, "quantity": 2, "category": "Socks"}, {"sku": "p2"}]
_METARANK: dict[str, Any] = {"timestamp": "1772352000123", "user": "u1", "session": "s1", "fields": []}
_UBI: dict[str, Any] = {
    "action_name": "add_to_cart",
    "query_id": "00112233",
    "session_id": "s1",
    "client_id": "c1",
    "timestamp": "2026-03-01T08:00:00.123Z",
    "event_attributes": {"object": {"object_id": "p1"}, "position": {"ordinal": 3}},
}

SOURCES: tuple[Source, ...] = (
    _rows(
        "csv",
        "event_time,event_type,item,category,user,session,price",
        "2026-01-05 09:30:00,view,kettle,tea,anna,s1,9.5",
        "2026-01-05T09:30:01.5+01:00,cart,kettle,,anna,,",
        others=_DIALECTS,
    ),
    _rows(
        "rees46",
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session",
        "2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,tea.pot,shiseido,35.79,541312140,72d76fde",
        "2019-10-01 00:00:01 UTC,purchase,44600062,2103807459595387724,,,35.79,541312140,",
        others=_DIALECTS,
    ),
    _rows("taobao", None, "1,100,7,pv,1511668800", "1,101,7,buy,1511669100", others=_DIALECTS),
    Source("ga4", objects=(
        bigquery("view_item", items=[{"item_id": "SKU_1", "price": 9.5, "quantity": "2"}]),
        bigquery("purchase", items=[{"item_id": "SKU_1"}] * 2, ecommerce={"transaction_id": "T1"}),
        bigquery("session_start"),
        {"client_id": "1.2", "timestamp_micros": 1_772_352_000_123_456,
         "events": [{"name": "add_to_cart", "params": {"session_id": "s1", "items": [{"item_id": "SKU_1"}]}}]},
    )),
    Source("segment", objects=(
        track("Product Viewed", product_id="p1", price=9.5, category="Socks"),
        track("Order Completed", order_id="o1", products=_PRODUCTS),
        track("Products Searched", query="socks"),
    )),
    Source("posthog", objects=(
        {"uuid": "id", "event": "Product Viewed", "distinct_id": "u1", "timestamp": "2026-03-01T08:00:00.123000+00:00",
         "properties": {"$session_id": "s1", "product_id": "p1"}},
        {"uuid": "id", "event": "Order Completed", "distinct_id": "u1", "timestamp": "2026-03-01T08:00:00Z",
         "properties": json.dumps({"order_id": 17, "products": _PRODUCTS})},
    )),
    _rows("snowplow", None, snowplow_row("transaction"), snowplow_row("checkout_step"), separator="\t"),
    Source("snowplow", objects=(
        {"derived_tstamp": "2026-03-01T08:00:00.123Z", "event_name": "snowplow_ecommerce_action", "event_id": "e1",
         "domain_userid": "d1", f"contexts_{_ECOMMERCE}_product_1": [{"id": "p1"}],
         f"unstruct_event_{_ECOMMERCE}_snowplow_ecommerce_action_1": {"type": "transaction"}},
    )),
    Source("ubi", objects=(_UBI, _UBI | {"timestamp": 1_772_352_000_123, "action_name": "sort_changed"})),
    Source("metarank", objects=(
        {"event": "item", "id": "i", "item": "p1", "timestamp": "1772352000000", "fields": []},
        {"event": "ranking", "id": "r1", "items": [{"id": "p2"}, {"id": "p1"}], **_METARANK},
        {"event": "interaction", "id": "c1", "ranking": "r1", "type": "click", "item": "p1", **_METARANK},
    )),
    Source("gorse", objects=(
        {"FeedbackType": "star", "UserId": "bob", "ItemId": "vuejs:vue", "Timestamp": "2026-03-01T08:00:00Z"},
    )),
    _rows("gorse", "feedback_type,user_id,item_id,time_stamp", "read,bob,vuejs:vue,2026-03-01T08:00:00Z"),
    _rows(
        "retailrocket",
        "timestamp,visitorid,event,itemid,transactionid",
        "1433221332117,257597,view,355908,",
        "1433222276276,599528,transaction,356475,4000",
    ),
    _rows("yoochoose", None, "1,2014-04-07T10:51:09.277Z,214536502,0", "4,2014-04-06T18:44:58.314Z,2145,12462,1"),
    _rows("diginetica", "sessionId;userId;itemId;timeframe;eventdate", "1;NA;81766;526309;2016-05-09", separator=";"),
    Source("otto", objects=(
        {"session": 0, "events": [{"aid": 11, "ts": 1659304800025, "type": "clicks"},
                                  {"aid": 12, "ts": 1659304904512, "type": "orders"}]},
    )),
    _rows("movielens", "userId,movieId,rating,timestamp", "1,17,4.0,1147868817", "1,25,3.5,1147880044"),
    _rows("hm", "t_dat,customer_id,article_id,price,sales_channel_id", "2018-09-20,000058a1,0663713001,0.05,2"),
    _rows(
        "recbole",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "196\t242\t3.0\t1147868817.0",
        separator="\t",
    ),
)  # fmt: skip
"""Good lines of every format of files, but for the JSON of the topic, which `event` makes."""
