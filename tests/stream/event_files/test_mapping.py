"""Mappings: paths, times, types, lists and rows of a mapping in TOML, and the words of its errors."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickscore.schemas.events import Consent, Erase, View, decode_record
from clickscore.stream.event_files.event_reader import EventFile
from clickscore.stream.event_files.formats.mapped_text import MappedText
from clickscore.stream.event_files.formats.mapping import MappingError, decode_mapping
from clickscore.stream.event_files.formats.mapping_files import read_mapping
from clickscore.stream.event_files.lines import Line
from clickscore.stream.replay.file_source import make_file_spec

SHOP = """
description = "A shop of the tests"
[fields]
type = "kind"
user_id = ["user.id", "cookie"]
item_id = "sku"
[[time]]
path = "at"
unit = "s"
[types]
seen = "view"
bought = "purchase"
noise = "ignore"
"""

RECORD = {"kind": "seen", "cookie": "u1", "sku": 7, "at": 1_700_000_000}


def lines_of(mapping: str, *records: object) -> list[Line]:
    text = MappedText(decode_mapping(mapping.encode(), "shop.toml"))
    return [
        line for number, record in enumerate(records, 1) for line in text.parse(number, json.dumps(record).encode())
    ]


def refusal(mapping: str) -> str:
    with pytest.raises(MappingError) as caught:
        decode_mapping(mapping.encode(), "shop.toml")
    return str(caught.value)


def time_of(unit: str, value: object) -> int | str | None:
    (line,) = lines_of(SHOP.replace('unit = "s"', f'unit = "{unit}"'), RECORD | {"at": value})
    return line.error or line.ts


def test_first_path_with_a_value_counts() -> None:
    both = RECORD | {"user": {"id": "u9"}}
    empty = RECORD | {"user": {"id": ""}}
    assert [line.key for line in lines_of(SHOP, both, empty)] == [b"u9", b"u1"]


def test_path_may_be_any_jmespath() -> None:
    mapping = SHOP.replace('"sku"', "\"params[?key=='sku'].value | [0]\"")
    (line,) = lines_of(mapping, RECORD | {"params": [{"key": "a", "value": "x"}, {"key": "sku", "value": "s7"}]})
    assert isinstance(event := decode_record(line.value), View)
    assert event.item_id == "s7"


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("s", 1_700_000_000),
        ("s", "1700000000"),
        ("s", 1_700_000_000.0),
        ("ms", 1_700_000_000_000),
        ("us", "1700000000000000"),
        ("ns", 1_700_000_000_000_000_000),
        ("iso", "2023-11-14T22:13:20Z"),
        ("iso", "2023-11-14 23:13:20+01:00"),
        ("iso", "2023-11-14 22:13:20 UTC"),
        ("iso_or_ms", "2023-11-14T22:13:20Z"),
        ("iso_or_ms", "1700000000000"),
        ("%d.%m.%Y %H:%M:%S", "14.11.2023 22:13:20"),
    ],
)
def test_time_in_each_unit(unit: str, value: object) -> None:
    assert time_of(unit, value) == 1_700_000_000_000


def test_date_is_midnight_in_utc() -> None:
    assert time_of("yyyymmdd", 20231114) == time_of("yyyy-mm-dd", "2023-11-14") == 1_699_920_000_000


@pytest.mark.parametrize(
    ("unit", "value", "words"),
    [
        ("s", 1_700_000_000_000, "check `unit`"),
        ("ms", 1_700_000_000, "check `unit`"),
        ("iso", "yesterday", "the time is not like"),
        ("s", "soon", "the time is no number"),
        ("s", True, "the time is no number"),
        ("s", None, "time is missing: there is no value at at"),
    ],
)
def test_wrong_time_is_refused_in_words(unit: str, value: object, words: str) -> None:
    assert words in str(time_of(unit, value))


@given(ms=st.integers(946_684_800_000, 4_000_000_000_000))
def test_fractions_of_a_second_keep_their_milliseconds(ms: int) -> None:
    assert time_of("s", f"{ms // 1000}.{ms % 1000:03}") == ms


def test_time_may_be_a_sum() -> None:
    mapping = SHOP.replace('unit = "s"', 'unit = "yyyy-mm-dd"\nadd = "since"\nadd_unit = "s"')
    (line,) = lines_of(mapping, RECORD | {"at": "2023-11-14", "since": "60"})
    assert line.ts == 1_699_920_060_000


ORDER = (
    SHOP.replace('item_id = "sku"', 'item_id = "line.sku"\nevent_id = "order"\nquantity = "line.count"')
    + """
