"""Shipped mappings: a small file in the public shape of each source gives the right events."""

import json
from pathlib import Path

import pytest

from clickscore.schemas.events import AnyEvent, Search, decode_record
from clickscore.stream.event_files.event_reader import EventFile
from clickscore.stream.event_files.formats.mapping_files import SHIPPED_MAPPINGS, read_mapping

OTTO_FIXTURE = Path(__file__).parents[4] / "shared/data/otto_fixture/sessions.jsonl.gz"


def events_of(path: Path, mapping: str) -> tuple[list[AnyEvent], int]:
    with EventFile(path, mapping) as file:
        lines = list(file)
    assert [line.error for line in lines if line.error] == []
    return [decode_record(line.value) for line in lines], file.ignored  # type: ignore[misc]


def mapped(tmp_path: Path, mapping: str, *lines: object) -> tuple[list[AnyEvent], int]:
    """Return the events of a file of lines of text or of JSON, and the number of ignored lines."""
    file = tmp_path / mapping
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return events_of(file, mapping)


def brief(event: AnyEvent) -> tuple[str, str, str, int]:
    item = event.query if isinstance(event, Search) else event.item_id
    return str(event.__struct_config__.tag), event.user_id, item, event.ts


def test_each_mapping_has_a_how_to_and_a_test() -> None:
    page = (Path(__file__).parents[3] / "docs/mappings.md").read_text()
    test = Path(__file__).read_text()
    for name in SHIPPED_MAPPINGS:
        assert f"\n## {name}\n" in page
        assert f'"{name}"' in test
        assert read_mapping(name).mapping.description


def bigquery(name: str, **fields: object) -> dict[str, object]:
    return {
        "event_date": "20260301",
        "event_timestamp": "1772352000123456",
        "event_name": name,
        "event_params": [
            {"key": "page_location", "value": {"string_value": "https://shop.example/"}},
            {"key": "ga_session_id", "value": {"int_value": "1772351990"}},
            {"key": "search_term", "value": {"string_value": "red socks"}},
        ],
        "user_id": None,
        "user_pseudo_id": "1234567.7654321",
        "items": [],
        **fields,
    }


def test_ga4_bigquery_export(tmp_path: Path) -> None:
    item = {"item_id": "SKU_1", "item_name": "Sock", "item_category": "Socks", "price": 9.5, "quantity": "2"}
    events, ignored = mapped(
        tmp_path,
        "ga4",
        bigquery("view_item", items=[item]),
        bigquery("purchase", items=[item, item | {"item_id": "SKU_2"}], ecommerce={"transaction_id": "T1"}),
        bigquery("purchase", items=[item], ecommerce={"transaction_id": "(not set)"}),
        bigquery("search"),
        bigquery("session_start"),
    )
    ts = 1_772_352_000_123
    assert [brief(event) for event in events] == [
        ("view", "1234567.7654321", "SKU_1", ts),
        ("purchase", "1234567.7654321", "SKU_1", ts),
        ("purchase", "1234567.7654321", "SKU_2", ts),
        ("purchase", "1234567.7654321", "SKU_1", ts),
        ("search", "1234567.7654321", "red socks", ts),
    ]
    assert [event.event_id for event in events[1:3]] == ["order-T1-0", "order-T1-1"]
    assert not events[3].event_id.startswith("order")
    assert {event.session_id for event in events} == {"1772351990"}
    assert (events[1].price, events[1].quantity, events[1].category) == (9.5, 2, "Socks")  # type: ignore[union-attr]
    assert ignored == 1


def test_ga4_measurement_protocol(tmp_path: Path) -> None:
    items = [{"item_id": "SKU_1", "price": 10.0, "quantity": 1}, {"item_id": "SKU_2"}]
    params = {"session_id": "s1", "transaction_id": "T1", "value": 30, "items": items}
    request = {
        "client_id": "1.2",
        "timestamp_micros": 1_772_352_000_123_456,
        "events": [
            {"name": "add_to_cart", "params": {"session_id": "s1", "items": items[:1]}},
            {"name": "purchase", "params": params},
            {"name": "login", "params": {"method": "mail"}},
        ],
    }
    events, _ = mapped(tmp_path, "ga4", request)
    assert [brief(event)[:3] for event in events] == [
        ("cart", "1.2", "SKU_1"),
        ("purchase", "1.2", "SKU_1"),
        ("purchase", "1.2", "SKU_2"),
    ]
    assert [event.event_id for event in events[1:]] == ["order-T1-1-0", "order-T1-1-1"]


