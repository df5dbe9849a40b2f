"""The synthetic past: the same for a seed, and true to itself."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner

from clickscore.schemas.errors import OutputFileError
from clickscore.schemas.events import Cart, Purchase, View, decode_record, encode_event
from clickscore.stream.commands.simulate import simulate
from clickscore.stream.simulator.shop.history import START, History, generate
from clickscore.stream.simulator.shop.shop_events import decode_truth, encode_truth
from clickscore.stream.simulator.shop.shoppers import make_shop


@pytest.fixture(scope="module")
def history() -> History:
    return generate(make_shop(7, shoppers=300), 5_000, days=3)


@pytest.fixture(scope="module")
def records(history):
    return list(history.records())


def test_same_seed_gives_the_same_bytes(records):
    again = generate(make_shop(7, shoppers=300), 5_000, days=3).records()
    assert [encode_event(event) for event, _ in again] == [encode_event(event) for event, _ in records]


def test_another_seed_gives_another_past(records):
    other = next(generate(make_shop(8, shoppers=300), 5_000, days=3).records())
    assert other != records[0]


def test_visits_are_whole_and_no_more_than_are_needed(history):
    assert len(history) >= 5_000
    assert (history.visit != history.visit[-1]).sum() < 5_000


def test_every_event_passes_the_schema(records):
    assert all(decode_record(encode_event(event)) == event for event, _ in records)


def test_every_truth_names_its_event_and_survives_json(records):
    assert all(decode_truth(encode_truth(truth)) == truth for _, truth in records)
    assert all(truth.event_id == event.event_id for event, truth in records)


def test_records_come_in_the_order_in_which_they_were_sent(records):
    sent = [event.ts + truth.delay_ms for event, truth in records]
    assert sent == sorted(sent)


def test_truth_says_which_records_are_repeats(records):
    seen: set[str] = set()
    for event, truth in records:
        assert truth.repeat == (event.event_id in seen)
        seen.add(event.event_id)
    assert 0.005 < sum(truth.repeat for _, truth in records) / len(records) < 0.02


def test_repeat_is_the_same_event(records):
    first = {}
    assert all(first.setdefault(event.event_id, event) == event for event, _ in records)


def test_truth_says_which_records_are_out_of_order(records):
    newest: dict[str, int] = {}
    for event, truth in records:
        assert truth.out_of_order == (event.ts < newest.get(event.session_id, 0))
        newest[event.session_id] = max(newest.get(event.session_id, 0), event.ts)
    assert any(truth.out_of_order for _, truth in records)


def test_sessions_hold_each_event_once(history, records):
    sessions = list(history.sessions())
    held = Counter((session.session_id, event.ts) for session in sessions for event in session.events)
    assert held == Counter({(event.session_id, event.ts): 1 for event, _ in records})


def test_sessions_say_whether_something_was_bought(history, records):
    bought = {event.session_id for event, _ in records if isinstance(event, Purchase)}
    assert bought == {session.session_id for session in history.sessions() if session.purchased}
    assert bought


def test_visits_of_a_shopper_lie_apart_by_more_than_the_gap(history):
    sessions = sorted(history.sessions(), key=lambda session: (session.user_id, session.opened_at))
    for one, next_one in pairwise(sessions):
        assert one.user_id != next_one.user_id or next_one.opened_at - one.closed_at > 30 * 60_000


def test_silence_within_a_visit_is_shorter_than_the_gap(history):
    for session in history.sessions():
        assert all(later.ts - earlier.ts < 30 * 60_000 for earlier, later in pairwise(session.events))


def test_what_is_bought_was_put_into_the_cart_and_viewed_before(history, records):
    by_session: dict[str, list] = {}
    for event, truth in records:
        if not truth.repeat:
            by_session.setdefault(event.session_id, []).append(event)
    for events in by_session.values():
        viewed, carted = set(), set()
        for event in sorted(events, key=lambda event: event.ts):
            if isinstance(event, View):
                viewed.add(event.item_id)
            elif isinstance(event, Cart):
                assert event.item_id in viewed
                carted.add(event.item_id)
            elif isinstance(event, Purchase):
                assert event.item_id in carted


def test_evening_is_busier_than_night():
    opened = [session.opened_at for session in generate(make_shop(7), 20_000).sessions()]
    hours = (np.array(opened) - START) // 3_600_000 % 24
    assert np.isin(hours, (19, 20, 21)).sum() > 5 * np.isin(hours, (2, 3, 4)).sum()


def test_command_writes_events_truth_and_sessions_of_the_same_past(tmp_path):
    names = {name: tmp_path / f"{name}.jsonl" for name in ("out", "truth", "sessions", "items")}
    flags = [part for name, path in names.items() for part in (f"--{name}", str(path))]
    result = CliRunner().invoke(simulate, ["--events", "500", "--seed", "3", *flags])
    assert result.exit_code == 0, result.output
    lines = {name: path.read_bytes().splitlines() for name, path in names.items()}
    assert [decode_truth(line).event_id for line in lines["truth"]] == [
        decode_record(line).event_id for line in lines["out"]
    ]
    assert len(lines["items"]) == 2_000
    assert len(lines["sessions"]) == len({decode_record(line).session_id for line in lines["out"]})


def test_command_writes_events_to_standard_output_unless_only_other_files_are_asked_for(tmp_path):
    alone = CliRunner().invoke(simulate, ["--events", "20"])
    assert len([decode_record(line) for line in alone.stdout_bytes.splitlines()]) >= 20
    sessions = CliRunner().invoke(simulate, ["--events", "20", "--sessions", str(tmp_path / "sessions.jsonl")])
    assert sessions.stdout == ""


def test_command_writes_the_same_compressed_bytes_again(tmp_path):
    for name in ("one", "two"):
        CliRunner().invoke(simulate, ["--events", "100", "--out", str(tmp_path / f"{name}.gz")])
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes() != b""


def test_command_says_which_file_cannot_be_written(tmp_path):
    result = CliRunner().invoke(simulate, ["--events", "10", "--out", str(tmp_path / "no" / "file")])
    assert isinstance(result.exception, OutputFileError)
    assert "no/file" in str(result.exception)