[[each]]
path = "lines"
name = "line"
"""
)


def test_items_of_an_order_are_an_event_each_with_the_id_of_order_and_position() -> None:
    order = RECORD | {"kind": "bought", "order": "o1", "lines": [{"sku": "a", "count": "2"}, {"sku": "b"}]}
    events = [decode_record(line.value) for line in lines_of(ORDER, order, order)]
    assert [(event.event_id, event.item_id, event.quantity) for event in events] == [  # type: ignore[union-attr]
        ("o1-0", "a", 2),
        ("o1-1", "b", 1),
    ] * 2


def test_order_with_a_bad_item_gives_one_error_and_no_event() -> None:
    order = RECORD | {"kind": "bought", "order": "o1", "lines": [{"sku": "a"}, {"name": "b"}]}
    (line,) = lines_of(ORDER, order)
    assert line.error == "item_id is missing: there is no value at line.sku"


@pytest.mark.parametrize("value", ["a", {"sku": "a"}, 7])
def test_list_that_is_no_list_is_refused(value: object) -> None:
    (line,) = lines_of(ORDER, RECORD | {"order": "o1", "lines": value})
    assert line.error == "the value for each line is no list"


def test_lists_in_lists() -> None:
    mapping = ORDER.replace("[[each]]", '[[each]]\npath = "orders"\nname = "order"\n[[each]]').replace(
        'path = "lines"', 'path = "order.lines"'
    )
    mapping = mapping.replace('event_id = "order"', 'event_id = "id"')
    record = RECORD | {"id": "r", "orders": [{"lines": [{"sku": "a"}, {"sku": "b"}]}, {"lines": [{"sku": "c"}]}]}
    assert [decode_record(line.value).event_id for line in lines_of(mapping, record)] == [  # type: ignore[union-attr]
        "r-0-0",
        "r-0-1",
        "r-1-0",
    ]


CONSENT = (
    SHOP
    + """