def track(event: str, **properties: object) -> dict[str, object]:
    return {
        "type": "track",
        "event": event,
        "messageId": f"m-{event}",
        "anonymousId": "anon",
        "userId": "u1",
        "timestamp": "2026-03-01T08:00:00.123Z",
        "context": {"sessionId": 1772351990},  # RudderStack
        "properties": properties,
    }


def test_segment_track_calls(tmp_path: Path) -> None:
    products = [{"product_id": "p1", "price": 9.5, "quantity": 2, "category": "Socks"}, {"sku": "p2"}]
    events, ignored = mapped(
        tmp_path,
        "segment",
        track("Product Viewed", product_id="p1", price=9.5, category="Socks"),
        track("Product Added", product_id="p1", quantity=2),
        track("Products Searched", query="socks"),
        track("Order Completed", order_id="o1", products=products),
        {"type": "page", "messageId": "m", "anonymousId": "anon", "timestamp": "2026-03-01T08:00:00Z"},
    )
    ts = 1_772_352_000_123
    assert [brief(event) for event in events] == [
        ("view", "u1", "p1", ts),
        ("cart", "u1", "p1", ts),
        ("search", "u1", "socks", ts),
        ("purchase", "u1", "p1", ts),
        ("purchase", "u1", "p2", ts),
    ]
    ids = [event.event_id for event in events]
    assert ids == ["m-Product Viewed", "m-Product Added", "m-Products Searched", "order-o1-0", "order-o1-1"]
    assert events[3].session_id == "1772351990"
    assert ignored == 1


@pytest.mark.parametrize("as_text", [False, True])
def test_posthog_events(tmp_path: Path, as_text: bool) -> None:
    def event(name: str, **properties: object) -> dict[str, object]:
        properties |= {"$session_id": "s1", "$lib": "web"}
        return {
            "uuid": f"id-{name}",
            "event": name,
            "distinct_id": "u1",
            "timestamp": "2026-03-01T08:00:00.123000+00:00",
            "properties": json.dumps(properties) if as_text else properties,
        }

    events, ignored = mapped(
        tmp_path,
        "posthog",
        event("Product Viewed", product_id="p1"),
        event("Order Completed", order_id=17, products=[{"product_id": "p1"}]),
        event("$pageview"),
    )
    assert [brief(event) for event in events] == [
        ("view", "u1", "p1", 1_772_352_000_123),
        ("purchase", "u1", "p1", 1_772_352_000_123),
    ]
    assert [event.event_id for event in events] == ["id-Product Viewed", "order-17-0"]
    assert {event.session_id for event in events} == {"s1"}
    assert ignored == 1


ECOMMERCE = "iglu:com.snowplowanalytics.snowplow.ecommerce"
PRODUCTS = [
    {"id": "p1", "category": "Socks", "price": 9.5, "currency": "EUR", "quantity": 2},
    {"id": "p2", "category": "Hats", "price": 20, "currency": "EUR"},
]


def snowplow_row(action: str) -> str:
    """Return an enriched event as TSV: 131 columns without a header."""
    layout = read_mapping("snowplow").mapping.rows
    assert layout
    contexts = [{"schema": f"{ECOMMERCE}/product/jsonschema/1-0-0", "data": product} for product in PRODUCTS]
    contexts.append({"schema": "iglu:com.snowplowanalytics.snowplow/web_page/jsonschema/1-0-0", "data": {"id": "w"}})
    body = {"schema": f"{ECOMMERCE}/snowplow_ecommerce_action/jsonschema/1-0-2", "data": {"type": action}}
    cells = {
        "app_id": "shop",
        "collector_tstamp": "2026-03-01 08:00:01.000",
        "derived_tstamp": "2026-03-01 08:00:00.123",
        "event": "unstruct",
        "event_name": "snowplow_ecommerce_action",
        "event_id": "e1",
        "domain_userid": "d1",
        "domain_sessionid": "s1",
        "contexts": json.dumps({"schema": "iglu:com.snowplowanalytics.snowplow/contexts/1-0-0", "data": contexts}),
        "unstruct_event": json.dumps({"schema": "iglu:com.snowplowanalytics.snowplow/unstruct_event", "data": body}),
    }
    (columns,) = layout.columns
    assert len(columns) == 131
    assert set(cells) < set(columns)
    return "\t".join(cells.get(column, "") for column in columns)


def test_snowplow_enriched_tsv_and_json(tmp_path: Path) -> None:
    name = "com_snowplowanalytics_snowplow_ecommerce"
    as_json = {
        "app_id": "shop",
        "collector_tstamp": "2026-03-01T08:00:01Z",
        "derived_tstamp": "2026-03-01T08:00:00.123Z",
        "event_name": "snowplow_ecommerce_action",
        "event_id": "e1",
        "domain_userid": "d1",
        "domain_sessionid": "s1",
        f"contexts_{name}_product_1": PRODUCTS,
        f"unstruct_event_{name}_snowplow_ecommerce_action_1": {"type": "transaction"},
    }
    rows, _ = mapped(tmp_path, "snowplow", snowplow_row("transaction"), snowplow_row("checkout_step"))
    objects, ignored = mapped(tmp_path, "snowplow", as_json, {"event_name": "page_view", "event_id": "e2"})
    assert rows == objects
    assert [brief(event) for event in rows] == [
        ("purchase", "d1", "p1", 1_772_352_000_123),
        ("purchase", "d1", "p2", 1_772_352_000_123),
    ]
    assert [event.event_id for event in rows] == ["e1-0", "e1-1"]
    assert ignored == 1


def test_ubi_events(tmp_path: Path) -> None:
    def event(action: str, timestamp: object) -> dict[str, object]:
        return {
            "application": "shop",
            "action_name": action,
            "query_id": "00112233-4455-6677-8899-aabbccddeeff",
            "session_id": "s1",
            "client_id": "c1",
            "user_id": None,
            "timestamp": timestamp,
            "message_type": "CLICK_THROUGH",
            "event_attributes": {
                "object": {"object_id": "p1", "object_id_field": "sku"},
                "position": {"ordinal": 3},
            },
        }

    events, ignored = mapped(
        tmp_path,
        "ubi",
        event("click_through", "2026-03-01T08:00:00.123Z"),
        event("add_to_cart", 1_772_352_000_123),
        event("sort_changed", 1_772_352_000_123),
    )
    assert [brief(event) for event in events] == [
        ("click", "c1", "p1", 1_772_352_000_123),
        ("cart", "c1", "p1", 1_772_352_000_123),
    ]
    assert ignored == 1


def test_metarank_events(tmp_path: Path) -> None:
    common = {"timestamp": "1772352000123", "user": "u1", "session": "s1", "fields": []}
    events, ignored = mapped(
        tmp_path,
        "metarank",
        {"event": "item", "id": "i", "item": "p1", "timestamp": "1772352000000", "fields": []},
        {"event": "ranking", "id": "r1", "items": [{"id": "p2"}, {"id": "p1"}], **common},
        {"event": "interaction", "id": "c1", "ranking": "r1", "type": "click", "item": "p1", **common},
    )
    ts = 1_772_352_000_123
    assert [brief(event) for event in events] == [
        ("impression", "u1", "p2", ts),
        ("impression", "u1", "p1", ts),
        ("click", "u1", "p1", ts),
    ]
    assert [(event.event_id, event.decision_id, event.position) for event in events] == [
        ("r1-0", "r1", 0),
        ("r1-1", "r1", 1),
        ("c1", "r1", None),
    ]
    assert ignored == 1


def test_gorse_feedback(tmp_path: Path) -> None:
    feedback = {"FeedbackType": "star", "UserId": "bob", "ItemId": "vuejs:vue", "Timestamp": "2026-03-01T08:00:00Z"}
    rows = ("feedback_type,user_id,item_id,time_stamp", "read,bob,vuejs:vue,2026-03-01T08:00:00Z")
    assert [brief(event) for event in mapped(tmp_path, "gorse", feedback)[0]] == [
        ("favourite", "bob", "vuejs:vue", 1_772_352_000_000)
    ]
    assert [brief(event) for event in mapped(tmp_path, "gorse", *rows)[0]] == [
        ("view", "bob", "vuejs:vue", 1_772_352_000_000)
    ]