asked = "consent"
forget = "erase"
[consent]
personalisation = "answers.personal"
ads = ["answers.ads", "answers.marketing"]
training = "answers.models"
"""
)


@pytest.mark.parametrize(
    ("answers", "granted", "withdrawn"),
    [
        ({"personal": True, "ads": False, "models": None}, ("personalisation",), ("ads",)),
        ({"personal": "granted", "marketing": "denied", "models": "No"}, ("personalisation",), ("ads", "training")),
        ({"models": 1}, ("training",), ()),
    ],
)
def test_answers_of_a_source_are_consent(
    answers: dict[str, object], granted: tuple[str, ...], withdrawn: tuple[str, ...]
) -> None:
    (line,) = lines_of(CONSENT, {"kind": "asked", "cookie": "u1", "at": 1_700_000_000, "answers": answers})
    event = decode_record(line.value)
    assert isinstance(event, Consent)
    assert (event.granted, event.withdrawn, event.user_id) == (granted, withdrawn, "u1")


@pytest.mark.parametrize(
    ("answers", "words"),
    [({"ads": "perhaps"}, "the consent to ads is 'perhaps', which is neither true nor false"), ({}, "no purpose")],
)
def test_answer_that_is_none_is_an_error(answers: dict[str, object], words: str) -> None:
    (line,) = lines_of(CONSENT, {"kind": "asked", "cookie": "u1", "at": 1_700_000_000, "answers": answers})
    assert words in (line.error or "")


def test_request_to_forget_is_an_erasure() -> None:
    (line,) = lines_of(CONSENT, {"kind": "forget", "cookie": "u1", "at": 1_700_000_000})
    assert isinstance(decode_record(line.value), Erase)


def test_ignored_type_gives_no_line_and_is_counted() -> None:
    text = MappedText(decode_mapping(SHOP.encode(), "shop.toml"))
    assert text.parse(1, json.dumps(RECORD | {"kind": "noise"}).encode()) == []
    assert text.ignored == 1


def test_other_type_is_an_error_unless_the_mapping_ignores_it() -> None:
    (line,) = lines_of(SHOP, RECORD | {"kind": "hover"})
    assert line.error == "the type 'hover' is not in `types`"
    (line,) = lines_of(SHOP, {key: value for key, value in RECORD.items() if key != "kind"})
    assert line.error == "type is missing: there is no value at kind"
    assert lines_of('other_types = "ignore"\n' + SHOP, RECORD | {"kind": "hover"}) == []


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ([1], "the line is no JSON object"),
        (RECORD | {"sku": None}, "item_id is missing: there is no value at sku"),
        (RECORD | {"cookie": ""}, "user_id is missing: there is no value at user.id or cookie"),
        (RECORD | {"sku": {}}, "item_id is neither text nor a number"),
        (RECORD | {"sku": "x" * 257}, "length <= 256"),
    ],
)
def test_bad_record_is_one_error_in_words(record: object, words: str) -> None:
    (line,) = lines_of(SHOP, record)
    assert words in (line.error or "")


@pytest.mark.parametrize("price", ["", "12.5", 12.5, "1e2", "cheap", "NaN", True, -1, 1e13, float("inf")])
def test_price_is_a_finite_number_or_an_error(price: object) -> None:
    mapping = SHOP.replace('item_id = "sku"', 'item_id = "sku"\nprice = "price"')
    (line,) = lines_of(mapping, RECORD | {"price": price})
    if price in ("", "12.5", 12.5, "1e2"):
        assert line.error is None
    else:
        assert line.error


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_value_at_any_path_gives_events_or_words(value: object) -> None:
    mapping = ORDER.replace('item_id = "line.sku"', 'item_id = "line.sku"\nprice = "price"\nposition = "position"')
    for name in ("kind", "cookie", "at", "order", "lines", "price", "position"):
        text = MappedText(decode_mapping(mapping.encode(), "shop.toml"))
        record = RECORD | {"order": "o", "lines": [{"sku": "a"}], name: value}
        for line in text.parse(1, json.dumps(record).encode()):
            assert line.error or decode_record(line.value)


def test_deep_json_is_an_error_in_words() -> None:
    text = MappedText(decode_mapping(SHOP.encode(), "shop.toml"))
    (line,) = text.parse(1, b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    assert "the line is no JSON object" in (line.error or "")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("item_id", "itemid", "unknown field fields.itemid (did you mean item_id?)"),
        ('"sku"', '"a[?"', "fields.item_id has a path that is no JMESPath: 'a[?'"),
        ('unit = "s"', 'unit = "seconds"', "the unit 'seconds' of time[0] is not one of s, ms, us, ns, iso"),
        ('"view"', '"look"', "types.seen must be one of cart, click, "),
        ("[types]", "[types", "shop.toml cannot be used"),
        ('type = "kind"', "", "fields.type is missing"),
    ],
)
def test_wrong_mapping_is_refused_in_words(old: str, new: str, words: str) -> None:
    assert words in refusal(SHOP.replace(old, new))


def test_mapping_that_is_missing_is_refused() -> None:
    with pytest.raises(MappingError, match=r"the mapping none\.toml cannot be read: No such file"):
        read_mapping("none.toml")
    with pytest.raises(MappingError, match="there is no mapping none: use one of diginetica, ga4"):
        read_mapping("none")


ROWS = SHOP + '[rows]\ndelimiter = ";"\nmissing = ["NA"]\n'


@pytest.fixture
def rows_path(tmp_path: Path) -> Path:
    """The path of a mapping of rows."""
    (tmp_path / "rows.toml").write_text(ROWS)
    return tmp_path / "rows.toml"


def test_rows_are_read_by_the_names_of_the_header(rows_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(
        b'\xef\xbb\xbfat;sku;kind;cookie;more\r\n1700000000;"a;b";seen;u1;\r\n1700000000;NA;seen;u1;x\r\n'
        b"1700000000;c;noise;u1;x\r\n1700000000;c\r\n1700000000;\xff;seen;u1;x\r\n"
    )
    with EventFile(file, str(rows_path)) as events:
        lines = list(events)
    assert events.ignored == 1
    assert [(line.number, line.error) for line in lines] == [
        (2, None),
        (3, "item_id is missing: there is no value at sku"),
        (5, "2 columns instead of 5"),
        (6, "the row is not UTF-8"),
    ]
    assert b'"item_id":"a;b"' in lines[0].value


def test_reading_goes_on_in_the_middle_with_the_header_of_the_beginning(rows_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    rows = "".join(f"{1_700_000_000 + row};i{row};seen;u{row}\n" for row in range(5000))
    file.write_text("at;sku;kind;cookie\n" + rows)
    with EventFile(file, str(rows_path)) as events:
        everything = list(events)
    with EventFile(file, str(rows_path)) as events:
        first = next(iter(events.chunks()))
        position = events.position
    with EventFile(file, str(rows_path), position) as events:
        assert first + list(events) == everything
    assert len(everything) == 5000


def test_equal_rows_are_one_event_unless_the_mapping_says_otherwise() -> None:
    equal = lines_of(SHOP, RECORD, RECORD)
    assert equal[0].value == equal[1].value
    distinct = lines_of("distinct_rows = true\n" + SHOP, RECORD, RECORD)
    assert distinct[0].value != distinct[1].value


def test_changed_mapping_is_another_file_for_a_replay(rows_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("at;sku;kind;cookie\n")
    before = make_file_spec(file, str(rows_path), 2)
    rows_path.write_text(ROWS.replace("bought", "sold"))
    assert make_file_spec(file, str(rows_path), 2) != before


@pytest.mark.slow
def test_parquet_rows_are_mapped(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "shop.toml").write_text(ORDER.replace('unit = "s"', 'unit = "iso"'))
    at = pa.array([1_700_000_000_000], pa.timestamp("ms", "UTC"))
    lines = [[{"sku": "a", "count": 1}, {"sku": "b", "count": 2}]]
    table = {"kind": ["bought"], "cookie": ["u1"], "order": ["o1"], "at": at, "lines": lines}
    pq.write_table(pa.table(table), tmp_path / "orders.parquet")
    with EventFile(tmp_path / "orders.parquet", str(tmp_path / "shop.toml")) as rows:
        events = [decode_record(line.value) for line in rows]
    assert [(event.event_id, event.ts) for event in events] == [  # type: ignore[union-attr]
        ("o1-0", 1_700_000_000_000),
        ("o1-1", 1_700_000_000_000),
    ]