@pytest.mark.parametrize(
    ("mapping", "rows", "expected"),
    [
        (
            "retailrocket",
            [
                "timestamp,visitorid,event,itemid,transactionid",
                "1433221332117,257597,view,355908,",
                "1433222276276,599528,transaction,356475,4000",
            ],
            [("view", "257597", "355908", 1_433_221_332_117), ("purchase", "599528", "356475", 1_433_222_276_276)],
        ),
        (
            "yoochoose",
            [
                "1,2014-04-07T10:51:09.277Z,214536502,0",
                "420374,2014-04-06T18:44:58.314Z,214537888,12462,1",
                "420374,2014-04-06T18:44:58.325Z,214537850,0,0",
            ],
            [
                ("view", "1", "214536502", 1_396_867_869_277),
                ("purchase", "420374", "214537888", 1_396_809_898_314),
                ("purchase", "420374", "214537850", 1_396_809_898_325),
            ],
        ),
        (
            "diginetica",
            [
                "sessionId;userId;itemId;timeframe;eventdate",
                "1;NA;81766;526309;2016-05-09",
                "2;31;31331;1031018;2016-05-09",
            ],
            [("view", "session-1", "81766", 1_462_752_526_309), ("view", "31", "31331", 1_462_753_031_018)],
        ),
        (
            "diginetica",
            ["sessionId;userId;timeframe;eventdate;ordernumber;itemId", "150;18278;17100868;2016-05-06;16421;25911"],
            [("purchase", "18278", "25911", 1_462_509_900_868)],
        ),
        (
            "otto",
            ['{"session":0,"events":[{"aid":11,"ts":1659304800025,"type":"clicks"},'
             '{"aid":12,"ts":1659304904511,"type":"carts"},{"aid":12,"ts":1659304904512,"type":"orders"}]}'],
            [
                ("view", "0", "11", 1_659_304_800_025),
                ("cart", "0", "12", 1_659_304_904_511),
                ("purchase", "0", "12", 1_659_304_904_512),
            ],
        ),
        (
            "movielens",
            ["userId,movieId,rating,timestamp", "1,17,4.0,1147868817", "1,25,3.5,1147880044"],
            [("favourite", "1", "17", 1_147_868_817_000), ("view", "1", "25", 1_147_880_044_000)],
        ),
        (
            "hm",
            [
                "t_dat,customer_id,article_id,price,sales_channel_id",
                "2018-09-20,000058a1,0663713001,0.0508305084745762,2",
            ],
            [("purchase", "000058a1", "0663713001", 1_537_401_600_000)],
        ),
        (
            "recbole",
            [
                "user_id:token\titem_id:token\trating:float\ttimestamp:float",
                "196\t242\t3.0\t1147868817.0",
            ],
            [("view", "196", "242", 1_147_868_817_000)],
        ),
        (
            "recbole",
            ["session_id:token\titem_id:token\ttimestamp:float", "s1\t242\t1147868817.5"],
            [("view", "s1", "242", 1_147_868_817_500)],
        ),
    ],
)  # fmt: skip
def test_rows_of_public_data_sets(
    mapping: str, rows: list[str], expected: list[tuple[str, str, str, int]], tmp_path: Path
) -> None:
    events, _ = mapped(tmp_path, mapping, *rows)
    assert [brief(event) for event in events] == expected


def test_pieces_of_an_article_that_hm_sells_are_separate_events(tmp_path: Path) -> None:
    row = "2018-09-20,000058a1,0663713001,0.05,2"
    events, _ = mapped(tmp_path, "hm", "t_dat,customer_id,article_id,price,sales_channel_id", row, row)
    assert len({event.event_id for event in events}) == 2


def test_yoochoose_price_of_zero_is_no_price(tmp_path: Path) -> None:
    events, _ = mapped(tmp_path, "yoochoose", "1,2014-04-06T18:44:58.314Z,2,0,0", "1,2014-04-06T18:44:58.314Z,3,50,2")
    assert [(event.price, event.quantity) for event in events] == [(None, 1), (50.0, 2)]  # type: ignore[union-attr]


@pytest.mark.skipif(not OTTO_FIXTURE.exists(), reason="needs the OTTO fixture in ../shared/data")
def test_real_otto_sessions() -> None:
    events, ignored = events_of(OTTO_FIXTURE, "otto")
    types = [brief(event)[0] for event in events]
    assert (types.count("view"), types.count("cart"), types.count("purchase"), ignored) == (800, 52, 10, 0)
    assert len({(event.user_id, event.event_id) for event in events}) == 862


def test_own_field_names_of_registered_records(tmp_path: Path) -> None:
    view = {"type": "view", "event_id": "e1", "user_id": "anna", "ts": 1_772_352_000_123, "item_id": "mug"}
    text_time = {**view, "type": "search", "ts": "1772352000123", "query": "tea"}  # JSON of Protobuf has int64 as text
    events, _ = mapped(tmp_path, "shop-events", view, text_time)
    assert [brief(event) for event in events] == [
        ("view", "anna", "mug", 1_772_352_000_123),
        ("search", "anna", "tea", 1_772_352_000_123),
    ]
